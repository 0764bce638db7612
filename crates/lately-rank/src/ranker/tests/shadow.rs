//! A challenger in the shadow of the champion.

use super::*;
use crate::ShadowSummary;

fn challenged(share: f64) -> (House, Arc<ModelSlot>) {
    let mut house = house(RankConfig { shadow_share: share, ..patient() });
    let slot = Arc::new(ModelSlot::new(Arc::new(schema())).for_alias("challenger"));
    house.ranker = house.ranker.with_challenger(slot.clone()).unwrap();
    house.slot.swap(model(1)).unwrap();
    (house, slot)
}

/// Waits until so many rankings were compared.
fn compared(house: &House, rankings: u64) -> ShadowSummary {
    let begin = Instant::now();
    loop {
        let summary = house.ranker.challenger().and_then(|c| c.1);
        if let Some(summary) = summary.filter(|s| s.rankings >= rankings) {
            return summary;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the challenger does not score");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_challenger_that_is_taken_away_scores_nothing_and_may_come_back() {
    let (house, slot) = challenged(1.0);
    assert!(!slot.clear(), "there is none yet");
    let ask = RankRequest::new(user("u"), candidates(10));
    slot.swap(model(2)).unwrap();
    house.ranker.rank(ask.clone()).unwrap();
    compared(&house, 1);
    let held = slot.current().unwrap();
    assert!(slot.clear() && !slot.clear());
    assert!(house.ranker.challenger().is_none() && slot.other(u64::MAX).is_none());
    house.ranker.rank(ask.clone()).unwrap();
    assert_eq!(slot.live_generations(), 1, "whoever holds it may finish with it");
    drop(held);
    assert_eq!(slot.live_generations(), 0);
    assert_eq!(slot.swap(model(2)).unwrap(), 2, "generations go on");
    house.ranker.rank(ask).unwrap();
    compared(&house, 2);
}

#[test]
fn a_challenger_scores_what_was_served_and_the_difference_is_told() {
    let (house, slot) = challenged(1.0);
    assert!(house.ranker.challenger().is_none());
    let ask = RankRequest::new(user("u"), candidates(40));
    house.ranker.rank(ask.clone()).unwrap();
    slot.swap(model(2)).unwrap();
    assert_eq!(house.ranker.challenger().unwrap().1, None, "nothing was compared yet");
    let champion = house.ranker.rank(ask.clone()).unwrap();
    let one = compared(&house, 1);
    let challenger = {
        let house = super::house(patient());
        house.slot.swap(model(2)).unwrap();
        house.ranker.rank(ask.clone()).unwrap()
    };
    assert_eq!((one.champion.as_str(), one.challenger.as_str(), one.rankings), ("m1", "m2", 1));
    let other = |i: &RankedItem| challenger.items.iter().find(|c| c.item == i.item).unwrap().clone();
    for head in 0..3 {
        let apart = |i: &RankedItem| f64::from((i.heads[head] - other(i).heads[head]).abs());
        let mean = champion.items.iter().map(apart).sum::<f64>() / 40.0;
        assert!(mean > 0.0 && (one.probability_difference[head] - mean).abs() < 1e-6, "head {head}");
    }
    let (a, b): (Vec<f32>, Vec<f32>) = champion.items.iter().map(|i| (i.score, other(i).score)).unzip();
    assert!((one.rank_correlation - lately_model::rank_correlation(&a, &b)).abs() < 1e-9);
    let top = champion.items[..3].iter().filter(|i| other(i).position < 3).count();
    assert_eq!(one.top_3_overlap, top as f64 / 3.0);
    assert!(one.us_per_candidate > 0.0);

    for n in 2..6 {
        house.ranker.rank(ask.clone()).unwrap();
        let many = compared(&house, n);
        assert!((many.rank_correlation - one.rank_correlation).abs() < 1e-9, "the same request each time");
    }
    // Another champion: the comparison begins anew.
    house.slot.swap(model(3)).unwrap();
    house.ranker.rank(ask.clone()).unwrap();
    while house.ranker.challenger().unwrap().1.unwrap().champion != "m3" {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(compared(&house, 1).rankings, 1);
}

#[test]
fn what_is_not_drawn_not_whole_or_not_another_model_is_not_compared() {
    let (house, slot) = challenged(0.3);
    slot.swap(model(2)).unwrap();
    let ask = |i: usize| {
        let request = Some(RequestId::new(format!("r{i}")).unwrap());
        RankRequest { request, ..RankRequest::new(user("u"), candidates(20)) }
    };
    let mut drawn = 0;
    for i in 0..60 {
        drawn += u64::from(draw::shadow(ask(i).request.as_ref().unwrap(), 0.3));
        // One at a time: whatever waits makes the challenger give way.
        house.ranker.rank(ask(i)).unwrap();
        if drawn > 0 {
            compared(&house, drawn);
        }
    }
    assert!((5..40).contains(&drawn), "{drawn}");
    assert_eq!(compared(&house, drawn).rankings, drawn);
    let degraded = (60..90).filter(|i| draw::shadow(ask(*i).request.as_ref().unwrap(), 0.3));
    for i in degraded {
        let late = RankRequest { deadline: Some(Duration::from_nanos(1)), ..ask(i) };
        assert!(!house.ranker.rank(late).unwrap().degraded.is_empty());
    }
    slot.swap(model(1)).unwrap();
    house.ranker.rank(ask(1)).unwrap();
    let House { ranker, .. } = house;
    assert_eq!(ranker.challenger().unwrap().1, None, "of m1 with itself there is nothing to tell");
    drop(ranker); // waits for what is in hand
}

//! Rungs on purpose.

use super::ladder::sound;
use super::*;

/// A house in which every rung can be reached: two models, a history, something popular.
fn busy(share: f64) -> House {
    let house = house(RankConfig { exercise_share: share, ..patient() });
    house.slot.swap(model(1)).unwrap();
    house.slot.swap(model(2)).unwrap();
    let now = now_ms();
    let events = [action("u", "i07", "save", now), action("u", "i05", "hide", now)];
    house.store.append(events.into()).unwrap();
    house.ranker.refresh().unwrap();
    house
}

fn ask(house: &House, request: &str) -> RankResponse {
    let asked = candidates(40);
    let request = Some(RequestId::new(request).unwrap());
    let response =
        house.ranker.rank(RankRequest { request, ..RankRequest::new(user("u"), asked.clone()) }).unwrap();
    sound(&response, &asked);
    response
}

#[test]
fn every_rung_is_exercised_marked_and_the_same_for_a_request() {
    let house = busy(1.0);
    ask(&house, "first"); // from now on there is a last sequence, and from some on a last ranking
    (0..20).for_each(|i| drop(ask(&house, &format!("warm{i}"))));
    let mut seen = HashSet::new();
    for i in 0..64 {
        let request = format!("r{i}");
        let response = ask(&house, &request);
        let drawn = draw::exercise(&response.request, 1.0).unwrap();
        assert_eq!(response.degraded, [drawn, Rung::Exercise], "{request}");
        assert_eq!(ask(&house, &request).degraded, response.degraded);
        assert_eq!(response.model.is_some(), drawn < Rung::CachedRanking);
        assert_eq!(response.sequence_age_ms.is_some(), drawn == Rung::StaleSequence);
        seen.insert(drawn);
    }
    assert_eq!(seen.len(), Rung::LADDER.len());
    house.ranker.flush_impressions();
    let log = house.store.read(0, usize::MAX).unwrap();
    let mut marked = log.iter().filter_map(|(_, event)| match event {
        Event::Impression(i) => Some(&i.degraded),
        _ => None,
    });
    assert!(marked.all(|rungs| rungs.len() == 2 && rungs[1] == "exercise"), "in the log too");
}

#[test]
fn a_rung_with_nothing_to_offer_is_passed_over_and_one_candidate_is_no_exercise_of_first_n() {
    let house = house(RankConfig { exercise_share: 1.0, ..patient() });
    let without = ask(&house, "r");
    assert_eq!(without.degraded, [Rung::NoModel, Rung::InputOrder], "nothing to prove without a model");
    house.slot.swap(model(1)).unwrap();
    let mut seen = HashSet::new();
    for i in 0..64 {
        // Each user's first ranking: no last sequence, no last ranking, no former model, nothing popular.
        let id = RequestId::new(format!("r{i}")).unwrap();
        let one = RankRequest {
            request: Some(id.clone()),
            ..RankRequest::new(user(&format!("u{i}")), candidates(1))
        };
        let response = house.ranker.rank(one).unwrap();
        let drawn = draw::exercise(&id, 1.0).unwrap();
        let expected = match drawn {
            Rung::StaleSequence | Rung::NoSequence => vec![Rung::NoSequence, Rung::Exercise],
            Rung::FirstN => vec![],
            _ => vec![Rung::InputOrder, Rung::Exercise],
        };
        assert_eq!(response.degraded, expected, "{drawn:?}");
        seen.insert(drawn);
    }
    assert_eq!(seen.len(), Rung::LADDER.len());
}

#[test]
fn the_share_is_what_it_says() {
    let house = busy(0.25);
    let n = 400;
    let exercised =
        (0..n).filter(|i| ask(&house, &format!("r{i}")).degraded.contains(&Rung::Exercise)).count();
    let drawn = |i: &usize| draw::exercise(&RequestId::new(format!("r{i}")).unwrap(), 0.25).is_some();
    assert_eq!(exercised, (0..n).filter(drawn).count());
    assert!((60..140).contains(&exercised), "{exercised} of {n}");
    let never = busy(0.0);
    assert!((0..n).all(|i| ask(&never, &format!("r{i}")).degraded.is_empty()));
}

#[test]
fn what_was_hidden_stays_hidden_in_an_exercise() {
    let house = busy(1.0);
    for _ in 0..40 {
        let page = feed(&house, 30);
        assert!(!names(&page).contains(&"i05"), "{:?}", page.degraded);
    }
}

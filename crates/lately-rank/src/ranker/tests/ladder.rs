//! Each rung, by the trouble that leads to it.

use super::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

/// A topic whose items the broken model cannot score: every fourth, i02 first.
const BROKEN: &str = "t2";

/// Passes the checks of a swap, which cannot see all inputs: the logits of one topic overflow.
pub(super) fn broken(version: &str) -> LoadedModel {
    // No cross layers: they would make NaN of it, of which a ReLU makes 0.
    let config = ModelConfig { hidden: vec![16], cross_layers: 0, ..ModelConfig::default() };
    let mut model = Model::new(config, &schema(), 9).unwrap();
    let manifest = Manifest::new(&model, &schema(), 9);
    let at = item_features(BROKEN, [0.0; 2]).categorical[0] as usize;
    assert_ne!(at, 1, "the warm-up would see it");
    for (name, data) in model.parameters_mut() {
        match name {
            "item.topic" => data[at * 3] = f32::MAX,
            "heads.weight" => data.iter_mut().for_each(|x| *x *= 1e6),
            _ => {}
        }
    }
    LoadedModel::new(model, manifest, version)
}

/// Invariant I5, and what every rung promises.
pub(super) fn sound(response: &RankResponse, asked: &[ItemId]) {
    let mut items: Vec<_> = response.items.iter().map(|i| &i.item).collect();
    items.sort_unstable();
    let mut all: Vec<_> = asked.iter().collect();
    all.sort_unstable();
    assert_eq!(items, all, "a permutation");
    assert!(response.items.iter().all(|i| i.score.is_finite()));
    assert!(response.items.is_sorted_by(|a, b| a.score >= b.score), "{:?}", response.items);
    assert!(response.items.iter().enumerate().all(|(at, i)| usize::from(i.position) == at));
}

pub(super) fn rank(house: &House, user: &str, asked: &[ItemId]) -> RankResponse {
    let response = house.ranker.rank(RankRequest::new(self::user(user), asked.to_vec())).unwrap();
    sound(&response, asked);
    response
}

fn scores(response: &RankResponse) -> HashMap<ItemId, f32> {
    response.items.iter().map(|i| (i.item.clone(), i.score)).collect()
}

/// From now on no sequence can be read.
fn lose_sequences(house: &mut House) {
    house.ranker.read_sequence = Box::new(|_| Err(StoreError::Closed));
}

#[test]
fn a_sequence_that_cannot_be_read_is_what_it_was_and_says_how_old_that_is() {
    let mut house = house(patient());
    house.slot.swap(model(3)).unwrap();
    let all = candidates(40);
    house.store.append(vec![action("u", "i07", "save", now_ms())]).unwrap();
    let before = rank(&house, "u", &all);
    assert_eq!((&before.degraded[..], before.sequence_age_ms), (&[][..], None));
    house.store.append(vec![action("u", "i30", "save", now_ms())]).unwrap();
    lose_sequences(&mut house);
    std::thread::sleep(Duration::from_millis(20));
    let stale = rank(&house, "u", &all);
    assert_eq!(stale.degraded, [Rung::StaleSequence]);
    let age = stale.sequence_age_ms.unwrap();
    assert!((20..=(stale.time_ms - before.time_ms).unsigned_abs()).contains(&age), "{age}");
    assert_eq!(scores(&stale), scores(&before), "as if the second save were not there");

    let stranger = rank(&house, "v", &all);
    assert_eq!((&stranger.degraded[..], stranger.sequence_age_ms), (&[Rung::NoSequence][..], None));
    assert_eq!(stranger.model.unwrap().version, "m3", "the model ranks without");
    house.ranker.forget(&user("u")).unwrap();
    assert_eq!(rank(&house, "u", &all).degraded, [Rung::NoSequence], "nothing is left of who was forgotten");
}

#[test]
fn without_memory_for_stale_sequences_there_are_none() {
    let mut house = house(RankConfig { stale_sequence_bytes: 0, ..patient() });
    house.slot.swap(model(3)).unwrap();
    rank(&house, "u", &candidates(5));
    lose_sequences(&mut house);
    assert_eq!(rank(&house, "u", &candidates(5)).degraded, [Rung::NoSequence]);
}

#[test]
fn where_the_time_is_too_short_for_all_the_nearest_are_scored_and_the_rest_follows() {
    let house = house(patient());
    house.slot.swap(model(3)).unwrap();
    let liked = [action("u", "i20", "save", now_ms()), action("v", "i39", "save", now_ms())];
    house.store.append(liked.into()).unwrap();
    house.ranker.refresh().unwrap();
    let all = candidates(40);
    let whole = scores(&rank(&house, "u", &all));
    let popular = scores(&rank(&house, "w", &all));
    house.ranker.batcher.pretend(Duration::from_secs(3_600));
    for (user, whole, best) in [("u", whole, "i20"), ("w", popular, "i20")] {
        let response = rank(&house, user, &all);
        assert_eq!((&response.degraded[..], response.items[0].heads.len()), (&[Rung::FirstN][..], 3));
        let (scored, rest): (Vec<_>, Vec<_>) = response.items.iter().partition(|i| !i.heads.is_empty());
        assert_eq!(scored.len(), crate::estimate::FEWEST);
        assert!(scored.iter().all(|i| (i.score - whole[&i.item]).abs() < 1e-6), "the same score as ever");
        assert!(scored.iter().any(|i| i.item.as_str() == best), "{user}");
        let lowest = scored.iter().map(|i| i.score).reduce(f32::min).unwrap();
        assert!(rest.iter().all(|i| i.score == lowest));
        assert!(response.items[..scored.len()].iter().all(|i| !i.heads.is_empty()), "those come first");
        if user == "u" {
            // Around the circle on which items lie, from i20 outwards: 16 of them are i12 or i13 to i28 or i27.
            let near = |i: &RankedItem| i.item.as_str()[1..].parse::<i32>().unwrap().abs_diff(20);
            assert!(scored.iter().all(|i| near(i) <= 8), "{scored:?}");
            assert!(rest.iter().map(|i| near(i)).is_sorted(), "in the order of the cheap score: {rest:?}");
        } else {
            assert!(scored.iter().any(|i| i.item.as_str() == "i39"), "who liked nothing gets the popular");
        }
    }
}

#[test]
fn where_a_model_fails_the_one_before_it_scores() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let all = candidates(20);
    let by_first = scores(&rank(&house, "u", &all));
    house.slot.swap(broken("new")).unwrap();
    let sound = [item_id("i00"), item_id("i01"), item_id("i03")];
    let ranked = rank(&house, "u", &sound);
    assert_eq!((&ranked.degraded[..], ranked.model.unwrap().version.as_str()), (&[][..], "new"));
    let saved = rank(&house, "u", &all);
    assert_eq!(saved.degraded, [Rung::ModelError, Rung::LastGoodModel]);
    assert_eq!(saved.model.as_ref().map(|m| (m.version.as_str(), m.generation)), Some(("m1", 1)));
    assert_eq!(scores(&saved), by_first, "the very scores of the former model");
    // A third model retires the first: the former one is the broken one now, and is not needed.
    house.slot.swap(model(2)).unwrap();
    assert_eq!(rank(&house, "u", &all).degraded, []);
    assert_eq!(house.slot.live_generations(), 2);
}

#[test]
fn where_no_model_scores_the_last_ranking_orders_and_popularity_below_it() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let known = candidates(10);
    let last = rank(&house, "u", &known);
    house.slot.swap(broken("a")).unwrap();
    house.slot.swap(broken("b")).unwrap();
    house.store.append(vec![action("v", "i15", "save", now_ms())]).unwrap();
    house.ranker.refresh().unwrap();
    let response = rank(&house, "u", &candidates(20));
    assert_eq!(
        (&response.degraded[..], &response.model),
        (&[Rung::ModelError, Rung::CachedRanking][..], &None)
    );
    assert_eq!(names(&response)[..10], names(&last), "in the order of the last ranking");
    assert_eq!(scores(&response)[&last.items[0].item], last.items[0].score);
    let lowest = last.items[9].score;
    assert!(response.items[10..].iter().all(|i| i.score == lowest && i.heads.is_empty()));
    let rest: Vec<_> = candidates(20).split_off(10);
    let rest: Vec<_> = rest.iter().map(ItemId::as_str).filter(|i| *i != "i15").collect();
    assert_eq!(names(&response)[10], "i15", "the popular one first");
    assert_eq!(names(&response)[11..], rest, "then the order given");

    // Of those not one was in the last ranking; another person has none at all.
    let others: Vec<_> = candidates(20).split_off(10);
    assert_eq!(rank(&house, "u", &others).degraded, [Rung::ModelError, Rung::Popularity]);
    assert_eq!(rank(&house, "w", &candidates(20)).degraded, [Rung::ModelError, Rung::Popularity]);
    house.ranker.forget(&user("u")).unwrap();
    assert_eq!(rank(&house, "u", &candidates(20)).degraded, [Rung::ModelError, Rung::Popularity]);
}

#[test]
fn where_nothing_is_known_of_any_candidate_they_stay_in_the_order_given() {
    let house = house(patient());
    house.slot.swap(broken("only")).unwrap();
    let mut all = candidates(12);
    all.reverse();
    let response = rank(&house, "u", &all);
    assert_eq!(response.degraded, [Rung::ModelError, Rung::InputOrder]);
    assert!(response.items.iter().zip(&all).all(|(i, asked)| i.item == *asked && i.score == 0.0));
}

#[test]
fn a_deadline_that_passes_while_the_model_scores_leaves_the_last_ranking() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let all = candidates(20);
    let last = rank(&house, "u", &all);
    let late = RankRequest { deadline: Some(Duration::from_nanos(1)), ..RankRequest::new(user("u"), all) };
    let response = house.ranker.rank(late).unwrap();
    assert_eq!(response.degraded, [Rung::ScoreDeadline, Rung::CachedRanking]);
    assert_eq!(names(&response), names(&last));
}

#[test]
fn trouble_adds_up() {
    let mut house = house(patient());
    house.slot.swap(model(1)).unwrap();
    house.slot.swap(broken("new")).unwrap();
    lose_sequences(&mut house);
    house.ranker.batcher.pretend(Duration::from_secs(3_600));
    let all = candidates(40);
    let reads = Arc::new(AtomicUsize::new(0));
    let count = reads.clone();
    house.ranker.read_sequence = Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Closed)
    });
    let response = rank(&house, "u", &all);
    let rungs = [Rung::NoSequence, Rung::ModelError, Rung::LastGoodModel, Rung::FirstN];
    assert_eq!((response.degraded, reads.load(Ordering::Relaxed)), (rungs.to_vec(), 1));
}

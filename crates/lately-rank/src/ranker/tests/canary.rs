//! The challenger ranks for a share of the people.

use super::*;
use crate::guardrails::Comparison;

/// m1 is the champion, m2 the challenger.
fn canary(share: f64) -> (House, Arc<ModelSlot>) {
    let mut house = house(RankConfig { canary_share: share, ..patient() });
    let slot = Arc::new(ModelSlot::new(Arc::new(schema())).for_alias("challenger"));
    house.ranker = house.ranker.with_challenger(slot.clone()).unwrap();
    house.slot.swap(model(1)).unwrap();
    slot.swap(model(2)).unwrap();
    (house, slot)
}

fn rank(house: &House, user: &str) -> RankResponse {
    house.ranker.rank(RankRequest::new(self::user(user), candidates(20))).unwrap()
}

fn version(response: &RankResponse) -> &str {
    response.model.as_ref().map_or("none", |m| &m.version)
}

#[test]
fn its_share_of_the_people_gets_the_challenger_and_always_the_same_ones_do() {
    let (house, slot) = canary(0.3);
    assert_eq!(house.ranker.canary(), Some(0.3));
    let mut challenged = 0;
    for i in 0..300 {
        let name = format!("u{i}");
        let drawn = draw::canary(&user(&name), "m2", 0.3);
        challenged += usize::from(drawn);
        let expected =
            if drawn { ("m2", Some(Variant::Challenger)) } else { ("m1", Some(Variant::Champion)) };
        for _ in 0..2 {
            let response = rank(&house, &name);
            assert_eq!((version(&response), response.variant), expected);
            assert_eq!(response.degraded, []);
        }
    }
    assert!((60..120).contains(&challenged), "{challenged} of 300");
    house.ranker.flush_impressions();
    let mut arms = std::collections::BTreeMap::<_, usize>::new();
    for (_, event) in house.store.read(0, usize::MAX).unwrap() {
        if let Event::Impression(i) = event {
            *arms.entry((i.model.unwrap(), i.variant.unwrap())).or_default() += 1;
        }
    }
    let of = |model: &str, arm: &str| arms[&(model.to_owned(), arm.to_owned())];
    assert_eq!((of("m1", "champion"), of("m2", "challenger")), (600 - 2 * challenged, 2 * challenged));

    house.ranker.refresh().unwrap();
    let Comparison { rankings, reference_rankings, readings } =
        house.ranker.guardrails().canary("m2", "m1", now_ms());
    assert_eq!((rankings, reference_rankings), (2 * challenged as u64, 600 - 2 * challenged as u64));
    let errors = readings.iter().find(|r| r.guardrail == "errors").unwrap();
    assert_eq!((errors.value, errors.reference), (0.0, 0.0), "{readings:?}");

    // A challenger that is taken away ends it, and one that is the champion is none.
    assert!(slot.clear() && !slot.clear());
    let same = |expected: &str| {
        for i in 0..50 {
            let response = rank(&house, &format!("u{i}"));
            assert_eq!((version(&response), response.variant), (expected, None));
        }
        assert_eq!(house.ranker.canary(), None);
    };
    same("m1");
    slot.swap(model(1)).unwrap();
    same("m1");
    assert!(house.ranker.challenger().is_some());
}

#[test]
fn where_the_challenger_fails_the_champion_scores_and_the_guardrails_know() {
    let (house, slot) = canary(0.5);
    slot.swap(super::ladder::broken("bad")).unwrap();
    let mut failed = 0;
    for i in 0..400 {
        let name = format!("u{i}");
        let response = super::ladder::rank(&house, &name, &candidates(20));
        let challenged = draw::canary(&user(&name), "bad", 0.5);
        failed += u64::from(challenged);
        assert_eq!((version(&response), response.variant.is_some()), ("m1", true));
        let expected: &[Rung] = if challenged { &[Rung::ModelError, Rung::LastGoodModel] } else { &[] };
        assert_eq!(response.degraded, expected);
    }
    assert!(failed > 150, "{failed}");
    let found = house.ranker.guardrails().canary("bad", "m1", now_ms());
    let breach = found.breach().expect("the challenger fails on each");
    assert_eq!((breach.guardrail, breach.value, breach.reference), ("errors", 1.0, 0.0));
    assert!(house.ranker.guardrails().watched("m1", "m1", now_ms()).breach().is_none());
}

#[test]
fn without_a_champion_or_a_share_there_is_no_canary() {
    let (house, _slot) = canary(0.0);
    assert_eq!((rank(&house, "u").variant, house.ranker.canary()), (None, None));
    let mut empty = super::house(RankConfig { canary_share: 0.5, ..patient() });
    let slot = Arc::new(ModelSlot::new(Arc::new(schema())).for_alias("challenger"));
    slot.swap(model(2)).unwrap();
    empty.ranker = empty.ranker.with_challenger(slot).unwrap();
    let responses: Vec<_> = (0..20).map(|i| rank(&empty, &format!("u{i}"))).collect();
    assert!(responses.iter().all(|r| r.variant.is_none() && r.degraded[0] == Rung::NoModel));
    let refused = |share| {
        let House { store, slot, _dir, .. } = super::house(patient());
        let config = RankConfig { canary_share: share, ..patient() };
        Ranker::new(store, slot, Arc::new(schema()), config).unwrap_err().to_string()
    };
    assert!(refused(0.6).contains("canary_share is 0.6: it must be 0 to 0.5"), "{}", refused(0.6));
}

#[test]
fn a_model_that_was_taken_back_does_not_score_where_another_one_fails() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    house.slot.swap(super::ladder::broken("bad")).unwrap();
    house.slot.drop_former();
    let response = rank(&house, "u");
    assert_eq!(response.degraded, [Rung::ModelError, Rung::InputOrder]);
    assert_eq!(house.slot.live_generations(), 1);
}

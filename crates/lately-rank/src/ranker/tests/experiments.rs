//! Experiments as a ranker serves them, and what is logged of them.

use std::collections::HashMap;

use super::*;
use crate::experiment::{Book, Change};

const VALUES: &str = r#"{"name": "values", "variants": [
    {"name": "control"},
    {"name": "saves", "overrides": {"value_model": {"weights": {"save": 1.0}}}}]}"#;
const SPACING: &str = r#"{"name": "spacing", "layer": "blend", "surfaces": ["home"], "variants": [
    {"name": "control"}, {"name": "wide", "overrides": {"select": {"topic_run": 1}}}]}"#;
const MODELS: &str = r#"{"name": "models", "variants": [
    {"name": "control"}, {"name": "new", "overrides": {"model": "challenger"}}]}"#;

/// A book in which these run for all.
fn running(definitions: &[&str]) -> Book {
    let mut book = Book::default();
    for text in definitions {
        let definition: crate::experiment::ExperimentDefinition = serde_json::from_str(text).unwrap();
        let name = definition.name.clone();
        book.apply(&Change::Declare(definition), 0).unwrap();
        book.apply(&Change::Start { name, ramp: 1.0 }, 0).unwrap();
    }
    book
}

fn people(n: usize) -> impl Iterator<Item = UserId> {
    (0..n).map(|i| user(&format!("p{i}")))
}

fn variant<'a>(response: &'a RankResponse, experiment: &str) -> Option<&'a str> {
    let found = response.exposures.iter().find(|e| e.experiment == experiment)?;
    Some(found.variant.as_str())
}

fn logged(house: &House, response: &RankResponse) -> lately_features::Impression {
    house.ranker.flush_impressions();
    let all = house.store.read(0, 100_000).unwrap();
    let found = all.into_iter().find_map(|(_, event)| match event {
        Event::Impression(i) if i.request == response.request => Some(i),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_variant_changes_what_it_overrides_for_its_people_alone() {
    let house = house(patient());
    house.slot.swap(model(4)).unwrap();
    house.ranker.set_experiments(&running(&[VALUES]), &HashMap::new()).unwrap();
    let mut seen = HashMap::<String, usize>::new();
    for person in people(40) {
        let ask = RankRequest { explain: true, ..RankRequest::new(person, candidates(5)) };
        let response = house.ranker.rank(ask).unwrap();
        let expected: &[f32] = match variant(&response, "values") {
            Some("saves") => &[0.0, 1.0, 0.0],
            Some("control") => &[1.0, 1.0, -1.0],
            other => panic!("{other:?}"),
        };
        assert_eq!(response.explain.as_ref().unwrap().weights, expected);
        let name = variant(&response, "values").unwrap();
        assert_eq!(logged(&house, &response).variant, Some(format!("values={name}")));
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    assert!(seen["saves"] > 8 && seen["control"] > 8, "{seen:?}");
    house.ranker.set_experiments(&Book::default(), &HashMap::new()).unwrap();
    let after = house.ranker.rank(RankRequest::new(user("p1"), candidates(5))).unwrap();
    assert_eq!((after.exposures.len(), logged(&house, &after).variant), (0, None), "stopped for all");
}

#[test]
fn an_exposure_is_logged_only_where_the_experiment_could_make_a_difference() {
    let house = house(patient());
    house.slot.swap(model(4)).unwrap();
    house.ranker.set_experiments(&running(&[VALUES, SPACING]), &HashMap::new()).unwrap();
    let plain = RankRequest { surface: Some("home".into()), ..RankRequest::new(user("u"), candidates(5)) };
    let response = house.ranker.rank(plain.clone()).unwrap();
    assert!(variant(&response, "values").is_some() && variant(&response, "spacing").is_none());
    let spaced = RankRequest { rules: Rules { spacing: true, ..Rules::default() }, ..plain };
    let response = house.ranker.rank(spaced.clone()).unwrap();
    assert!(variant(&response, "spacing").is_some());
    let parts = logged(&house, &response).variant.unwrap();
    assert_eq!(parts.split(';').count(), 2, "{parts}");
    let elsewhere = RankRequest { surface: None, ..spaced };
    assert!(variant(&house.ranker.rank(elsewhere).unwrap(), "spacing").is_none(), "another surface");
}

#[test]
fn a_forced_variant_is_served_to_whoever_asks_and_not_logged() {
    let house = house(patient());
    house.slot.swap(model(4)).unwrap();
    let mut book = Book::default();
    book.apply(&Change::Declare(serde_json::from_str(VALUES).unwrap()), 0).unwrap();
    house.ranker.set_experiments(&book, &HashMap::new()).unwrap();
    let force = |variant: &str| RankRequest {
        variants: vec![("values".into(), variant.into())],
        explain: true,
        ..RankRequest::new(user("u"), candidates(5))
    };
    let response = house.ranker.rank(force("saves")).unwrap();
    assert_eq!(response.explain.as_ref().unwrap().weights, [0.0, 1.0, 0.0], "a draft can be tried");
    assert!(response.exposures[0].forced);
    assert_eq!(logged(&house, &response).variant, None);
    let error = house.ranker.rank(force("clicks")).unwrap_err().to_string();
    assert!(error.contains("no variant `clicks`: it has control, saves"), "{error}");
    let plain = house.ranker.rank(RankRequest::new(user("u"), candidates(5))).unwrap();
    assert_eq!(plain.exposures, [], "nobody is in a draft");
}

#[test]
fn a_variant_may_have_a_model_of_its_own_and_an_empty_slot_is_served_by_the_champion() {
    let house = house(patient());
    house.slot.swap(model(4)).unwrap();
    let slot = Arc::new(ModelSlot::new(Arc::new(schema())).for_alias("challenger"));
    let slots = HashMap::from([("challenger".to_owned(), slot.clone())]);
    house.ranker.set_experiments(&running(&[MODELS]), &slots).unwrap();
    let version = |person| {
        let response = house.ranker.rank(RankRequest::new(person, candidates(5))).unwrap();
        (variant(&response, "models").unwrap().to_owned(), response.model.unwrap().version)
    };
    assert!(people(20).map(version).all(|(_, model)| model == "m4"), "nothing is there yet");
    slot.swap(model(5)).unwrap();
    let all: HashSet<_> = people(20).map(version).collect();
    let pair = |variant: &str, model: &str| (variant.to_owned(), model.to_owned());
    assert_eq!(all, HashSet::from([pair("control", "m4"), pair("new", "m5")]));
}

#[test]
fn what_a_variant_cannot_override_is_refused_and_the_former_book_stays() {
    let house = house(patient());
    house.slot.swap(model(4)).unwrap();
    house.ranker.set_experiments(&running(&[VALUES]), &HashMap::new()).unwrap();
    let refused = |from: &str, to: &str| {
        let book = running(&[&VALUES.replace(from, to)]);
        house.ranker.set_experiments(&book, &HashMap::new()).unwrap_err().to_string()
    };
    assert!(refused("\"save\": 1.0", "\"saved\": 1.0").contains("names the head `saved`"));
    assert!(refused("\"weights\"", "\"wieghts\"").contains("unknown field `wieghts`"));
    assert!(refused(r#"{"weights": {"save": 1.0}}"#, "7").contains("must be a table"));
    let surface = running(&[&SPACING.replace("\"home\"", "\"hoem\"")]);
    let error = crate::experiment::check(&surface, &patient(), &schema()).unwrap_err().to_string();
    assert!(error.contains("surface `hoem`"), "{error}");
    let response = house.ranker.rank(RankRequest::new(user("u"), candidates(5))).unwrap();
    assert!(variant(&response, "values").is_some());
}

#[test]
fn chance_is_logged_with_how_likely_it_was() {
    let explore = crate::ExploreConfig { share: 0.5, places: 4 };
    let house = house(RankConfig { explore, ..patient() });
    house.slot.swap(model(4)).unwrap();
    let mut orders = HashSet::new();
    for _ in 0..30 {
        let ask = RankRequest { limit: Some(6), ..RankRequest::new(user("u"), candidates(20)) };
        let response = house.ranker.rank(ask).unwrap();
        let positions: Vec<_> = response.items.iter().map(|i| i.position).collect();
        assert_eq!(positions, [0, 1, 2, 3, 4, 5]);
        let falls = response.items.windows(2).all(|w| w[0].score >= w[1].score);
        let p = logged(&house, &response).propensities;
        assert_eq!((&p, &p[4..]), (&response.propensities, &[1.0, 1.0][..]));
        assert_eq!(falls, p[..4].iter().all(|p| (p - 0.625).abs() < 1e-6), "{p:?}");
        orders.insert(names(&response).join(","));
    }
    assert!(orders.len() > 4, "{orders:?}");
    let whole = house.ranker.rank(RankRequest::new(user("u"), candidates(20))).unwrap();
    assert_eq!(whole.propensities, [] as [f32; 0], "not what the user sees");
}

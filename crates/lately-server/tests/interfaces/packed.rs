//! The packed form beside JSON, in all four pairs.

use lately_features::{ItemId, UserId};
use lately_server::Limits;
use lately_server::packed::{Answer, MEDIA_TYPE, Request};
use serde_json::{Value, json};

use crate::support::house;

fn ask(ids: &[&str]) -> Request {
    Request::new(UserId::new("u").unwrap(), ids.iter().map(|id| ItemId::new(id).unwrap()).collect())
}

#[test]
fn either_form_answers_in_either_form() {
    let house = house(Limits::default());
    house.furnish();
    let packed = Request { limit: 2, ..ask(&["i1", "i2", "i3"]) }.encode().unwrap();
    let json = json!({"user": "u", "candidates": ["i1", "i2", "i3"], "limit": 2}).to_string();
    let bodies = [(MEDIA_TYPE, packed.as_slice()), ("application/json", json.as_bytes())];
    for (kind, body) in bodies {
        let (_, answered, bytes) = house.bytes(&[("content-type", kind), ("accept", MEDIA_TYPE)], body);
        assert_eq!(answered, MEDIA_TYPE);
        assert_eq!(Answer::decode(&bytes).unwrap().items.len(), 2);
        for accept in ["application/json", "*/*"] {
            let (_, answered, bytes) = house.bytes(&[("content-type", kind), ("accept", accept)], body);
            assert_eq!(answered, "application/json");
            let reply: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(reply["items"].as_array().unwrap().len(), 2);
        }
    }
}

#[test]
fn rules_repeats_and_degradation_are_told() {
    let house = house(Limits::default());
    house.stock(4);
    let answer = house.packed(&ask(&["i1", "i2", "i1"]));
    assert_eq!(
        (answer.model, answer.heads.len(), answer.degraded),
        (None, 0, ["no_model", "input_order"].map(str::to_owned).to_vec())
    );
    let mut places: Vec<u16> = answer.items.iter().map(|item| item.candidate).collect();
    places.sort_unstable();
    assert_eq!((places, answer.candidates), (vec![0, 1], 3), "the first of equal ones");
    house.load(1);
    let hide =
        json!({"events": [{"type": "action", "event_id": "e", "user": "u", "item": "i2", "action": "hide"}]});
    house.ok("POST", "/v1/events", &hide);
    let answer = house.packed(&Request { hidden: true, ..ask(&["i1", "i2", "i3"]) });
    assert!(answer.items.iter().all(|item| item.candidate != 1) && answer.items.len() == 2, "{answer:?}");
}

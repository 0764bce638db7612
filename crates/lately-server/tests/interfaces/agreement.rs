//! One ranking over every interface: the same order, the same scores to the last bit.

use std::collections::BTreeMap;

use lately_features::{ItemId, UserId};
use lately_server::Limits;
use lately_server::packed::{MEDIA_TYPE, Request};
use prost::Message;
use serde_json::json;

use crate::client::{InferenceClient, RankingClient, channel, pb};
use crate::support::house;

/// Score and probabilities by item, as bits, best first.
type Ranking = Vec<(String, u32, Vec<u32>)>;

fn ids(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("i{i}")).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn json_packed_grpc_and_oip_give_the_same_bits() {
    let house = house(Limits::default());
    house.furnish();
    let candidates = ids(14); // two of them unknown
    let reply =
        house.ok("POST", "/v1/rank", &json!({"user": "u", "candidates": candidates, "surface": "home"}));
    let float = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
    let json: Ranking = reply["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let heads = [float(&item["heads"]["click"]), float(&item["heads"]["save"])];
            (item["item"].as_str().unwrap().to_owned(), float(&item["score"]).to_bits(), bits(&heads))
        })
        .collect();
    assert_eq!(json.len(), 14);

    let items = candidates.iter().map(|id| ItemId::new(id).unwrap()).collect();
    let mut ask = Request::new(UserId::new("u").unwrap(), items);
    ask.surface = Some("home".to_owned());
    let answer = house.packed(&ask);
    let packed: Ranking = answer
        .items
        .iter()
        .map(|item| {
            let id = candidates[usize::from(item.candidate)].clone();
            (id, item.score.to_bits(), bits(&item.probabilities))
        })
        .collect();
    assert_eq!(packed, json);
    assert_eq!(
        (answer.model, answer.heads),
        (Some(("m1".to_owned(), 1)), vec!["click".into(), "save".into()])
    );
    assert_eq!(
        (answer.schema_hash, answer.candidates),
        (reply["schema_hash"].as_str().unwrap().to_owned(), 14)
    );

    let message = pb::lately::RankRequest {
        user: "u".to_owned(),
        candidates: candidates.clone(),
        surface: Some("home".to_owned()),
        ..Default::default()
    };
    let answer = RankingClient::new(channel(&house).await).rank(message).await.unwrap().into_inner();
    let grpc: Ranking =
        answer.items.into_iter().map(|i| (i.item, i.score.to_bits(), bits(&i.probabilities))).collect();
    assert_eq!(grpc, json);
    assert_eq!(
        (answer.model.unwrap().version, answer.heads),
        ("m1".to_owned(), vec!["click".into(), "save".into()])
    );

    let by_item: BTreeMap<_, _> =
        json.iter().enumerate().map(|(place, (id, s, p))| (id, (place, *s, p))).collect();
    let wanted: Vec<_> = candidates.iter().map(|id| by_item[id]).collect();
    assert_eq!(
        oip_rest(&house, &candidates),
        wanted.iter().map(|(n, s, p)| (*n, *s, (*p).clone())).collect::<Vec<_>>()
    );
    assert_eq!(oip_grpc(&house, &candidates).await, oip_rest(&house, &candidates));
}

/// Place, score and probabilities in the order of the candidates.
type Scored = Vec<(usize, u32, Vec<u32>)>;

fn scored(score: &[f32], probabilities: &[f32], position: &[i64]) -> Scored {
    let rows = position.iter().zip(score).zip(probabilities.chunks(2));
    rows.map(|((place, score), heads)| (usize::try_from(*place).unwrap(), score.to_bits(), bits(heads)))
        .collect()
}

fn oip_rest(house: &crate::support::House, candidates: &[String]) -> Scored {
    let body = json!({"inputs": [
        {"name": "user", "shape": [1], "datatype": "BYTES", "data": ["u"]},
        {"name": "candidates", "shape": [candidates.len()], "datatype": "BYTES", "data": candidates},
        {"name": "surface", "shape": [1], "datatype": "BYTES", "data": ["home"]},
    ]});
    let reply = house.ok("POST", "/v2/models/lately/infer", &body);
    let floats =
        |i: usize| -> Vec<f32> { serde_json::from_value(reply["outputs"][i]["data"].clone()).unwrap() };
    let position: Vec<i64> = serde_json::from_value(reply["outputs"][2]["data"].clone()).unwrap();
    scored(&floats(0), &floats(1), &position)
}

async fn oip_grpc(house: &crate::support::House, candidates: &[String]) -> Scored {
    let texts = |texts: &[String]| pb::inference::InferTensorContents {
        bytes_contents: texts.iter().map(|text| text.clone().into_bytes()).collect(),
        ..Default::default()
    };
    let tensor = |name: &str, data: &[String]| pb::inference::model_infer_request::InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![data.len() as i64],
        contents: Some(texts(data)),
        ..Default::default()
    };
    let message = pb::inference::ModelInferRequest {
        model_name: "lately".to_owned(),
        inputs: vec![
            tensor("user", &["u".to_owned()]),
            tensor("candidates", candidates),
            tensor("surface", &["home".to_owned()]),
        ],
        ..Default::default()
    };
    let reply = InferenceClient::new(channel(house).await).model_infer(message).await.unwrap().into_inner();
    let contents = |i: usize| reply.outputs[i].contents.clone().unwrap();
    let position: Vec<i64> = contents(2).int_contents.into_iter().map(i64::from).collect();
    scored(&contents(0).fp32_contents, &contents(1).fp32_contents, &position)
}

/// The numbers of the table in docs/http.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_of_a_thousand_candidates_by_form() {
    let house = house(Limits::default());
    house.load(1);
    let ids: Vec<String> = (0..1_000).map(|i| format!("item-{i:011}")).collect();
    let items = ids.iter().map(|id| ItemId::new(id).unwrap()).collect();
    let mut ask = Request::new(UserId::new("user-0000000001").unwrap(), items);
    ask.surface = Some("home".to_owned());
    let packed = ask.encode().unwrap();
    let json = json!({"user": "user-0000000001", "surface": "home", "candidates": ids}).to_string();
    let grpc = pb::lately::RankRequest {
        user: "user-0000000001".to_owned(),
        surface: Some("home".to_owned()),
        candidates: ids,
        ..Default::default()
    };
    let (json_bytes, grpc_bytes, packed_bytes) = (json.len(), grpc.encoded_len(), packed.len());
    let kind = ("content-type", "application/json");
    let (_, _, json_answer) = house.bytes(&[kind], json.as_bytes());
    let (_, _, packed_answer) = house.bytes(&[kind, ("accept", MEDIA_TYPE)], json.as_bytes());
    let grpc_answer =
        RankingClient::new(channel(&house).await).rank(grpc).await.unwrap().into_inner().encoded_len();
    println!("request: json {json_bytes}, grpc {grpc_bytes}, packed {packed_bytes}");
    println!("answer: json {}, grpc {grpc_answer}, packed {}", json_answer.len(), packed_answer.len());
    assert_eq!(packed_bytes, 20 + 15 + 4 + 1_000 * 17);
    assert!(packed_bytes < grpc_bytes && grpc_bytes < json_bytes);
    assert!(packed_answer.len() * 2 < grpc_answer && grpc_answer * 2 < json_answer.len());
}

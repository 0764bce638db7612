//! The Open Inference Protocol over JSON and gRPC.

use lately_server::Limits;
use serde_json::json;

use crate::client::pb::inference as pb;
use crate::client::{InferenceClient, channel};
use crate::support::house;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_and_metadata_are_those_of_the_protocol() {
    let house = house(Limits::default());
    let mut client = InferenceClient::new(channel(&house).await);
    assert_eq!(house.get("/v2/health/live"), (200, json!({"live": true})));
    assert_eq!(house.get("/v2/health/ready"), (503, json!({"ready": false})));
    assert_eq!(house.get("/v2/models/lately/ready"), (503, json!({"name": "lately", "ready": false})));
    assert!(client.server_live(pb::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(!client.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert_eq!(house.get("/v2/models/lately").1["versions"], json!([]));
    house.load(1);
    assert_eq!(house.get("/v2/health/ready"), (200, json!({"ready": true})));
    assert_eq!(
        house.get("/v2/models/lately/versions/m1/ready"),
        (200, json!({"name": "lately", "ready": true}))
    );
    assert_eq!(house.get("/v2/models/lately/versions/m2/ready").0, 404);
    assert_eq!(house.get("/v2/models/other").0, 404);
    assert_eq!(house.get("/v2/models/%ff").0, 404);
    assert_eq!(house.get("/v2").1["name"], "lately");
    let want = json!({"name": "lately", "versions": ["m1"], "platform": "lately",
        "inputs": [
            {"name": "user", "datatype": "BYTES", "shape": [1]},
            {"name": "candidates", "datatype": "BYTES", "shape": [-1]},
            {"name": "surface", "datatype": "BYTES", "shape": [1]}],
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "position", "datatype": "INT32", "shape": [-1]}]});
    assert_eq!(house.get("/v2/models/lately/versions/m1"), (200, want.clone()));
    let named = || ("lately".to_owned(), "m1".to_owned());
    let (name, version) = named();
    let model = client.model_metadata(pb::ModelMetadataRequest { name, version }).await.unwrap().into_inner();
    let inputs: Vec<_> = model
        .inputs
        .iter()
        .map(|t| json!({"name": t.name, "datatype": t.datatype, "shape": t.shape}))
        .collect();
    assert_eq!((json!(inputs), json!(model.versions)), (want["inputs"].clone(), want["versions"].clone()));
    let (name, version) = named();
    assert!(client.model_ready(pb::ModelReadyRequest { name, version }).await.unwrap().into_inner().ready);
    let server = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((server.name.as_str(), server.version.as_str()), ("lately", env!("CARGO_PKG_VERSION")));
}

#[test]
fn outputs_keep_the_order_of_the_candidates_and_name_the_dropped() {
    let house = house(Limits::default());
    house.furnish();
    let body = json!({"id": "42", "parameters": {"deadline_ms": 5000, "request": "r1", "binary_data_output": true},
        "inputs": [
            {"name": "candidates", "shape": [3], "datatype": "BYTES", "data": ["i1", "i2", "i1"]},
            {"name": "user", "shape": [1], "datatype": "BYTES", "data": ["u"]}],
        "outputs": [{"name": "position"}, {"name": "score", "parameters": {"binary_data": false}}]});
    let reply = house.ok("POST", "/v2/models/lately/versions/m1/infer", &body);
    assert_eq!(
        (&reply["id"], &reply["model_name"], &reply["model_version"]),
        (&json!("42"), &json!("lately"), &json!("m1"))
    );
    let parameters = &reply["parameters"];
    assert_eq!(
        (&parameters["request"], &parameters["generation"], &parameters["degraded"]),
        (&json!("r1"), &json!(1), &json!(""))
    );
    assert!(parameters["watermark"].as_u64() > Some(0));
    let outputs = reply["outputs"].as_array().unwrap();
    assert_eq!(
        (outputs.len(), &outputs[0]["name"], &outputs[1]["name"]),
        (2, &json!("score"), &json!("position"))
    );
    let (scores, position) = (&outputs[0]["data"], &outputs[1]["data"]);
    assert_eq!(position[2], -1, "a repeated candidate is dropped");
    assert_eq!(scores[2], 0.0);
    let first_is_better = scores[0].as_f64() >= scores[1].as_f64();
    assert_eq!(
        json!([position[0], position[1]]),
        if first_is_better { json!([0, 1]) } else { json!([1, 0]) }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn raw_tensors_are_answered_raw_and_no_model_is_told() {
    let house = house(Limits::default());
    let mut client = InferenceClient::new(channel(&house).await);
    let raw = |texts: &[&str]| -> Vec<u8> {
        texts.iter().flat_map(|t| [&(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat()).collect()
    };
    let tensor = |name: &str, n: i64| pb::model_infer_request::InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![n],
        ..Default::default()
    };
    let number = pb::infer_parameter::ParameterChoice::Int64Param(5_000);
    let parameter = pb::InferParameter { parameter_choice: Some(number) };
    let message = || pb::ModelInferRequest {
        model_name: "lately".to_owned(),
        id: "7".to_owned(),
        inputs: vec![tensor("user", 1), tensor("candidates", 2)],
        raw_input_contents: vec![raw(&["u"]), raw(&["a", "b"])],
        parameters: [("deadline_ms".to_owned(), parameter.clone())].into(),
        ..Default::default()
    };
    let reply = client.model_infer(message()).await.unwrap().into_inner();
    assert_eq!((reply.id.as_str(), reply.model_version.as_str()), ("7", ""));
    let degraded = reply.parameters["degraded"].parameter_choice.clone();
    assert_eq!(
        degraded,
        Some(pb::infer_parameter::ParameterChoice::StringParam("no_model,input_order".to_owned()))
    );
    assert_eq!(reply.outputs[1].shape, [2, 0], "nothing has probabilities");
    house.load(1);
    let reply = client.model_infer(message()).await.unwrap().into_inner();
    let sizes: Vec<_> = reply.raw_output_contents.iter().map(Vec::len).collect();
    assert_eq!((sizes, &reply.outputs[1].shape), (vec![2 * 4, 2 * 2 * 4, 2 * 4], &vec![2, 2]));
    assert!(reply.outputs.iter().all(|output| output.contents.is_none()));
}

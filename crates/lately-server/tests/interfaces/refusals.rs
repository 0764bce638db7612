//! What HTTP refuses, gRPC and the packed form refuse with the same code.

use lately_features::{ItemId, UserId};
use lately_server::Limits;
use lately_server::packed::{MEDIA_TYPE, Request};
use serde_json::{Value, json};
use tonic::Code;

use crate::client::pb::lately as pb;
use crate::client::{EventsClient, InferenceClient, RankingClient, channel, connect, refused};
use crate::support::{House, error, house};

fn ids(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("i{i}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bad_ranking_has_one_code_everywhere() {
    let house = house(Limits::default());
    let mut ranking = RankingClient::new(channel(&house).await);
    let good = || pb::RankRequest { user: "u".to_owned(), candidates: ids(2), ..Default::default() };
    let cases = [
        (pb::RankRequest { candidates: ids(0), ..good() }, "no_candidates"),
        (pb::RankRequest { candidates: ids(2_001), ..good() }, "too_many_candidates"),
        (pb::RankRequest { surface: Some("x".to_owned()), ..good() }, "unknown_surface"),
        (pb::RankRequest { deadline_ms: Some(0), ..good() }, "bad_deadline"),
        (pb::RankRequest { user: String::new(), ..good() }, "bad_request"),
        (pb::RankRequest { candidates: vec!["x".repeat(129)], ..good() }, "bad_request"),
        (pb::RankRequest { request: Some("a\nb".to_owned()), ..good() }, "bad_request"),
    ];
    for (message, code) in cases {
        let body = json!({"user": message.user, "candidates": message.candidates, "surface": message.surface,
            "deadline_ms": message.deadline_ms, "request": message.request});
        assert_eq!(error(house.post("/v1/rank", &body)), (422, code.to_owned()));
        assert_eq!(refused(ranking.rank(message).await), (Code::InvalidArgument, code.into(), false));
    }
    let rule = pb::RankRequest { drop: vec![7], ..good() };
    assert_eq!(refused(ranking.rank(rule).await), (Code::InvalidArgument, "bad_request".into(), false));
    let feed = pb::FeedRequest { user: "u".to_owned(), limit: Some(2_001), ..Default::default() };
    assert_eq!(
        refused(ranking.feed(feed).await),
        (Code::InvalidArgument, "too_many_candidates".into(), false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_and_batches_have_the_same_limits() {
    let house = house(Limits::default());
    let channel = channel(&house).await;
    let (mut ranking, mut events) = (RankingClient::new(channel.clone()), EventsClient::new(channel));
    let large = pb::RankRequest { user: "x".repeat(1 << 20), ..Default::default() };
    assert_eq!(refused(ranking.rank(large).await), (Code::ResourceExhausted, "body_too_large".into(), false));
    let item = |id: String| pb::Item { item: id, ..Default::default() };
    let batch = pb::PutItemsRequest { items: vec![item("x".repeat(2 << 20))] };
    assert_eq!(
        events.put_items(batch).await.unwrap().into_inner().rejected[0].code,
        "bad_event",
        "batches may be larger"
    );
    let batch = pb::PutItemsRequest { items: vec![item("x".repeat(4 << 20))] };
    assert_eq!(
        refused(events.put_items(batch).await),
        (Code::ResourceExhausted, "body_too_large".into(), false)
    );
    for size in [0, 1_001] {
        let batch = pb::PutItemsRequest { items: ids(size).into_iter().map(item).collect() };
        assert_eq!(
            refused(events.put_items(batch).await),
            (Code::InvalidArgument, "batch_size".into(), false)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn overload_is_unavailable_and_says_when_to_come_again() {
    let house = house(Limits {
        rankings_min: 1,
        rankings_max: 1,
        wait_ms: 20,
        user_rankings: 0,
        ..Limits::default()
    });
    house.furnish();
    let mut answers = tokio::task::JoinSet::new();
    let channel = channel(&house).await;
    for _ in 0..64 {
        let mut ranking = RankingClient::new(channel.clone());
        let message = pb::RankRequest { user: "u".to_owned(), candidates: ids(2_000), ..Default::default() };
        answers.spawn(async move { ranking.rank(message).await });
    }
    let (mut served, mut shed) = (0, 0);
    while let Some(answer) = answers.join_next().await {
        match answer.unwrap() {
            Ok(_) => served += 1,
            refusal => {
                assert_eq!(refused(refusal), (Code::Unavailable, "overloaded".into(), true));
                shed += 1;
            }
        }
    }
    assert!(served > 0 && shed > 0, "{served} served, {shed} shed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_call_is_refused_before_it_reaches_a_service() {
    let house = house(Limits::default());
    let path = "/lately.v1.Events/DeleteUser";
    // As a form of another site could send it.
    let form = house.agent.post(format!("http://{}{path}", house.data)).header("content-type", "text/plain");
    assert_eq!(form.send(&[0u8, 0, 0, 0, 0][..]).unwrap().status().as_u16(), 415);
    let old =
        house.agent.post(format!("http://{}{path}", house.data)).header("content-type", "application/grpc");
    assert_eq!(old.send(&[0u8, 0, 0, 0, 0][..]).unwrap().status().as_u16(), 505);
    let (mut send, _connection) = connect(&house).await;
    let mut raw = async |path: &str, body: &'static [u8]| {
        let request =
            hyper::Request::post(format!("http://lately{path}")).header("content-type", "application/grpc");
        let answer = send.send_request(request.body(body.into()).unwrap()).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        (answer.status().as_u16(), header("grpc-status"), header("lately-code"))
    };
    let damaged = raw(path, &[0, 0, 0, 0, 2, 0x0a, 0x7f]).await;
    assert_eq!(damaged, (200, "3".into(), "bad_message".into()));
    assert_eq!(raw("/lately.v1.Events/Rank", &[0; 5]).await, (200, "12".into(), "no_such_path".into()));
    assert_eq!(raw("/lately.v9.Events/Rank", &[0; 5]).await.0, 404, "which clients read as unimplemented");
}

fn packed(house: &House, body: &[u8]) -> (u16, String) {
    let (status, kind, body) = house.bytes(&[("content-type", MEDIA_TYPE), ("accept", MEDIA_TYPE)], body);
    assert_eq!(kind, "application/json", "errors are JSON");
    let body: Value = serde_json::from_slice(&body).unwrap();
    error((status, body))
}

#[test]
fn a_bad_packed_request_has_its_code() {
    let house = house(Limits::default());
    let ask = |n: usize| {
        Request::new(UserId::new("u").unwrap(), ids(n).iter().map(|id| ItemId::new(id).unwrap()).collect())
    };
    let good = ask(2).encode().unwrap();
    assert_eq!(packed(&house, b"{}"), (400, "bad_packed".into()));
    assert_eq!(packed(&house, &good[..good.len() - 1]), (400, "bad_packed".into()));
    assert_eq!(packed(&house, &ask(0).encode().unwrap()), (422, "no_candidates".into()));
    assert_eq!(packed(&house, &ask(2_001).encode().unwrap()), (422, "too_many_candidates".into()));
    let mut control = good.clone();
    *control.last_mut().unwrap() = b'\n';
    assert_eq!(packed(&house, &control), (422, "bad_request".into()));
    let surface = Request { surface: Some("x".to_owned()), ..ask(2) };
    assert_eq!(packed(&house, &surface.encode().unwrap()), (422, "unknown_surface".into()));
    let deadline = Request { deadline_ms: u32::MAX, ..ask(2) };
    assert_eq!(packed(&house, &deadline.encode().unwrap()), (422, "bad_deadline".into()));
    assert_eq!(packed(&house, &vec![b'x'; (1 << 20) + 1]), (413, "body_too_large".into()));
    let zipped = [("content-type", MEDIA_TYPE), ("content-encoding", "gzip")];
    assert_eq!(house.bytes(&zipped, &good).0, 415);
}

/// The status of a body that is sent without a type.
fn untyped(house: &House, path: &str, header: &str, body: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(house.data).unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{header}content-length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    String::from_utf8_lossy(&status).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bad_inference_has_its_code_in_both_forms() {
    use crate::client::pb::inference as oip;
    let house = house(Limits::default());
    house.load(1);
    let body = |name: &str, datatype: &str, shape: Value| {
        json!({"inputs": [
            {"name": "user", "shape": [1], "datatype": "BYTES", "data": ["u"]},
            {"name": name, "shape": shape, "datatype": datatype, "data": ["a", "b"]}]})
    };
    let rest = |path: &str, body: &Value| {
        let (status, reply) = house.post(path, body);
        assert!(reply["error"].is_string(), "the protocol's form: {reply}");
        (status, reply["code"].as_str().unwrap().to_owned())
    };
    let infer = "/v2/models/lately/infer";
    let bad = (422, "bad_request".to_owned());
    assert_eq!(house.post(infer, &body("candidates", "BYTES", json!([2]))).0, 200);
    assert_eq!(rest(infer, &body("items", "BYTES", json!([2]))), bad);
    assert_eq!(rest(infer, &body("candidates", "FP32", json!([2]))), bad);
    assert_eq!(rest(infer, &body("candidates", "BYTES", json!([1, 2]))), bad);
    assert_eq!(rest(infer, &body("candidates", "BYTES", json!([3]))), bad);
    let with = |key: &str, value: Value| {
        let mut body = body("candidates", "BYTES", json!([2]));
        body[key] = value;
        rest(infer, &body)
    };
    assert_eq!(with("outputs", json!([{"name": "rank"}])), bad);
    assert_eq!(with("parameters", json!({"speed": 1})), bad);
    assert_eq!(with("parameters", json!({"deadline_ms": 0})), (422, "bad_deadline".into()));
    assert_eq!(with("colour", json!(1)), bad);
    let good = body("candidates", "BYTES", json!([2])).to_string();
    assert_eq!(untyped(&house, infer, "", &good), "HTTP/1.1 200", "clients of Triton send no type");
    assert_eq!(
        untyped(&house, infer, "origin: http://other\r\n", &good),
        "HTTP/1.1 415",
        "nor do pages of others"
    );
    let binary = "inference-header-content-length: 9\r\n";
    assert_eq!(untyped(&house, infer, binary, &good), "HTTP/1.1 415", "JSON with tensors behind it");
    assert_eq!(
        rest("/v2/models/other/infer", &body("candidates", "BYTES", json!([2]))),
        (404, "unknown_model".into())
    );
    assert_eq!(
        rest("/v2/models/lately/versions/m2/infer", &body("candidates", "BYTES", json!([2]))),
        (404, "unknown_version".into())
    );

    let mut client = InferenceClient::new(channel(&house).await);
    let tensor = |name: &str, texts: &[&str]| oip::model_infer_request::InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![texts.len() as i64],
        contents: Some(oip::InferTensorContents {
            bytes_contents: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let good = || oip::ModelInferRequest {
        model_name: "lately".to_owned(),
        inputs: vec![tensor("user", &["u"]), tensor("candidates", &["a", "b"])],
        ..Default::default()
    };
    assert_eq!(client.model_infer(good()).await.unwrap().into_inner().model_version, "m1");
    let bad = (Code::InvalidArgument, "bad_request".to_owned(), false);
    let cases = [
        oip::ModelInferRequest { inputs: vec![tensor("user", &["u"])], ..good() },
        oip::ModelInferRequest {
            inputs: vec![tensor("user", &["u", "v"]), tensor("candidates", &["a"])],
            ..good()
        },
        oip::ModelInferRequest { raw_input_contents: vec![Vec::new()], ..good() },
        oip::ModelInferRequest { raw_input_contents: vec![vec![1], vec![]], ..good() },
    ];
    for case in cases {
        assert_eq!(refused(client.model_infer(case).await), bad);
    }
    let other = oip::ModelInferRequest { model_name: "other".to_owned(), ..good() };
    assert_eq!(refused(client.model_infer(other).await), (Code::NotFound, "unknown_model".into(), false));
    let version = oip::ModelReadyRequest { name: "lately".to_owned(), version: "m2".to_owned() };
    assert_eq!(refused(client.model_ready(version).await), (Code::NotFound, "unknown_version".into(), false));
}

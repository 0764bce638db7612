//! The graceful end: not ready at once, served on for a while, what is in work answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::{Body, Bytes};
use lately_server::Limits;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::pb::health::HealthCheckRequest;
use crate::client::pb::health::health_check_response::ServingStatus;
use crate::client::{HealthClient, channel, connect, json_of, post};
use crate::support::{House, error, house};

const BEGIN: &str = r#"{"user": "u", "candidates": ["i1", "#;
const REST: &str = r#""i2"]}"#;

fn stop(house: &mut House) {
    drop(house.stop.take());
}

async fn ended(house: &mut House) {
    let thread = house.thread.take().unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap().unwrap()).await.unwrap();
}

/// Waits until new connections are refused.
async fn closed(house: &House) {
    while tokio::net::TcpStream::connect(house.data).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_in_work_over_http2_is_answered_before_the_end() {
    let mut house = house(Limits::default());
    house.furnish();
    let logged = house.store.next_offset();
    let (mut send, connection) = connect(&house).await;
    let (body, receive) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(2);
    body.send(Ok(BEGIN.into())).await.unwrap();
    let answer =
        tokio::spawn(send.send_request(post("/v1/rank", Body::from_stream(ReceiverStream::new(receive)))));
    // Another one behind it has been answered, so the first has arrived.
    assert_eq!(send.send_request(post("/v1/rank", "{")).await.unwrap().status(), 400);
    stop(&mut house);
    closed(&house).await;
    assert!(!answer.is_finished());
    body.send(Ok(REST.into())).await.unwrap();
    drop(body);
    let reply = json_of(answer.await.unwrap().unwrap()).await;
    assert_eq!(reply["items"].as_array().unwrap().len(), 2);
    connection.await.unwrap().unwrap();
    assert!(send.send_request(post("/v1/rank", "{")).await.is_err(), "it was told to go away");
    ended(&mut house).await;
    assert_eq!(house.store.next_offset(), logged + 1, "its impression is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_in_work_over_http1_is_answered_before_the_end() {
    let mut house = house(Limits::default());
    house.furnish();
    let mut stream = TcpStream::connect(house.data).unwrap();
    let head = format!(
        "POST /v1/rank HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        BEGIN.len() + REST.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n", "its handler waits for the body");
    let mut idle = TcpStream::connect(house.data).unwrap();
    stop(&mut house);
    closed(&house).await;
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "one without a request is closed");
    stream.write_all(BEGIN.as_bytes()).unwrap();
    stream.write_all(REST.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    ended(&mut house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_does_not_end_is_left_when_the_time_is_over() {
    let mut house = house(Limits { drain_ms: 200, ..Limits::default() });
    let (mut send, _connection) = connect(&house).await;
    let (_body, receive) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(2);
    let answer =
        tokio::spawn(send.send_request(post("/v1/rank", Body::from_stream(ReceiverStream::new(receive)))));
    send.send_request(post("/v1/rank", "{")).await.unwrap();
    stop(&mut house);
    ended(&mut house).await;
    assert!(answer.await.unwrap().is_err(), "nobody answers it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn during_the_delay_it_serves_and_says_that_it_stops() {
    let mut house = house(Limits { drain_delay_ms: 2_000, ..Limits::default() });
    house.furnish();
    let mut health = HealthClient::new(channel(&house).await);
    let whole = HealthCheckRequest::default();
    let mut watched = health.watch(whole.clone()).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    stop(&mut house);
    while house.get("/readyz").0 == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(error(house.get("/readyz")), (503, "stopping".into()));
    assert_eq!(house.get("/healthz").0, 200);
    assert_eq!(house.get("/v2/health/ready"), (503, json!({"ready": false})));
    assert_eq!(health.check(whole).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(
        house.post("/v1/rank", &json!({"user": "u", "candidates": ["i1"]})).0,
        200,
        "new connections too"
    );
    assert!(watched.next().await.is_none(), "the stream of a watcher does not hold up the end");
    ended(&mut house).await;
}

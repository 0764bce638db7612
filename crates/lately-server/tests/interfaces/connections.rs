//! HTTP/2 on the data port, and the limits of connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::{Body, Bytes};
use lately_server::Limits;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{connect, json_of, post};
use crate::support::house;

/// A body that ends when the sender says so.
fn held(begin: &'static str) -> (mpsc::Sender<Result<Bytes, std::convert::Infallible>>, Body) {
    let (send, receive) = mpsc::channel(2);
    send.try_send(Ok(Bytes::from_static(begin.as_bytes()))).unwrap();
    (send, Body::from_stream(ReceiverStream::new(receive)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_share_a_connection_and_do_not_wait_for_each_other() {
    let house = house(Limits::default());
    house.furnish();
    let (mut send, _connection) = connect(&house).await;
    let (rest, body) = held(r#"{"user": "u", "candidates": ["i1""#);
    let slow = tokio::spawn(send.send_request(post("/v1/rank", body)));
    let ask = json!({"user": "u", "candidates": ["i1", "i2"]}).to_string();
    let quick: Vec<_> =
        (0..40).map(|_| tokio::spawn(send.send_request(post("/v1/rank", ask.clone())))).collect();
    for answer in quick {
        let reply = json_of(answer.await.unwrap().unwrap()).await;
        assert_eq!(reply["items"].as_array().unwrap().len(), 2);
    }
    assert!(!slow.is_finished());
    rest.send(Ok(Bytes::from_static(b"]}"))).await.unwrap();
    drop(rest);
    let reply = json_of(slow.await.unwrap().unwrap()).await;
    assert_eq!(reply["items"][0]["item"], "i1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn streams_beyond_the_limit_wait_for_a_place() {
    let house = house(Limits { streams: 2, ..Limits::default() });
    let (mut send, _connection) = connect(&house).await;
    // The server's settings come with its first answer.
    send.send_request(post("/healthz", "")).await.unwrap();
    let begun: Vec<_> = (0..2)
        .map(|_| {
            let (rest, body) = held("{");
            (rest, tokio::spawn(send.send_request(post("/v1/rank", body))))
        })
        .collect();
    let mut third = tokio::spawn(send.send_request(post("/v1/rank", "{")));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut third).await.is_err(), "no place");
    for (rest, answer) in begun {
        drop(rest);
        assert_eq!(answer.await.unwrap().unwrap().status(), 400);
    }
    assert_eq!(third.await.unwrap().unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let house = house(Limits { idle_ms: 300, header_read_ms: 60_000, ..Limits::default() });
    let (mut send, connection) = connect(&house).await;
    let (rest, body) = held("{");
    let slow = tokio::spawn(send.send_request(post("/v1/rank", body)));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!connection.is_finished(), "a request is in work");
    drop(rest);
    assert_eq!(slow.await.unwrap().unwrap().status(), 400);
    connection.await.unwrap().unwrap();
}

#[test]
fn a_kept_connection_serves_again_until_it_is_idle_for_too_long() {
    let house = house(Limits { idle_ms: 1_000, header_read_ms: 200, ..Limits::default() });
    let mut stream = TcpStream::connect(house.data).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answers = 0;
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap();
        answers += usize::from(answer[..read].starts_with(b"HTTP/1.1 200"));
        // Longer than headers may take: that time begins with their first byte.
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(answers, 3);
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "closed by the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn too_many_bytes_of_headers_are_refused() {
    let house = house(Limits::default());
    let (mut send, _connection) = connect(&house).await;
    let mut large = post("/v1/rank", "{}");
    large.headers_mut().insert("x-large", "x".repeat(70 << 10).parse().unwrap());
    let refused = send.send_request(large).await.map(|answer| answer.status().as_u16());
    assert!(!matches!(refused, Ok(200..=299 | 422)), "{refused:?}");
    let mut old = TcpStream::connect(house.data).unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(256 << 10));
    // The server may close before it has read all, which is a reset on this side.
    let mut answer = String::new();
    let got = old.write_all(head.as_bytes()).and_then(|()| old.read_to_string(&mut answer));
    assert!(got.is_err() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

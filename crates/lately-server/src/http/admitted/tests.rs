//! Over real connections, with the places in the test's own hands.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use lately_features::Schema;
use lately_rank::{ModelSlot, RankConfig, Ranker};
use lately_store::{Store, StoreLimits};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::limits::Limits;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    actions = [{ name = "click", polarity = "positive" }]
    heads = [{ name = "click", actions = ["click"] }]
    item_features = [{ kind = "embedding", name = "vector", dim = 2 }]
"#;

struct House {
    app: Arc<App>,
    runtime: Runtime,
    address: SocketAddr,
    _dir: TempDir,
}

/// A server with one place, which ranks by popularity.
fn house(limits: &Limits) -> House {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::from_toml(SCHEMA).unwrap());
    let store = Arc::new(Store::open(dir.path(), schema.clone(), StoreLimits::default()).unwrap());
    let slot = Arc::new(ModelSlot::new(schema.clone()));
    let config = RankConfig { deadline_ms: 5_000, ..RankConfig::default() };
    let ranker = Arc::new(Ranker::new(store.clone(), slot, schema.clone(), config).unwrap());
    let limits = Limits { rankings_min: 1, rankings_max: 1, wait_ms: 10, ..limits.clone() };
    let app = Arc::new(App::new(store, ranker, schema, limits));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (served, router) = (app.clone(), crate::router(app.clone()));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        crate::serve(served, router, listener, None, std::future::pending()).await.unwrap();
    });
    House { app, runtime, address, _dir: dir }
}

impl House {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn hold(&self) -> Permit {
        for _ in 0..200 {
            if let Ok(permit) = self.runtime.block_on(self.app.admit(Priority::Interactive)) {
                return permit;
            }
        }
        panic!("the place does not become free");
    }
}

fn head(length: usize, more: &str) -> String {
    format!(
        "POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

/// Status, headers and body of the next answer on a connection.
fn answer(stream: &mut TcpStream) -> (u16, String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), head, String::from_utf8(body).unwrap())
}

fn overloaded((status, head, body): (u16, String, String)) {
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("overloaded"), "{body}");
    let seconds = head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!((1..=3).contains(&seconds.parse::<u32>().unwrap()), "{head}");
}

fn body(candidates: usize, more: &str) -> String {
    let ids: Vec<_> = (0..candidates).map(|i| format!("\"item-{i}\"")).collect();
    format!("{{\"user\":\"u\",\"candidates\":[{}]{more}}}", ids.join(","))
}

#[test]
fn a_full_server_refuses_without_reading_the_body_or_caring_what_it_is() {
    let house = house(&Limits::default());
    let held = house.hold();
    // The body does not come, and would be neither JSON nor small enough.
    let mut stream = house.connect();
    stream.write_all(head(100 << 20, "").as_bytes()).unwrap();
    overloaded(answer(&mut stream));
    let mut stream = house.connect();
    stream.write_all(format!("{}no", head(2_000, "")).as_bytes()).unwrap();
    overloaded(answer(&mut stream));
    let mut stream = house.connect();
    stream.write_all(format!("{}no JSON", head(7, "")).as_bytes()).unwrap();
    overloaded(answer(&mut stream));
    drop(held);
    stream.write_all(format!("{}no JSON", head(7, "")).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).0, 400, "now it is read");
}

#[test]
fn a_refused_connection_stays_open_where_its_body_is_there() {
    let house = house(&Limits::default());
    let held = house.hold();
    let mut stream = house.connect();
    for candidates in [1, 256, 2_000] {
        let body = body(candidates, "");
        for _ in 0..3 {
            stream.write_all(format!("{}{body}", head(body.len(), "")).as_bytes()).unwrap();
            let (status, head, text) = answer(&mut stream);
            assert!(!head.contains("connection: close"), "{candidates} candidates: {head}");
            overloaded((status, head, text));
        }
    }
    drop(held);
    let body = body(256, "");
    stream.write_all(format!("{}{body}", head(body.len(), "")).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).0, 200, "the next on the same connection is ranked");
}

#[test]
fn a_slow_body_holds_no_place() {
    let house = house(&Limits::default());
    let mut slow = house.connect();
    let text = body(3, "");
    slow.write_all(format!("{}{}", head(text.len(), ""), &text[..5]).as_bytes()).unwrap();
    std::thread::sleep(ON_ITS_WAY + Duration::from_millis(20));
    let held = house.hold();
    drop(held);
    slow.write_all(&text.as_bytes()[5..]).unwrap();
    assert_eq!(answer(&mut slow).0, 200, "it asks again for a place once it is there");
}

#[test]
fn priorities_are_named_in_the_head_or_in_the_body() {
    let house = house(&Limits::default());
    let mut stream = house.connect();
    let mut send = |more: &str, fields: &str| {
        let text = body(3, fields);
        stream.write_all(format!("{}{text}", head(text.len(), more)).as_bytes()).unwrap();
        answer(&mut stream)
    };
    assert_eq!(send("lately-priority: background\r\n", "").0, 200);
    assert_eq!(send("lately-priority: interactive\r\n", ",\"priority\":\"background\"").0, 200);
    assert_eq!(send("", ",\"priority\":\"interactive\"").0, 200);
    let bad = send("lately-priority: urgent\r\n", "");
    assert!(bad.0 == 422 && bad.2.contains("bad_priority"), "{bad:?}");
    let bad = send("", ",\"priority\":\"urgent\"");
    assert!(bad.0 == 422 && bad.2.contains("bad_request"), "{bad:?}");
    let held = house.hold();
    let begin = Instant::now();
    overloaded(send("lately-priority: background\r\n", ""));
    assert!(begin.elapsed() < Duration::from_secs(1));
    drop(held);
}

#[test]
fn a_user_who_asks_too_much_is_told_so_and_others_are_not() {
    let house = house(&Limits { user_rankings: 1, user_actions: 1, ..Limits::default() });
    let mut stream = house.connect();
    let mut send = |path: &str, text: &str| {
        let head = head(text.len(), "").replace("/v1/rank", path);
        stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
        answer(&mut stream)
    };
    let ask = |user: &str| body(1, "").replace("\"u\"", &format!("\"{user}\""));
    for _ in 0..10 {
        assert_eq!(send("/v1/rank", &ask("u")).0, 200);
    }
    let (status, head, text) = send("/v1/rank", &ask("u"));
    assert!(
        status == 429 && text.contains("too_many_requests") && head.contains("retry-after: 1\r"),
        "{head}{text}"
    );
    assert_eq!(send("/v1/rank", &ask("v")).0, 200);

    let action = |i: usize, user: &str| {
        format!(
            "{{\"type\":\"action\",\"event_id\":\"e{i}\",\"user\":\"{user}\",\"item\":\"a\",\"action\":\"click\"}}"
        )
    };
    let batch = |events: Vec<String>| format!("{{\"events\":[{}]}}", events.join(","));
    let (status, _, text) = send("/v1/events", &batch((0..12).map(|i| action(i, "u")).collect()));
    assert!(status == 200 && text.contains("\"accepted\":10"), "a part is taken: {text}");
    assert_eq!(text.matches("too_many_requests").count(), 2, "{text}");
    let (status, head, text) = send("/v1/events", &batch(vec![action(20, "u")]));
    assert!(
        status == 429 && text.contains("\"accepted\":0") && head.contains("retry-after: 1\r"),
        "{head}{text}"
    );
    assert_eq!(send("/v1/events", &batch(vec![action(21, "u"), action(22, "v")])).0, 200);
}

//! A server on port 0 with a schema, a store and models of its own; for the tests of all interfaces.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its part")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use lately_features::Schema;
use lately_model::{Manifest, Model, ModelConfig};
use lately_rank::{LoadedModel, ModelSlot, RankConfig, Ranker};
use lately_server::{App, Limits, ServeError, install_metrics, router, serve};
use lately_store::{Store, StoreLimits};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home"]
    topic_feature = "topic"
    actions = [
        { name = "click", polarity = "positive" },
        { name = "save", polarity = "positive", priority = 1 },
        { name = "hide", polarity = "negative", priority = 2 },
    ]
    heads = [{ name = "click", actions = ["click"] }, { name = "save", actions = ["save"] }]
    sequence = { length = 8, stored = 16 }
    user_features = [
        { kind = "categorical", name = "country", buckets = 16 },
        { kind = "numeric", name = "age" },
    ]
    item_features = [
        { kind = "embedding", name = "vector", dim = 2 },
        { kind = "categorical", name = "topic", buckets = 32 },
    ]
"#;

/// A running server; dropping it stops and waits for it.
pub struct House {
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub slot: Arc<ModelSlot>,
    pub challenger: Arc<ModelSlot>,
    pub store: Arc<Store>,
    pub agent: ureq::Agent,
    pub stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub thread: Option<std::thread::JoinHandle<Result<(), ServeError>>>,
    _dir: TempDir,
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub fn model(schema: &Schema, seed: u64) -> LoadedModel {
    let model = Model::new(ModelConfig { hidden: vec![16], ..ModelConfig::default() }, schema, seed).unwrap();
    let manifest = Manifest::new(&model, schema, seed);
    LoadedModel::new(model, manifest, format!("m{seed}"))
}

pub fn house(limits: Limits) -> House {
    // Tests of doors do not measure speed.
    let config =
        RankConfig { deadline_ms: 5_000, exercise_share: 0.0, shadow_share: 1.0, ..RankConfig::default() };
    house_with(limits, config)
}

pub fn house_with(limits: Limits, config: RankConfig) -> House {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::from_toml(SCHEMA).unwrap());
    let store = Arc::new(Store::open(dir.path(), schema.clone(), StoreLimits::default()).unwrap());
    let slot = Arc::new(ModelSlot::new(schema.clone()));
    let ranker = Ranker::new(store.clone(), slot.clone(), schema.clone(), config).unwrap();
    let challenger = Arc::new(ModelSlot::new(schema.clone()).for_alias("challenger"));
    let ranker = Arc::new(ranker.with_challenger(challenger.clone()).unwrap());
    let (its, seed) = (slot.clone(), AtomicU64::new(0));
    let reload = Arc::new(move || {
        let seed = seed.fetch_add(1, Ordering::SeqCst) + 1;
        let schema = Schema::from_toml(SCHEMA).unwrap();
        if seed > 2 {
            return Err("no champion".to_owned());
        }
        its.swap(model(&schema, seed)).map(drop).map_err(|e| e.to_string())
    });
    let app = App::new(store.clone(), ranker, schema, limits)
        .with_metrics(install_metrics().unwrap())
        .with_reload(reload);
    let app = Arc::new(app);
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (data_listener, admin_listener) = (bind(), bind());
    let (data, admin) = (data_listener.local_addr().unwrap(), admin_listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listen = |listener: TcpListener| {
                listener.set_nonblocking(true).unwrap();
                tokio::net::TcpListener::from_std(listener).unwrap()
            };
            let (data, admin) = (listen(data_listener), listen(admin_listener));
            let until = async { drop(stopped.await) };
            serve(app.clone(), router(app), data, Some(admin), until).await
        })
    });
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    House { data, admin, slot, challenger, store, agent, stop: Some(stop), thread: Some(thread), _dir: dir }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl House {
    pub fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.data))
            .header("content-type", "application/json")
            .body(body.to_owned())
            .unwrap();
        let mut response = self.agent.run(request).unwrap();
        let retry = response.headers().contains_key("retry-after");
        let status = response.status().as_u16();
        assert_eq!(retry, matches!(status, 429 | 503), "Retry-After comes with 429 and 503: {status}");
        let text = response.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, &body.to_string())
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "")
    }

    pub fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, reply) = self.send(method, path, &body.to_string());
        assert_eq!(status, 200, "{method} {path}: {reply}");
        reply
    }

    pub fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let uri = format!("http://{}{path}", self.admin);
        let request = ureq::http::Request::builder().method(method).uri(uri).body(String::new()).unwrap();
        let mut response = self.agent.run(request).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    pub fn stock(&self, items: usize) {
        let item = |i: usize| {
            let angle = i as f32 * 0.3;
            let features = json!({"vector": [angle.cos(), angle.sin()], "topic": format!("t{}", i % 3)});
            json!({"item": format!("i{i}"), "features": features})
        };
        let reply = self.ok("PUT", "/v1/items", &json!({"items": (0..items).map(item).collect::<Vec<_>>()}));
        assert_eq!(reply["accepted"], items);
    }

    /// Waits until the log holds so many records: impressions are logged after the answer.
    pub fn until_logged(&self, records: u64) {
        let begin = std::time::Instant::now();
        while self.store.next_offset() < records {
            let logged = self.store.next_offset();
            assert!(begin.elapsed().as_secs() < 10, "{logged} records are logged, not {records}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    pub fn load(&self, seed: u64) {
        self.slot.swap(model(&Schema::from_toml(SCHEMA).unwrap(), seed)).unwrap();
    }
}

pub fn error((status, body): (u16, Value)) -> (u16, String) {
    let code = body["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {body}"));
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    (status, code.to_owned())
}

pub fn save(id: &str, user: &str, item: &str) -> Value {
    json!({"type": "action", "event_id": id, "user": user, "item": item, "action": "save"})
}

//! The demo's page, and the two routes that only it needs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use lately_features::UserId;
use lately_store::Store;
use serde_json::{Value, json};

/// Span over which events a second are counted.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// What the page's routes share.
#[derive(Clone)]
pub struct Page(Arc<Inner>);

struct Inner {
    users: Vec<UserId>,
    store: OnceLock<Arc<Store>>,
    /// Log ends of the last seconds, oldest first.
    ends: Mutex<VecDeque<(Instant, u64)>>,
}

impl Page {
    /// For the people of a world.
    pub fn new(users: Vec<UserId>) -> Self {
        Self(Arc::new(Inner { users, store: OnceLock::new(), ends: Mutex::default() }))
    }

    /// The routes; they join the data port.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/", get(async || Html(include_str!("../demo_page/index.html"))))
            .route("/demo/users", get(users))
            .route("/demo/status", get(status))
            .with_state(self.clone())
    }

    /// Tells the page whose log it reports on.
    pub fn attach(&self, store: &Arc<Store>) {
        self.0.store.get_or_init(|| Arc::clone(store));
    }

    fn events_per_second(&self) -> f64 {
        let (Some(store), Ok(mut ends)) = (self.0.store.get(), self.0.ends.lock()) else { return 0.0 };
        let now = (Instant::now(), store.next_offset());
        ends.push_back(now);
        while ends.len() > 2 && ends.front().is_some_and(|(at, _)| now.0.duration_since(*at) > RATE_SPAN) {
            ends.pop_front();
        }
        let Some((at, end)) = ends.front() else { return 0.0 };
        (now.1 - end) as f64 / now.0.duration_since(*at).as_secs_f64().max(1e-3)
    }
}

async fn users(State(page): State<Page>) -> Json<Value> {
    Json(json!({ "users": page.0.users }))
}

async fn status(State(page): State<Page>) -> Json<Value> {
    let records = page.0.store.get().map_or(0, |s| s.next_offset());
    Json(json!({ "events_per_second": page.events_per_second(), "log_records": records }))
}

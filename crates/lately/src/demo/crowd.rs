//! The world's people use the service as clients would: over HTTP, and nothing else.
//!
//! A person opens the app, gets a page, reacts, and asks for the next one. Most pages come from `GET /v1/feed`; on
//! some visits the page is random and the client itself reports the impression (surface `explore`). Such pages are
//! what different orders can be compared on fairly, and they keep the log from holding only what the model likes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use lately_features::{ItemId, UserId};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire_up::now_ms;
use crate::world::{Outcome, Session, World};

/// Items of a page.
pub const PAGE: usize = 12;
/// Surface of pages in random order.
pub const EXPLORE: &str = "explore";
/// Share of the visits whose pages are random.
const EXPLORE_SHARE: f64 = 0.3;
/// Largest latency that is told apart, in microseconds: one minute.
const MAX_US: u64 = 60_000_000;

/// What the crowd has seen so far.
#[derive(Debug)]
pub struct Tally {
    /// Events that were acknowledged.
    pub events: AtomicU64,
    /// Pages that were ranked.
    pub pages: AtomicU64,
    /// Requests that failed; with the first few reasons in `first_errors`.
    pub errors: AtomicU64,
    /// From sending an action to holding a ranking that knew it, microseconds.
    pub freshness_us: Mutex<Histogram<u64>>,
    /// A page, over HTTP, microseconds.
    pub rank_us: Mutex<Histogram<u64>>,
    /// The first reasons of failure.
    pub first_errors: Mutex<Vec<String>>,
}

impl Tally {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, MAX_US, 3).map(Mutex::new);
        Ok(Self {
            events: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            freshness_us: histogram()?,
            rank_us: histogram()?,
            first_errors: Mutex::new(Vec::new()),
        })
    }

    /// What was seen since the last call, or the start.
    ///
    /// # Errors
    /// Where a thread of the crowd panicked.
    pub fn take(&self) -> Result<Seen> {
        let histogram = |of: &Mutex<Histogram<u64>>| {
            let mut of = of.lock().map_err(|_| anyhow!("a thread of the crowd panicked"))?;
            let taken = of.clone();
            of.reset();
            Ok::<_, anyhow::Error>(taken)
        };
        Ok(Seen {
            events: self.events.swap(0, Ordering::Relaxed),
            pages: self.pages.swap(0, Ordering::Relaxed),
            errors: self.errors.swap(0, Ordering::Relaxed),
            rank_us: histogram(&self.rank_us)?,
            freshness_us: histogram(&self.freshness_us)?,
        })
    }

    fn record(histogram: &Mutex<Histogram<u64>>, took: Duration) {
        if let Ok(mut h) = histogram.lock() {
            h.saturating_record((took.as_micros() as u64).clamp(1, MAX_US));
        }
    }
}

/// What was seen in a while.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Events that were acknowledged.
    pub events: u64,
    /// Pages that were ranked.
    pub pages: u64,
    /// Requests that failed.
    pub errors: u64,
    /// A page, over HTTP, microseconds.
    pub rank_us: Histogram<u64>,
    /// From sending an action to holding a ranking that knew it, microseconds.
    pub freshness_us: Histogram<u64>,
}

/// Threads that act until they are stopped.
pub struct Crowd {
    /// What they have seen.
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Lets `threads` people at a time use the service at `base` (`http://host:port`). `pause` is what a person
    /// waits before the next page; it bounds the load.
    pub fn start(world: &Arc<World>, base: &str, threads: usize, pause: Duration, seed: u64) -> Result<Self> {
        let tally = Arc::new(Tally::new()?);
        let stop = Arc::new(AtomicBool::new(false));
        let people = people(world)?;
        let mut handles = Vec::new();
        for thread in 0..threads {
            let mut client = Client {
                world: Arc::clone(world),
                people: people.clone(),
                base: base.to_owned(),
                agent: agent(),
                tally: Arc::clone(&tally),
                stop: Arc::clone(&stop),
                pause,
                random: ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(thread as u64)),
            };
            let name = format!("crowd-{thread}");
            handles.push(std::thread::Builder::new().name(name).spawn(move || client.live())?);
        }
        Ok(Self { tally, stop, threads: handles })
    }

    /// Stops and waits for the last requests.
    pub fn stop(mut self) -> Arc<Tally> {
        self.halt();
        Arc::clone(&self.tally)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.tally.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Each person as often as their visits a day, so that core users come more often.
fn people(world: &World) -> Result<Vec<UserId>> {
    let mut people = Vec::new();
    for user in world.user_ids() {
        let times = world.visits_per_day(&user)?.ceil().max(1.0) as usize;
        people.extend(std::iter::repeat_n(user, times));
    }
    Ok(people)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
    config.http_status_as_error(false).build().into() // the body says what was wrong
}

struct Client {
    world: Arc<World>,
    people: Vec<UserId>,
    base: String,
    agent: ureq::Agent,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    pause: Duration,
    random: ChaCha8Rng,
}

/// What of a ranking the crowd looks at.
#[derive(Debug, Deserialize)]
struct Ranking {
    request: String,
    watermark: u64,
    items: Vec<RankedItem>,
}

#[derive(Debug, Deserialize)]
struct RankedItem {
    item: ItemId,
}

/// What of an acknowledgement the crowd looks at.
#[derive(Debug, Deserialize)]
struct Acknowledged {
    accepted: u64,
    watermark: u64,
}

/// An action that the next ranking must know.
struct Sent {
    at: Instant,
    watermark: u64,
}

impl Client {
    fn live(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let user = self.people[self.random.random_range(0..self.people.len())].clone();
            if let Err(error) = self.visit(&user) {
                self.tally.errors.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut first) = self.tally.first_errors.lock()
                    && first.len() < 5
                {
                    first.push(format!("{error:#}"));
                }
                std::thread::sleep(Duration::from_millis(50)); // a server that is down is not hammered
            }
        }
    }

    fn visit(&mut self, user: &UserId) -> Result<()> {
        let world = Arc::clone(&self.world);
        let mut session = world.visit(user, now_ms())?;
        let explore = self.random.random_bool(EXPLORE_SHARE);
        let mut sent = None;
        loop {
            let (request, items) =
                if explore { self.random_page(user)? } else { self.feed(user, sent.as_ref())? };
            sent = self.react(&mut session, &request, &items)?;
            std::thread::sleep(self.pause);
            if self.stop.load(Ordering::Relaxed) || !session.wants_more() {
                return Ok(());
            }
        }
    }

    fn feed(&mut self, user: &UserId, sent: Option<&Sent>) -> Result<(String, Vec<ItemId>)> {
        loop {
            let start = Instant::now();
            let mut response = self
                .agent
                .get(format!("{}/v1/feed", self.base))
                .query("user", user.as_str())
                .query("limit", PAGE.to_string())
                .query("surface", "home")
                .call()?;
            let (status, body) = (response.status(), response.body_mut().read_to_string()?);
            let ranking: Ranking =
                serde_json::from_str(&body).with_context(|| format!("a page, {status}: {body}"))?;
            Tally::record(&self.tally.rank_us, start.elapsed());
            self.tally.pages.fetch_add(1, Ordering::Relaxed);
            match sent {
                Some(sent) if ranking.watermark < sent.watermark => continue, // it did not know the action yet
                Some(sent) => Tally::record(&self.tally.freshness_us, sent.at.elapsed()),
                None => {}
            }
            return Ok((ranking.request, ranking.items.into_iter().map(|i| i.item).collect()));
        }
    }

    fn random_page(&mut self, user: &UserId) -> Result<(String, Vec<ItemId>)> {
        let all = self.world.item_ids();
        let mut items: Vec<ItemId> = Vec::with_capacity(PAGE);
        while items.len() < PAGE.min(all.len()) {
            let item = &all[self.random.random_range(0..all.len())];
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        let request = format!("x{:016x}", self.random.next_u64());

        self.send(&json!({
            "type": "impression",
            "request": request,
            "user": user,
            "surface": EXPLORE,
            "time_ms": now_ms(),
            "items": items,
        }))?;
        Ok((request, items))
    }

    /// Sends what the person does, `seen` included, and returns the last thing that the next page should know.
    fn react(&mut self, session: &mut Session<'_>, request: &str, items: &[ItemId]) -> Result<Option<Sent>> {
        let user = session.user().clone();
        let outcomes: Vec<Outcome> = session.react(items)?;
        let event = |o: &Outcome| {
            json!({
                "type": "action",
                "event_id": format!("{request}:{}:{}", o.item, o.action),
                "user": user,
                "item": o.item,
                "action": o.action,
                "time_ms": now_ms(),
                "request": request,
            })
        };
        let (seen, done): (Vec<_>, Vec<_>) = outcomes.iter().partition(|o| o.action == "seen");
        if !seen.is_empty() {
            let events: Vec<Value> = seen.into_iter().map(event).collect();
            self.send_all(&events)?;
        }
        let mut sent = None;
        for outcome in done {
            let at = Instant::now();
            let acknowledged = self.send(&event(outcome))?;
            sent = Some(Sent { at, watermark: acknowledged.watermark });
        }
        Ok(sent)
    }

    fn send(&self, event: &Value) -> Result<Acknowledged> {
        self.send_all(std::slice::from_ref(event))
    }

    fn send_all(&self, events: &[Value]) -> Result<Acknowledged> {
        let mut response =
            self.agent.post(format!("{}/v1/events", self.base)).send_json(json!({ "events": events }))?;
        let (status, body) = (response.status(), response.body_mut().read_to_string()?);
        let answer: Acknowledged =
            serde_json::from_str(&body).with_context(|| format!("the acknowledgement, {status}: {body}"))?;
        anyhow::ensure!(answer.accepted == events.len() as u64, "events were refused: {body}");
        self.tally.events.fetch_add(answer.accepted, Ordering::Relaxed);
        Ok(answer)
    }
}

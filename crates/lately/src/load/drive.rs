//! Sends requests: in open loop at the times of a schedule, whatever the answers, or in closed loop, each client one at
//! a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::arrivals::{Arrivals, Segment};
use super::client::{Client, Kind, Reply, judge};
use super::record::{Ended, Outcome, Recorder};
use super::workload::Workload;

/// Most requests in work at a time, each with at most a body and an answer: some 40 kB. It bounds memory and is never
/// to be reached: a request that finds no place is not sent, and makes the run invalid.
const IN_WORK: usize = 4_096;
/// Longest sleep of the schedule, so that a stop is seen.
const NAP: Duration = Duration::from_millis(20);
/// Pause of a client of a closed loop after what was no answer: it is told to come again later.
const PAUSE: Duration = Duration::from_millis(10);

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) runtime: Handle,
    /// An answer after this is late.
    pub(crate) deadline: Duration,
}

/// Looks at a whole answer; says what is wrong with it.
pub(crate) type Check = dyn Fn(&[u8], Option<&(String, u64)>) -> Result<(), String> + Send + Sync;

/// A request before it is sent.
struct Planned {
    kind: Kind,
    body: String,
    check: Option<Arc<Check>>,
}

/// Where requests come from.
#[derive(Clone)]
pub(crate) enum Source {
    Rankings(Arc<Workload>),
    Actions(Arc<Workload>),
    /// Rankings of which every so-many-th is the probe, whose answer is checked.
    Probed {
        workload: Arc<Workload>,
        every: u64,
        check: Arc<Check>,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    fn plan(&self, number: u64, random: &mut ChaCha8Rng) -> Planned {
        match self {
            Self::Actions(workload) => {
                Planned { kind: Kind::Event, body: workload.action(number, random), check: None }
            }
            Self::Probed { workload, every, check } if number.is_multiple_of(*every) => Planned {
                kind: Kind::Ranking(workload.candidates()),
                body: workload.probe(),
                check: Some(Arc::clone(check)),
            },
            Self::Rankings(workload) | Self::Probed { workload, .. } => Planned {
                kind: Kind::Ranking(workload.candidates()),
                body: workload.ranking(random),
                check: None,
            },
        }
    }
}

/// Sends at the times of the segments, each to its recorder, until the schedule or `stop` ends it, and waits for all
/// answers. Returns for how long it sent.
///
/// The caller's thread keeps the time, so that nothing that answers do can hold it up.
pub(crate) fn open(
    target: &Target,
    source: &Source,
    segments: &[(Segment, Arc<Recorder>)],
    stop: &AtomicBool,
    seed: u64,
) -> Duration {
    let plan: Vec<Segment> = segments.iter().map(|(segment, _)| *segment).collect();
    let starts: Vec<Duration> = plan
        .iter()
        .scan(Duration::ZERO, |end, s| Some(std::mem::replace(end, end.saturating_add(s.time))))
        .collect();
    let total = plan.iter().fold(Duration::ZERO, |sum, s| sum.saturating_add(s.time));
    let places = Arc::new(Semaphore::new(IN_WORK));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let arrivals = Arrivals::new(&plan, ChaCha8Rng::seed_from_u64(seed ^ 0x0a44));
    let start = Instant::now();
    let mut stopped = false;
    for (number, (segment, due)) in arrivals.enumerate() {
        // Made before its time, so that making it delays nothing.
        let planned = source.plan(number as u64, &mut random);
        stopped = !sleep_until(start + due, stop);
        if stopped {
            break;
        }
        let recorder = Arc::clone(&segments[segment].1);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            recorder.unsent("more requests were in work than the client keeps");
            continue;
        };
        let (target, at) = (target.clone(), due.saturating_sub(starts[segment]));
        let runtime = target.runtime.clone();
        runtime.spawn(async move {
            let intended = start + due;
            recorder.sent(intended.elapsed());
            send(&target, planned, intended, at, &recorder).await;
            drop(place);
        });
    }
    let over = !stopped && sleep_until(start + total, stop);
    let sent_for = if over { total } else { start.elapsed().min(total) };
    // All places are free again: all requests have ended.
    if target.runtime.block_on(places.acquire_many(IN_WORK as u32)).is_err() {
        tracing::error!("requests may still be in work");
    }
    sent_for
}

/// Sleeps until `due`, not at all where that is past; false where `stop` came first.
pub(crate) fn sleep_until(due: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// `clients` that each wait for an answer before they send again, for a time. Latency counts from sending.
pub(crate) fn closed(
    target: &Target,
    source: &Source,
    clients: usize,
    time: Duration,
    recorder: &Arc<Recorder>,
    seed: u64,
) {
    let start = Instant::now();
    target.runtime.block_on(async {
        let mut all = JoinSet::new();
        for client in 0..clients as u64 {
            let (target, source, recorder) = (target.clone(), source.clone(), Arc::clone(recorder));
            let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(client));
            all.spawn(async move {
                // Beginnings differ, so that probes of several clients do.
                for number in client.. {
                    let (planned, sent) = (source.plan(number, &mut random), Instant::now());
                    let at = sent - start;
                    if at >= time {
                        break;
                    }
                    let outcome = send(&target, planned, sent, at, &recorder).await;
                    if !matches!(outcome, Some(Outcome::Ok | Outcome::Late | Outcome::Degraded)) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        while let Some(ended) = all.join_next().await {
            if let Err(error) = ended {
                recorder.unsent(&format!("a client ended: {error}"));
            }
        }
    });
}

/// Sends one request and records how it went; `None` where it could not be sent.
async fn send(
    target: &Target,
    planned: Planned,
    intended: Instant,
    at: Duration,
    recorder: &Recorder,
) -> Option<Outcome> {
    let Planned { kind, body, check } = planned;
    let reply = target.client.send(kind, body).await;
    let latency = intended.elapsed();
    let ended = |outcome, reason| Ended { outcome, latency, reason, retry_after: false, model: None };
    let ended = match reply {
        Reply::Unsent(why) => {
            recorder.unsent(&why);
            return None;
        }
        Reply::Timeout => ended(Outcome::Timeout, Some("given up by the client".to_owned())),
        Reply::Failed(why) => ended(Outcome::Error, Some(why)),
        Reply::Answer { status, retry_after, body } => {
            let judged = judge(kind, status, &body);
            let late = judged.outcome == Outcome::Ok && kind != Kind::Event && latency > target.deadline;
            let outcome = if late { Outcome::Late } else { judged.outcome };
            let retry_after = retry_after && outcome == Outcome::Shed;
            let mut ended = Ended { retry_after, model: judged.model, ..ended(outcome, judged.reason) };
            if let (Outcome::Ok | Outcome::Late, Some(check)) = (outcome, check)
                && let Err(wrong) = check(&body, ended.model.as_ref())
            {
                (ended.outcome, ended.reason) = (Outcome::Error, Some(wrong));
            }
            ended
        }
    };
    let outcome = ended.outcome;
    recorder.ended(at, ended);
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;

    use super::*;
    use crate::config::Config;
    use crate::load::preset::Preset;
    use crate::load::workload::made_names;

    const WHOLE: &str = r#"{"items":[1,2],"model":{"version":"v","generation":1},"degraded":[]}"#;

    /// A server that answers at once, but that between `from` and `to` after its first request nothing is answered.
    async fn stalling(from: Duration, to: Duration) -> String {
        let first = Arc::new(std::sync::OnceLock::new());
        let answer = move || {
            let since = *first.get_or_init(Instant::now);
            async move {
                if (from..to).contains(&since.elapsed()) {
                    tokio::time::sleep_until((since + to).into()).await;
                }
                WHOLE
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router: Router = Router::new().route("/v1/rank", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        base
    }

    fn rankings() -> Source {
        let toml = Preset::Nano.toml(&[]).unwrap();
        let schema = Config::parse(&toml, std::path::Path::new("x")).unwrap().schema;
        let names = made_names(3, 5).unwrap();
        Source::Rankings(Arc::new(Workload::new(&names, &schema, 1.0, 2, None).unwrap()))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn target(runtime: &tokio::runtime::Runtime, base: &str) -> Target {
        let client = Client::new(base).unwrap();
        Target { client, runtime: runtime.handle().clone(), deadline: Duration::from_millis(200) }
    }

    /// The server stalls for a fourth of the time. One client in closed loop would meet the stall once in hundreds of
    /// requests and report a p99 of next to nothing.
    #[test]
    fn a_stall_of_the_server_is_in_the_percentiles() {
        let runtime = runtime();
        let stall = (Duration::from_millis(500), Duration::from_millis(1_000));
        let base = runtime.block_on(stalling(stall.0, stall.1));
        let segment = Segment { rate: 200.0, time: Duration::from_secs(2) };
        let recorder = Arc::new(Recorder::new(Duration::from_secs(1)));
        let stop = AtomicBool::new(false);
        let sent_for =
            open(&target(&runtime, &base), &rankings(), &[(segment, Arc::clone(&recorder))], &stop, 3);
        let record = recorder.get();
        assert_eq!(sent_for, segment.time);
        assert!((300..500).contains(&record.requests()), "{} of about 400", record.requests());
        let at = |q| record.latency.value_at_quantile(q);
        // A fourth waits for 250 ms on average: nine tenths wait for less than about 300 ms, all for less than 500.
        assert!(at(0.9) > 200_000 && at(0.99) > 400_000, "p90 {} us, p99 {} us", at(0.9), at(0.99));
        assert!(record.count(Outcome::Late) > 20, "answers after their deadline are not good");
        assert_eq!(record.count(Outcome::Ok) + record.count(Outcome::Late), record.requests());
    }

    #[test]
    fn a_generator_that_falls_behind_says_so() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let base = runtime.block_on(stalling(Duration::ZERO, Duration::ZERO));
        let segment = Segment { rate: 100.0, time: Duration::from_millis(600) };
        let recorder = Arc::new(Recorder::new(Duration::from_secs(1)));
        // Its only thread is kept from sending.
        runtime.spawn(async { std::thread::sleep(Duration::from_millis(500)) });
        let stop = AtomicBool::new(false);
        open(&target(&runtime, &base), &rankings(), &[(segment, Arc::clone(&recorder))], &stop, 3);
        let record = recorder.get();
        assert!(record.lag.value_at_quantile(0.99) > 300_000, "{} us", record.lag.value_at_quantile(0.99));
        assert!(
            record.latency.value_at_quantile(0.9) > 200_000,
            "latency counts from when it was to be sent"
        );
    }

    #[test]
    fn a_stop_ends_a_schedule_and_a_server_that_is_gone_is_an_error() {
        let runtime = runtime();
        let stop = AtomicBool::new(false);
        let recorder = Arc::new(Recorder::new(Duration::from_secs(1)));
        let segment = Segment { rate: 50.0, time: Duration::from_secs(600) };
        let nobody = target(&runtime, "http://127.0.0.1:1");
        let sent_for = std::thread::scope(|scope| {
            let sender =
                scope.spawn(|| open(&nobody, &rankings(), &[(segment, Arc::clone(&recorder))], &stop, 3));
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        assert!(sent_for < segment.time / 2, "{sent_for:?}");
        let record = recorder.get();
        assert!(record.requests() > 0 && record.count(Outcome::Error) == record.requests());
        assert!(record.messages[0].contains("refused"), "{:?}", record.messages);
    }

    #[test]
    fn a_closed_loop_sends_one_at_a_time_a_client() {
        let runtime = runtime();
        let base = runtime.block_on(stalling(Duration::ZERO, Duration::ZERO));
        let recorder = Arc::new(Recorder::new(Duration::from_secs(1)));
        let wrong: Arc<Check> = Arc::new(|body, model| {
            assert_eq!((body, model.map(|m| m.1)), (WHOLE.as_bytes(), Some(1)));
            Err("not that".to_owned())
        });
        let Source::Rankings(workload) = rankings() else { panic!("not rankings") };
        let source = Source::Probed { workload, every: 3, check: wrong };
        closed(&target(&runtime, &base), &source, 2, Duration::from_millis(300), &recorder, 1);
        let record = recorder.get();
        assert!(record.count(Outcome::Ok) > 0 && record.count(Outcome::Error) > 0, "{record:?}");
        assert_eq!(record.messages, ["not that"]);
    }
}

//! One request: sent over connections that are kept open, and judged by its answer.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::record::Outcome;

/// Time after which a request is given up: longer than the server gives one, so that the server's word is heard.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(12);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Precedence that is asked for, -20 (most) to 19.
const NICENESS: i32 = -10;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A ranking that must hold so many items.
    Ranking(usize),
    /// An event.
    Event,
}

/// Sends requests to one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    rank: Uri,
    events: Uri,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer of whatever status.
    Answer { status: StatusCode, retry_after: bool, body: Bytes },
    /// None in time.
    Timeout,
    /// None at all.
    Failed(String),
    /// It could not be sent for want of something on this side.
    Unsent(String),
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<String>,
    pub(crate) model: Option<(String, u64)>,
}

impl Client {
    /// For the data door at `http://host:port`.
    pub(crate) fn new(base: &str) -> Result<Self> {
        let uri = |path: &str| {
            format!("{}{path}", base.trim_end_matches('/'))
                .parse::<Uri>()
                .with_context(|| format!("`{base}` is no address: write it like http://127.0.0.1:7000"))
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { http, rank: uri("/v1/rank")?, events: uri("/v1/events")? })
    }

    /// Sends one request and takes in all of its answer.
    pub(crate) async fn send(&self, kind: Kind, body: String) -> Reply {
        let uri = match kind {
            Kind::Ranking(_) => &self.rank,
            Kind::Event => &self.events,
        };
        match tokio::time::timeout(TIMEOUT, self.exchange(uri.clone(), body)).await {
            Err(_) => Reply::Timeout,
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) if own_fault(&*error) => Reply::Unsent(words(&*error)),
            Ok(Err(error)) => Reply::Failed(words(&*error)),
        }
    }

    async fn exchange(&self, uri: Uri, body: String) -> Result<Reply, Box<dyn Error + Send + Sync>> {
        let mut request = Request::post(uri).body(Full::new(Bytes::from(body)))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply::Answer { status: head.status, retry_after: head.headers.contains_key(RETRY_AFTER), body })
    }
}

/// Whether this process lacked what it takes to send: files or ports.
fn own_fault(error: &(dyn Error + 'static)) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    chain(error).any(|e| {
        let code = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        code.is_some_and(|code| own.iter().any(|own| own.raw_os_error() == code))
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (*e).source())
}

fn words(error: &(dyn Error + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Lets this process open as many files as the system allows it: a connection is one.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
}

/// Asks for precedence over the server on this machine, so that requests are sent at their times. Where the system
/// refuses it, as it does to most users, the lag tells whether they were.
pub(crate) fn ask_for_precedence() {
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "requests are sent without precedence");
    }
}

/// What of a ranking is looked at.
#[derive(Deserialize)]
struct Ranking {
    #[serde(default)]
    degraded: Value,
    model: Option<ModelName>,
    items: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct ModelName {
    version: String,
    generation: u64,
}

/// What of an error is looked at.
#[derive(Deserialize)]
struct ErrorReply {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
}

/// What an answer of a status and a body comes to, lateness aside.
pub(crate) fn judge(kind: Kind, status: StatusCode, body: &[u8]) -> Judged {
    if status != StatusCode::OK {
        let shed = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let code = serde_json::from_slice::<ErrorReply>(body).map(|e| format!(" {}", e.error.code));
        let reason = Some(format!("{}{}", status.as_u16(), code.unwrap_or_default()));
        return Judged { outcome: if shed { Outcome::Shed } else { Outcome::Error }, reason, model: None };
    }
    let Kind::Ranking(candidates) = kind else {
        return Judged { outcome: Outcome::Ok, reason: None, model: None };
    };
    let wrong = |reason: String| Judged { outcome: Outcome::Error, reason: Some(reason), model: None };
    match serde_json::from_slice::<Ranking>(body) {
        Err(error) => wrong(format!("a ranking of another form: {error}")),
        Ok(r) if r.items.len() != candidates => {
            wrong(format!("a ranking of {} items of {candidates}", r.items.len()))
        }
        Ok(r) => Judged {
            outcome: if is_degraded(&r.degraded) { Outcome::Degraded } else { Outcome::Ok },
            reason: is_degraded(&r.degraded).then(|| format!("degraded: {}", r.degraded)),
            model: r.model.map(|m| (m.version, m.generation)),
        },
    }
}

/// Names of rungs, or a plain flag.
fn is_degraded(value: &Value) -> bool {
    match value {
        Value::Array(rungs) => !rungs.is_empty(),
        other => other.as_bool() == Some(true),
    }
}

/// Scores by item, as bits: what two rankings of one model share.
pub(crate) fn scores(body: &[u8]) -> Result<Vec<(String, u32)>> {
    #[derive(Deserialize)]
    struct Scored {
        items: Vec<Score>,
    }
    #[derive(Deserialize)]
    struct Score {
        item: String,
        score: f32,
    }
    let scored: Scored = serde_json::from_slice(body).context("a ranking of another form")?;
    let mut scores: Vec<_> = scored.items.into_iter().map(|s| (s.item, s.score.to_bits())).collect();
    scores.sort();
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(status: u16, body: &str) -> Judged {
        judge(Kind::Ranking(2), StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn answers_are_judged_by_status_and_by_what_they_say() {
        let whole = r#"{"items":[{"a":1},{}],"model":{"version":"v","generation":3},"degraded":[]}"#;
        let judged = ranking(200, whole);
        assert_eq!((judged.outcome, judged.model), (Outcome::Ok, Some(("v".into(), 3))));
        for lower in [r#"["score_deadline"]"#, "true"] {
            let judged = ranking(200, &format!(r#"{{"items":[1,2],"model":null,"degraded":{lower}}}"#));
            assert_eq!((judged.outcome, judged.model), (Outcome::Degraded, None));
        }
        assert_eq!(ranking(200, r#"{"items":[1],"degraded":[]}"#).outcome, Outcome::Error, "one item of two");
        assert_eq!(ranking(200, "{").outcome, Outcome::Error);
        assert_eq!(judge(Kind::Event, StatusCode::OK, b"{").outcome, Outcome::Ok);
        let shed = ranking(503, r#"{"error":{"code":"overloaded","message":"m"}}"#);
        assert_eq!((shed.outcome, shed.reason.as_deref()), (Outcome::Shed, Some("503 overloaded")));
        assert_eq!(ranking(429, "no JSON").reason.as_deref(), Some("429"));
        assert_eq!(ranking(500, "").outcome, Outcome::Error);
    }

    #[test]
    fn scores_are_compared_by_item_and_to_the_last_bit() {
        let of = |body: &str| scores(body.as_bytes()).unwrap();
        let one = of(r#"{"items":[{"item":"a","score":0.1},{"item":"b","score":0.2}]}"#);
        assert_eq!(one, of(r#"{"items":[{"item":"b","score":0.2},{"item":"a","score":0.1}]}"#));
        assert_ne!(one, of(r#"{"items":[{"item":"b","score":0.2},{"item":"a","score":0.10000001}]}"#));
    }

    #[test]
    fn what_this_side_lacks_is_told_from_what_the_server_does() {
        let of = |errno: Errno| own_fault(&std::io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(of(Errno::MFILE) && of(Errno::ADDRNOTAVAIL));
        assert!(!of(Errno::CONNREFUSED) && !of(Errno::PIPE));
    }
}

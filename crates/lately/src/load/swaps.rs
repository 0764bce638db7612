//! Models swapped under load: no request fails, and an answer is of the one version that it names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lately_store::{Registry, Version};
use lately_train::publish::CHAMPION;
use serde::Serialize;
use serde_json::Value;

use super::client::scores;
use super::drive::{Check, Source};
use super::workload::Workload;

/// Of the rankings, one in so many is the probe.
const EVERY: u64 = 4;
/// Longest time for a model to be loaded under load.
const RELOAD: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Swaps {
    /// Swaps that the server confirmed.
    pub(crate) done: u64,
    /// Checked answers.
    pub(crate) probes: u64,
    /// From asking for a swap to its confirmation, ms: median and longest.
    pub(crate) median_ms: f64,
    pub(crate) longest_ms: f64,
}

/// Promotes versions and makes the server look.
pub(crate) struct Promoter {
    registry: Registry,
    versions: [Version; 2],
    agent: ureq::Agent,
    admin: String,
    data: String,
}

impl Promoter {
    /// For a server whose doors are at `data` and `admin`, and the registry that it follows.
    pub(crate) fn new(registry: Registry, versions: [Version; 2], data: &str, admin: &str) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(RELOAD)).build().into();
        Self { registry, versions, agent, admin: admin.to_owned(), data: data.to_owned() }
    }

    /// Makes the server serve one of the versions; returns when it says that it does.
    fn promote(&self, which: usize) -> Result<()> {
        let version = &self.versions[which];
        self.registry.set_alias(CHAMPION, version)?;
        let url = format!("{}/admin/v1/models/reload", self.admin);
        let mut answer = self.agent.post(&url).send_empty().context("the server did not load the model")?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        ensure!(answer["current"]["version"] == version.as_str(), "not {version} is served: {answer}");
        Ok(())
    }

    /// The probe's scores by both versions, and then a source that checks answers against them. The counter is of
    /// checked answers.
    pub(crate) fn probed(&self, workload: &Arc<Workload>) -> Result<(Source, Arc<AtomicU64>)> {
        let mut known = BTreeMap::new();
        for which in [1, 0] {
            self.promote(which)?;
            let url = format!("{}/v1/rank", self.data);
            let request = self.agent.post(&url).header("content-type", "application/json");
            let mut answer = request.send(workload.probe()).context("the probe was not ranked")?;
            let body = answer.body_mut().read_to_string()?;
            let named: Value = serde_json::from_str(&body)?;
            let version = self.versions[which].to_string();
            ensure!(named["model"]["version"] == *version, "not {version} ranked: {}", named["model"]);
            ensure!(
                named["degraded"] == Value::Array(Vec::new()),
                "the probe is degraded: {}",
                named["degraded"]
            );
            known.insert(version, scores(body.as_bytes())?);
        }
        let different = known.values().min() != known.values().max();
        ensure!(different, "both models give the probe the same scores: nothing would be seen");
        let probes = Arc::new(AtomicU64::new(0));
        let check = check(known, Arc::clone(&probes));
        Ok((Source::Probed { workload: Arc::clone(workload), every: EVERY, check }, probes))
    }

    /// Swaps `count` times, evenly over `time`, or as fast as the server loads where that is slower.
    pub(crate) fn swap(&self, count: u64, time: Duration) -> Result<Vec<Duration>> {
        let (start, mut took) = (Instant::now(), Vec::new());
        for n in 0..count {
            let due = start + time.mul_f64((n as f64 + 0.5) / count as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let asked = Instant::now();
            self.promote((n as usize + 1) % 2)?;
            took.push(asked.elapsed());
        }
        Ok(took)
    }
}

type Known = BTreeMap<String, Vec<(String, u32)>>;

/// An answer must name one of the versions and have its scores, to the last bit.
fn check(known: Known, probes: Arc<AtomicU64>) -> Arc<Check> {
    Arc::new(move |body, model| {
        let (version, generation) = model.ok_or("the probe was ranked by no model")?;
        let expected =
            known.get(version).ok_or_else(|| format!("{version} ranked, which was not promoted"))?;
        let found = scores(body).map_err(|e| format!("{e:#}"))?;
        if found != *expected {
            let other =
                known.iter().find(|(_, scores)| **scores == found).map(|(version, _)| version.as_str());
            let whose = other.map_or("of no version".to_owned(), |other| format!("those of {other}"));
            return Err(format!("mixed: generation {generation} names {version}, its scores are {whose}"));
        }
        probes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
}

/// Puts the figures together.
pub(crate) fn found(took: &[Duration], probes: &AtomicU64) -> Swaps {
    let mut ms: Vec<f64> = took.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    Swaps {
        done: ms.len() as u64,
        probes: probes.load(Ordering::Relaxed),
        median_ms: ms.get(ms.len() / 2).copied().unwrap_or_default(),
        longest_ms: ms.last().copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_have_the_scores_of_the_version_that_it_names() {
        let body = |score: f32| format!(r#"{{"items":[{{"item":"a","score":{score}}}]}}"#);
        let known = |score| scores(body(score).as_bytes()).unwrap();
        let probes = Arc::new(AtomicU64::new(0));
        let all = BTreeMap::from([("one".to_owned(), known(0.25)), ("two".to_owned(), known(0.5))]);
        let check = check(all, Arc::clone(&probes));
        let ask = |score, version: &str| check(body(score).as_bytes(), Some(&(version.to_owned(), 7)));
        assert_eq!((ask(0.25, "one"), ask(0.5, "two")), (Ok(()), Ok(())));
        assert!(ask(0.5, "one").unwrap_err().contains("generation 7 names one, its scores are those of two"));
        assert!(ask(0.75, "two").unwrap_err().contains("of no version"));
        assert!(ask(0.25, "three").unwrap_err().contains("not promoted"));
        assert!(check(b"{}", None).is_err());
        assert_eq!(probes.load(Ordering::Relaxed), 2);
    }
}

//! How the demo went: the figures that `lately demo` prints at its end.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::Result;
use hdrhistogram::Histogram;
use lately_model::checkpoint;
use lately_train::chunks::Chunks;
use lately_train::eval::{Estimate, Group};
use lately_train::predict::by_model;
use lately_train::scores::by_popularity;
use lately_train::{Dataset, DateRange, EvalOptions, JoinOptions, Slice, Zone, evaluate, join_store};
use serde::Serialize;

use super::Demo;
use super::crowd::{EXPLORE, Tally};
use crate::learn::champion;

/// Median and tail of a latency, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Number of measurements.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

impl Latency {
    fn of(histogram: &Mutex<Histogram<u64>>) -> Self {
        match histogram.lock() {
            Ok(h) => Self::from(&*h),
            Err(_) => Self { count: 0, p50_ms: f64::NAN, p99_ms: f64::NAN },
        }
    }
}

impl From<&Histogram<u64>> for Latency {
    /// Of microseconds.
    fn from(h: &Histogram<u64>) -> Self {
        let ms = |q| h.value_at_quantile(q) as f64 / 1e3;
        Self { count: h.len(), p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

/// HIT@3 of saves on pages in random order that the model was not trained on.
#[derive(Debug, Clone, Serialize)]
pub struct HitAt3 {
    /// Pages.
    pub pages: usize,
    /// Saves on them.
    pub saves: usize,
    /// By the model that serves at the end.
    pub model: Estimate,
    /// By the popularity order.
    pub popularity: Estimate,
    /// Expected of a random order.
    pub random: Option<f64>,
    /// Model minus popularity, paired.
    pub difference: Estimate,
}

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How long people acted, seconds.
    pub seconds: f64,
    /// From the start of the process to the first ranked page, seconds.
    pub first_page_seconds: f64,
    /// Acknowledged events.
    pub events: u64,
    /// Acknowledged events a second.
    pub events_per_second: f64,
    /// Ranked pages.
    pub pages: u64,
    /// Failed requests.
    pub errors: u64,
    /// From sending an action to holding a ranking that knew it.
    pub freshness: Latency,
    /// One page over HTTP.
    pub rank: Latency,
    /// Models published.
    pub published: usize,
    /// Models swapped in.
    pub swapped: u64,
    /// How well saves are predicted.
    pub hit_at_3: Option<HitAt3>,
}

impl Summary {
    /// Gathers the figures. `unseen_from` is the first log record that the serving model was not trained on.
    pub fn of(
        demo: &Demo,
        tally: &Tally,
        seconds: f64,
        first_page_seconds: f64,
        unseen_from: u64,
    ) -> Result<Self> {
        let registry = demo.dir.registry()?;
        let events = tally.events.load(Ordering::Relaxed);
        Ok(Self {
            seconds,
            first_page_seconds,
            events,
            events_per_second: events as f64 / seconds,
            pages: tally.pages.load(Ordering::Relaxed),
            errors: tally.errors.load(Ordering::Relaxed),
            freshness: Latency::of(&tally.freshness_us),
            rank: Latency::of(&tally.rank_us),
            published: registry.versions()?.len(),
            swapped: demo.server.generation(),
            hit_at_3: hit_at_3(demo, unseen_from)?,
        })
    }
}

/// Compares the serving model with the popularity order on random pages from `unseen_from` on; `None` where there are
/// none.
fn hit_at_3(demo: &Demo, unseen_from: u64) -> Result<Option<HitAt3>> {
    let dataset = join_store(&demo.server.store, &demo.dir.schema, JoinOptions::default())?;
    let explore = demo.dir.schema.surface(EXPLORE);
    let pick = |keep: &dyn Fn(u64, u16) -> bool| part(&dataset, keep);
    let pages = pick(&|offset, surface| offset >= unseen_from && Some(surface) == explore);
    let past = pick(&|offset, _| offset < unseen_from);
    let registry = demo.dir.registry()?;
    let (Some(version), true) = (champion(&registry)?, pages.rows() > 0) else { return Ok(None) };
    let (model, _) = checkpoint::from_bytes(&registry.load(&version)?)?;
    let chunks = Chunks::of(&pages, &Zone::utc(), 4);
    let scorers = [by_model("model", &pages, &chunks, &model, 2)?, by_popularity(&past, &pages)];
    let report = evaluate(&pages, &chunks, &scorers, &EvalOptions::default())?;
    let Some(saves) = report.group("save", Group::All) else { return Ok(None) };
    Ok(Some(HitAt3 {
        pages: saves.chunks,
        saves: saves.positives,
        model: saves.scorers[0].metrics.hit_at_3,
        popularity: saves.scorers[1].metrics.hit_at_3,
        random: saves.random_hit_at_3,
        difference: saves.differences[0].metrics.hit_at_3,
    }))
}

fn part<'a>(dataset: &'a Dataset, keep: &dyn Fn(u64, u16) -> bool) -> Slice<'a> {
    let mut slice = dataset.slice(DateRange::ALL);
    slice.requests.retain(|r| {
        let request = &dataset.requests[*r as usize];
        keep(request.offset, request.surface)
    });
    slice
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, text: String| writeln!(f, "  {name:<34}{text}");
        writeln!(f, "summary of {:.0} s", self.seconds)?;
        line(f, "first ranked page after", format!("{:.1} s", self.first_page_seconds))?;
        line(f, "events acknowledged", format!("{} ({:.0}/s)", self.events, self.events_per_second))?;
        line(f, "pages ranked", format!("{} ({} requests failed)", self.pages, self.errors))?;
        let latency =
            |l: &Latency| format!("p50 {:.2} ms, p99 {:.2} ms (n = {})", l.p50_ms, l.p99_ms, l.count);
        line(f, "freshness, action to ranking", latency(&self.freshness))?;
        line(f, "rank, over HTTP", latency(&self.rank))?;
        line(f, "models", format!("{} published, {} swapped in", self.published, self.swapped))?;
        match &self.hit_at_3 {
            None => line(f, "HIT@3 of saves", "no random page since the last training".to_owned()),
            Some(h) => {
                let text = format!(
                    "model {}, popularity {}, random {}",
                    estimate(&h.model),
                    estimate(&h.popularity),
                    h.random.map_or("-".to_owned(), |x| format!("{x:.3}")),
                );
                line(f, "HIT@3 of saves", text)?;
                let text =
                    format!("{} ({} random pages, {} saves)", estimate(&h.difference), h.pages, h.saves);
                line(f, "  model minus popularity", text)
            }
        }
    }
}

fn estimate(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        (Some(value), _, _) => format!("{value:.3}"),
        _ => "-".to_owned(),
    }
}

//! How fast a card scores: requests one after another, and from several threads at once as a server sends them.
//!
//! Times are those of the host's clock around a whole call, features in and logits out, as a caller waits for them. The inputs
//! rotate, so that no call finds the last one's in a cache. Their items come back, as a catalogue's do, and are on the card by
//! then; apart from that it is measured what a call takes all of whose items are new.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lately_cuda::Span;
use lately_features::FeatureBatch;
use lately_model::{Engine, ServingPrecision};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::inputs::{Geometry, Recipe, shared};
use crate::place::{Loaded, Place, Score};
use crate::results::number;

/// Candidates of a request.
const SIZES: [usize; 2] = [500, 2_000];
/// Inputs that take turns.
const INPUTS: usize = 8;
/// Calls before the first that counts: kernels are compiled, memory is taken, a graph is recorded.
const WARM_UP: usize = 20;
/// Calls whose times on the card are taken.
const RECORDED: usize = 64;
/// Threads that score at once: as many calls as a model on a card works on side by side.
const THREADS: usize = 4;

/// All measurements.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) device: String,
    pub(crate) timings: Vec<Timing>,
}

/// Of requests of one size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) name: String,
    pub(crate) candidates: usize,
    pub(crate) tokens: usize,
    /// Of a request, one at a time, ms.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The median where no item was ranked before, ms.
    pub(crate) new_items_p50_ms: f64,
    /// One request at a time, by the median.
    pub(crate) candidates_per_second: f64,
    /// From several threads.
    pub(crate) candidates_per_second_together: f64,
    /// Multiply-adds of products that a candidate takes, after folding and sharing, as the CPU counts them.
    pub(crate) multiply_adds: usize,
    pub(crate) requests: usize,
    /// By the card's events; none where there is no card.
    pub(crate) on_card: Option<OnCard>,
}

/// Medians of a request's times on the card, ms. The rest of its time it is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnCard {
    #[serde(deserialize_with = "number")]
    pub(crate) copy_in_ms: f64,
    #[serde(deserialize_with = "number")]
    pub(crate) kernels_ms: f64,
    #[serde(deserialize_with = "number")]
    pub(crate) copy_out_ms: f64,
}

impl OnCard {
    fn of(spans: &[Span]) -> Self {
        let median = |what: &str| {
            let mut times: Vec<f64> =
                spans.iter().filter(|s| s.what == what).map(|s| s.milliseconds).collect();
            times.sort_by(f64::total_cmp);
            percentile(&times, 50)
        };
        Self { copy_in_ms: median("copy in"), kernels_ms: median("graph"), copy_out_ms: median("copy out") }
    }
}

pub(crate) fn run(place: &Place, seconds: f64) -> Result<Report, Failure> {
    let time = Duration::try_from_secs_f64(seconds)?;
    let mut timings = Vec::new();
    for (geometry, tokens) in [(Geometry::Default, 100), (Geometry::Official, 100), (Geometry::Official, 46)]
    {
        let (model, schema) = shared(geometry)?;
        let score = match place.load(&model)? {
            Loaded::Scores(score) => score,
            Loaded::Unsupported(why) => {
                eprintln!("{} IS NOT MEASURED: {why}", geometry.name());
                continue;
            }
        };
        let multiply_adds = Engine::new(model, ServingPrecision::F32).multiply_adds(tokens);
        for candidates in SIZES.into_iter().filter(|n| *n <= place.most_candidates()) {
            let recipe = |seed| Recipe::one(tokens, candidates, seed);
            let inputs: Vec<_> = (0..INPUTS).map(|i| recipe(i as u64).batch(&schema)).collect();
            let timing = measure(&score, &inputs, time, geometry.name(), tokens, multiply_adds)?;
            timings.push(Timing { on_card: on_card(place, &score, &inputs)?, ..timing });
        }
    }
    Ok(Report { device: place.name(), timings })
}

fn measure(
    score: &Score,
    inputs: &[FeatureBatch],
    time: Duration,
    name: &str,
    tokens: usize,
    multiply_adds: usize,
) -> Result<Timing, Failure> {
    let start = Instant::now();
    for input in inputs.iter().cycle().take(WARM_UP) {
        score(input)?;
        if start.elapsed() >= time {
            break;
        }
    }
    let (start, mut samples) = (Instant::now(), Vec::new());
    for input in inputs.iter().cycle() {
        let begin = Instant::now();
        score(input)?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
        if start.elapsed() >= time {
            break;
        }
    }
    samples.sort_by(f64::total_cmp);
    let (p50_ms, p99_ms) = (percentile(&samples, 50), percentile(&samples, 99));
    let candidates = inputs[0].rows();
    Ok(Timing {
        name: name.to_owned(),
        candidates,
        tokens,
        p50_ms,
        p99_ms,
        new_items_p50_ms: new_items(score, &inputs[0], time / 3)?,
        candidates_per_second: candidates as f64 / p50_ms * 1e3,
        candidates_per_second_together: candidates as f64 * together(score, inputs, time)?,
        multiply_adds,
        requests: samples.len(),
        on_card: None,
    })
}

/// The median of calls whose items are all new, ms: a number of each changes before every call.
fn new_items(score: &Score, input: &FeatureBatch, time: Duration) -> Result<f64, Failure> {
    let mut batch = input.clone();
    let width = (batch.item.numeric.len() / batch.rows().max(1)).max(1);
    let (start, mut samples) = (Instant::now(), Vec::new());
    while samples.is_empty() || start.elapsed() < time {
        batch.item.numeric.iter_mut().step_by(width).for_each(|x| *x += 1e-3);
        let begin = Instant::now();
        score(&batch)?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    samples.sort_by(f64::total_cmp);
    Ok(percentile(&samples, 50))
}

/// Once more with the card's events, which cost some time themselves.
fn on_card(place: &Place, score: &Score, inputs: &[FeatureBatch]) -> Result<Option<OnCard>, Failure> {
    let Some(device) = place.device() else { return Ok(None) };
    device.take_times()?; // of nobody's
    device.record_times(true);
    let done = inputs.iter().cycle().take(RECORDED).try_for_each(|input| score(input).map(|_| ()));
    device.record_times(false);
    done?;
    Ok(Some(OnCard::of(&device.take_times()?)))
}

/// Requests a second from [`THREADS`] threads.
fn together(score: &Score, inputs: &[FeatureBatch], time: Duration) -> Result<f64, Failure> {
    let (start, done) = (Instant::now(), AtomicUsize::new(0));
    let work = |thread: usize| -> Result<(), Failure> {
        for input in inputs.iter().cycle().skip(thread * INPUTS / THREADS) {
            score(input)?;
            done.fetch_add(1, Ordering::Relaxed);
            if start.elapsed() >= time {
                break;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<(), Failure> {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|i| scope.spawn(move || work(i))).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(done.into_inner() as f64 / start.elapsed().as_secs_f64())
}

/// Nearest rank of what is sorted.
pub(crate) fn percentile(ascending: &[f64], p: usize) -> f64 {
    let rank = (ascending.len() * p).div_ceil(100).max(1);
    ascending.get(rank - 1).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scoring on {}, features in, logits out", self.device)?;
        for t in &self.timings {
            writeln!(
                f,
                "  {:<18} {:>5} candidates, {:>3} tokens: p50 {:.3} ms, p99 {:.3} ms, p50 of new items {:.3} ms, {:.0} candidates/s alone, {:.0} from {THREADS} threads",
                t.name,
                t.candidates,
                t.tokens,
                t.p50_ms,
                t.p99_ms,
                t.new_items_p50_ms,
                t.candidates_per_second,
                t.candidates_per_second_together
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::NUMBERS;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([50, 99].map(|p| percentile(&hundred, p)), [50.0, 99.0]);
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn of_the_card_s_times_medians_are_told() {
        let call = |ms: f64| [("copy in", ms), ("graph", 10.0 * ms), ("copy out", 0.5 * ms)];
        let spans: Vec<Span> = [3.0, 1.0, 2.0]
            .into_iter()
            .flat_map(call)
            .map(|(what, milliseconds)| Span { what, milliseconds })
            .collect();
        let want = OnCard { copy_in_ms: 2.0, kernels_ms: 20.0, copy_out_ms: 1.0 };
        assert_eq!(OnCard::of(&spans), want);
    }

    #[test]
    fn calls_are_counted_and_a_failure_ends_the_measurement() {
        let (_, schema) = shared(Geometry::Default).unwrap();
        let inputs: Vec<_> = (0..INPUTS).map(|i| Recipe::one(1, 10, i as u64).batch(&schema)).collect();
        let sleeps: Score = Box::new(|_| {
            std::thread::sleep(Duration::from_millis(2));
            Ok(Vec::new())
        });
        let timing = measure(&sleeps, &inputs, Duration::from_millis(60), "x", 1, 5).unwrap();
        assert!(timing.p50_ms >= 2.0 && timing.p99_ms >= timing.p50_ms, "{timing:?}");
        assert!((1..=31).contains(&timing.requests), "{timing:?}");
        assert!(timing.new_items_p50_ms >= 2.0, "{timing:?}");
        assert!(timing.candidates_per_second <= 5_000.0, "10 in 2 ms: {timing:?}");
        assert!(timing.candidates_per_second_together <= 20_000.0, "{timing:?}");
        let last = std::sync::Mutex::new(FeatureBatch::default());
        let changed: Score = Box::new(move |b| {
            let before = std::mem::replace(&mut *last.lock().unwrap(), b.clone());
            let rows = b.item.numeric.chunks(NUMBERS).zip(before.item.numeric.chunks(NUMBERS));
            if rows.into_iter().any(|(a, b)| a == b) {
                Err("an item came back".into())
            } else {
                Ok(Vec::new())
            }
        });
        new_items(&changed, &inputs[0], Duration::from_millis(5)).unwrap();
        let fails: Score = Box::new(|_| Err("lost".into()));
        assert!(measure(&fails, &inputs, Duration::from_millis(1), "x", 1, 5).is_err());
    }
}

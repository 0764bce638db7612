//! How fast a training step is: on staged batches, what the card can do; from features on, staged by other threads while the
//! card works, what a training gets; and, on a card, what the step's time goes to.
//!
//! A step is loss, gradient and Adam's update. Times are the host's, from the end of one step to the end of the next. The
//! batches rotate, so that no step finds the last one's in a cache.

use std::fmt;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use lately_model::training::{StagedBatch, Stager, TrainingPlan};
use lately_model::{AdamStep, Model, ModelConfig, Precision};
use serde::{Deserialize, Serialize};

use super::parts::Parts;
use super::rows::{Rows, even};
use super::{Learning, curve, learner, threads, work};
use crate::Failure;
use crate::inputs::{Geometry, LENGTH};
use crate::place::Place;

/// Batches that take turns.
const INPUTS: usize = 4;
/// Steps before the first that counts: memory is taken, and the queue fills.
const WARM_UP: usize = 4;
/// Steps between two readings of the events.
const RECORDED: usize = 8;
/// Threads that one stager is given: more of them share too little work.
const STAGING: usize = 4;
/// Staged batches that wait for the card, beside one in the hands of each stager.
const WAITING: usize = 2;

/// All measurements.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) device: String,
    pub(crate) timings: Vec<Timing>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// Of steps of one size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) precision: String,
    pub(crate) rows: usize,
    /// Candidates of a request.
    pub(crate) candidates: usize,
    pub(crate) tokens: usize,
    pub(crate) staged: Spread,
    pub(crate) end_to_end: Spread,
    /// Of one batch by one stager with all threads, ms.
    pub(crate) staging_ms: f64,
    /// Of a row, see [`work::multiply_adds`].
    pub(crate) multiply_adds: usize,
    /// None where there is no card.
    pub(crate) parts: Option<Parts>,
}

/// Times of a step, ms.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p10_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) steps: usize,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |p| crate::timings::percentile(&samples, p);
        Self { p10_ms: at(10), p50_ms: at(50), p90_ms: at(90), steps: samples.len() }
    }

    pub(crate) fn per_second(&self, rows: usize) -> f64 {
        rows as f64 / self.p50_ms * 1e3
    }
}

/// (precision, rows, candidates of a request) of what is measured: a training's usual batch, and one that fills a card.
fn sizes(place: &Place) -> Vec<(Precision, usize, usize)> {
    let of = |rows: [usize; 2]| {
        let all = rows.into_iter().flat_map(|rows| [(Precision::Bf16, rows, 10), (Precision::Bf16, rows, 1)]);
        all.chain([(Precision::F32, rows[0], 10)]).collect()
    };
    if place.device().is_some() { of([2_048, 12_000]) } else { of([20, 40]) }
}

/// Measures all sizes, and hands the report to `keep` after each.
pub(crate) fn run(
    place: &Place,
    seconds: f64,
    keep: &dyn Fn(&Report) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let time = Duration::try_from_secs_f64(seconds)?;
    let schema = Geometry::Paper.schema()?;
    let model = Model::new(ModelConfig::paper(), &schema, 1)?;
    let mut report = Report { device: place.name(), timings: Vec::new(), missing: Vec::new() };
    for (precision, rows, candidates) in sizes(place) {
        let batch = |seed| Rows::new(&schema, &even(rows, candidates, LENGTH), seed as u64);
        let batches: Vec<Rows> = (0..INPUTS).map(batch).collect();
        let name = format!("{precision:?}, {rows} rows, {candidates} a request").to_lowercase();
        let measured = match learner(place, &model, precision) {
            Ok(Ok(mut learning)) => measure(place, &model, &mut learning, &batches, time),
            Ok(Err(why)) => Err(why.into()),
            Err(error) => Err(error),
        };
        match measured {
            Ok(timing) => {
                let precision = format!("{precision:?}").to_lowercase();
                let timing = Timing { precision, candidates, ..timing };
                println!("  {timing}");
                report.timings.push(timing);
            }
            // The other sizes are measured all the same.
            Err(error) => {
                println!("  {name} IS NOT MEASURED: {error}");
                report.missing.push(format!("{name}: {error}"));
            }
        }
        keep(&report)?;
    }
    match report.missing.len() {
        0 => Ok(()),
        count => Err(format!("{count} of {} sizes are not measured", count + report.timings.len()).into()),
    }
}

fn measure(
    place: &Place,
    model: &Model,
    learning: &mut Learning,
    batches: &[Rows],
    time: Duration,
) -> Result<Timing, Failure> {
    let mut stager = Stager::new(model, threads());
    let begin = Instant::now();
    let staged: Vec<StagedBatch> = batches.iter().map(|b| b.stage(&mut stager)).collect::<Result<_, _>>()?;
    let staging_ms = begin.elapsed().as_secs_f64() * 1e3 / batches.len() as f64;
    let rows = staged[0].rows();
    let multiply_adds = work::multiply_adds(&TrainingPlan::of(model)?, &staged[0]) / rows.max(1);
    let (mut steps, mut number) = (Samples::new(time), 0);
    while steps.go_on() {
        let at = number % batches.len();
        number += 1;
        step(learning, &batches[at], &staged[at], number)?;
        steps.ended();
    }
    let parts = parts(place, learning, batches, &staged, number)?;
    drop(staged);
    Ok(Timing {
        precision: String::new(),
        rows,
        candidates: 0,
        tokens: LENGTH,
        staged: steps.spread(),
        end_to_end: end_to_end(model, learning, batches, number, time)?,
        staging_ms,
        multiply_adds,
        parts,
    })
}

fn step(learning: &mut Learning, rows: &Rows, staged: &StagedBatch, number: usize) -> Result<(), Failure> {
    let loss = learning.gradient(rows, staged, Some(number as u64))?;
    if !loss.is_finite() {
        return Err(format!("the loss of step {number} is {loss}").into());
    }
    learning.update(AdamStep::new(curve::RATE, curve::BETAS, 0.0, 1.0, number as u64))
}

/// Once more with the card's events, which cost some time themselves.
fn parts(
    place: &Place,
    learning: &mut Learning,
    batches: &[Rows],
    staged: &[StagedBatch],
    number: usize,
) -> Result<Option<Parts>, Failure> {
    let Some(device) = place.device() else { return Ok(None) };
    device.take_times()?; // of nobody's
    device.record_times(true);
    let done = (0..RECORDED).try_for_each(|i| {
        let at = i % batches.len();
        step(learning, &batches[at], &staged[at], number + 1 + i)
    });
    device.record_times(false);
    done?;
    Ok(Some(Parts::of(&device.take_times()?, RECORDED)))
}

/// Steps on batches that other threads stage meanwhile.
fn end_to_end(
    model: &Model,
    learning: &mut Learning,
    batches: &[Rows],
    number: usize,
    time: Duration,
) -> Result<Spread, Failure> {
    let stagers = (threads() / STAGING).clamp(1, batches.len());
    let (mut steps, mut number) = (Samples::new(time), number + RECORDED);
    std::thread::scope(|scope| {
        let (give, take) = sync_channel::<Result<(usize, StagedBatch), Failure>>(WAITING);
        for first in 0..stagers {
            let give = give.clone();
            scope.spawn(move || {
                let mut stager = Stager::new(model, threads().min(STAGING));
                // Ends when nobody takes any more.
                for at in (0..batches.len()).cycle().skip(first) {
                    let staged = batches[at].stage(&mut stager).map(|staged| (at, staged));
                    if give.send(staged).is_err() {
                        return;
                    }
                }
            });
        }
        drop(give);
        while steps.go_on() {
            let (at, staged) = take.recv().map_err(|_| "the threads that stage have ended")??;
            number += 1;
            step(learning, &batches[at], &staged, number)?;
            steps.ended();
        }
        drop(take);
        Ok::<_, Failure>(())
    })?;
    Ok(steps.spread())
}

/// Times from step to step.
struct Samples {
    time: Duration,
    start: Instant,
    last: Instant,
    ended: usize,
    samples: Vec<f64>,
}

impl Samples {
    fn new(time: Duration) -> Self {
        Self { time, start: Instant::now(), last: Instant::now(), ended: 0, samples: Vec::new() }
    }

    fn go_on(&self) -> bool {
        self.samples.is_empty() || self.start.elapsed() < self.time
    }

    fn ended(&mut self) {
        let now = Instant::now();
        self.ended += 1;
        if self.ended <= WARM_UP {
            self.start = now;
        } else {
            self.samples.push((now - self.last).as_secs_f64() * 1e3);
        }
        self.last = now;
    }

    fn spread(self) -> Spread {
        Spread::of(self.samples)
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { precision, rows, candidates, staged, end_to_end, staging_ms, .. } = self;
        write!(
            f,
            "{precision}, {rows} rows, {candidates} a request: {:.3} ms a step staged ({:.0} rows/s), {:.3} ms end to end \
             ({:.0} rows/s), {staging_ms:.1} ms to stage",
            staged.p50_ms,
            staged.per_second(*rows),
            end_to_end.p50_ms,
            end_to_end.per_second(*rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_timed_from_end_to_end_and_warming_up_does_not_count() {
        let mut samples = Samples::new(Duration::from_millis(20));
        let mut all = 0;
        while samples.go_on() {
            std::thread::sleep(Duration::from_millis(5));
            samples.ended();
            all += 1;
        }
        let spread = samples.spread();
        assert_eq!(spread.steps + WARM_UP, all);
        assert!(
            (5.0..=spread.p50_ms).contains(&spread.p10_ms) && spread.p50_ms <= spread.p90_ms,
            "{spread:?}"
        );
        assert!(spread.per_second(10) <= 2_000.0, "10 rows in 5 ms: {spread:?}");
    }

    #[test]
    fn a_small_model_is_measured_staged_and_end_to_end_and_one_that_diverges_is_not() {
        let schema = Geometry::Paper.schema().unwrap();
        let config = ModelConfig { hidden: vec![4], cross_width: 8, layers: 1, ..ModelConfig::default() };
        let model = Model::new(config, &schema, 1).unwrap();
        let batches: Vec<Rows> = (0..2).map(|i| Rows::new(&schema, &[(3, 4)], i)).collect();
        let time = Duration::from_millis(10);
        let mut learning = Learning::on_cpu(&model, Precision::F32);
        let timing = measure(&Place::StandIn, &model, &mut learning, &batches, time).unwrap();
        assert!(timing.rows == 4 && timing.parts.is_none() && timing.staged.steps > 0, "{timing:?}");
        assert!(timing.end_to_end.p50_ms > 0.0 && timing.multiply_adds > 0, "{timing:?}");
        let mut lost = batches.clone();
        lost[1].weight[0] = f32::INFINITY;
        let error = measure(&Place::StandIn, &model, &mut learning, &lost, time).unwrap_err();
        assert!(error.to_string().contains("the loss of step 2 is"), "{error}");
    }
}

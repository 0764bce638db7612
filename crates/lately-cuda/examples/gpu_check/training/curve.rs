//! Whole runs: the losses of some steps on the card and on the CPU, from the same weights on the same batches.
//!
//! Two runs that differ by rounding alone drift apart, as every step builds on the one before: by how much is measured, with a
//! second run on the CPU in f32 that starts from weights rounded to bfloat16. A card that rounds at every step may be
//! [`DRIFT`] times as far from the first run, and 1 % in any case: of 256 rows a batch that second run is 1.4e-3 apart, and
//! PyTorch's by autocast to bfloat16, on a CPU, 3.1e-3. Losses are averaged over [`WINDOW`] steps first, and the
//! labels have so much noise that the loss falls without coming near 0, where a share of it would say nothing.

use lately_model::training::{StagedBatch, Stager};
use lately_model::{AdamStep, Model, ModelConfig, Precision};
use serde::{Deserialize, Serialize};

use super::correctness::Found;
use super::rows::{Rows, even};
use super::{Learning, learner, threads};
use crate::Failure;
use crate::cases::{Case, Outcome, Report};
use crate::inputs::{Geometry, LENGTH};
use crate::place::Place;
use crate::results::{number, numbers};

/// Steps of a run.
pub(crate) const STEPS: usize = 60;
/// Batches that take turns.
pub(crate) const BATCHES: usize = 30;
/// Steps over which losses are averaged.
const WINDOW: usize = 10;
pub(crate) const RATE: f64 = 3e-4;
pub(crate) const BETAS: (f64, f64) = (0.9, 0.999);
const DROPOUT: f32 = 0.1;
/// How much further from the CPU than its own second run a card may be, and how far in any case.
const DRIFT: f64 = 2.0;
const LEAST_BOUND: f64 = 1e-2;
/// In f32 the card's run is the CPU's but for the order of sums: some 1e-6 a step, a thousandth of bfloat16's rounding.
const F32_BOUND: f64 = 1e-3;
/// What a run must leave of its first losses at most.
const FALL: f64 = 0.9;

/// Losses, one a step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Curves {
    pub(crate) rows: usize,
    #[serde(deserialize_with = "numbers")]
    pub(crate) cpu: Vec<f64>,
    #[serde(deserialize_with = "numbers")]
    pub(crate) bf16: Vec<f64>,
    #[serde(deserialize_with = "numbers")]
    pub(crate) f32: Vec<f64>,
    #[serde(deserialize_with = "numbers")]
    pub(crate) with_dropout: Vec<f64>,
    /// What a curve in bfloat16 may be apart from the CPU's.
    #[serde(deserialize_with = "number")]
    pub(crate) bound: f64,
}

/// The model and its batches.
pub(crate) struct Course {
    pub(crate) model: Model,
    pub(crate) batches: Vec<(Rows, StagedBatch)>,
}

impl Course {
    /// Batches of so many rows, ten a request, whose histories have 10 tokens to the schema's length.
    pub(crate) fn new(rows: usize, dropout: f32) -> Result<Self, Failure> {
        let config = ModelConfig { dropout, ..ModelConfig::paper() };
        let schema = Geometry::Paper.schema()?;
        let model = Model::new(config, &schema, 1)?;
        let mut stager = Stager::new(&model, threads());
        let batch = |seed: usize| {
            let mut requests = even(rows, 10, LENGTH);
            requests
                .iter_mut()
                .enumerate()
                .for_each(|(i, r)| r.0 = LENGTH - (i * 37 + seed * 11) % (LENGTH - 9));
            let rows = Rows::new(&schema, &requests, 100 + seed as u64);
            let staged = rows.stage(&mut stager)?;
            Ok((rows, staged))
        };
        let batches = (0..BATCHES).map(batch).collect::<Result<_, Failure>>()?;
        Ok(Self { model, batches })
    }

    fn run(&self, learning: &mut Learning, dropout: bool) -> Result<Vec<f64>, Failure> {
        let step = |number: usize| {
            let (rows, staged) = &self.batches[number % BATCHES];
            let loss = learning.gradient(rows, staged, dropout.then_some(number as u64))?;
            learning.update(AdamStep::new(RATE, BETAS, 0.0, 1.0, number as u64 + 1))?;
            Ok(loss)
        };
        (0..STEPS).map(step).collect()
    }

    fn on_cpu(&self) -> Result<Vec<f64>, Failure> {
        self.run(&mut Learning::on_cpu(&self.model, Precision::F32), false)
    }
}

/// Rows of a batch.
pub(crate) fn rows(place: &Place) -> usize {
    if place.device().is_some() { 256 } else { 64 }
}

/// Adds a case for each run to the report; none where there are no kernels for the model.
pub(crate) fn compare(place: &Place, report: &mut Report<Found>) -> Result<Option<Curves>, Failure> {
    let course = Course::new(rows(place), 0.0)?;
    let cpu = course.on_cpu()?;
    let twin = apart(&rounded(&course).on_cpu()?, &cpu);
    let bound = (DRIFT * twin).max(LEAST_BOUND);
    let mut runs = Vec::new();
    for (name, precision, bound) in [("bf16", Precision::Bf16, bound), ("f32", Precision::F32, F32_BOUND)] {
        let Some(run) = of_place(place, &course, precision, false)? else { return Ok(None) };
        let outcome = match &run {
            Ok(losses) => {
                let found = vec![("apart", apart(losses, &cpu)), ("bound", bound), ("twin", twin)];
                Outcome::of(found[0].1 <= bound, Found(found))
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        report.add(Case { name: format!("paper, {STEPS} steps, {name}"), rows: rows(place), outcome });
        runs.push(run.unwrap_or_default());
    }
    let course = Course::new(rows(place), DROPOUT)?;
    let Some(run) = of_place(place, &course, Precision::Bf16, true)? else { return Ok(None) };
    let outcome = match &run {
        Ok(losses) => {
            let found = vec![("left of the loss", fall(losses)), ("bound", FALL)];
            Outcome::of(found[0].1 <= FALL, Found(found))
        }
        Err(error) => Outcome::Failed(error.to_string()),
    };
    report.add(Case { name: format!("paper, {STEPS} steps, bf16, dropout"), rows: rows(place), outcome });
    let [bf16, f32] = <[_; 2]>::try_from(runs).map_err(|_| "two runs are compared")?;
    Ok(Some(Curves { rows: rows(place), cpu, bf16, f32, with_dropout: run.unwrap_or_default(), bound }))
}

/// A run on the place, or what became of it; none where there are no kernels.
fn of_place(
    place: &Place,
    course: &Course,
    precision: Precision,
    dropout: bool,
) -> Result<Option<Result<Vec<f64>, Failure>>, Failure> {
    Ok(match learner(place, &course.model, precision) {
        Ok(Ok(mut learning)) => Some(course.run(&mut learning, dropout)),
        Ok(Err(why)) => {
            println!("  THE RUNS ARE NOT COMPARED: {why}");
            None
        }
        Err(error) => Some(Err(error)),
    })
}

/// The same from weights rounded to bfloat16.
fn rounded(course: &Course) -> Course {
    let mut model = course.model.clone();
    for (_, data) in model.parameters_mut() {
        data.iter_mut().for_each(|x| *x = f32::from_bits((x.to_bits() + 0x8000) & 0xffff_0000));
    }
    Course { model, batches: course.batches.clone() }
}

/// Averages over [`WINDOW`] steps.
fn smoothed(losses: &[f64]) -> Vec<f64> {
    losses.windows(WINDOW).map(|w| w.iter().sum::<f64>() / WINDOW as f64).collect()
}

/// Largest difference of two smoothed curves, as a share of the second; infinite where they are of other lengths, of less than
/// a window, or have what is no number.
pub(crate) fn apart(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() || want.len() < WINDOW || got.iter().chain(want).any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let pairs = smoothed(got).into_iter().zip(smoothed(want));
    pairs.map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

/// What the last steps' loss is of the first ones'.
fn fall(losses: &[f64]) -> f64 {
    let smooth = smoothed(losses);
    match (smooth.first(), smooth.last()) {
        (Some(first), Some(last)) => last / first,
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_compared_by_averages() {
        let falling: Vec<f64> = (0..STEPS).map(|i| 1.0 / (1.0 + i as f64)).collect();
        assert_eq!(apart(&falling, &falling), 0.0);
        let higher: Vec<f64> = falling.iter().map(|x| x * 1.03).collect();
        assert!((apart(&higher, &falling) - 0.03).abs() < 1e-9);
        // One step alone is a tenth of its window's.
        let mut one = vec![1.0; STEPS];
        one[30] = 1.1;
        assert!((apart(&one, &[1.0; STEPS]) - 0.01).abs() < 1e-9);
        assert!(apart(&falling[1..], &falling).is_infinite());
        one[30] = f64::NAN;
        assert!(apart(&one, &falling).is_infinite());
        assert!(fall(&falling) < 0.2 && fall(&[1.0; STEPS]) == 1.0 && fall(&[]).is_infinite());
    }
}

//! How far a run is, how fast, and when it will be done.

use std::time::{Duration, Instant};

use crate::state::Run;
use crate::stepper::Stepped;
use crate::trainer::Progress;

/// Speed and time left.
pub(crate) struct Clock {
    pub(crate) begun: Instant,
    pub(crate) resumed_at: u64,
    rows_before: u64,
    rows: u64,
    rows_total: u64,
    steps: u64,
    smooth: f64,
}

impl Clock {
    pub(crate) fn new(run: &Run, rows_total: u64, steps: u64) -> Self {
        let rows_before = (rows_total as f64 * run.step() as f64 / steps as f64) as u64;
        let smooth = run.loss.iter().fold(f64::NAN, |s, loss| blend(s, *loss));
        let (begun, resumed_at) = (Instant::now(), run.step());
        Self { begun, resumed_at, rows_before, rows: rows_before, rows_total, steps, smooth }
    }

    pub(crate) fn tick(&mut self, run: &Run, done: &Stepped, learning_rate: f64) -> Progress {
        let Stepped { epoch, rows, loss } = *done;
        self.rows += rows;
        self.smooth = blend(self.smooth, loss);
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-9);
        let rows_per_second = (self.rows - self.rows_before) as f64 / seconds;
        let left = self.rows_total.saturating_sub(self.rows) as f64 / rows_per_second.max(1e-9);
        Progress {
            step: run.step(),
            steps: self.steps,
            epoch,
            rows: self.rows,
            rows_total: self.rows_total,
            loss,
            smooth_loss: self.smooth,
            learning_rate,
            rows_per_second,
            left: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX),
        }
    }
}

fn blend(smooth: f64, loss: f64) -> f64 {
    if smooth.is_nan() { loss } else { 0.98 * smooth + 0.02 * loss }
}

//! Time: the server's clock, and how long each stage took.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The server's clock, ms since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Times the stages of one ranking and records each in `lately_rank_stage_seconds`.
pub(crate) struct StageClock {
    start: Instant,
    lap: Instant,
    laps: Vec<(&'static str, u64)>,
}

impl StageClock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, lap: now, laps: Vec::with_capacity(8) }
    }

    pub(crate) fn started(&self) -> Instant {
        self.start
    }

    /// Ends a stage.
    pub(crate) fn lap(&mut self, stage: &'static str) {
        let now = Instant::now();
        let took = now - self.lap;
        self.lap = now;
        metrics::histogram!("lately_rank_stage_seconds", "stage" => stage).record(took.as_secs_f64());
        self.laps.push((stage, took.as_micros() as u64));
    }

    /// Names a part of a stage.
    pub(crate) fn part(&mut self, name: &'static str, took: Duration) {
        self.laps.push((name, took.as_micros() as u64));
    }

    /// Microseconds a stage, and in all under `total`.
    pub(crate) fn finish(mut self, arm: &'static str) -> Vec<(&'static str, u64)> {
        let total = self.start.elapsed();
        metrics::histogram!("lately_rank_seconds").record(total.as_secs_f64());
        metrics::histogram!("lately_arm_rank_seconds", "arm" => arm).record(total.as_secs_f64());
        self.laps.push(("total", total.as_micros() as u64));
        self.laps
    }
}

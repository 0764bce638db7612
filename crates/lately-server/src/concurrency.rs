//! How many rankings may be in work at a time: found by measuring, between two bounds.
//!
//! More than the machine can work on only wait for each other; fewer leave it idle. Limiters such as Netflix'
//! concurrency-limits compare latency with that of an unloaded system, which they must guess: a minimum errs where
//! rankings differ in size, a long average grows with an overload that lasts. Here the guess is not needed, as each
//! ranking says how long it waited for a scoring thread. While rankings of a window wait longer on the average than
//! [`WAITS`] times what they are worked on (and than [`SHORT`]), or are lost, the limit falls in proportion; else,
//! where it was half used at least, it grows by one.

use std::time::{Duration, Instant};

/// Waiting, in terms of the work, that is taken: at 80 % load a ranking waits for two others (M/D/1).
const WAITS: u32 = 2;
/// Waiting that is always taken.
const SHORT: Duration = Duration::from_millis(25);
/// The limit falls at most by this factor a window, and by the second one where rankings are lost.
const FALL: f64 = 0.7;
const FALL_LOST: f64 = 0.8;
/// Share of lost rankings that is taken for chance.
const LOST: f64 = 0.1;
/// A window is at least so long and has at least so many rankings: less is chance.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES: u32 = 16;

/// One ranking.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// All its time.
    pub(crate) took: Duration,
    /// Of which it waited for a thread.
    pub(crate) waited: Duration,
    /// It was refused, or its deadline passed before it was scored.
    pub(crate) lost: bool,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    samples: u32,
    lost: u32,
    waited: Duration,
    worked: Duration,
    /// Most rankings in work.
    most: usize,
}

/// The limit and its measurements; the clock is the caller's.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: f64,
    least: f64,
    most: f64,
    window: Window,
}

impl Concurrency {
    /// From `least` to `most`, at first `start`.
    pub(crate) fn new(start: usize, least: usize, most: usize) -> Self {
        let (least, most) = (least.max(1) as f64, most.max(least).max(1) as f64);
        Self { limit: (start as f64).clamp(least, most), least, most, window: Window::default() }
    }

    /// Rankings that may be in work.
    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A ranking ended, with so many in work, itself included.
    pub(crate) fn ended(&mut self, now: Instant, sample: Sample, in_work: usize) {
        let window = &mut self.window;
        let began = *window.began.get_or_insert(now);
        window.samples += 1;
        window.lost += u32::from(sample.lost);
        window.waited += sample.waited;
        window.worked += sample.took.saturating_sub(sample.waited);
        window.most = window.most.max(in_work);
        if window.samples >= SAMPLES && now.saturating_duration_since(began) >= WINDOW {
            self.limit = (self.limit * self.window.factor() + self.window.growth(self.limit))
                .clamp(self.least, self.most);
            self.window = Window::default();
        }
    }
}

impl Window {
    fn factor(&self) -> f64 {
        let taken = (self.worked / self.samples * WAITS).max(SHORT);
        let waited = (self.waited / self.samples).as_secs_f64();
        let lost = f64::from(self.lost) > f64::from(self.samples) * LOST;
        let factor = if waited > 0.0 { (taken.as_secs_f64() / waited).clamp(FALL, 1.0) } else { 1.0 };
        if lost { factor.min(FALL_LOST) } else { factor }
    }

    fn growth(&self, limit: f64) -> f64 {
        let used = self.most as f64 * 2.0 >= limit;
        if used && self.factor() >= 1.0 { 1.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A machine that works on `cores` rankings of `work` at a time, with as many offered as may be.
    fn saturate(control: &mut Concurrency, now: &mut Instant, cores: u32, work: Duration, rankings: u32) {
        for _ in 0..rankings {
            let in_work = control.limit();
            let took = (work * in_work as u32 / cores).max(work);
            *now += work / cores;
            let sample = Sample { took, waited: took - work, lost: false };
            control.ended(*now, sample, in_work);
        }
    }

    #[test]
    fn it_settles_where_rankings_wait_about_twice_their_work_and_follows_a_change() {
        let (mut control, mut now) = (Concurrency::new(64, 2, 256), Instant::now());
        saturate(&mut control, &mut now, 2, 40 * MS, 2_000);
        assert!((5..=7).contains(&control.limit()), "{}: 2 in work, twice as many wait", control.limit());
        saturate(&mut control, &mut now, 32, 40 * MS, 20_000);
        assert!((90..=98).contains(&control.limit()), "{}", control.limit());
        saturate(&mut control, &mut now, 1, 40 * MS, 2_000);
        assert!((2..=4).contains(&control.limit()), "{}", control.limit());
        saturate(&mut control, &mut now, 2, MS, 20_000);
        assert!((50..=54).contains(&control.limit()), "{}: 25 ms are always taken", control.limit());
    }

    #[test]
    fn it_does_not_drift_in_an_overload_that_lasts() {
        let (mut control, mut now) = (Concurrency::new(64, 2, 256), Instant::now());
        saturate(&mut control, &mut now, 2, 40 * MS, 30_000); // ten minutes
        assert!((5..=7).contains(&control.limit()), "{}", control.limit());
    }

    #[test]
    fn lost_rankings_lower_it_to_its_bound_and_the_next_good_ones_raise_it() {
        let (mut control, mut now) = (Concurrency::new(64, 4, 256), Instant::now());
        let mut run = |lost: bool, rankings: usize| {
            for _ in 0..rankings {
                now += 10 * MS;
                let in_work = control.limit();
                control.ended(now, Sample { took: 10 * MS, waited: Duration::ZERO, lost }, in_work);
            }
            control.limit()
        };
        assert_eq!(run(true, 16), 51);
        assert_eq!(run(true, 1_000), 4);
        assert!((13..=14).contains(&run(false, 160)), "one more each 160 ms");
        assert_eq!(run(false, 10_000), 256);
    }

    #[test]
    fn a_limit_that_is_not_used_says_nothing_and_stays() {
        let (mut control, mut now) = (Concurrency::new(32, 4, 256), Instant::now());
        for _ in 0..1_000 {
            now += 10 * MS;
            control.ended(now, Sample { took: 10 * MS, ..Sample::default() }, 3);
        }
        assert_eq!(control.limit(), 32);
        assert_eq!(Concurrency::new(64, 10, 5).limit(), 10, "bounds in any order");
    }
}

//! How large a suite is.

use anyhow::{Result, ensure};
use serde::Serialize;

/// Days after which the models are retrained: twice a week, as Pinterest does.
const RETRAINED_AFTER: [u32; 2] = [3, 7];

/// Sizes of a suite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Seeds of the worlds; all else follows from them.
    pub seeds: Vec<u64>,
    /// People of a town that is split between variants.
    pub people: usize,
    /// People of a town that has one policy for all.
    pub twins: usize,
    /// People of a town with one policy for all that is looked at on its first day only.
    pub first_day: usize,
    /// Things that can be shown.
    pub items: usize,
    /// Days of the past, without a model.
    pub past_days: u32,
    /// Days that are simulated.
    pub days: u32,
    /// Candidates of a page, drawn at random: retrieval that knows nothing, the same for all variants.
    pub candidates: usize,
    /// Days that a training reads.
    pub window_days: u32,
    /// Towns that run at a time.
    pub threads: usize,
    /// `lately.toml` of the towns, without its `[schema]`.
    pub settings: String,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seeds: vec![1, 2, 3],
            people: 300,
            twins: 240,
            first_day: 1_200,
            items: 1_200,
            past_days: 8,
            days: 14,
            candidates: 100,
            window_days: 4,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            settings: include_str!("lately.toml").to_owned(),
        }
    }
}

impl Recipe {
    /// Refuses sizes of which nothing could be said.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.seeds.is_empty(), "no seed: name at least one");
        ensure!((2..=90).contains(&self.days), "{} days: simulate 2 to 90", self.days);
        ensure!((2..=90).contains(&self.past_days), "{} days of past: make it 2 to 90", self.past_days);
        ensure!(self.window_days > 0, "a training reads at least 1 day");
        ensure!(
            self.people >= 40 && self.twins >= 10 && self.first_day >= 10,
            "too few people: 40 in a split town, 10 in others"
        );
        ensure!((24..=2_000).contains(&self.candidates), "{} candidates: rank 24 to 2,000", self.candidates);
        ensure!(self.items >= 2 * self.candidates, "{} items: at least twice the candidates", self.items);
        ensure!(self.threads > 0, "no thread: give at least one");
        Ok(())
    }

    /// Whether models are retrained at the end of a day, the first one being 1.
    pub(super) fn retrains_after(day: u32) -> bool {
        RETRAINED_AFTER.iter().any(|of_week| day % 7 == of_week % 7)
    }
}

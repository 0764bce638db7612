//! Whether what is served today still looks like what a model was trained on.
//!
//! A [`Profile`] is a small picture of training rows: coverage and distribution of every feature, of the sequences and
//! of the labels. It goes with the model in its manifest; [`Profile::again`] takes the same picture of newer rows, and
//! [`Profile::drift`] holds one against the other. [`served`] compares what was served with what followed.
//!
//! Rows of one user, or of one item, are alike: chance alone moves a distribution over 40 people by far more than one
//! over 40,000 rows. So a difference counts only where it is larger than what as many *independent* rows would show.

mod columns;
mod profile;
mod psi;
pub mod served;

use serde::Serialize;

pub use profile::{Bins, Column, Profile, ProfileError};
pub use psi::{psi, psi_noise};

/// What difference is too large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Largest population stability index.
    pub psi: f64,
    /// Largest fall or rise of a coverage, as a share of the rows.
    pub coverage: f64,
}

/// How one column differs between training and now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// The column, such as `user.country` or `sequence.length`.
    pub name: String,
    /// Population stability index of the distributions, missing rows included.
    pub psi: f64,
    /// What chance alone would hardly exceed, once in 10,000.
    pub psi_noise: f64,
    /// Share of the rows that had a value in training.
    pub coverage_before: f64,
    /// Share of the rows that have one now.
    pub coverage: f64,
    /// What chance alone would hardly exceed in the difference of the coverages.
    pub coverage_noise: f64,
}

impl Drift {
    /// Whether the distribution moved by more than the bound and more than by chance.
    pub fn moved(&self, bounds: &Bounds) -> bool {
        self.psi > bounds.psi.max(self.psi_noise)
    }

    /// Whether the coverage changed by more than the bound and more than by chance.
    pub fn uncovered(&self, bounds: &Bounds) -> bool {
        (self.coverage - self.coverage_before).abs() > bounds.coverage.max(self.coverage_noise)
    }

    /// Either of both.
    pub fn crossed(&self, bounds: &Bounds) -> bool {
        self.moved(bounds) || self.uncovered(bounds)
    }

    /// How far over its bounds it is, above 1 where [`Drift::crossed`]: for an order, the worst first.
    pub fn badness(&self, bounds: &Bounds) -> f64 {
        let coverage = (self.coverage - self.coverage_before).abs();
        let moved = self.psi / bounds.psi.max(self.psi_noise);
        moved.max(coverage / bounds.coverage.max(self.coverage_noise))
    }
}

#[cfg(test)]
mod tests;

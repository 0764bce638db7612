//! Sums over people in, estimates out.
//!
//! [`Sums`] is all that is kept of a variant, one [`Observation`] a person; [`estimate`] and [`cuped`] compare two of
//! them. A mean per person and a ratio such as saves per impression are one thing here: a mean is a ratio whose
//! denominator is 1. Intervals for one look and for any number of looks come together in an [`Effect`]; [`mismatch`]
//! looks at the split itself, [`holm`] and [`benjamini_hochberg`] at many comparisons, [`Plan`] at what to expect before.

mod compare;
mod effect;
mod many;
mod mismatch;
mod plan;
mod quantile;
mod sequential;
mod sums;

pub use compare::{Estimate, Looked, cuped, estimate};
pub use effect::Effect;
pub use many::{benjamini_hochberg, holm};
pub use mismatch::{Mismatch, mismatch};
pub use plan::Plan;
pub(crate) use plan::needed;
pub(crate) use quantile::two_sided;
pub use sequential::{BEST_CLOCK, Sequential, boundary, sequential};
pub use sums::{Observation, Sums};

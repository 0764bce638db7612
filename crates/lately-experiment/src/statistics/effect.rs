//! One number with how sure it is.

use serde::{Deserialize, Serialize};

use super::quantile;
use super::sequential::{Sequential, sequential};

/// An estimated effect: of one look planned beforehand, and of any number of looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Lower end of the interval for one look.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Probability of an estimate as far from 0, without an effect, at one look.
    pub p: f64,
    /// What holds at every look at once; `None` where people are too few for it.
    pub sequential: Option<Sequential>,
}

impl Effect {
    /// An effect by its estimate, variance and degrees of freedom (Student's t; infinite: normal), at a clock.
    pub(crate) fn new(
        value: f64,
        variance: f64,
        freedom: f64,
        alpha: f64,
        clock: Option<f64>,
    ) -> Option<Self> {
        // Nothing is known where the variance is 0: nobody has done anything yet.
        if !(value.is_finite() && variance > 0.0 && variance.is_finite() && freedom > 0.0) {
            return None;
        }
        let standard_error = variance.sqrt();
        let reach = quantile::two_sided(alpha, freedom) * standard_error;
        Some(Self {
            value,
            standard_error,
            low: value - reach,
            high: value + reach,
            p: quantile::beyond(value / standard_error, freedom),
            sequential: clock.map(|clock| sequential(value, standard_error, clock, alpha)),
        })
    }
}

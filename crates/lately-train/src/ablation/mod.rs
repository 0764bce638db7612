//! Several configurations, each trained with several seeds, compared with one of them on the same rows.
//!
//! Read in this order: [`mod@measure`] (what one trained model gives, on the rows and on resamples of users),
//! [`mod@compare`] (means over seeds, differences from the baseline with intervals), [`claim`] (does the sign agree
//! with what a paper says), then [`table`] and [`plot`].
//!
//! A model's metrics are taken on every resample as soon as it is scored, and its scores are dropped: the resamples
//! draw the same users for every model, so that all stays paired while one model's scores are in memory.

pub mod claim;
pub mod compare;
pub mod measure;
pub mod plot;
pub mod table;

pub use claim::{Claim, Verdict};
pub use compare::{Averaged, CellReport, Contender, Line, compare};
pub use measure::{GROUPS, Measured, measure};

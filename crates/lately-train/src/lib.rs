//! From logs to a promoted version.
//!
//! Read in this order: [`mod@join`] (what was served, joined with what followed), [`dataset`] (the rows), [`config`] and
//! [`trainer`], [`calibration`], [`predict`] and [`eval`] (how good it is), [`gate`] (may it be promoted) and
//! [`publish`]. [`embed`] makes item vectors from histories, [`ablation`] compares configurations over seeds, [`drift`]
//! holds what is served against what was trained on. Nothing here depends on the number of threads, nor on a clock but
//! for pace.

pub mod ablation;
mod ahead;
pub mod calibration;
pub mod chunks;
mod clock;
pub mod config;
mod course;
pub mod dataset;
pub mod dates;
pub mod decay;
pub mod drift;
pub mod embed;
pub mod eval;
mod examples;
#[cfg(test)]
mod fixtures;
pub mod gate;
pub mod groups;
pub mod incremental;
pub mod join;
mod known;
mod labels;
pub mod lake;
pub mod memory;
pub mod metrics;
mod on_device;
mod optim;
mod place;
pub mod plot;
pub mod predict;
pub mod publish;
mod random;
pub mod replay;
pub mod report;
mod sampler;
pub mod scores;
mod start;
pub mod state;
mod stats;
mod stepper;
pub mod table;
mod team;
pub mod trainer;
mod weights;

pub use chunks::Chunks;
pub use config::{TrainConfig, TrainDevice};
pub use dataset::{Dataset, Slice};
pub use dates::{DateRange, Zone};
pub use eval::{EvalOptions, EvalReport, evaluate};
pub use join::{JoinOptions, join, join_store};
pub use lake::{Lake, LakeConfig, LakeReader};
pub use place::Place;
pub use scores::Scores;
pub use trainer::{Control, Outcome, Progress, Start, train, train_on};

//! `lately simulate`: products that are lived in for weeks, to see what a change of model or policy does in the long run.
//!
//! A `town` is one product on a world of its own seed: its people (`person`, and what is known of them by night, `profile`) come, are shown pages by the ranker and act
//! (`visit`), and models learn from what was served and what followed. People remember: a topic that was shown too much
//! wearies them for days, and visits that please them make them come more often ([`crate::world::Life`]). A town is either
//! split between models by an experiment, or has one policy for all; two of the latter with the same seed are twins, whose
//! people are compared one by one. `suite` says which towns are made, `compare` what is compared, `lift` how, `first` keeps what towns of one past learn alike; `report` and `plot` show.

mod compare;
mod first;
mod lift;
mod person;
mod plot;
mod profile;
mod recipe;
mod report;
mod suite;
mod town;
mod visit;

pub use lift::Lift;
pub use plot::draw;
pub use recipe::Recipe;
pub use report::{Contrast, Headline, Line, Plain, Point, Series};
pub use suite::{Part, headline};

#[cfg(test)]
mod tests;

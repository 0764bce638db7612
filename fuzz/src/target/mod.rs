//! What a target is, and the list of them: one file a target.

mod checkpoint;
mod event;
mod packed;
mod schema;

/// What a target made of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is valid, and all that must hold of a valid one holds.
    Accepted,
    /// It is refused with an error, whose words are given.
    Refused(String),
}

impl Verdict {
    /// A refusal with the words of an error.
    pub fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A reader of bytes from outside.
#[derive(Debug)]
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// What is tested.
    pub about: &'static str,
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces of text that the format uses, inserted whole.
    pub words: &'static [&'static [u8]],
    /// Reads an input; panics where something that must hold does not.
    pub check: fn(&[u8]) -> Verdict,
}

/// All targets.
pub const TARGETS: &[Target] =
    &[event::TARGET, schema::TARGET, checkpoint::FILE, checkpoint::MANIFEST, packed::REQUEST, packed::ANSWER];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Limits, run};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn every_target_accepts_its_seeds_and_meets_both_verdicts() {
        let time = Duration::from_secs(2);
        let limits = Limits { time, cases: 4000, seed: 1, trace: None, progress: Arc::default() };
        for target in TARGETS {
            let report = run(target, &[], &limits).unwrap();
            assert!(report.accepted > 10 && report.refusals > 1, "{}: {report:?}", target.name);
        }
    }
}

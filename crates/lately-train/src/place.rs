//! Where a model is trained, and which part of each batch falls to whom.

use std::ops::Range;

use lately_model::Accelerator;
use lately_model::training::Group;

use crate::trainer::TrainError;

/// Where a model is trained. Each place gives the same bytes again; between places they differ by rounding.
#[derive(Debug, Clone, Copy, Default)]
pub enum Place<'a> {
    /// The CPU, by `threads` of the settings.
    #[default]
    Cpu,
    /// A device; the CPU makes the batches, ahead of it.
    Device {
        /// The opened device.
        accelerator: &'a dyn Accelerator,
        /// Where each of several processes, with a device of its own, takes a part of every batch: its place among them.
        /// All must be given the same rows, settings and state file. Only the first one saves, fits the calibration and
        /// has the model at the end; one that alone is told to stop leaves the others waiting.
        group: Option<&'a Group>,
    },
}

impl Place<'_> {
    /// What trains there: `cpu`, or the device's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu => "cpu",
            Self::Device { accelerator, .. } => accelerator.name(),
        }
    }

    /// What of it decides a run's bytes; empty on the CPU, whose states are older than devices. A device's name stands for the
    /// kind of card, and so for how its sums are ordered.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Self::Cpu => String::new(),
            Self::Device { group, .. } => format!(" {} {}", self.name(), group.map_or(1, |g| g.size)),
        }
    }
}

/// One of those who share each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

impl Member {
    pub(crate) const ALONE: Self = Self { rank: 0, size: 1 };

    pub(crate) fn of(place: &Place<'_>) -> Result<Self, TrainError> {
        match *place {
            Place::Device { group: Some(&Group { rank, size, .. }), .. } => {
                if rank < size {
                    Ok(Self { rank, size })
                } else {
                    Err(TrainError::Member { rank, size })
                }
            }
            _ => Ok(Self::ALONE),
        }
    }

    /// Whether it is the one who saves and has the model at the end.
    pub(crate) fn leads(self) -> bool {
        self.rank == 0
    }

    /// Which of a batch's groups fall to it, by their rows: a stretch of them, so that all members' parts one after another
    /// are the batch. A group goes where its middle row lies in even cuts, so that a part has at most about a group's rows
    /// more than another; it may be empty.
    pub(crate) fn part(self, rows: impl Iterator<Item = usize> + Clone) -> Range<usize> {
        let all: usize = rows.clone().sum();
        // Twice the rows before a group and its own are twice those before its middle.
        let middles = rows.scan(0, |before, own| {
            let middle = 2 * *before + own;
            *before += own;
            Some(middle)
        });
        let before = |member: usize| {
            middles.clone().take_while(|middle| middle * self.size < 2 * all * member).count()
        };
        before(self.rank)..before(self.rank + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn parts_are_the_batch_and_of_about_one_size() {
        let mut random = Random::of(7, &[]);
        for size in [1, 2, 3, 8] {
            for _ in 0..50 {
                let rows: Vec<usize> = (0..1 + random.below(60)).map(|_| 1 + random.below(9)).collect();
                let part = |rank| Member { rank, size }.part(rows.iter().copied());
                let all: Vec<usize> = (0..size).flat_map(part).collect();
                assert_eq!(all, (0..rows.len()).collect::<Vec<_>>(), "{rows:?} in {size}");
                let even = rows.iter().sum::<usize>() as f64 / size as f64;
                for rank in 0..size {
                    let own: usize = rows[part(rank)].iter().sum();
                    assert!((own as f64 - even).abs() <= 9.0, "{own} rows of {rows:?} in {size}");
                }
            }
        }
    }

    #[test]
    fn of_fewer_groups_than_members_some_get_none() {
        let parts: Vec<_> = (0..4).map(|rank| Member { rank, size: 4 }.part([5, 5].into_iter())).collect();
        assert_eq!(parts.iter().map(Range::len).sum::<usize>(), 2);
        assert_eq!(parts.iter().filter(|part| part.is_empty()).count(), 2);
        assert_eq!(Member { rank: 0, size: 2 }.part(std::iter::empty()), 0..0);
    }
}

//! The sums of each version by the arm in which it ranks, over a window of time.

use super::sums::{Column, Sums};
use crate::request::Variant;

/// Versions by arm that are remembered: two of a canary, up to four of a swap, and those before them.
const LANES: usize = 12;

/// A version in an arm; of no arm while no canary runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) version: String,
    pub(crate) variant: Option<Variant>,
}

/// What is summed of a side: over the present window and the one before it, so that it is never of a moment only.
#[derive(Debug)]
struct Lane {
    side: Side,
    since_ms: i64,
    now: Sums,
    before: Option<Sums>,
    /// Rankings of the windows before those.
    past: f64,
}

/// The newest sides.
#[derive(Debug)]
pub(super) struct Lanes {
    heads: usize,
    window_ms: i64,
    /// The one that was used last stands last.
    lanes: Vec<Lane>,
}

impl Lanes {
    pub(super) fn new(heads: usize, window_ms: i64) -> Self {
        Self { heads, window_ms, lanes: Vec::with_capacity(LANES) }
    }

    /// The sums to which something of this time belongs; `None` for what is older than the window.
    pub(super) fn of(&mut self, side: &Side, time_ms: i64) -> Option<&mut Sums> {
        let lane = match self.lanes.iter().position(|l| l.side == *side) {
            Some(at) => self.lanes.remove(at),
            None => self.lane(side.clone(), time_ms),
        };
        self.lanes.push(lane);
        let lane = self.lanes.last_mut()?;
        if time_ms - lane.since_ms >= self.window_ms {
            let over = std::mem::replace(&mut lane.now, Sums::new(self.heads));
            let before = lane.before.replace(over);
            lane.past += before.map_or(0.0, |b| b.total(Column::Rankings));
            lane.since_ms = time_ms;
        }
        // A watch begins with nothing: what was ranked before it does not count.
        (time_ms >= lane.since_ms || lane.before.is_some()).then_some(&mut lane.now)
    }

    fn lane(&mut self, side: Side, since_ms: i64) -> Lane {
        if self.lanes.len() == LANES {
            self.lanes.remove(0);
        }
        Lane { side, since_ms, now: Sums::new(self.heads), before: None, past: 0.0 }
    }

    /// Begins a side anew.
    pub(super) fn begin(&mut self, side: &Side, time_ms: i64) {
        self.lanes.retain(|l| l.side != *side);
        let lane = self.lane(side.clone(), time_ms);
        self.lanes.push(lane);
    }

    /// All that is known of these sides together.
    pub(super) fn sums(&self, sides: &[Side]) -> Sums {
        let of = self.lanes.iter().filter(|l| sides.contains(&l.side));
        let parts = of.flat_map(|lane| std::iter::once(&lane.now).chain(&lane.before));
        parts.fold(Sums::new(self.heads), Sums::plus)
    }

    /// Their rankings since they began.
    pub(super) fn rankings(&self, sides: &[Side]) -> u64 {
        let past: f64 = self.lanes.iter().filter(|l| sides.contains(&l.side)).map(|l| l.past).sum();
        (past + self.sums(sides).total(Column::Rankings)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(version: &str) -> Side {
        Side { version: version.to_owned(), variant: None }
    }

    fn add(lanes: &mut Lanes, side: &Side, time_ms: i64) {
        if let Some(sums) = lanes.of(side, time_ms) {
            sums.add(0, Column::Rankings, 1.0);
        }
    }

    fn ranked(lanes: &Lanes, side: &Side) -> f64 {
        lanes.sums(std::slice::from_ref(side)).total(Column::Rankings)
    }

    #[test]
    fn a_side_holds_one_to_two_windows_and_begins_anew_where_it_is_told_to() {
        let (mut lanes, a) = (Lanes::new(1, 100), side("a"));
        let challenger = Side { variant: Some(Variant::Challenger), ..a.clone() };
        (0..250).for_each(|time| add(&mut lanes, &a, time));
        assert_eq!((ranked(&lanes, &a), ranked(&lanes, &challenger)), (150.0, 0.0));
        assert_eq!(lanes.rankings(std::slice::from_ref(&a)), 250, "since it began");
        lanes.begin(&a, 250);
        add(&mut lanes, &a, 249);
        assert_eq!(ranked(&lanes, &a), 0.0, "of before it began");
        add(&mut lanes, &a, 250);
        add(&mut lanes, &challenger, 250);
        assert_eq!((ranked(&lanes, &a), ranked(&lanes, &challenger)), (1.0, 1.0));
    }

    #[test]
    fn only_the_newest_sides_are_remembered() {
        let mut lanes = Lanes::new(1, 100);
        for i in 0..20 {
            add(&mut lanes, &side("kept"), i);
            add(&mut lanes, &side(&format!("v{i}")), i);
        }
        assert_eq!(lanes.lanes.len(), LANES);
        assert_eq!(ranked(&lanes, &side("kept")), 20.0);
        assert_eq!(ranked(&lanes, &side("v3")), 0.0);
    }
}

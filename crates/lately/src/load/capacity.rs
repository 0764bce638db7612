//! How much a server can do: the largest goodput of closed loops of more and more clients.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::phase::Bench;
use super::report::Phase;

/// Most clients that are tried.
const CLIENTS: usize = 256;
/// A step must add so much to count as more.
const MORE: f64 = 1.03;
/// Steps without more after which the search ends.
const PATIENCE: usize = 2;
/// The best step is repeated for so many times its time: the best of several is flattered.
const AGAIN: u32 = 3;

/// Doubles the clients until goodput does not grow any more, then measures the best number again. Returns that phase;
/// `keep` gets the steps.
pub(crate) fn search(bench: &mut Bench, step: Duration, keep: &mut Vec<Phase>) -> Result<Phase> {
    let mut climb = Climb::default();
    let mut clients = 1;
    while clients <= CLIENTS && climb.goes_on() {
        let name = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let phase = bench.closed(&name, clients, step, true)?;
        climb.step(clients, phase.rankings.goodput);
        keep.push(phase);
        clients *= 2;
    }
    let again = bench.closed("capacity", climb.best, step * AGAIN, true)?;
    ensure!(
        again.rankings.goodput > 0.0,
        "no ranking was answered in time and in full: {}",
        again.rankings.reasons.keys().chain(&again.rankings.messages).cloned().collect::<Vec<_>>().join("; ")
    );
    Ok(again)
}

/// What the steps so far came to.
#[derive(Debug, Default)]
struct Climb {
    best: usize,
    goodput: f64,
    without_more: usize,
}

impl Climb {
    fn goes_on(&self) -> bool {
        self.without_more < PATIENCE
    }

    fn step(&mut self, clients: usize, goodput: f64) {
        self.without_more = if goodput > MORE * self.goodput { 0 } else { self.without_more + 1 };
        if self.best == 0 || goodput > MORE * self.goodput {
            (self.best, self.goodput) = (clients, goodput);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb(goodputs: &[f64]) -> (usize, usize) {
        let (mut climb, mut steps) = (Climb::default(), 0);
        for (n, goodput) in goodputs.iter().enumerate() {
            if !climb.goes_on() {
                break;
            }
            climb.step(1 << n, *goodput);
            steps += 1;
        }
        (climb.best, steps)
    }

    #[test]
    fn the_search_ends_where_more_clients_give_no_more() {
        assert_eq!(
            climb(&[10.0, 20.0, 38.0, 38.5, 30.0, 99.0]),
            (4, 5),
            "noise is not more; two steps of patience"
        );
        assert_eq!(climb(&[10.0, 9.0, 20.0, 5.0, 5.0, 5.0]), (4, 5), "one bad step is forgiven");
        assert_eq!(climb(&[0.0, 0.0, 0.0]), (1, 2), "a server that answers nothing");
    }
}

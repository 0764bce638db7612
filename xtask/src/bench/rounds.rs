//! Two programs measured in turn: what each round gave, the ratio of medians, a table and a summary for scripts.

use serde::Serialize;

use crate::bench::record::{Series, significant};

/// One thing that is measured, in every round once.
#[derive(Debug)]
pub(super) struct Side {
    /// Key in the summary, such as `f32`.
    pub(super) key: &'static str,
    /// Words for the table.
    pub(super) words: String,
    /// Times of each round, ms.
    pub(super) times: Vec<Series>,
    /// Peak memory of each round, MiB.
    memory: Vec<Series>,
}

/// The ratios of one of our sides: the peer's median over ours, above 1 is faster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Of the medians over all rounds.
    pub(super) overall: f64,
    /// Of each round's medians.
    pub(super) rounds: Vec<f64>,
}

impl Side {
    pub(super) fn new(key: &'static str, words: impl Into<String>) -> Self {
        Self { key, words: words.into(), times: Vec::new(), memory: Vec::new() }
    }

    /// Takes what a program wrote in a round; the rest (parity and the like) is given back.
    pub(super) fn take(&mut self, series: Vec<Series>) -> Vec<Series> {
        let mut rest = Vec::new();
        for s in series {
            match s.unit.as_str() {
                "ms" => self.times.push(s),
                "MiB" => self.memory.push(s),
                _ => rest.push(s),
            }
        }
        rest
    }

    /// All rounds' times as one series; `None` before the first.
    pub(super) fn pooled(&self) -> Option<Series> {
        let samples: Vec<f64> = self.times.iter().flat_map(|s| s.samples.iter().copied()).collect();
        (!samples.is_empty()).then(|| Series::new(self.words.clone(), "ms".into(), samples))
    }

    /// The most memory of any round, MiB.
    pub(super) fn peak(&self) -> Option<f64> {
        self.memory.iter().map(|s| s.max).reduce(f64::max)
    }

    /// How many times as fast as `peer`; `None` where one of them was not measured.
    pub(super) fn ratio(&self, peer: &Self) -> Option<Ratio> {
        let overall = peer.pooled()?.median / self.pooled()?.median;
        let rounds = peer.times.iter().zip(&self.times).map(|(peer, ours)| peer.median / ours.median);
        Some(Ratio { overall, rounds: rounds.collect() })
    }

    /// Its series, named by round.
    pub(super) fn series(self) -> impl Iterator<Item = Series> {
        let numbered = |list: Vec<Series>| (1..).zip(list);
        let named = |(round, s): (usize, Series)| Series { name: format!("{}, round {round}", s.name), ..s };
        numbered(self.times).chain(numbered(self.memory)).map(named)
    }
}

/// A line a side, `rows` rows a step, with the ratio of each to `peer`, one of them.
pub(super) fn table(sides: &[&Side], peer: &Side, rows: usize) -> String {
    let sides: Vec<&Side> = sides.iter().copied().filter(|s| !s.times.is_empty()).collect();
    let width = sides.iter().map(|s| s.words.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$} {:>10} {:>10} {:>10} {:>5} {:>8} {:>9}  times as fast (by round)\n",
        "", "median ms", "p10", "p90", "n", "rows/s", "peak MiB"
    );
    for side in sides {
        let Some(s) = side.pooled() else { continue };
        let [median, p10, p90] = [s.median, s.p10, s.p90].map(significant);
        let speed = rows as f64 / s.median * 1e3;
        let peak = side.peak().map_or("-".into(), |mib| format!("{mib:.0}"));
        let ratio = if std::ptr::eq(side, peer) { None } else { side.ratio(peer) };
        let line = format!(
            "{:<width$} {median:>10} {p10:>10} {p90:>10} {:>5} {speed:>8.0} {peak:>9}  {}",
            side.words,
            s.samples.len(),
            ratio.map(|r| words(&r)).unwrap_or_default(),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn words(ratio: &Ratio) -> String {
    let rounds: Vec<String> = ratio.rounds.iter().map(|r| format!("{r:.2}")).collect();
    format!("{:.2} ({})", ratio.overall, rounds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(key: &'static str, rounds: &[&[f64]]) -> Side {
        let mut side = Side::new(key, key);
        for samples in rounds {
            let series = |unit: &str, samples: &[f64]| Series::new("x".into(), unit.into(), samples.to_vec());
            let rest = side.take(vec![
                series("ms", samples),
                series("MiB", &[samples[0]]),
                series("relative", &[0.5]),
            ]);
            assert_eq!(rest.len(), 1, "what is neither time nor memory is the caller's");
        }
        side
    }

    #[test]
    fn the_ratio_is_that_of_medians_by_round_and_over_all() {
        let (ours, peer) = (side("f32", &[&[1.0, 2.0, 9.0], &[4.0]]), side("peer", &[&[8.0], &[8.0, 10.0]]));
        let ratio = ours.ratio(&peer).unwrap();
        assert_eq!(ratio.rounds, [4.0, 2.25]);
        assert!((ratio.overall - 8.0 / 3.0).abs() < 1e-12, "{ratio:?}");
        assert_eq!(ours.peak(), Some(4.0));
        let table = table(&[&ours, &Side::new("bf16", "bf16"), &peer], &peer, 256);
        assert!(table.contains("2.67 (4.00, 2.25)") && table.contains("32000"), "{table}");
        assert!(!table.contains("bf16"), "what was not measured has no line");
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let ours = side("f32", &[&[1.0], &[2.0]]);
        let peer = Side::new("peer", "PyTorch");
        assert_eq!(ours.ratio(&peer), None);
        let names: Vec<String> = ours.series().map(|s| s.name).collect();
        assert_eq!(names, ["x, round 1", "x, round 2", "x, round 1", "x, round 2"]);
    }
}

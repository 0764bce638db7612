//! What a run leaves: every sample, its spread, when, where and of which commit.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::machine::{self, Machine};
use crate::error::TaskError;

/// Version of the record's form.
const FORMAT: u32 = 1;
/// More samples than this in one line belong summarised by the bench program itself.
const MAX_SAMPLES: usize = 10_000;

/// One line of a bench program: repeated measurements of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    unit: String,
    samples: Vec<f64>,
}

/// The same with its spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) min: f64,
    pub(super) p10: f64,
    pub(super) median: f64,
    pub(super) p90: f64,
    pub(super) max: f64,
    pub(super) samples: Vec<f64>,
}

impl Series {
    /// Sorts out the spread; `samples` is not empty.
    pub(super) fn new(name: String, unit: String, samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q);
        let (min, p10, median, p90, max) = (at(0.0), at(0.1), at(0.5), at(0.9), at(1.0));
        Self { name, unit, min, p10, median, p90, max, samples }
    }
}

/// Reads a line of the protocol.
pub(super) fn parse(line: &str) -> Result<Series, String> {
    let line: Line = serde_json::from_str(line).map_err(|e| format!("{e} in the line {line}"))?;
    if line.name.is_empty() || line.unit.is_empty() {
        return Err("a line has an empty name or unit".into());
    }
    if line.samples.is_empty() || line.samples.len() > MAX_SAMPLES {
        return Err(format!("`{}` has {} samples: write 1 to {MAX_SAMPLES}", line.name, line.samples.len()));
    }
    Ok(Series::new(line.name, line.unit, line.samples))
}

/// Linear between ranks, as numpy does by default. `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// One run of one bench.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    format: u32,
    bench: String,
    args: Vec<String>,
    /// UTC, RFC 3339.
    date: String,
    /// Of HEAD.
    commit: String,
    /// Whether the tree differed from the commit: such a run cannot be repeated.
    dirty: bool,
    rustc: String,
    machine: Machine,
    /// Where it was measured against a peer: who that was, and the ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comparison: Option<serde_json::Value>,
    pub(super) series: Vec<Series>,
}

impl Record {
    /// A record without series yet: looks at the clock, the machine and the tree.
    pub(super) fn new(bench: &str, args: &[String]) -> Result<Self, TaskError> {
        Ok(Self {
            format: FORMAT,
            bench: bench.to_owned(),
            args: args.to_vec(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: machine::line_of("git", &["rev-parse", "HEAD"])?,
            dirty: !machine::line_of("git", &["status", "--porcelain"])?.is_empty(),
            rustc: machine::line_of("rustc", &["--version"])?,
            machine: machine::look()?,
            comparison: None,
            series: Vec::new(),
        })
    }

    /// What was measured where, in a line.
    pub(super) fn title(&self) -> String {
        format!("{} on {}", self.bench, self.machine.summary())
    }

    /// For the terminal.
    pub(super) fn table(&self) -> String {
        let width = self.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).max(4);
        let mut text = format!("{}\n", self.title());
        text.push_str(&format!(
            "{:<width$} {:>12} {:>12} {:>12} {:>12} {:>5} unit\n",
            "name", "median", "min", "p10", "p90", "n"
        ));
        for s in &self.series {
            let numbers =
                [s.median, s.min, s.p10, s.p90].map(|x| format!("{:>12}", significant(x))).join(" ");
            text.push_str(&format!("{:<width$} {numbers} {:>5} {}\n", s.name, s.samples.len(), s.unit));
        }
        text
    }

    /// Writes `DATE-BENCH.json` and returns its name. A run of the same second is not overwritten.
    pub(super) fn save(&self, folder: &Path) -> Result<String, TaskError> {
        let name = format!("{}-{}.json", self.date.replace([':', '-'], ""), self.bench);
        let path = folder.join(&name);
        let file = |source| TaskError::File { path: path.clone(), source };
        let wrong = |e: serde_json::Error| TaskError::Output { what: name.clone(), message: e.to_string() };
        std::fs::create_dir_all(folder).map_err(file)?;
        let mut text = serde_json::to_string_pretty(self).map_err(wrong)?;
        text.push('\n');
        let mut out = std::fs::File::create_new(&path).map_err(file)?;
        std::io::Write::write_all(&mut out, text.as_bytes()).map_err(file)?;
        Ok(format!("benchsuite/runs/{name}"))
    }
}

/// Four significant digits, without an exponent.
pub(super) fn significant(x: f64) -> String {
    let digits = if x == 0.0 { 0 } else { (3 - x.abs().log10().floor() as i32).clamp(0, 9) };
    format!("{x:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_its_spread_and_keeps_its_samples() {
        let s = parse(r#"{"name":"a","unit":"us","samples":[5,1,4,2,3]}"#).unwrap();
        assert_eq!((s.min, s.median, s.max), (1.0, 3.0, 5.0));
        assert!((s.p10 - 1.4).abs() < 1e-12 && (s.p90 - 4.6).abs() < 1e-12, "{s:?}");
        assert_eq!(s.samples, [5.0, 1.0, 4.0, 2.0, 3.0], "in their order: drift stays visible");
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "{",
            r#"{"name":"a","unit":"us","samples":[]}"#,
            r#"{"name":"","unit":"us","samples":[1]}"#,
            r#"{"name":"a","unit":"us","samples":[1],"median":1}"#,
            r#"{"name":"a","unit":"us","samples":[null]}"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_record_is_written_once_with_commit_and_machine() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::new("store", &[]).unwrap();
        record.series.push(parse(r#"{"name":"append","unit":"us","samples":[0.5]}"#).unwrap());
        let name = record.save(dir.path()).unwrap();
        assert!(record.save(dir.path()).is_err(), "not overwritten");
        let text = std::fs::read_to_string(dir.path().join(name.rsplit('/').next().unwrap())).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["commit"].as_str().unwrap().len(), 40);
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
        assert_eq!(json["series"][0]["median"], 0.5);
        assert!(record.table().contains("append"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.01234, 1.0, 1234.4, 406_000.0].map(significant),
            ["0", "0.01234", "1.000", "1234", "406000"]
        );
    }
}

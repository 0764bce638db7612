//! `cargo xtask bench serve`: the scoring of one large request, ours and by the PyTorch module in each of its forms, in
//! turn, on the same geometry and number of actions.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use crate::bench::peer::{self, Peer};
use crate::bench::record::{Record, Series};
use crate::bench::rounds::{Side, table};
use crate::bench::{build, runs, series, write};
use crate::error::TaskError;

/// The reference case on which outputs are compared, beside the reference's folder.
const CASE: &str = "../golden/paper.safetensors";
/// Our sides: key, words, precision.
const OURS: [(&str, &str, &str); 2] = [("f32", "ours, f32", "f32"), ("bf16", "ours, bf16", "bf16")];
/// Lengths of the history whose times are compared.
const HISTORIES: [usize; 2] = [46, 100];
/// The peer's forms: the script's name, words, whether in f32.
const PEERS: [(&str, &str, bool); 4] = [
    ("eager", "PyTorch eager, f32", true),
    ("compile", "torch.compile, f32", true),
    ("compile-bf16", "torch.compile, bf16", false),
    ("ort", "ONNX Runtime, f32", true),
];

/// Options of `bench serve`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Write the ratios and all times as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Candidates of the request.
    #[arg(long, default_value_t = 1_000)]
    candidates: usize,
    /// Threads of both.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rounds, each once ours and once every peer.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Seconds of each of our measurements; a peer's takes 6.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// A Python that has torch; else LATELY_PYTHON, else python3.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Prints the table only.
    #[arg(long)]
    no_record: bool,
}

/// Measures, prints, keeps.
pub(super) fn run(options: &Options) -> Result<(), TaskError> {
    let program = build("lately-model", "bench_serve")?;
    let folder = peer::folder();
    let peer = peer::find(&folder, options.python.as_deref());
    if let Err(reason) = &peer {
        eprintln!("THE PEER IS NOT MEASURED: {reason}\nOurs is measured alone: there will be no ratio.");
    }
    let peer = peer.ok();
    let operations = build("lately-kernels", "bench_lanes")?;
    let mut record = Record::new("serve", &arguments(options))?;
    let mut run = Rounds::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        run.round(options, &program, &folder, peer.as_ref())?;
    }
    eprintln!("operations");
    run.shares.extend(series("lanes", &mut Command::new(operations))?);
    let summary = run.summary(options, peer.as_ref());
    println!("{}", record.title());
    let best = run.best(false);
    print!("{}", table(&run.all(), best, options.candidates));
    println!("{}", run.outputs());
    print!("{}", run.shares());
    println!("{}", run.histories());
    for key in ["ratio_f32", "ratio_any"] {
        println!("{key}: {}", summary[key].as_f64().map_or("not measured".into(), |r| format!("{r:.2}")));
    }
    if !run.missing().is_empty() {
        println!("NOT MEASURED, so not among the peers of these ratios: {}", run.missing().join(", "));
    }
    if let Some(path) = &options.json {
        write(path, &summary)?;
    }
    record.comparison = Some(summary);
    record.series = run.into_series();
    if !options.no_record {
        println!("kept in {}", record.save(&runs())?);
    }
    Ok(())
}

/// The arguments that both programs take.
fn shape(options: &Options) -> Vec<String> {
    let pairs = [("--candidates", options.candidates), ("--threads", options.threads)];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
}

/// The arguments as a record names them.
fn arguments(options: &Options) -> Vec<String> {
    let mut all = shape(options);
    all.extend(["--rounds".to_owned(), options.rounds.to_string()]);
    all.extend(["--seconds".to_owned(), options.seconds.to_string()]);
    all
}

/// What the rounds gave so far.
struct Rounds {
    ours: Vec<Side>,
    peers: Vec<Side>,
    parity: Vec<Series>,
    /// Shares of the practical peak, and the rates behind them.
    shares: Vec<Series>,
    /// For each of our sides one a length of [`HISTORIES`].
    histories: Vec<[Side; HISTORIES.len()]>,
}

impl Rounds {
    fn new() -> Self {
        Self {
            ours: OURS.map(|(key, words, _)| Side::new(key, words)).into(),
            peers: PEERS.map(|(key, words, _)| Side::new(key, words)).into(),
            parity: Vec::new(),
            shares: Vec::new(),
            histories: OURS.map(|(key, _, _)| HISTORIES.map(|_| Side::new(key, key))).into(),
        }
    }

    fn round(
        &mut self,
        options: &Options,
        program: &Path,
        folder: &Path,
        peer: Option<&Peer>,
    ) -> Result<(), TaskError> {
        for (side, (key, _, precision)) in self.ours.iter_mut().zip(OURS) {
            let mut command = Command::new(program);
            command.args(shape(options)).args(["--seconds", &options.seconds.to_string()]);
            command.args(["--precision", precision]);
            let case = folder.join(CASE);
            // What bf16 changes is measured on the request itself.
            if key == "f32" && side.times.is_empty() && case.is_file() {
                command.arg("--parity").arg(case);
            }
            let rest = side.take(series("serve", &mut command)?);
            for s in rest {
                let speed = s.unit.contains("peak") || s.unit.contains("FLOP");
                let list = if speed { &mut self.shares } else { &mut self.parity };
                list.push(Series { name: format!("{}, {key}", s.name), ..s });
            }
        }
        for (sides, (_, _, precision)) in self.histories.iter_mut().zip(OURS) {
            for (side, tokens) in sides.iter_mut().zip(HISTORIES) {
                let mut command = Command::new(program);
                command.args(shape(options)).args(["--precision", precision]);
                command.args([
                    "--tokens",
                    &tokens.to_string(),
                    "--seconds",
                    &(options.seconds / 2.0).to_string(),
                ]);
                drop(side.take(series("serve", &mut command)?));
            }
        }
        let Some(peer) = peer else { return Ok(()) };
        for (side, (name, words, _)) in self.peers.iter_mut().zip(PEERS) {
            let mut args = shape(options);
            args.extend(["--peers".to_owned(), name.to_owned()]);
            match series(words, &mut peer.command(&format!("score, {words}"), "serve-bench", &args)) {
                Ok(found) => drop(side.take(found)),
                // A form that this Python lacks (ONNX Runtime, a compiler) is named, and the others are measured.
                Err(error) => eprintln!("{words} IS NOT MEASURED: {error}"),
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<&Side> {
        self.ours.iter().chain(&self.peers).collect()
    }

    /// The fastest peer, in f32 alone or in any precision; the first where none was measured.
    fn best(&self, f32_alone: bool) -> &Side {
        let median = |s: &Side| s.pooled().map_or(f64::INFINITY, |s| s.median);
        let among =
            self.peers.iter().zip(PEERS).filter(|(_, (_, _, f32))| *f32 || !f32_alone).map(|(s, _)| s);
        among.min_by(|a, b| median(a).total_cmp(&median(b))).unwrap_or(&self.peers[0])
    }

    /// Peers that no round could measure.
    fn missing(&self) -> Vec<&'static str> {
        self.peers.iter().filter(|side| side.times.is_empty()).map(|side| side.key).collect()
    }

    /// A line on whether both compute the same.
    fn outputs(&self) -> String {
        if self.parity.is_empty() {
            return format!("outputs: NOT compared, {CASE} is not beside the reference");
        }
        let bounds = self.parity.iter().map(|s| format!("{} {:.1e}", s.name, s.median));
        format!("outputs are equal within bounds: {}", bounds.collect::<Vec<_>>().join("; "))
    }

    /// A line an operation and a side: its share of the practical peak.
    fn shares(&self) -> String {
        let of = |s: &&Series| s.unit == "% of peak";
        let line = |s: &Series| format!("{:>5.0} % of the practical peak: {}\n", s.median, s.name);
        self.shares.iter().filter(of).map(line).collect()
    }

    /// A line on what a shorter history saves.
    fn histories(&self) -> String {
        let [short, long] = HISTORIES;
        let of = |sides: &[Side; 2]| {
            let share = sides[1].ratio(&sides[0]).map(|r| r.overall);
            share.map(|share| format!("{} {share:.2}", sides[0].key))
        };
        let shares: Vec<String> = self.histories.iter().filter_map(of).collect();
        format!("{short} actions take, of the time of {long}: {}", shares.join(", "))
    }

    /// For scripts: `ratio_f32` is our f32 against the best f32 peer, `ratio_any` our fastest against the fastest; null
    /// where a side was not measured.
    fn summary(&self, options: &Options, peer: Option<&Peer>) -> Value {
        let mut out = json!({
            "candidates": options.candidates,
            "threads": options.threads,
            "peer": peer,
            "parity": self.parity.iter().map(|s| (s.name.clone(), json!(s.median))).collect::<serde_json::Map<_, _>>(),
        });
        for side in self.all() {
            let rounds: Vec<&Vec<f64>> = side.times.iter().map(|s| &s.samples).collect();
            out["ms"][side.key] = json!(rounds);
            out["median_ms"][side.key] = json!(side.pooled().map(|s| s.median));
            out["peak_mib"][side.key] = json!(side.peak());
        }
        for sides in &self.histories {
            let share = sides[1].ratio(&sides[0]).map(|r| r.overall);
            out["time_of_46_actions_over_100"][sides[0].key] = json!(share);
        }
        let (best_f32, best) = (self.best(true), self.best(false));
        let ratio = |side: &Side, peer: &Side| side.ratio(peer).map(|r| r.overall);
        out["ratio_f32"] = json!(ratio(&self.ours[0], best_f32));
        out["best_f32_peer"] = json!(best_f32.key);
        out["best_peer"] = json!(best.key);
        // A ratio to the best peer says less where a peer is missing.
        out["not_measured"] = json!(self.missing());
        let any = self.ours.iter().filter_map(|side| ratio(side, best)).reduce(f64::max);
        out["ratio_any"] = json!(any);
        out
    }

    fn into_series(self) -> Vec<Series> {
        let sides = self.ours.into_iter().chain(self.peers).chain(self.histories.into_iter().flatten());
        self.parity.into_iter().chain(self.shares).chain(sides.flat_map(Side::series)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(medians: [f64; 6]) -> Rounds {
        let mut run = Rounds::new();
        for (side, median) in run.ours.iter_mut().chain(&mut run.peers).zip(medians) {
            side.take(vec![Series::new("x".into(), "ms".into(), vec![median])]);
        }
        run
    }

    #[test]
    fn ratios_are_to_the_best_peer_of_each_kind() {
        let options = Options {
            json: None,
            candidates: 1_000,
            threads: 2,
            rounds: 2,
            seconds: 6.0,
            python: None,
            no_record: true,
        };
        let summary = filled([50.0, 20.0, 400.0, 300.0, 100.0, 250.0]).summary(&options, None);
        assert_eq!((&summary["ratio_f32"], &summary["ratio_any"]), (&json!(5.0), &json!(5.0)));
        assert_eq!(
            (&summary["best_f32_peer"], &summary["best_peer"]),
            (&json!("ort"), &json!("compile-bf16"))
        );
        assert_eq!(summary["not_measured"], json!([]));
        let none = Rounds::new().summary(&options, None);
        assert_eq!(none["not_measured"].as_array().map(Vec::len), Some(4));
        assert!(none["ratio_f32"].is_null() && none["ratio_any"].is_null(), "{none}");
    }
}

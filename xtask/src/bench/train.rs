//! `cargo xtask bench train`: a training step of ours and of the PyTorch module, in turn, on the same batch shapes.
//!
//! Ours is measured in f32; in f32 with the module's padded positions computed too, so that both do the same function
//! on as many positions; and in bf16 where this build has it. That both compute the same gradients is checked in the
//! same run on a reference case, by the code that is then timed.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use crate::bench::peer::{self, Peer};
use crate::bench::record::{Record, Series};
use crate::bench::rounds::{Side, table};
use crate::bench::{runs, series};
use crate::error::TaskError;

/// The reference case on which gradients are compared, beside the reference's folder.
const CASE: &str = "../golden/paper.safetensors";
/// Exit status of our program where this build cannot train in the wanted precision.
const UNSUPPORTED: i32 = 3;

/// Options of `bench train`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Write the ratios and all times as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Requests of a batch.
    #[arg(long, default_value_t = 16)]
    requests: usize,
    /// Candidates of each request.
    #[arg(long, default_value_t = 16)]
    candidates: usize,
    /// Threads of both.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rounds, each once ours and once the peer's.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Seconds of each of our measurements; the peer's takes 15.
    #[arg(long, default_value_t = 15.0)]
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
    let program = super::build("lately-train", "bench_step")?;
    let folder = peer::folder();
    let peer = peer::find(&folder, options.python.as_deref());
    if let Err(reason) = &peer {
        eprintln!("THE PEER IS NOT MEASURED: {reason}\nOurs is measured alone: there will be no ratio.");
    }
    let peer = peer.ok();
    let mut record = Record::new("train", &arguments(options))?;
    let mut run = Rounds::new(peer.as_ref());
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        run.round(options, &program, &folder, peer.as_ref())?;
    }
    let summary = run.summary(options, peer.as_ref());
    println!("{}", record.title());
    print!(
        "{}",
        table(
            &run.ours.iter().chain([&run.peer]).collect::<Vec<_>>(),
            &run.peer,
            options.requests * options.candidates
        )
    );
    println!("{}", run.gradients());
    if let Some(path) = &options.json {
        super::write(path, &summary)?;
    }
    record.comparison = Some(summary);
    record.series = run.into_series();
    if !options.no_record {
        println!("kept in {}", record.save(&runs())?);
    }
    Ok(())
}

/// The arguments as a record names them.
fn arguments(options: &Options) -> Vec<String> {
    let mut all = shape(options);
    all.extend(["--rounds".to_owned(), options.rounds.to_string()]);
    all.extend(["--seconds".to_owned(), options.seconds.to_string()]);
    all
}

/// The arguments that both programs take.
fn shape(options: &Options) -> Vec<String> {
    let pairs = [
        ("--requests", options.requests),
        ("--candidates", options.candidates),
        ("--threads", options.threads),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
}

/// What the rounds gave so far.
struct Rounds {
    ours: Vec<Side>,
    peer: Side,
    parity: Vec<Series>,
    /// Keys of what this build cannot do.
    unsupported: Vec<&'static str>,
}

/// Our sides: key, words and arguments.
const OURS: [(&str, &str, &[&str]); 3] = [
    ("f32", "ours, f32", &[]),
    ("f32_padded", "ours, f32, padding computed", &["--padded"]),
    ("bf16", "ours, bf16", &["--precision", "bf16"]),
];

impl Rounds {
    fn new(peer: Option<&Peer>) -> Self {
        Self {
            ours: OURS.map(|(key, words, _)| Side::new(key, words)).into(),
            peer: Side::new("peer", peer.map(|p| format!("{}, eager", p.summary())).unwrap_or_default()),
            parity: Vec::new(),
            unsupported: Vec::new(),
        }
    }

    fn round(
        &mut self,
        options: &Options,
        program: &Path,
        folder: &Path,
        peer: Option<&Peer>,
    ) -> Result<(), TaskError> {
        for (side, (key, words, args)) in self.ours.iter_mut().zip(OURS) {
            if self.unsupported.contains(&key) {
                continue;
            }
            let mut command = Command::new(program);
            command.args(shape(options)).args(["--seconds", &options.seconds.to_string()]).args(args);
            let case = folder.join(CASE);
            if key == "f32" && side.times.is_empty() && case.is_file() {
                command.arg("--parity").arg(case);
            }
            match series("train", &mut command) {
                Ok(found) => self.parity.extend(side.take(found)),
                Err(TaskError::Failed { status, .. }) if status.code() == Some(UNSUPPORTED) => {
                    eprintln!("{words}: this build cannot do it, so it is not measured");
                    self.unsupported.push(key);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(peer) = peer {
            let found = series(
                "train of the peer",
                &mut peer.command("training step, PyTorch", "train-bench", &shape(options)),
            )?;
            self.peer.take(found);
        }
        Ok(())
    }

    /// A line on whether both compute the same.
    fn gradients(&self) -> String {
        if self.parity.is_empty() {
            return format!("gradients: NOT compared, {CASE} is not beside the reference");
        }
        let bounds = self.parity.iter().map(|s| format!("{} {:.1e}", s.name, s.median));
        format!("gradients are equal within bounds: {}", bounds.collect::<Vec<_>>().join("; "))
    }

    /// For scripts: `ratio_KEY` is null where a side or the peer was not measured.
    fn summary(&self, options: &Options, peer: Option<&Peer>) -> Value {
        let mut out = json!({
            "requests": options.requests,
            "candidates": options.candidates,
            "threads": options.threads,
            "peer": peer,
            "parity": self.parity.iter().map(|s| (s.name.clone(), json!(s.median))).collect::<serde_json::Map<_, _>>(),
        });
        for side in self.ours.iter().chain([&self.peer]) {
            let rounds: Vec<&Vec<f64>> = side.times.iter().map(|s| &s.samples).collect();
            out["ms"][side.key] = json!(rounds);
            out["median_ms"][side.key] = json!(side.pooled().map(|s| s.median));
            out["peak_mib"][side.key] = json!(side.peak());
        }
        for side in &self.ours {
            let ratio = side.ratio(&self.peer);
            out[format!("ratio_{}", side.key)] = json!(ratio.as_ref().map(|r| r.overall));
            out["ratio_by_round"][side.key] = json!(ratio.map(|r| r.rounds));
        }
        out
    }

    fn into_series(self) -> Vec<Series> {
        let sides = self.ours.into_iter().chain([self.peer]);
        self.parity.into_iter().chain(sides.flat_map(Side::series)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options() -> Options {
        Line::parse_from(["train"]).options
    }

    /// A program that answers as ours or the peer's does.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut mode = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    #[test]
    fn a_precision_that_the_build_lacks_has_no_ratio() {
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"name":"step","unit":"ms","samples":[2,3]}"#;
        let script = format!("case \"$*\" in *bf16*) exit 3;; esac\necho '{line}'");
        let (program, options) = (program(dir.path(), &script), options());
        let mut run = Rounds::new(None);
        run.round(&options, &program, dir.path(), None).unwrap();
        run.round(&options, &program, dir.path(), None).unwrap();
        let summary = run.summary(&options, None);
        assert_eq!(summary["median_ms"]["f32"], 2.5);
        assert_eq!(summary["ms"]["f32_padded"], json!([[2.0, 3.0], [2.0, 3.0]]));
        assert!(summary["ratio_f32"].is_null() && summary["ratio_bf16"].is_null(), "{summary}");
        assert!(run.gradients().contains("NOT compared"));
        run.peer.take(vec![Series::new("p".into(), "ms".into(), vec![10.0])]);
        let summary = run.summary(&options, None);
        assert_eq!(summary["ratio_f32"], 4.0);
        assert!(summary["ratio_bf16"].is_null());
    }

    #[test]
    fn another_failure_of_a_program_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "exit 1");
        assert!(Rounds::new(None).round(&options(), &program, dir.path(), None).is_err());
        assert!(Line::try_parse_from(["train", "--rounds", "1"]).is_err(), "one round has no spread");
    }
}

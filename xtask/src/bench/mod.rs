//! `cargo xtask bench [NAME]`: runs bench programs, prints a table and keeps the numbers under `benchsuite/runs`.
//!
//! A bench program is any example named `bench` or `bench_THING` of a crate of the workspace. It is called `store` for
//! the example `bench` of `lately-store`, `store-THING` for `bench_THING`. How it writes its samples:
//! `benchsuite/README.md`. `cargo xtask bench train` and `serve` measure against a peer: [`train`], [`serve`].

mod machine;
mod peer;
mod record;
mod rounds;
mod serve;
mod train;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::bench::record::{Record, Series};
use crate::error::TaskError;
use crate::workspace::{self, Package};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    against: Option<Against>,
    /// The bench, such as `store`; all where none is given.
    name: Option<String>,
    /// Prints the benches.
    #[arg(long)]
    list: bool,
    /// Prints the table only.
    #[arg(long)]
    no_record: bool,
    /// Passed to the bench program, after `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

/// What is measured against a peer.
#[derive(Debug, Subcommand)]
enum Against {
    /// A training step and that of the PyTorch module, in turn.
    Train(train::Options),
    /// The scoring of a large request and that of the PyTorch module, in turn.
    Serve(serve::Options),
}

/// One bench program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bench {
    name: String,
    package: String,
    example: String,
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> Result<(), TaskError> {
    match &options.against {
        Some(Against::Train(options)) => return train::run(options),
        Some(Against::Serve(options)) => return serve::run(options),
        None => {}
    }
    let all = find(&workspace::packages()?);
    if options.list {
        all.iter().for_each(|b| println!("{:<16} {} --example {}", b.name, b.package, b.example));
        return Ok(());
    }
    let chosen: Vec<&Bench> =
        all.iter().filter(|b| options.name.as_ref().is_none_or(|name| *name == b.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|b| b.name.as_str()).collect();
        let wanted = options.name.as_deref().unwrap_or("any");
        return Err(TaskError::Unknown(format!(
            "no bench program for `{wanted}` exists (there are: {}): add crates/lately-NAME/examples/bench_THING.rs, \
             see benchsuite/README.md",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        )));
    }
    for bench in chosen {
        let record = measure(bench, &options.args)?;
        print!("{}", record.table());
        if !options.no_record {
            println!("kept in {}", record.save(&runs())?);
        }
    }
    Ok(())
}

/// Builds an example and says where it is. It is started directly: a cargo that waits for another one would stand between
/// the rounds.
fn build(package: &str, example: &str) -> Result<PathBuf, TaskError> {
    let mut build = Command::new(workspace::cargo());
    let what = ["build", "--quiet", "--release", "--package", package, "--example", example];
    workspace::status(build.args(what).current_dir(workspace::root()))?;
    Ok(workspace::target_directory()?.join("release/examples").join(example))
}

/// Writes a summary for scripts.
fn write(path: &Path, value: &Value) -> Result<(), TaskError> {
    let mut text = format!("{value:#}");
    text.push('\n');
    std::fs::write(path, text).map_err(|source| TaskError::File { path: path.to_owned(), source })
}

/// Where runs are kept.
fn runs() -> PathBuf {
    workspace::root().join("benchsuite/runs")
}

/// The bench programs, by name.
fn find(packages: &[Package]) -> Vec<Bench> {
    let mut found = Vec::new();
    for package in packages {
        let room = package.name.strip_prefix("lately-").unwrap_or(&package.name);
        for target in package.targets.iter().filter(|t| t.kind.iter().any(|k| k == "example")) {
            let name = match target.name.strip_prefix("bench") {
                Some("") => room.to_owned(),
                Some(rest) if rest.starts_with('_') => format!("{room}-{}", &rest[1..]),
                _ => continue,
            };
            found.push(Bench { name, package: package.name.clone(), example: target.name.clone() });
        }
    }
    found.sort();
    found
}

fn measure(bench: &Bench, args: &[String]) -> Result<Record, TaskError> {
    let mut build = Command::new(workspace::cargo());
    let what = ["--release", "--package", &bench.package, "--example", &bench.example];
    workspace::status(build.args(["build", "--quiet"]).args(what).current_dir(workspace::root()))?;
    // Taken before the run, so that the load is that of others.
    let mut record = Record::new(&bench.name, args)?;
    let mut program = Command::new(workspace::cargo());
    program.args(["run", "--quiet"]).args(what).arg("--").args(args).current_dir(workspace::root());
    record.series = series(&bench.name, &mut program)?;
    Ok(record)
}

/// Runs a program that speaks the line protocol.
fn series(name: &str, program: &mut Command) -> Result<Vec<Series>, TaskError> {
    let wrong = |message: String| TaskError::Output { what: format!("bench {name}"), message };
    let start = |source| TaskError::Start { program: format!("bench {name}"), source };
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let mut found: Vec<Series> = Vec::new();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.map_err(|e| wrong(e.to_string()))?;
            if line.starts_with('{') {
                found.push(record::parse(&line).map_err(wrong)?);
            } else {
                eprintln!("{line}");
            }
        }
    }
    let status = child.wait().map_err(start)?;
    if !status.success() {
        return Err(TaskError::Failed { command: format!("bench {name}"), status, output: String::new() });
    }
    if found.is_empty() {
        return Err(wrong(
            "it wrote no samples: see benchsuite/README.md for the lines it must write".into(),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::CargoTarget;

    #[test]
    fn examples_named_bench_are_found() {
        let target = |name: &str, kind: &str| CargoTarget {
            name: name.into(),
            kind: vec![kind.into()],
            src_path: "x.rs".into(),
        };
        let targets = vec![
            target("bench", "example"),
            target("bench_read", "example"),
            target("benchmark", "example"),
            target("bench", "bin"),
        ];
        let package = Package {
            name: "lately-store".into(),
            description: None,
            manifest_path: "Cargo.toml".into(),
            dependencies: Vec::new(),
            targets,
        };
        let names: Vec<String> = find(&[package]).into_iter().map(|b| b.name).collect();
        assert_eq!(names, ["store", "store-read"]);
    }

    fn shell(script: &str) -> Result<Vec<Series>, TaskError> {
        series("x", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_program_must_write_samples_and_end_well() {
        let line = r#"{"name":"append","unit":"us","samples":[3,1,2]}"#;
        assert_eq!(shell(&format!("echo warming; echo '{line}'")).unwrap().len(), 1);
        assert!(shell("echo nothing").unwrap_err().to_string().contains("no samples"));
        assert!(shell(&format!("echo '{line}'; exit 3")).unwrap_err().to_string().contains("failed"));
        assert!(shell("echo '{\"name\":1}'").unwrap_err().to_string().contains("bench x"));
    }
}

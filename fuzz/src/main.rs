//! Runs the fuzz targets. `cargo xtask fuzz` calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use clap::Parser;
use lately_fuzz::driver::write;
use lately_fuzz::{Failure, Limits, TARGETS, Target, run, run_one};

/// Feeds changed inputs to every reader of bytes from outside; fails at the first panic or hang.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz")]
struct Args {
    /// Only this target; all where none is given.
    #[arg(long)]
    target: Option<String>,
    /// Seconds a target.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most cases a target; a run by cases repeats exactly.
    #[arg(long, default_value_t = u64::MAX)]
    cases: u64,
    /// Another seed gives other inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this stored input alone.
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// Writes each input to fuzz/failures/TARGET-last.bin before it runs: slow, for inputs that abort the process.
    #[arg(long)]
    trace: bool,
    /// Prints the targets.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|t| args.target.as_deref().is_none_or(|name| name == t.name)).collect();
    if chosen.is_empty() || args.list {
        for t in TARGETS {
            println!("{:<12} {}", t.name, t.about);
        }
        return if args.list { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    for target in chosen {
        if let Err(failure) = one(target, &args) {
            eprintln!("fuzz: FAILED: {failure}");
            if let Failure::Case { input, .. } = &failure {
                keep(target, input);
            }
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn one(target: &Target, args: &Args) -> Result<(), Failure> {
    if let Some(path) = &args.input {
        let verdict = run_one(target, &read(path)?)?;
        println!("{}: {verdict:?}", target.name);
        return Ok(());
    }
    let limits = Limits {
        time: Duration::from_secs(args.seconds),
        cases: args.cases,
        seed: args.seed,
        progress: Arc::new(AtomicU64::new(0)),
        trace: args.trace.then(|| folder("failures").join(format!("{}-last.bin", target.name))),
    };
    let regressions = stored(&folder("corpus").join(target.name))?;
    watch(target.name, args.seed, Arc::downgrade(&limits.progress));
    let start = Instant::now();
    let report = run(target, &regressions, &limits)?;
    println!(
        "fuzz {:<12} {} cases in {:.1} s (seed {}): {} accepted, {} kinds of refusal, {} regressions replayed",
        target.name,
        report.cases,
        start.elapsed().as_secs_f64(),
        args.seed,
        report.accepted,
        report.refusals,
        regressions.len(),
    );
    Ok(())
}

/// Ends the process when one input runs for a minute: it would run for ever. Its number is enough to find it, as the
/// same seed gives the same inputs. The thread ends with the run that it watches.
fn watch(target: &'static str, seed: u64, progress: Weak<AtomicU64>) {
    std::thread::spawn(move || {
        let mut before = None;
        loop {
            std::thread::sleep(Duration::from_secs(60));
            let Some(now) = progress.upgrade().map(|count| count.load(Ordering::Relaxed)) else { return };
            if before == Some(now) {
                eprintln!(
                    "fuzz: FAILED: {target}: input {now} of seed {seed} does not end; its bytes are in \
                     fuzz/failures/{target}-last.bin after: \
                     cargo xtask fuzz --target {target} --seed {seed} --trace --seconds 86400"
                );
                std::process::exit(1);
            }
            before = Some(now);
        }
    });
}

/// Writes a failing input and says how to run it again.
fn keep(target: &Target, input: &[u8]) {
    // FNV-1a: only a file name, the same for the same input.
    let hash =
        input.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let name = format!("{}-{hash:016x}.bin", target.name);
    match write(&folder("failures").join(&name), input) {
        Ok(()) => {
            eprintln!("run it again: cargo xtask fuzz --target {} --input fuzz/failures/{name}", target.name)
        }
        Err(e) => eprintln!("its input could not be kept: {e}; as hex: {input:02x?}"),
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The inputs of earlier failures, by file name.
fn stored(folder: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let file = |source| Failure::File { path: folder.to_owned(), source };
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>())
        .map_err(file)?;
    paths.sort();
    paths.iter().map(|p| read(p)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| Failure::File { path: path.to_owned(), source })
}

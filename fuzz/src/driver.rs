//! The loop: mutate, run, keep what is new, stop at the first failure.
//!
//! There is no coverage to guide it on stable Rust. Instead an input is kept for further mutation when its outcome is
//! new: a refusal with words not seen before, or another accepted input. That reaches behind the first check.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::mutate::mutate;
use crate::target::{Target, Verdict};

/// Most inputs kept for mutation, of each verdict; then a new one replaces a random one that is no seed.
const MAX_POOL: usize = 1_024;
/// An input that runs longer than this is a failure: a few bytes must not hold a thread. Real cases take
/// microseconds; the rest is room for a busy machine.
pub const MAX_CASE_TIME: Duration = Duration::from_secs(5);

/// How long a target runs.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Wall-clock time.
    pub time: Duration,
    /// Most cases; with it, a run repeats exactly.
    pub cases: u64,
    /// Seed of the generator.
    pub seed: u64,
    /// Where each input is written before it runs: finds one that aborts the process.
    pub trace: Option<PathBuf>,
    /// Counts the inputs that have begun, for a watch on one that never ends.
    pub progress: Arc<AtomicU64>,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs that ran.
    pub cases: u64,
    /// Inputs that the target accepted.
    pub accepted: u64,
    /// Distinct reasons of refusal, digits and quoted parts aside.
    pub refusals: usize,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The target panicked or held for too long.
    #[error("{target}: {what}\n  input of {} bytes (seed {seed}, case {case})", input.len())]
    Case {
        /// Target.
        target: &'static str,
        /// The panic's words, or how long it took.
        what: String,
        /// The input.
        input: Vec<u8>,
        /// Seed of the run.
        seed: u64,
        /// Number of the input in the run, from 0.
        case: u64,
    },
    /// A seed input was refused: the target no longer tests what lies behind its first check.
    #[error("{target}: seed input {index} is refused: {reason}; correct the target's seeds")]
    Seed {
        /// Target.
        target: &'static str,
        /// Which.
        index: usize,
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs one target from its seeds and the stored `regressions`.
pub fn run(target: &Target, regressions: &[Vec<u8>], limits: &Limits) -> Result<Report, Failure> {
    let seeds = (target.seeds)();
    let mut run = Run { target, limits, report: Report::default(), refusals: BTreeMap::new() };
    for (index, seed) in seeds.iter().enumerate() {
        if let Verdict::Refused(reason) = run.case(seed)? {
            return Err(Failure::Seed { target: target.name, index, reason });
        }
    }
    let mut pool = Pool { fixed: seeds.len(), accepted: seeds, refused: Vec::new() };
    for input in regressions {
        match run.case(input)? {
            Verdict::Accepted => pool.accepted.push(input.clone()),
            Verdict::Refused(_) => pool.refused.push(input.clone()),
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(limits.seed);
    let start = Instant::now();
    while start.elapsed() < limits.time && run.report.cases < limits.cases {
        let (base, other) = (pool.pick(&mut rng), pool.pick(&mut rng));
        let input = mutate(&mut rng, base, other, target.words);
        let kept = run.outcome(&input)?;
        pool.keep(&mut rng, input, kept);
    }
    run.report.refusals = run.refusals.len();
    Ok(run.report)
}

/// Runs one input.
pub fn run_one(target: &Target, input: &[u8]) -> Result<Verdict, Failure> {
    let limits = Limits { time: MAX_CASE_TIME, cases: 1, seed: 0, trace: None, progress: Arc::default() };
    Run { target, limits: &limits, report: Report::default(), refusals: BTreeMap::new() }.case(input)
}

/// Known inputs to start from.
struct Pool {
    /// Valid ones; the first `fixed` are the seeds, which stay.
    accepted: Vec<Vec<u8>>,
    fixed: usize,
    /// The first of each kind of refusal.
    refused: Vec<Vec<u8>>,
}

impl Pool {
    /// Mostly a valid one: a change of what is refused already is mostly refused for the same reason.
    fn pick(&self, rng: &mut ChaCha8Rng) -> &[u8] {
        let from =
            if self.refused.is_empty() || rng.random_bool(0.75) { &self.accepted } else { &self.refused };
        &from[rng.random_range(0..from.len())]
    }

    fn keep(&mut self, rng: &mut ChaCha8Rng, input: Vec<u8>, kept: Kept) {
        let (list, fixed) = match kept {
            Kept::Accepted => (&mut self.accepted, self.fixed),
            Kept::NewRefusal => (&mut self.refused, 0),
            Kept::Known => return,
        };
        if list.len() < MAX_POOL {
            list.push(input);
        } else {
            let at = rng.random_range(fixed..list.len());
            list[at] = input;
        }
    }
}

/// What an input adds to the pool.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Accepted,
    NewRefusal,
    Known,
}

struct Run<'a> {
    target: &'a Target,
    limits: &'a Limits,
    report: Report,
    /// How often each reason was given.
    refusals: BTreeMap<String, u64>,
}

impl Run<'_> {
    fn outcome(&mut self, input: &[u8]) -> Result<Kept, Failure> {
        Ok(match self.case(input)? {
            Verdict::Accepted => Kept::Accepted,
            Verdict::Refused(reason) => {
                let times = self.refusals.entry(shape(&reason)).or_insert(0);
                *times += 1;
                if *times == 1 { Kept::NewRefusal } else { Kept::Known }
            }
        })
    }

    fn case(&mut self, input: &[u8]) -> Result<Verdict, Failure> {
        if let Some(path) = &self.limits.trace {
            write(path, input)?;
        }
        self.limits.progress.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.check)(input)));
        let took = start.elapsed();
        let case = self.report.cases;
        self.report.cases += 1;
        let fail = |what: String| Failure::Case {
            target: self.target.name,
            what,
            input: input.to_vec(),
            seed: self.limits.seed,
            case,
        };
        match outcome {
            Err(panic) => Err(fail(format!("panicked: {}", words(panic.as_ref())))),
            Ok(_) if took > MAX_CASE_TIME => Err(fail(format!("took {took:.1?}"))),
            Ok(verdict) => {
                self.report.accepted += u64::from(verdict == Verdict::Accepted);
                Ok(verdict)
            }
        }
    }
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = |source| Failure::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    std::fs::write(path, bytes).map_err(file)
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without words",
    }
}

/// A reason without what varies from input to input: of its last line (a parser puts an excerpt above it) what stands
/// before the first quoted part and after the last, without digits.
fn shape(reason: &str) -> String {
    let last = reason.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let quote = |c: char| matches!(c, '`' | '"' | '\'');
    let before = last.split(quote).next().unwrap_or_default();
    let after = last.rfind(quote).map_or("", |at| &last[at + 1..]);
    before.chars().chain(after.chars()).filter(|c| !c.is_ascii_digit()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8]) -> Verdict {
        assert!(!input.windows(3).any(|w| w == b"max"), "met the planted word");
        if input.starts_with(b"len") {
            Verdict::Accepted
        } else {
            Verdict::Refused(format!("starts with {:?}", input.first()))
        }
    }

    const PLANTED: Target =
        Target { name: "planted", about: "", seeds: || vec![b"len = 4".to_vec()], words: &[b"max"], check };

    fn limits(cases: u64) -> Limits {
        Limits { time: Duration::from_secs(60), cases, seed: 5, trace: None, progress: Arc::default() }
    }

    #[test]
    fn a_planted_panic_is_found_and_its_input_repeats_it() {
        let Err(Failure::Case { what, input, .. }) = run(&PLANTED, &[], &limits(100_000)) else {
            panic!("not found");
        };
        assert!(what.contains("planted word"), "{what}");
        assert!(matches!(run_one(&PLANTED, &input), Err(Failure::Case { .. })));
    }

    #[test]
    fn a_run_repeats_and_counts() {
        let quiet = Target { words: &[], ..PLANTED };
        let first = run(&quiet, &[], &limits(3000)).unwrap();
        assert_eq!(first, run(&quiet, &[], &limits(3000)).unwrap());
        assert_eq!(first.cases, 3000);
        assert!(first.accepted > 300 && first.refusals > 0, "{first:?}");
    }

    #[test]
    fn reasons_of_one_kind_have_one_shape() {
        assert_eq!(shape("unknown action `a`: declare it"), shape("unknown action `x`y\"7`: declare it"));
        assert_eq!(shape("TOML parse error\n1 | abc\nstring is 3 long\n"), "string is  long");
        assert_ne!(shape("unknown action `a`: x"), shape("unknown surface `a`: x"));
    }

    #[test]
    fn a_refused_seed_and_a_failing_regression_are_failures() {
        let wrong = Target { seeds: || vec![b"x".to_vec()], ..PLANTED };
        assert!(matches!(run(&wrong, &[], &limits(1)), Err(Failure::Seed { .. })));
        assert!(matches!(run(&PLANTED, &[b"max".to_vec()], &limits(1)), Err(Failure::Case { .. })));
    }

    #[test]
    fn the_trace_holds_the_last_input() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/last.bin");
        let traced = Limits { trace: Some(path.clone()), ..limits(1) };
        run(&PLANTED, &[], &traced).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"len = 4");
    }
}

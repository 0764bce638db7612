//! A chore made of named, timed steps: stops at the first failure and closes with a summary.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::TaskError;
use crate::workspace;

/// What a step does.
pub(crate) enum Work {
    /// `cargo ARGS`, with variables set.
    Cargo {
        /// Arguments.
        args: Vec<String>,
        /// Variables.
        env: Vec<(&'static str, String)>,
    },
    /// A function of ours.
    Own {
        /// It.
        run: Box<dyn Fn() -> Result<(), TaskError>>,
        /// The command that repeats it alone.
        again: String,
    },
    /// Nothing, for a reason that is printed twice.
    Skip(String),
}

/// One step.
pub(crate) struct Step {
    /// Short name, for `--only`.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) work: Work,
}

impl Step {
    /// `cargo ARGS`, words separated by white space.
    pub(crate) fn cargo(name: &'static str, args: &str) -> Self {
        let args = args.split_whitespace().map(str::to_owned).collect();
        Self { name, work: Work::Cargo { args, env: Vec::new() } }
    }

    /// The same with a variable set.
    pub(crate) fn with_env(mut self, name: &'static str, value: &str) -> Self {
        if let Work::Cargo { env, .. } = &mut self.work {
            env.push((name, value.to_owned()));
        }
        self
    }

    /// A step that is left out.
    pub(crate) fn skip(name: &'static str, reason: impl Into<String>) -> Self {
        Self { name, work: Work::Skip(reason.into()) }
    }

    /// The command that repeats it alone.
    fn again(&self) -> String {
        match &self.work {
            Work::Cargo { args, env } => {
                let set = env.iter().map(|(name, value)| format!("{name}='{value}'"));
                let words = args.iter().map(|a| if a.contains(' ') { format!("'{a}'") } else { a.clone() });
                set.chain(["cargo".to_owned()]).chain(words).collect::<Vec<_>>().join(" ")
            }
            Work::Own { again, .. } => again.clone(),
            Work::Skip(_) => String::new(),
        }
    }

    fn run(&self) -> Result<(), TaskError> {
        match &self.work {
            Work::Cargo { args, env } => {
                let mut command = Command::new(workspace::cargo());
                command.args(args).envs(env.iter().map(|(n, v)| (n, v))).current_dir(workspace::root());
                workspace::status(&mut command)
            }
            Work::Own { run, .. } => run(),
            Work::Skip(_) => Ok(()),
        }
    }
}

enum Outcome {
    Passed(Duration),
    Failed(Duration),
    Skipped(String),
    NotReached,
}

/// Runs the steps in order.
pub(crate) fn run(steps: &[Step]) -> Result<(), TaskError> {
    let start = Instant::now();
    let mut outcomes: Vec<(&str, Outcome)> = Vec::with_capacity(steps.len());
    let mut failure = None;
    for (i, step) in steps.iter().enumerate() {
        let title = format!("== {}/{} {}", i + 1, steps.len(), step.name);
        if failure.is_some() {
            outcomes.push((step.name, Outcome::NotReached));
            continue;
        }
        if let Work::Skip(reason) = &step.work {
            eprintln!("{title}: SKIPPED: {reason}");
            outcomes.push((step.name, Outcome::Skipped(reason.clone())));
            continue;
        }
        eprintln!("{title}: {}", step.again());
        let began = Instant::now();
        let done = step.run();
        let took = began.elapsed();
        if let Err(TaskError::Skip(reason)) = done {
            eprintln!("{title}: SKIPPED: {reason}");
            outcomes.push((step.name, Outcome::Skipped(reason)));
            continue;
        }
        outcomes.push((step.name, if done.is_ok() { Outcome::Passed(took) } else { Outcome::Failed(took) }));
        if let Err(e) = done {
            eprintln!("== FAILED: {}: {e}", step.name);
            failure = Some(TaskError::Step { name: step.name, again: step.again() });
        }
    }
    eprintln!("\n{}", summary(&outcomes, start.elapsed()));
    failure.map_or(Ok(()), Err)
}

fn summary(outcomes: &[(&str, Outcome)], all: Duration) -> String {
    let mut text = String::from("summary\n");
    for (name, outcome) in outcomes {
        let line = match outcome {
            Outcome::Passed(took) => format!("ok       {:>7.1} s", took.as_secs_f64()),
            Outcome::Failed(took) => format!("FAILED   {:>7.1} s", took.as_secs_f64()),
            Outcome::Skipped(reason) => format!("SKIPPED  {reason}"),
            Outcome::NotReached => "not run".to_owned(),
        };
        text.push_str(&format!("  {name:<11} {line}\n"));
    }
    let count = |f: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, o)| f(o)).count();
    text.push_str(&format!(
        "  {} passed, {} failed, {} skipped, {} not run, in {:.1} s",
        count(|o| matches!(o, Outcome::Passed(_))),
        count(|o| matches!(o, Outcome::Failed(_))),
        count(|o| matches!(o, Outcome::Skipped(_))),
        count(|o| matches!(o, Outcome::NotReached)),
        all.as_secs_f64(),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn own(name: &'static str, count: &Rc<Cell<u32>>, passes: bool) -> Step {
        let count = Rc::clone(count);
        let run = Box::new(move || {
            count.set(count.get() + 1);
            if passes { Ok(()) } else { Err(TaskError::Untidy(1)) }
        });
        Step { name, work: Work::Own { run, again: format!("cargo xtask {name}") } }
    }

    #[test]
    fn the_first_failure_stops_and_names_the_command_to_repeat() {
        let count = Rc::new(Cell::new(0));
        let steps = [
            own("a", &count, true),
            Step::skip("b", "no tool"),
            own("c", &count, false),
            own("d", &count, true),
        ];
        let error = run(&steps).unwrap_err().to_string();
        assert_eq!(count.get(), 2);
        assert_eq!(error, "stopped at step `c`; run it again: cargo xtask c");
    }

    #[test]
    fn a_step_that_cannot_be_done_here_stops_nothing() {
        let count = Rc::new(Cell::new(0));
        let run = Box::new(|| Err(TaskError::Skip("no compiler".into())));
        let skips = Step { name: "a", work: Work::Own { run, again: "cargo xtask a".into() } };
        super::run(&[skips, own("b", &count, true)]).unwrap();
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn the_summary_counts_every_outcome() {
        let second = Duration::from_secs(1);
        let text = summary(
            &[
                ("fmt", Outcome::Passed(second)),
                ("deny", Outcome::Skipped("missing".into())),
                ("clippy", Outcome::Failed(second)),
                ("doc", Outcome::NotReached),
            ],
            second,
        );
        assert!(text.contains("1 passed, 1 failed, 1 skipped, 1 not run"), "{text}");
        assert!(text.contains("deny        SKIPPED  missing"), "{text}");
    }

    #[test]
    fn a_step_can_be_pasted_into_a_shell() {
        let step = Step::cargo("doc", "doc --no-deps").with_env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.again(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }
}

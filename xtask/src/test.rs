//! The list of all that must pass.

use clap::Args;

use crate::error::TaskError;
use crate::fuzz;
use crate::kernels;
use crate::skipped;
use crate::steps::{self, Step, Work};
use crate::workspace::FEATURES;
use crate::{tidy, workspace};

/// Options of `test` and `ci`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these steps, by name, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// All but these steps.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 10)]
    fuzz_seconds: u32,
    /// Also asks for security advisories, which needs the open internet.
    #[arg(long)]
    advisories: bool,
    /// Prints the names of the steps.
    #[arg(long)]
    list: bool,
}

/// Runs the list; with `ci` in the way of CI.
pub(crate) fn run(options: &Options, ci: bool) -> Result<(), TaskError> {
    let steps = all(options, ci);
    let names: Vec<&str> = steps.iter().map(|s| s.name).collect();
    if let Some(name) = options.only.iter().chain(&options.skip).find(|n| !names.contains(&n.as_str())) {
        return Err(TaskError::Unknown(format!("no step `{name}`: choose from {}", names.join(", "))));
    }
    if options.list {
        println!("{}", names.join("\n"));
        return Ok(());
    }
    let wanted = |step: &Step| {
        let named = |list: &[String]| list.iter().any(|n| n == step.name);
        (options.only.is_empty() || named(&options.only)) && !named(&options.skip)
    };
    let steps: Vec<Step> = steps.into_iter().filter(wanted).collect();
    steps::run(&steps)
}

/// The cheap ones first: a wrong space should not cost a build.
fn all(options: &Options, ci: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if ci {
        steps.push(own("lock", "cargo metadata --locked", lock_is_current));
    }
    steps.push(Step::cargo("fmt", "fmt --all --check"));
    steps.push(own("tidy", "cargo xtask tidy", tidy::run));
    let clippy = format!("clippy --workspace --all-targets --features {FEATURES} -- -D warnings");
    steps.push(Step::cargo("clippy", &clippy));
    // All steps build, lint and test what is off by default, too; this one sees that the program is whole without it.
    steps.push(Step::cargo("default", "clippy -p lately -- -D warnings"));
    steps.push(own("kernels", "cargo xtask kernels", kernels::run));
    steps.extend(tests(ci));
    steps.push(Step::cargo("doctest", &format!("test --workspace --features {FEATURES} --doc")));
    steps.push(
        Step::cargo("doc", &format!("doc --no-deps --workspace --features {FEATURES}"))
            .with_env("RUSTDOCFLAGS", "-D warnings -D rustdoc::broken_intra_doc_links"),
    );
    steps.extend(deny(options.advisories));
    let seconds = ["--seconds".to_owned(), options.fuzz_seconds.to_string()];
    let again = format!("cargo xtask fuzz {}", seconds.join(" "));
    let run: Box<dyn Fn() -> Result<(), TaskError>> = Box::new(move || fuzz(&seconds));
    steps.push(Step { name: "fuzz", work: Work::Own { run, again } });
    steps
}

fn own(name: &'static str, again: &str, run: fn() -> Result<(), TaskError>) -> Step {
    Step { name, work: Work::Own { run: Box::new(run), again: again.to_owned() } }
}

fn tests(ci: bool) -> Vec<Step> {
    if !workspace::has_cargo_command("nextest") {
        eprintln!(
            "cargo-nextest is missing (cargo install cargo-nextest --locked): falls back to cargo test"
        );
        return vec![
            Step::cargo("test", &format!("test --workspace --features {FEATURES} --lib --bins --tests")),
            Step::skip("skips", "cargo test does not tell which tests skipped a part; install cargo-nextest"),
        ];
    }
    let profile = if ci { "ci" } else { "default" };
    let run: Box<dyn Fn() -> Result<(), TaskError>> = Box::new(move || skipped::report(profile));
    vec![
        Step::cargo("test", &format!("nextest run --workspace --features {FEATURES} --profile {profile}")),
        Step { name: "skips", work: Work::Own { run, again: "cargo xtask test --only test,skips".into() } },
    ]
}

fn deny(advisories: bool) -> Vec<Step> {
    if !workspace::has_cargo_command("deny") {
        let reason = "cargo-deny is missing: licences, bans and sources are unchecked; \
                      cargo install cargo-deny --locked";
        return vec![Step::skip("deny", reason)];
    }
    // These three need the crates and nothing else; the advisories come from a server.
    let local = Step::cargo("deny", "deny --workspace --locked check licenses bans sources");
    let advice = if advisories {
        Step::cargo("advisories", "deny --workspace --locked check advisories")
    } else {
        Step::skip("advisories", "need the open internet: cargo xtask test --advisories")
    };
    vec![local, advice]
}

fn lock_is_current() -> Result<(), TaskError> {
    let mut command = std::process::Command::new(workspace::cargo());
    command.args(["metadata", "--locked", "--format-version", "1"]).current_dir(workspace::root());
    workspace::output(&mut command).map(drop)
}

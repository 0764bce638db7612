//! `lately ablate`: which part of the model earns its place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use lately_train::ablation::{CellReport, Contender, compare, plot, table};
use lately_train::chunks::Chunks;
use lately_train::{Dataset, DateRange, EvalOptions, Zone};

use super::eval::CHUNK_ROWS;
use super::train::{Days, rows, write_json};
use crate::ablate::kept::Folder;
use crate::ablate::{Bench, Suite, results, run as run_all};
use crate::data_dir::DataDir;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// What is compared: paper, outputs, order, or a TOML file like those.
    #[arg(long, value_name = "NAME|FILE")]
    suite: String,
    #[command(flatten)]
    days: Days,
    /// First day of the evaluation; default: the day after `--to`.
    #[arg(long, value_name = "DAY")]
    test_from: Option<String>,
    /// Last day of the evaluation, included; default: all.
    #[arg(long, value_name = "DAY")]
    test_to: Option<String>,
    /// Seeds of each configuration, from `[train] seed` on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Configuration that the others are compared with; default: the suite's.
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
    /// Resamples of users for the intervals.
    #[arg(long, default_value_t = 200)]
    resamples: usize,
    /// Train everything again, also what an earlier run has left in DIR/ablate.
    #[arg(long)]
    fresh: bool,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write a plot of the lifts, SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    /// Write the table as Markdown.
    #[arg(long, value_name = "PATH")]
    table: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let suite = Suite::read(&args.suite)?;
    let baseline = suite.position(args.against.as_ref().unwrap_or(&suite.baseline))?;
    let dir = DataDir::open(&args.days.data)?;
    let entries = suite.entries(&dir.config).with_context(|| format!("suite `{}`", args.suite))?;
    let zone = args.days.zone(&dir.config)?;
    let (train, test) = ranges(args, &zone)?;
    let dataset = rows(&dir, DateRange { start_ms: train.start_ms, end_ms: test.end_ms })?;
    let bench = bench(args, &dir, &dataset, &zone, (train, test))?;
    let mut say = |line: &str| eprintln!("{line}");
    let outcomes = run_all(&bench, entries, args.seeds, &mut say)?;
    let contenders: Vec<Contender> = outcomes.iter().map(|o| o.contender.clone()).collect();
    let cells = compare(&contenders, baseline);
    let title = title(&suite, args.seeds, &contenders[baseline].name, &bench);
    println!("{title}\n\n{}", table::text(&cells));
    if let Some(path) = &args.json {
        write_json(path, &results::json(&suite, &contenders[baseline].name, &bench, &outcomes, &cells))?;
    }
    write_pictures(args, &title, &cells)
}

/// The days to train on and the later ones to evaluate.
fn ranges(args: &Args, zone: &Zone) -> Result<(DateRange, DateRange)> {
    let mut train = args.days.range(zone)?;
    let mut test = DateRange::days(args.test_from.as_deref(), args.test_to.as_deref(), zone)?;
    match (&args.days.to, &args.test_from) {
        (None, None) => bail!("say where training ends: --to DAY, --test-from DAY or both"),
        (None, Some(_)) => train.end_ms = test.start_ms,
        (Some(_), None) => test.start_ms = train.end_ms,
        (Some(_), Some(_)) => {}
    }
    if train.end_ms > test.start_ms || test.start_ms >= test.end_ms {
        bail!(
            "the days of the evaluation must follow those of training: see --to, --test-from and --test-to"
        );
    }
    Ok((train, test))
}

fn bench<'a>(
    args: &Args,
    dir: &DataDir,
    dataset: &'a Dataset,
    zone: &Zone,
    (train, test): (DateRange, DateRange),
) -> Result<Bench<'a>> {
    let (train, test) = (dataset.slice(train), dataset.slice(test));
    for (slice, what) in [(&train, "train on"), (&test, "evaluate")] {
        if slice.rows() == 0 {
            bail!("no row to {what} between the days: the directory has rows of other days");
        }
    }
    let threads = dir.config.train.threads;
    let options = EvalOptions { resamples: args.resamples, threads, ..EvalOptions::default() };
    let kept = Folder::open(&dir.path, (train.fingerprint(), test.fingerprint()), zone, &options)?;
    let chunks = Chunks::of(&test, zone, CHUNK_ROWS);
    Ok(Bench { train, test, chunks, options, kept, resume: !args.fresh })
}

/// What the table shows, in words.
fn title(suite: &Suite, seeds: u64, baseline: &str, bench: &Bench<'_>) -> String {
    let from = if suite.source.is_empty() { String::new() } else { format!(" ({})", suite.source) };
    format!(
        "{}{from}: {} configurations x {seeds} seeds against `{baseline}`; trained on {} rows, tested on {} rows.\n\
         Intervals: 95 % over {} resamples of users, metrics averaged over seeds in each. `by seed`: the lift's range \
         over seeds. `*`: the interval excludes 0.",
        suite.title,
        suite.configurations.len(),
        bench.train.rows(),
        bench.test.rows(),
        bench.options.resamples,
    )
}

fn write_pictures(args: &Args, title: &str, cells: &[CellReport]) -> Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &args.table {
        write(path, format!("{title}\n\n{}\n", table::markdown(cells)))?;
    }
    if let Some(path) = &args.plot {
        write(path, plot::lifts(cells)?)?;
    }
    Ok(())
}

//! `lately size`: cores, memory, disk and network for a product of a given size.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use comfy_table::{CellAlignment, Table, presets};
use lately_model::ServingPrecision;
use serde_json::json;

use super::bench::parse_rate;
use super::train::write_json;
use crate::config::Config;
use crate::load::Preset;
use crate::load::preset::apply;
use crate::size::need::{Demand, Need, bytes};
use crate::size::sample::{self, Sample};
use crate::size::speed::{Speed, measure};

/// Time of a measurement.
const MEASURE: Duration = Duration::from_secs(5);
/// Tokens of the table's columns: none, a new user's, the mean of a real log, a whole sequence.
const TABLE_TOKENS: [usize; 4] = [0, 10, 46, 100];
const TABLE_PRESETS: [Preset; 2] = [Preset::Paper, Preset::Default];
/// Tokens of a request where none are named: the mean of a real log (KuaiRand).
const TOKENS: usize = 46;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// A data directory whose lately.toml gives the geometry. Default: a preset.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The geometry.
    #[arg(long, value_enum, default_value = "default", conflicts_with = "data")]
    preset: Preset,
    /// A setting over its lately.toml, such as schema.sequence.length=50; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Users.
    #[arg(long, default_value_t = 100_000)]
    users: u64,
    /// Items.
    #[arg(long, default_value_t = 100_000)]
    items: u64,
    /// Rankings a second, in the busiest hour.
    #[arg(long, default_value_t = 50.0, value_parser = parse_rate)]
    requests_per_second: f64,
    /// Candidates of a ranking.
    #[arg(long, default_value_t = 256)]
    candidates: usize,
    /// Tokens of a request; default: 46, or as many as the sequence has where that is fewer.
    #[arg(long)]
    tokens: Option<usize>,
    /// Actions a second, in the busiest hour.
    #[arg(long, default_value_t = 50.0, value_parser = parse_rate)]
    actions_per_second: f64,
    /// Days for which the log is kept.
    #[arg(long, default_value_t = 30.0, value_parser = parse_rate)]
    retention_days: f64,
    /// Bytes of an id of a user or an item.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(8..=128))]
    id_bytes: u8,
    /// Candidates that a core ranks in a second, such as what `lately bench serve` found; default: scoring is measured.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    candidates_per_second: Option<f64>,
    /// Print candidates/s a core by geometry and tokens, as Markdown, instead.
    #[arg(long, conflicts_with_all = ["data", "preset", "candidates_per_second"])]
    table: bool,
    /// Precisions of the table.
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16", value_parser = parse_precision)]
    precisions: Vec<ServingPrecision>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = MEASURE.as_secs_f64(), value_parser = parse_rate)]
    seconds: f64,
    /// Write all figures as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn parse_precision(text: &str) -> Result<ServingPrecision, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let time = Duration::from_secs_f64(args.seconds);
    if args.table {
        println!("{}", table(args, time)?);
        return Ok(());
    }
    let toml = match &args.data {
        Some(dir) => {
            let path = dir.join("lately.toml");
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Config::parse(&text, &path)?;
            apply(text.parse()?, &args.set)?
        }
        None => args.preset.toml(&args.set)?,
    };
    let config = Config::parse(&toml, Path::new("lately.toml"))?;
    let tokens = args.tokens.unwrap_or(TOKENS.min(config.schema.sequence.length.into()));
    // Measured also where the speed is given: the memory of a thread is.
    let measured = if args.candidates_per_second.is_some() { Duration::ZERO } else { time };
    let mut speed = measure(&config, config.rank.precision.serving(), tokens, args.candidates, measured)?;
    if let Some(given) = args.candidates_per_second {
        ensure!(given > 0.0, "0 candidates/s rank nothing");
        speed.candidates_per_second = given;
    }
    let sample = sample::take(&toml, args.candidates, args.id_bytes.into())?;
    let demand = demand(args, &config);
    let need = Need::of(&sample, &speed, &demand);
    print(args, tokens, &sample, &speed, &need);
    if let Some(path) = &args.json {
        let json =
            json!({ "demand": demand, "tokens": tokens, "speed": speed, "bytes": sample, "need": need });
        write_json(path, &json)?;
    }
    Ok(())
}

fn demand(args: &Args, config: &Config) -> Demand {
    Demand {
        users: args.users as f64,
        items: args.items as f64,
        requests_per_second: args.requests_per_second,
        candidates: args.candidates as f64,
        actions_per_second: args.actions_per_second,
        retention_days: args.retention_days,
        cache_bytes: config.store.sequence_cache_bytes as f64,
    }
}

fn print(args: &Args, tokens: usize, sample: &Sample, speed: &Speed, need: &Need) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let how = if args.candidates_per_second.is_some() {
        "given"
    } else {
        "scoring alone, on one core of this machine"
    };
    let speed_row = [
        "candidates/s a core".to_owned(),
        format!("{:.0}", speed.candidates_per_second),
        format!("{tokens} tokens; {how}"),
    ];
    table.add_row(speed_row);
    table.add_row(["cores".to_owned(), format!("{:.1}", need.cores), "at 70 % utilisation".to_owned()]);
    for (name, value, how) in memory(sample, speed, need).into_iter().chain(disk(args, sample, need)) {
        table.add_row([name.to_owned(), bytes(value), how]);
    }
    for (name, value, how) in network(sample, need) {
        table.add_row([name.to_owned(), format!("{}/s", bytes(value)), how]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{}", table.trim_fmt());
}

/// What is needed, how many bytes of it, and how that comes about.
type Row = (&'static str, f64, String);

fn of(n: usize) -> String {
    bytes(n as f64)
}

fn memory(sample: &Sample, speed: &Speed, need: &Need) -> [Row; 5] {
    let model =
        format!("weights {}, working memory of a thread {}", of(speed.model_bytes), of(speed.scratch_bytes));
    let sequences = format!(
        "of {} for all users, {} each; store.sequence_cache_bytes bounds it",
        bytes(need.sequences_memory),
        of(sample.sequence_memory)
    );
    let others = "and store.block_cache_bytes, popularity, what was just shown".to_owned();
    [
        ("model", need.model_memory, model),
        ("items in memory", need.items_memory, format!("{} each", of(sample.item_memory))),
        ("users' features in memory", need.users_memory, format!("{} each", of(sample.user_memory))),
        ("sequences in memory", need.cache_memory, sequences),
        ("memory in all", need.memory(), others),
    ]
}

fn disk(args: &Args, sample: &Sample, need: &Need) -> [Row; 3] {
    let disk = &sample.disk;
    let state = format!(
        "a user {} with {} actions of {}, an item {}; before compression",
        of(disk.user + sample.entries * disk.entry),
        sample.entries,
        of(disk.entry),
        of(disk.item)
    );
    let log = format!(
        "an impression record {}, an action {}; before compression",
        of(disk.impression),
        of(disk.action)
    );
    [
        ("state on disk", need.state_disk, state),
        ("log a day", need.log_a_day, log),
        ("log on disk", need.log_disk, format!("{} days", args.retention_days)),
    ]
}

fn network(sample: &Sample, need: &Need) -> [Row; 2] {
    let each =
        |ranking, action| format!("a ranking {}, an action {}, without headers", of(ranking), of(action));
    [
        ("network in", need.network_in, each(sample.request, sample.action_request)),
        ("network out", need.network_out, each(sample.answer, sample.action_answer)),
    ]
}

/// The sizing table of docs/sizing.md.
fn table(args: &Args, time: Duration) -> Result<String> {
    let mut text = String::from("| geometry | precision |");
    text.extend(TABLE_TOKENS.iter().map(|n| format!(" {n} tokens |")));
    text.push_str(" weights |\n| --- | --- |");
    text.extend(TABLE_TOKENS.iter().map(|_| " --- |"));
    text.push_str(" --- |");
    for preset in TABLE_PRESETS {
        let config = Config::parse(&preset.toml(&args.set)?, Path::new("lately.toml"))?;
        for precision in &args.precisions {
            let name = serde_json::to_value(precision)?;
            text.push_str(&format!("\n| {} | {} |", preset.name(), name.as_str().unwrap_or_default()));
            let mut weights = 0;
            for tokens in TABLE_TOKENS {
                let speed = measure(&config, *precision, tokens, args.candidates, time)?;
                text.push_str(&format!(" {:.0} |", speed.candidates_per_second));
                weights = speed.model_bytes;
            }
            text.push_str(&format!(" {} |", bytes(weights as f64)));
        }
    }
    Ok(text)
}

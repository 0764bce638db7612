//! Measures whole training steps: forward, backward, dropout, reduction of the gradients and Adam.
//!
//! `cargo xtask bench train` runs it in turn with the PyTorch module; `cargo xtask bench train-step` alone. The steps
//! are those of [`train`], the trainer of the product, on rows that were joined from a log; the time between two of
//! its reports is one sample. The geometry is that of `bench_speed` in `lately-model`: 32-wide items, 20 action types
//! of 32, 2 layers, first 10 and max-pool, 400 further numbers, 2 full-rank cross layers over 1,456, MLP 512-256,
//! 4 heads, compatibility mode, dropout 0.1. The lengths are the module's: of 100 positions, 3 (r + 1) mod 101 are
//! padding in request r. The sequences are whole (no time window, none dropped), as in the module.

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use lately_features::event::FeatureValues;
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, UserId,
};
use lately_model::{Model, ModelConfig, Precision, parity};
use lately_train::trainer::{Control, Progress};
use lately_train::{Dataset, JoinOptions, TrainConfig, join, train};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn Error + Send + Sync>;

const ITEM: usize = 32;
const NUMBERS: usize = 400;
const ACTIONS: usize = 20;
const HEADS: usize = 4;
const POSITIONS: usize = 100;
/// Width of the cross layers' input.
const WIDTH: usize = 1_456;
/// Steps before the first sample.
const WARM_UP: u64 = 2;
/// Steps at most, one an epoch.
const STEPS: u32 = 10_000;
/// When the requests are ranked, ms since 1970 UTC.
const NOW: i64 = 1_700_000_000_000;
/// Exit status where this build cannot train in the wanted precision.
const UNSUPPORTED: u8 = 3;

#[derive(Debug, Parser)]
struct Args {
    /// Requests of a batch.
    #[arg(long, default_value_t = 16)]
    requests: usize,
    /// Candidates of each request.
    #[arg(long, default_value_t = 16)]
    candidates: usize,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds to measure for.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// f32 or bf16.
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Give the padded positions as tokens of action 0, so that they are computed as in the PyTorch module.
    #[arg(long)]
    padded: bool,
    /// Compare outputs and gradients with this reference case first.
    #[arg(long, value_name = "FILE")]
    parity: Option<PathBuf>,
}

/// This build cannot train in the wanted precision.
#[derive(Debug, thiserror::Error)]
#[error("this build does not train in the precision `{precision}`: {reason}")]
struct Unsupported {
    precision: String,
    reason: serde_json::Error,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            if error.is::<Unsupported>() { UNSUPPORTED.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = settings(args)?;
    if let Some(file) = &args.parity {
        agree(file, settings.precision)?;
    }
    let model = ModelConfig { compatibility: true, ..ModelConfig::paper() };
    let schema = schema()?;
    let geometry = Model::new(model.clone(), &schema, 1)?;
    if !geometry.parameters().iter().any(|p| p.shape == [WIDTH, WIDTH]) {
        return Err(format!("no cross layer is {WIDTH} wide: the geometry has changed").into());
    }
    let dataset = rows(args, &schema)?;
    let (mut samples, time) = (Vec::new(), Duration::from_secs_f64(args.seconds));
    let (begun, mut last) = (Instant::now(), Instant::now());
    let mut watch = |p: &Progress| {
        if p.step > WARM_UP {
            samples.push(last.elapsed().as_secs_f64() * 1e3);
        }
        last = Instant::now();
        if begun.elapsed() >= time && samples.len() >= 5 { Control::Stop } else { Control::Continue }
    };
    train(&dataset.all(), &model, &settings, None, &mut watch)?;
    let Args { requests, candidates, threads, precision, .. } = args;
    let padded = if args.padded { ", padding computed" } else { "" };
    let what = format!("{requests} requests x {candidates}, {precision}{padded}, {threads} threads");
    series(&format!("training step, {what}"), "ms", &samples);
    series(&format!("peak memory, training step, {what}"), "MiB", &[peak_mib()?]);
    Ok(())
}

/// The default training but for what the PyTorch module does not have, one batch an epoch.
fn settings(args: &Args) -> Result<TrainConfig, Failure> {
    let mut settings = serde_json::json!({
        "epochs": STEPS,
        "batch_rows": args.requests * args.candidates,
        "threads": args.threads,
        "window_hours": 0.0,
        "sequence_dropout": 0.0,
    });
    if args.precision != "f32" {
        settings["precision"] = args.precision.clone().into();
    }
    let precision = args.precision.clone();
    serde_json::from_value(settings).map_err(|reason| Unsupported { precision, reason }.into())
}

/// Checks outputs and gradients, which are computed by the code that the steps below run.
fn agree(file: &Path, precision: Precision) -> Result<(), Failure> {
    let report = parity::run(file, precision)?;
    let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    for (what, value) in
        [("TransAct output", report.transact), ("logits", report.logits), ("gradients", report.gradients)]
    {
        series(&format!("parity with `{name}`, {what}"), "relative difference", &[value]);
    }
    if !report.holds(precision) {
        return Err(format!("{} is out of bounds: {report:?}", file.display()).into());
    }
    Ok(())
}

fn schema() -> Result<Arc<Schema>, Failure> {
    let actions: Vec<String> =
        (0..ACTIONS).map(|i| format!(r#"{{ name = "a{i}", polarity = "positive" }}"#)).collect();
    // Action 0 is padding in compatibility mode.
    let heads: Vec<String> =
        (1..=HEADS).map(|i| format!(r#"{{ name = "h{i}", actions = ["a{i}"] }}"#)).collect();
    let numbers: Vec<String> =
        (0..NUMBERS).map(|i| format!(r#"{{ kind = "numeric", name = "n{i}" }}"#)).collect();
    Ok(Arc::new(Schema::from_toml(&format!(
        "item_embedding = \"vector\"\nactions = [{}]\nheads = [{}]\nsequence = {{ length = {POSITIONS}, stored = 256 }}\n\
         item_features = [{{ kind = \"embedding\", name = \"vector\", dim = {ITEM} }}, {}]",
        actions.join(", "),
        heads.join(", "),
        numbers.join(", "),
    ))?))
}

/// The rows, joined from a log, and checked to have the wanted lengths.
fn rows(args: &Args, schema: &Arc<Schema>) -> Result<Dataset, Failure> {
    let mut log = Log { random: ChaCha8Rng::seed_from_u64(7), events: Vec::new() };
    for request in 0..args.requests {
        log.request(request, args)?;
    }
    let numbered =
        log.events.into_iter().enumerate().map(|(at, event)| Ok::<_, Infallible>((at as u64, event)));
    let dataset = join(schema, numbered, JoinOptions::default())?;
    let mut lengths: Vec<usize> = dataset.requests.iter().map(|r| r.tokens.len()).collect();
    let mut wanted: Vec<usize> = (0..args.requests).map(|r| tokens(r, args.padded)).collect();
    lengths.sort_unstable();
    wanted.sort_unstable();
    if lengths != wanted || dataset.all().rows() != args.requests * args.candidates {
        return Err(format!("the joined sequences have lengths {lengths:?}, not {wanted:?}").into());
    }
    Ok(dataset)
}

/// Positions of a request that hold an action; padded ones are such of action 0.
fn tokens(request: usize, padded: bool) -> usize {
    if padded { POSITIONS } else { valid(request) }
}

fn valid(request: usize) -> usize {
    POSITIONS - (3 * (request + 1)) % (POSITIONS + 1)
}

/// A log that is being written.
struct Log {
    random: ChaCha8Rng,
    events: Vec<Event>,
}

impl Log {
    /// A user's actions, what is then ranked, and what followed.
    fn request(&mut self, request: usize, args: &Args) -> Result<(), Failure> {
        let mut time_ms = NOW;
        for at in 0..tokens(request, args.padded) {
            time_ms -= self.random.random_range(1_000..7_200_000);
            let action = if at < valid(request) { self.random.random_range(1..ACTIONS) } else { 0 };
            let item = self.item(&format!("seen{request}-{at}"), false)?;
            self.act(request, &item, action, time_ms, None)?;
        }
        let items: Vec<ItemId> = (0..args.candidates)
            .map(|at| self.item(&format!("shown{request}-{at}"), true))
            .collect::<Result<_, _>>()?;
        let shown = |(at, item): (usize, &ItemId)| ImpressionItem::unscored(item.clone(), at as u16);
        let id = RequestId::new(format!("request{request}"))?;
        let user = UserId::new(format!("user{request}"))?;
        let list = items.iter().enumerate().map(shown).collect();
        self.events.push(Event::Impression(Impression::outside(id.clone(), user, None, NOW, list)));
        for (item, action) in items.iter().flat_map(|item| (1..=HEADS).map(move |action| (item, action))) {
            if self.random.random_bool(0.1) {
                self.act(request, item, action, NOW + 1_000, Some(&id))?;
            }
        }
        Ok(())
    }

    fn item(&mut self, name: &str, numbers: bool) -> Result<ItemId, Failure> {
        let vector = (0..ITEM).map(|_| self.random.random::<f32>() - 0.5).collect();
        let mut features = FeatureValues::from([("vector".to_owned(), FeatureValue::Vector(vector))]);
        let count = if numbers { NUMBERS } else { 0 };
        features.extend(
            (0..count).map(|i| (format!("n{i}"), FeatureValue::Number(self.random.random::<f64>() - 0.5))),
        );
        let item = ItemId::new(name)?;
        self.events.push(Event::Item(Item { item: item.clone(), time_ms: NOW, features, active: true }));
        Ok(item)
    }

    fn act(
        &mut self,
        user: usize,
        item: &ItemId,
        action: usize,
        time_ms: i64,
        request: Option<&RequestId>,
    ) -> Result<(), Failure> {
        self.events.push(Event::Action(Action {
            event_id: EventId::new(format!("event{}", self.events.len()))?,
            user: UserId::new(format!("user{user}"))?,
            item: item.clone(),
            action: format!("a{action}"),
            time_ms,
            request: request.cloned(),
            surface: None,
        }));
        Ok(())
    }
}

/// The most memory that this process ever held.
fn peak_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in the status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

fn series(name: &str, unit: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": unit, "samples": samples }));
}

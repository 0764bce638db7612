//! Measures the scoring of one large request, at the geometry on which speed is quoted.
//!
//! `cargo xtask bench serve` runs it in turn with the PyTorch module; `cargo xtask bench model-serve` alone. As in the
//! server each thread scores its part of the candidates with working memory of its own, and a request's tokens are those
//! that hold an action: of 100 positions 80.

mod geometry;

use std::hint::black_box;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use geometry::{Failure, HEADS, batch, model};
use lately_features::FeatureBatch;
use lately_kernels::bf16::Isa;
use lately_kernels::peak;
use lately_model::{Engine, EngineMemory, Precision, ServingPrecision, parity, rank_correlation};
use std::sync::Arc;

#[derive(Debug, Parser)]
struct Args {
    /// Candidates of the request.
    #[arg(long, default_value_t = 1_000)]
    candidates: usize,
    /// Actions of the request.
    #[arg(long, default_value_t = 80)]
    tokens: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds to measure for.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// f32, bf16 or int8.
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Compare outputs with this reference case first.
    #[arg(long, value_name = "FILE")]
    parity: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let precision: ServingPrecision = serde_json::from_value(args.precision.clone().into())?;
    if let Some(file) = &args.parity {
        let trained = if precision == ServingPrecision::F32 { Precision::F32 } else { Precision::Bf16 };
        let report = parity::run(file, trained)?;
        if !report.holds(trained) {
            return Err(format!("{} is out of bounds: {report:?}", file.display()).into());
        }
        series("outputs against the reference case", "relative difference", &[report.served]);
    }
    let (model, whole) = (Arc::new(model()?), batch(1, args.candidates, args.tokens));
    let size = args.candidates.div_ceil(args.threads.max(1)).max(1);
    let parts: Vec<FeatureBatch> = (0..args.candidates)
        .step_by(size)
        .map(|from| part(&whole, from..(from + size).min(args.candidates)))
        .collect();
    let mut scratches: Vec<EngineMemory> = parts.iter().map(|_| EngineMemory::default()).collect();
    let engine = Engine::new(model.clone(), precision);
    let time = Duration::from_secs_f64(args.seconds);
    let logits = score(&engine, &parts, &mut scratches)?;
    if precision != ServingPrecision::F32 {
        let exact = Engine::new(model, ServingPrecision::F32);
        agree(&score(&exact, &parts, &mut scratches)?, &logits)?;
    }
    let peak = peaks(args.threads, precision)?;
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < time || samples.len() < 5 {
        let begin = Instant::now();
        black_box(score(&engine, &parts, &mut scratches)?);
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let Args { candidates, tokens, threads, precision, .. } = args;
    let what = format!("{candidates} candidates, {tokens} tokens, {precision}, {threads} threads");
    series(&format!("score, {what}"), "ms", &samples);
    // Again: the clock may have changed.
    let peak = (peak + peaks(args.threads, engine.precision())?) / 2.0;
    let work = 2.0 * engine.multiply_adds(args.tokens) as f64 * args.candidates as f64;
    let rates: Vec<f64> = samples.iter().map(|ms| work / ms / 1e6).collect();
    let shares: Vec<f64> = rates.iter().map(|rate| 100.0 * rate / peak).collect();
    series(&format!("products counted, {what}"), "GFLOP/s", &rates);
    series(&format!("practical peak, {what}"), "GFLOP/s", &[peak]);
    series(&format!("all, {what}"), "% of peak", &shares);
    if let Some(peak) = peak_mib()? {
        series(&format!("peak memory, score, {what}"), "MiB", &[peak]);
    }
    Ok(())
}

/// GFLOP/s of register-only loops on so many threads at once.
fn peaks(threads: usize, precision: ServingPrecision) -> Result<f64, Failure> {
    let one = move || match precision {
        ServingPrecision::F32 => peak::f32(),
        ServingPrecision::Bf16 | ServingPrecision::Int8 => peak::bf16(Isa::best()),
    };
    let threads: Vec<_> = (0..threads.max(1)).map(|_| std::thread::spawn(one)).collect();
    threads.into_iter().map(|t| t.join().map_err(|_| "a thread panicked".into())).sum()
}

/// Checks that what is timed orders as f32 does.
fn agree(exact: &[f32], logits: &[f32]) -> Result<(), Failure> {
    let column =
        |x: &[f32], head: usize| -> Vec<f32> { x.iter().skip(head).step_by(HEADS).copied().collect() };
    let of_head = |head| rank_correlation(&column(exact, head), &column(logits, head));
    let smallest = (0..HEADS).map(of_head).fold(1.0, f64::min);
    series("smallest rank correlation of a head with f32", "correlation", &[smallest]);
    if smallest >= 0.999 { Ok(()) } else { Err(format!("rank correlation with f32 is {smallest}").into()) }
}

/// All candidates' logits, each thread a part.
fn score(
    engine: &Engine,
    parts: &[FeatureBatch],
    scratches: &mut [EngineMemory],
) -> Result<Vec<f32>, Failure> {
    std::thread::scope(|scope| {
        let parts = parts.iter().zip(scratches);
        let threads: Vec<_> =
            parts.map(|(part, scratch)| scope.spawn(move || engine.score(part, scratch))).collect();
        let mut logits = Vec::new();
        for thread in threads {
            logits.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(logits)
    })
}

/// Some candidates of the one request.
fn part(whole: &FeatureBatch, rows: Range<usize>) -> FeatureBatch {
    let all = whole.rows();
    let cut = |x: &[f32]| x[rows.start * (x.len() / all)..rows.end * (x.len() / all)].to_vec();
    let mut part = whole.clone();
    part.row_offsets = vec![0, rows.len() as u32];
    (part.candidate, part.label) = (cut(&whole.candidate), cut(&whole.label));
    part.item.embedding = cut(&whole.item.embedding);
    part.item.numeric = cut(&whole.item.numeric);
    part
}

fn series(name: &str, unit: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": unit, "samples": samples }));
}

/// The most memory that this process ever held, where the system says it.
fn peak_mib() -> Result<Option<f64>, Failure> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(Some(kib / 1024.0))
}

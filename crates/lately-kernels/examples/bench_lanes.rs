//! Measures every operation of the compiled model at the geometry on which speed is quoted, as a share of the practical
//! peak of a core in the same run.
//!
//! `cargo xtask bench kernels-lanes` runs it. One thread; 80 tokens, 96 rows of the top.

use std::hint::black_box;
use std::time::{Duration, Instant};

use lately_kernels::bf16::Isa;
use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{self, Activations, Bf16, F32, Format, Int8, Int8Isa, Shape, Start};
use lately_kernels::matrix::View;
use lately_kernels::peak;

/// Tokens, and lanes of one candidate.
const TOKENS: usize = 80;
/// Rows of a group of the top.
const ROWS: usize = 96;
/// Blocks of the contracted dimension that pass at a time, as in the compiled model.
const STRETCH: usize = 7;
/// Time for each operation.
const TIME: Duration = Duration::from_millis(200);

fn main() {
    let exact = peak::f32();
    report("f32: practical peak of a core", exact, None);
    all("f32", F32, exact);
    let isa = Isa::best();
    let bf16 = peak::bf16(isa);
    report(&format!("bf16 ({isa:?}): practical peak of a core"), bf16, None);
    if let Some(format) = Bf16::with(isa) {
        all("bf16", format, bf16);
    }
    // Multiplies and adds like the others; there is no loop of registers to compare it with.
    weights(&format!("int8 ({:?})", Int8Isa::available()[0]), Int8::default(), None);
}

fn report(name: &str, rate: f64, peak: Option<f64>) {
    println!("{}", serde_json::json!({ "name": name, "unit": "GFLOP/s", "samples": [rate] }));
    if let Some(peak) = peak {
        println!(
            "{}",
            serde_json::json!({ "name": name, "unit": "% of peak", "samples": [100.0 * rate / peak] })
        );
    }
}

/// Name, rows of the output, depth, lanes.
const WEIGHTS: [(&str, usize, usize, usize); 6] = [
    ("queries and values, 192 x 96", 192, 96, TOKENS),
    ("feed-forward in, 32 x 96", 32, 96, TOKENS),
    ("feed-forward out, 96 x 32", 96, 32, TOKENS),
    ("cross layer, 1,456 x 1,456", 1_456, 1_456, ROWS),
    ("MLP, 512 x 1,456", 512, 1_456, ROWS),
    ("MLP, 256 x 512", 256, 512, ROWS),
];

fn all<F: Activations>(name: &str, format: F, peak: f64) {
    weights(name, format, Some(peak));
    attention(name, format, peak);
}

fn weights<F: Format>(name: &str, format: F, peak: Option<f64>) {
    for (op, rows, depth, lanes) in WEIGHTS {
        let weight = numbers(rows * depth);
        let packed = format.pack(rows, depth, View::rows(&weight, depth));
        let (x, mut buffer) = (numbers(depth * lanes), Buffer::default());
        let mut y = vec![0.0; rows.next_multiple_of(16) * lanes];
        let bias = numbers(rows);
        let shape = Shape { rows, lanes, stride: lanes, out: lanes };
        let rate = measure(2 * rows * depth * lanes, || {
            let right = format.right(depth, lanes, &x, &mut buffer);
            let mut start = Start::Bias(&bias);
            for from in (0..packed.blocks()).step_by(STRETCH) {
                format.product(shape, packed.part(from, STRETCH), &right[from * 16 * lanes..], start, &mut y);
                start = Start::Add;
            }
            black_box(&y);
        });
        report(&format!("{name}: {op}"), rate, peak);
    }
}

/// Products of activations, and the vector operations, which have no peak of their own: time alone.
fn attention<F: Activations>(name: &str, format: F, peak: f64) {
    let (n, d) = (TOKENS, 96);
    let (x, q) = (numbers(d * n), numbers(d * n));
    let [mut xs, mut qs, mut ks, mut vs, mut ps] = [(); 5].map(|()| Buffer::default());
    let (mut logits, mut y) = (vec![0.0; n * n], vec![0.0; d * n]);
    let right = format.right(d, n, &x, &mut xs);
    let query = format.right(d, n, &q, &mut qs);
    let shape = |rows| Shape { rows, lanes: n, stride: n, out: n };
    let rate = measure(2 * n * n * d, || {
        let keys = format.keys(n, d, n, right, &mut ks);
        format.product(shape(n), keys, query, Start::Zero, &mut logits);
        black_box(&logits);
    });
    report(&format!("{name}: logits, 80 x 80 over 96"), rate, Some(peak));
    let probabilities = vec![1.0 / n as f32; n * n];
    let rate = measure(2 * n * n * d, || {
        let values = format.values(d, n, n, &x, &mut vs);
        let right = format.right(n, n, &probabilities, &mut ps);
        format.product(shape(d), values, right, Start::Zero, &mut y);
        black_box(&y);
    });
    report(&format!("{name}: mix of values, 96 x 80 over 80"), rate, Some(peak));
    let start = numbers(n * n);
    time(&format!("{name}: softmax, 80 x 80"), || {
        logits.copy_from_slice(&start);
        lanes::softmax(n, n, n, &[], &mut logits);
        black_box(&logits);
    });
    let ones = vec![1.0; d];
    time(&format!("{name}: norm, 96 x 80"), || {
        lanes::norm(n, n, &ones, &ones, &mut y);
        black_box(&y);
    });
    let (own, shared) = (vec![0.5; n], vec![0.5; n * n]);
    time(&format!("{name}: shared probabilities, 80 x 80"), || {
        black_box(lanes::combine(n, n, n, &[], &shared, &own, &mut logits));
    });
}

/// Median seconds of a run.
fn seconds(mut run: impl FnMut()) -> f64 {
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < TIME || samples.len() < 16 {
        let begin = Instant::now();
        (0..8).for_each(|_| run());
        samples.push(begin.elapsed().as_secs_f64() / 8.0);
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn measure(work: usize, run: impl FnMut()) -> f64 {
    work as f64 / seconds(run) / 1e9
}

fn time(name: &str, run: impl FnMut()) {
    println!("{}", serde_json::json!({ "name": name, "unit": "us", "samples": [seconds(run) * 1e6] }));
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

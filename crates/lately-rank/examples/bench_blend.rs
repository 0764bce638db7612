//! Measures blending: a page of 25 out of 500 candidates, on one core, by SSD and by DPP, beside the same choice made
//! plainly.
//!
//! `cargo xtask bench rank-blend`. Topics are clusters of embeddings, 20 of them, as in a feed that could narrow. The plain
//! form makes Gram-Schmidt anew over the window in each step (f64), and chooses by the same worth.

use std::hint::black_box;
use std::time::Instant;

use lately_rank::select::{Pool, blend};
use lately_rank::{Diversity, SelectConfig};

const CANDIDATES: usize = 500;
const PAGE: usize = 25;
const TOPICS: usize = 20;
const SAMPLES: usize = 1_000;

/// Between -0.5 and 0.5, the same for the same n.
fn noise(n: usize) -> f32 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f32 / (1u64 << 24) as f32 - 0.5
}

fn vector(i: usize, d: usize) -> Vec<f32> {
    (0..d).map(|k| noise(1_000_000 + i % TOPICS * d + k) + 0.5 * noise(i * d + k)).collect()
}

fn report(name: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": "us", "samples": samples }));
}

fn timed(samples: usize, mut one: impl FnMut()) -> Vec<f64> {
    (0..samples / 10 + 1).for_each(|_| one());
    let sample = |_| {
        let start = Instant::now();
        one();
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..samples).map(sample).collect()
}

fn main() -> Result<(), String> {
    for d in [32, 64] {
        let vectors: Vec<Vec<f32>> = (0..CANDIDATES).map(|i| vector(i, d)).collect();
        let embeddings: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let scores: Vec<f32> = (0..CANDIDATES).map(|i| noise(5_000_000 + i)).collect();
        let topics: Vec<u32> = (0..CANDIDATES).map(|i| (i % TOPICS) as u32 + 1).collect();
        let pool = Pool { scores: &scores, topics: &topics, embeddings: &embeddings, dim: d, labels: &[] };
        for (name, diversity) in [("none", Diversity::None), ("ssd", Diversity::Ssd), ("dpp", Diversity::Dpp)]
        {
            let config = SelectConfig { diversity, topic_run: 0, ..SelectConfig::default() };
            let what = format!("{CANDIDATES} candidates to {PAGE}, d {d}");
            report(
                &format!("blend, {name}, {what}"),
                &timed(SAMPLES, || {
                    black_box(blend(black_box(pool), PAGE, &config));
                }),
            );
            if diversity != Diversity::None {
                let ours = blend(pool, PAGE, &config);
                let theirs = plain(&scores, &vectors, &config);
                let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
                eprintln!("{name}, d {d}: {same} of {PAGE} places as the plain form chooses");
                report(
                    &format!("blend, {name} plainly, {what}"),
                    &timed(SAMPLES / 50, || {
                        black_box(plain(&scores, &vectors, &config));
                    }),
                );
            }
        }
    }
    Ok(())
}

fn plain(scores: &[f32], vectors: &[Vec<f32>], config: &SelectConfig) -> Vec<usize> {
    let n = scores.len() as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    let sd = (scores.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let ssd = config.diversity == Diversity::Ssd;
    let window = if ssd { config.ssd.window } else { config.dpp.window };
    let mut page: Vec<usize> = Vec::new();
    while page.len() < PAGE {
        let latest = &page[page.len().saturating_sub(window - 1)..];
        let (basis, volume) = basis(vectors, latest);
        let worth = |i: usize| {
            let z = (f64::from(scores[i]) - mean) / sd;
            let left = square(&rest(&basis, unit(&vectors[i])));
            match ssd {
                true => z + f64::from(config.ssd.gamma) * volume * left.sqrt(),
                false => f64::from(config.dpp.alpha) * z + left.max(1e-4).ln(),
            }
        };
        let free = (0..scores.len()).filter(|i| !page.contains(i)).map(|i| (worth(i), i));
        match free.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, i)) => page.push(i),
            None => break,
        }
    }
    page
}

fn basis(vectors: &[Vec<f32>], chosen: &[usize]) -> (Vec<Vec<f64>>, f64) {
    let (mut basis, mut volume) = (Vec::new(), 1.0);
    for i in chosen {
        let left = rest(&basis, unit(&vectors[*i]));
        let length = square(&left).sqrt();
        volume *= length;
        basis.push(left.into_iter().map(|x| x / length).collect());
    }
    (basis, volume)
}

fn unit(v: &[f32]) -> Vec<f64> {
    let length = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    v.iter().map(|x| f64::from(*x) / length).collect()
}

fn rest(basis: &[Vec<f64>], mut v: Vec<f64>) -> Vec<f64> {
    for b in basis {
        let along: f64 = b.iter().zip(&v).map(|(a, b)| a * b).sum();
        v.iter_mut().zip(b).for_each(|(v, b)| *v -= along * b);
    }
    v
}

fn square(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum()
}

//! Training on the emulation is training on the CPU.

use std::sync::Arc;

use lately_features::{FeatureBatch, Schema};
use lately_model::training::{Group, LearnerOptions, StagedBatch, Stager};
use lately_model::{
    AdamStep, Encoder, Fusion, Gradients, Lists, Model, ModelConfig, Objective, Outputs, Precision, Scratch,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::world::{batch, schema, tiny, trained};
use crate::driver::emulation::{Emulation, compiler};
use crate::train::Learner;

/// How far a gradient may be beside the largest one of its parameter, in f32 by split factors.
const SPLIT_BOUND: f32 = 2e-4;
/// How far the whole gradient may be beside its length, in bfloat16. A parameter's sum over these few rows may nearly cancel,
/// and where two tokens are nearly equal the maximum may be the other one's, so that single ones say little.
const BF16_BOUND: f64 = 4e-2;

/// A batch with labels, weights and lists.
struct Rows {
    batch: FeatureBatch,
    weight: Vec<f32>,
    offsets: Vec<u32>,
    copies: Vec<f32>,
}

const HEADS: usize = 3;
const HEAD_WEIGHT: [f32; HEADS] = [0.5, 0.0, 0.25];

impl Rows {
    fn new(schema: &Schema, requests: &[(usize, usize)], seed: u64) -> Self {
        let mut batch = batch(schema, requests, seed, |_| false);
        let mut random = ChaCha8Rng::seed_from_u64(seed + 1);
        let rows = batch.rows();
        batch.label = (0..rows * HEADS).map(|_| f32::from(u8::from(random.random::<f32>() < 0.3))).collect();
        let weight = (0..rows * HEADS).map(|_| (0.5 + random.random::<f32>()) / rows as f32).collect();
        let mut offsets = batch.row_offsets.clone();
        offsets.dedup();
        let copies = (0..rows).map(|i| if i % 4 == 0 { 2.0 } else { 1.0 }).collect();
        Self { batch, weight, offsets, copies }
    }

    fn objective(&self) -> Objective<'_> {
        let lists = Lists { offsets: &self.offsets, head_weight: &HEAD_WEIGHT, copies: &self.copies };
        Objective { weight: &self.weight, lists: Some(lists) }
    }

    fn staged(&self, model: &Model, tokens: usize) -> StagedBatch {
        Stager::new(model, 1).with_tokens(tokens).stage(&self.batch, &self.objective()).unwrap()
    }
}

type Moments = Vec<(Vec<f32>, Vec<f32>)>;

fn moments(model: &Model) -> Moments {
    let zeros = |n: usize| vec![0.0; n];
    model.parameters().iter().map(|p| (zeros(p.data.len()), zeros(p.data.len()))).collect()
}

fn learner(model: &Model, precision: Precision) -> (Arc<Emulation>, Learner<Emulation>) {
    let driver = Arc::new(Emulation::default());
    let options = LearnerOptions { precision, group: None };
    let learner = Learner::new(&driver, model, &moments(model), &options).unwrap();
    (driver, learner)
}

/// Loss and gradients of the CPU in f32.
fn of_cpu(model: &Model, rows: &Rows) -> (f64, Vec<Vec<f32>>) {
    let (mut scratch, mut gradients) = (Scratch::default(), Gradients::zeros(model));
    let loss = model
        .objective_and_gradient(&rows.batch, &rows.objective(), None, &mut scratch, &mut gradients)
        .unwrap();
    (loss, gradients.iter().map(|(_, data, _)| data.to_vec()).collect())
}

/// Every parameter's gradient is the CPU's, and the loss.
fn agrees(config: &ModelConfig, schema: &Schema, requests: &[(usize, usize)], tokens: usize) {
    if compiler().is_none() {
        return;
    }
    let model = trained(config, schema);
    let rows = Rows::new(schema, requests, 3);
    let staged = rows.staged(&model, tokens);
    assert_eq!(staged.rows(), rows.batch.rows());
    let (want_loss, want) = of_cpu(&model, &rows);
    for precision in [Precision::F32, Precision::Bf16] {
        let (_, mut learner) = learner(&model, precision);
        let loss = learner.gradient(&staged, None).unwrap();
        let bound = if precision == Precision::F32 { 1e-6 } else { 2e-3 };
        let near = (loss - want_loss).abs() < bound * want_loss;
        assert!(near, "{precision:?}: loss {loss} instead of {want_loss}");
        let got = learner.gradients().unwrap();
        let (mut errors, mut squares, mut worst) = (0.0, 0.0, 0.0f32);
        for ((parameter, got), want) in model.parameters().iter().zip(&got).zip(&want) {
            let name = &parameter.name;
            assert!(got.iter().all(|x| x.is_finite()), "{precision:?} {name}: not finite");
            let largest = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if precision == Precision::F32 {
                assert!(apart <= SPLIT_BOUND * largest, "{name}: {apart} apart, largest {largest}");
            }
            worst = worst.max(apart / largest.max(f32::MIN_POSITIVE));
            errors += got.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            squares += want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        let apart = (errors / squares).sqrt();
        eprintln!(
            "{precision:?}: loss {loss} and {want_loss}; {apart:.1e} of the length apart, at most {worst:.1e}"
        );
        assert!(apart < BF16_BOUND, "{precision:?}: {apart} of the gradient's length apart");
    }
}

/// Requests of one row and of many, without history, without rows, of more than one tile.
const REQUESTS: [(usize, usize); 6] = [(3, 2), (0, 2), (20, 3), (5, 0), (16, 1), (2, 4)];
const ALL: usize = 1 << 19;

#[test]
fn gradients_are_those_of_the_cpu() {
    agrees(&tiny(), &schema(4, 20), &REQUESTS, ALL);
}

#[test]
fn the_same_batch_gives_the_same_bits_whichever_threads_run_first() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = trained(&tiny(), &schema);
    let staged = Rows::new(&schema, &REQUESTS, 3).staged(&model, ALL);
    let of = |backwards: bool| {
        let (driver, mut learner) = learner(&model, Precision::Bf16);
        driver.turn_around(backwards);
        (learner.gradient(&staged, Some(3)).unwrap().to_bits(), learner.gradients().unwrap())
    };
    assert_eq!(of(false), of(true));
}

#[test]
fn several_heads_and_other_widths() {
    // Of odd width, in which no two numbers of a head are read at once.
    let config = ModelConfig { attention_heads: 3, layers: 1, action_dim: 5, ..tiny() };
    agrees(&config, &schema(5, 20), &REQUESTS, ALL);
    // A head wider than a tile, and one as wide as a token is.
    let config = ModelConfig { attention_heads: 2, action_dim: 8, ffn: 40, cross_width: 20, ..tiny() };
    agrees(&config, &schema(18, 20), &REQUESTS[..3], ALL);
}

#[test]
fn every_part_that_a_model_may_have() {
    let schema = schema(4, 20);
    let all = ModelConfig {
        rate_hidden: 5,
        token_surface: true,
        age_buckets: 6,
        multi_action: true,
        cross_layers: 3,
        cross_width: 10,
        ..tiny()
    };
    agrees(&all, &schema, &REQUESTS, ALL);
    let outputs = |outputs| ModelConfig { outputs: Some(outputs), ..tiny() };
    agrees(&outputs(Outputs::FirstK), &schema, &REQUESTS, ALL);
    agrees(&outputs(Outputs::Max), &schema, &REQUESTS, ALL);
    let little = ModelConfig { cross_layers: 0, hidden: Vec::new(), affinity: false, ..tiny() };
    agrees(&little, &schema, &REQUESTS, ALL);
}

#[test]
fn every_way_in_which_the_sequence_enters() {
    let schema = schema(4, 20);
    for fusion in [Fusion::Append, Fusion::None] {
        agrees(&ModelConfig { fusion, ..tiny() }, &schema, &REQUESTS, ALL);
    }
    for encoder in [Encoder::Bst, Encoder::None] {
        agrees(&ModelConfig { encoder, ..tiny() }, &schema, &REQUESTS, ALL);
    }
}

#[test]
fn a_batch_may_be_computed_in_stretches() {
    // A list is never cut; a request of 20 tokens and 3 rows has 60 encoder tokens.
    let schema = schema(4, 20);
    agrees(&tiny(), &schema, &REQUESTS, 1);
    agrees(&ModelConfig { fusion: Fusion::None, ..tiny() }, &schema, &REQUESTS, 21);
}

#[test]
fn histories_of_more_tiles_than_a_block_has_warps() {
    let config = ModelConfig { layers: 1, hidden: vec![4], cross_layers: 1, ..tiny() };
    agrees(&config, &schema(4, 140), &[(140, 2), (3, 1)], ALL);
}

#[test]
fn a_batch_without_rows_adds_nothing() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = trained(&tiny(), &schema);
    let rows = Rows::new(&schema, &[], 3);
    let (_, mut learner) = learner(&model, Precision::Bf16);
    assert_eq!(learner.gradient(&rows.staged(&model, ALL), Some(1)).unwrap(), 0.0);
    assert_eq!(learner.norm().unwrap(), 0.0);
}

/// Weights of two runs, on the CPU and on the emulation, after steps on changing batches.
#[test]
fn steps_are_those_of_the_cpu() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let mut on_cpu = trained(&tiny(), &schema);
    let mut of_cpu = moments(&on_cpu);
    let start = on_cpu.clone();
    let (_, mut learner) = learner(&start, Precision::F32);
    let (mut scratch, mut gradients) = (Scratch::default(), Gradients::zeros(&start));
    for number in 1..=4 {
        let rows = Rows::new(&schema, &REQUESTS[number % 3..], 40 + number as u64);
        let want = on_cpu
            .objective_and_gradient(&rows.batch, &rows.objective(), None, &mut scratch, &mut gradients)
            .unwrap();
        let loss = learner.gradient(&rows.staged(&start, ALL), None).unwrap();
        assert!((loss - want).abs() < 1e-4 * want, "step {number}: loss {loss} instead of {want}");
        let (norm, want) = (learner.norm().unwrap(), gradients.norm());
        assert!((norm - want).abs() < 1e-4 * want, "step {number}: norm {norm} instead of {want}");
        let step = AdamStep::new(0.01, (0.9, 0.999), 0.1, 0.5, number as u64);
        on_cpu.update(step, &mut gradients, &mut of_cpu, &scratch);
        learner.update(step).unwrap();
        assert_eq!(learner.norm().unwrap(), 0.0, "the step cleared the gradient");
    }
    let (mut on_device, mut of_device) = (start.clone(), moments(&start));
    learner.read(&mut on_device, &mut of_device).unwrap();
    let lists = |model: &Model, moments: &Moments| -> Vec<(String, Vec<f32>)> {
        let weights = model.parameters().iter().map(|p| (p.name.clone(), p.data.clone()));
        let moments = moments.iter().map(|(m, v)| ("moments".into(), [&m[..], &v[..]].concat()));
        weights.chain(moments).collect()
    };
    for ((name, got), (_, want)) in lists(&on_device, &of_device).iter().zip(lists(&on_cpu, &of_cpu)) {
        // Keys' biases, and weights of what all keys share, have no gradient but rounding, of which Adam makes whole steps.
        if name.contains("in_proj") {
            continue;
        }
        let largest = want.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        let apart = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).filter(|d| *d > 2e-3 * largest).count();
        assert!(apart * 200 <= want.len(), "{name}: {apart} of {} apart", want.len());
    }
    let table = |model: &Model| model.parameters().iter().position(|p| p.table).unwrap();
    let (at, before) = (table(&start), &start.parameters()[table(&start)].data);
    let (got, want) = (&on_device.parameters()[at].data, &on_cpu.parameters()[at].data);
    let unmoved = |x: &[f32]| x.iter().zip(before).map(|(a, b)| a == b).collect::<Vec<_>>();
    assert_eq!(unmoved(got), unmoved(want), "rows that no batch named stay");
}

/// With dropout there is no CPU to compare with, as it numbers rows otherwise: the gradient is the slope of the loss.
#[test]
fn with_dropout_the_gradient_is_the_slope_of_the_loss() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let config = ModelConfig { dropout: 0.3, rate_hidden: 5, attention_heads: 2, affinity: false, ..tiny() };
    let model = trained(&config, &schema);
    let rows = Rows::new(&schema, &REQUESTS, 5);
    let staged = rows.staged(&model, ALL);
    let loss_and_gradient = |model: &Model, seed| {
        let (_, mut learner) = learner(model, Precision::F32);
        (learner.gradient(&staged, Some(seed)).unwrap(), learner.gradients().unwrap())
    };
    let (loss, gradient) = loss_and_gradient(&model, 9);
    assert_ne!(loss_and_gradient(&model, 10).0, loss, "another seed is another mask");
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let length = gradient.iter().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
    for which in 0..3 {
        // Along the gradient, and along it with random parts of it left out.
        let keep: Vec<Vec<bool>> = gradient
            .iter()
            .map(|g| g.iter().map(|_| which == 0 || random.random::<bool>()).collect())
            .collect();
        let moved = |by: f64| {
            let mut model = model.clone();
            let lists = model.parameters_mut().zip(&gradient).zip(&keep);
            for (((_, data), gradient), keep) in lists {
                for ((x, g), _) in data.iter_mut().zip(gradient).zip(keep).filter(|(_, keep)| **keep) {
                    *x += (by * f64::from(*g) / length) as f32;
                }
            }
            loss_and_gradient(&model, 9).0
        };
        let pairs = gradient.iter().flatten().zip(keep.iter().flatten()).filter(|(_, keep)| **keep);
        let want = pairs.map(|(g, _)| f64::from(*g) * f64::from(*g)).sum::<f64>() / length;
        let step = 2e-3;
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        assert!(
            (slope - want).abs() < 0.02 * want,
            "{which}: the slope is {slope}, the gradient says {want}"
        );
    }
}

/// Members that share each batch hold the weights of one that takes all of it.
#[test]
fn a_group_learns_as_one() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = trained(&tiny(), &schema);
    // One member has two requests, one nothing in the second step.
    let parts = [[&REQUESTS[..4], &REQUESTS[..2]], [&REQUESTS[4..], &[]]];
    let batch = |part: &[(usize, usize)], step: usize, rows: usize| {
        let mut part = Rows::new(&schema, part, 20 + step as u64);
        part.weight.fill(1.0 / rows as f32); // as a batch's rows weigh, whoever takes them
        part
    };
    let steps = |learner: &mut Learner<Emulation>, take: &dyn Fn(usize) -> StagedBatch| {
        let mut seen = Vec::new();
        for step in 0..2 {
            seen.push(learner.gradient(&take(step), None).unwrap());
            seen.push(learner.norm().unwrap());
            learner.update(AdamStep::new(0.01, (0.9, 0.999), 0.0, 1.0, step as u64 + 1)).unwrap();
        }
        let (mut end, mut moments) = (model.clone(), moments(&model));
        learner.read(&mut end, &mut moments).unwrap();
        (seen, end.parameters().iter().flat_map(|p| p.data.clone()).collect::<Vec<f32>>())
    };
    let driver = Arc::new(Emulation::default());
    let members = std::thread::scope(|scope| {
        let member = |rank: usize| {
            let group = Group { rank, size: 2, meeting: "a group learns as one".into() };
            let options = LearnerOptions { precision: Precision::F32, group: Some(group) };
            let mut learner = Learner::new(&driver, &model, &moments(&model), &options).unwrap();
            steps(&mut learner, &|step| batch(parts[rank][step], step, 9).staged(&model, ALL))
        };
        let other = scope.spawn(move || member(1));
        [member(0), other.join().unwrap()]
    });
    assert_eq!(members[0], members[1], "the same bits in both");
    // The same gradients, added up by one.
    let (_, mut alone) = learner(&model, Precision::F32);
    for step in 0..2 {
        let mut loss = 0.0;
        for part in parts {
            loss += alone.gradient(&batch(part[step], step, 9).staged(&model, ALL), None).unwrap();
        }
        let (norm, seen) = (alone.norm().unwrap(), &members[0].0[2 * step..]);
        assert!((loss - seen[0]).abs() < 1e-6 * loss, "step {step}: {loss} and {}", seen[0]);
        assert!((norm - seen[1]).abs() < 1e-5 * norm, "step {step}: {norm} and {}", seen[1]);
        alone.update(AdamStep::new(0.01, (0.9, 0.999), 0.0, 1.0, step as u64 + 1)).unwrap();
    }
}

#[test]
fn a_member_that_fails_does_not_leave_the_others_waiting() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = trained(&tiny(), &schema);
    let driver = Arc::new(Emulation::default());
    let member = |rank: usize| {
        let group = Group { rank, size: 2, meeting: "a member that fails".into() };
        let options = LearnerOptions { precision: Precision::F32, group: Some(group) };
        Learner::new(&driver, &model, &moments(&model), &options).unwrap()
    };
    let staged = Rows::new(&schema, &REQUESTS[..2], 3).staged(&model, ALL);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| drop(member(1)));
        let mut first = member(0);
        other.join().unwrap();
        let error = first.gradient(&staged, None).unwrap_err().to_string();
        assert!(error.contains('1'), "it names the member: {error}");
        let error = first.gradient(&staged, None).unwrap_err().to_string();
        assert!(error.contains("a member has failed before"), "{error}");
    });
}

#[test]
fn what_there_is_no_kernel_for_is_refused() {
    let schema = schema(4, 20);
    let driver = Arc::new(Emulation::default());
    let refused = |config: &ModelConfig| {
        let model = trained(config, &schema);
        let options = LearnerOptions::default();
        Learner::new(&driver, &model, &moments(&model), &options).err().map(|e| e.to_string())
    };
    let message = refused(&ModelConfig { encoder: Encoder::Din, ..tiny() }).unwrap();
    assert!(message.contains("this encoder") && message.contains("train on the CPU"), "{message}");
    let message = refused(&ModelConfig { action_dim: 190, ..tiny() }).unwrap();
    assert!(message.contains("198 numbers, at most 192"), "{message}");
}

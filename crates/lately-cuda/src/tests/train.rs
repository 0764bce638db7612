//! Training on the emulation is training on the CPU.

use std::sync::Arc;

use lately_features::{FeatureBatch, Schema};
use lately_model::training::{LearnerOptions, StagedBatch, Stager};
use lately_model::{
    AdamStep, Encoder, Fusion, Gradients, Lists, Model, ModelConfig, Objective, Outputs, Precision, Scratch,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::world::{batch, schema, tiny, trained};
use crate::driver::emulation::{Emulation, compiler};
use crate::train::Learner;

/// Of a gradient, beside the largest one of its parameter: in f32 by split factors, and in bfloat16.
const SPLIT_BOUND: f32 = 2e-4;
const BF16_BOUND: f32 = 4e-2;

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
    for (precision, bound) in [(Precision::F32, SPLIT_BOUND), (Precision::Bf16, BF16_BOUND)] {
        let (driver, mut learner) = learner(&model, precision);
        let loss = learner.gradient(&staged, None).unwrap();
        let near = (loss - want_loss).abs() < f64::from(bound) * want_loss.abs();
        assert!(near, "{precision:?}: loss {loss} instead of {want_loss}");
        let got = learner.gradients().unwrap();
        let mut worst = 0.0f32;
        for ((parameter, got), want) in model.parameters().iter().zip(&got).zip(&want) {
            let name = &parameter.name;
            let largest = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            worst = worst.max(apart / largest.max(f32::MIN_POSITIVE));
            assert!(got.iter().all(|x| x.is_finite()), "{precision:?} {name}: not finite");
            assert!(apart <= bound * largest, "{precision:?} {name}: {apart} apart, largest {largest}");
        }
        eprintln!("{precision:?}: loss {loss} and {want_loss}, gradients {worst} of the largest apart");
        // The same bits again, whatever threads run first.
        driver.turn_around(true);
        let (_, mut again) = (
            &driver,
            Learner::new(&driver, &model, &moments(&model), &LearnerOptions { precision, group: None })
                .unwrap(),
        );
        assert_eq!(again.gradient(&staged, None).unwrap().to_bits(), loss.to_bits());
        assert_eq!(again.gradients().unwrap(), got);
    }
}

/// Requests of one row and of many, without history, without rows, of more than one tile.
const REQUESTS: [(usize, usize); 6] = [(3, 2), (0, 2), (20, 3), (5, 0), (16, 1), (2, 4)];
const ALL: usize = 1 << 19;

#[test]
fn gradients_are_those_of_the_cpu() {
    agrees(&tiny(), &schema(4, 20), &REQUESTS, ALL);
}

//! Agreement with the reference cases: safetensors files with weights, inputs, expected outputs and gradients of the
//! official module, whose geometry stands in their metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lately_features::schema::{ActionType, FeatureKind, Head, Polarity, Schema, SequenceLimits};
use lately_features::{FeatureBatch, action_bit};
use safetensors::tensor::SafeTensors;

use crate::backend::{Backend, Cpu, CpuBf16};
use crate::checkpoint::floats;
use crate::{
    Encoder, Engine, EngineMemory, Fusion, Gradients, Model, ModelConfig, ModelError, Precision, Scratch,
    ServingPrecision,
};

/// Largest differences, each relative to the largest expected magnitude (a gradient: of its tensor).
#[derive(Debug, Clone, PartialEq)]
pub struct ParityReport {
    /// Of the encoder's output.
    pub transact: f64,
    /// Of the logits.
    pub logits: f64,
    /// Of the compiled form's logits.
    pub served: f64,
    /// Of the gradients.
    pub gradients: f64,
    /// Name of the weight with the worst gradient.
    pub worst_gradient: String,
}

impl ParityReport {
    /// Within the bounds of a precision, for outputs and for gradients: 1e-4 and 1e-3 in f32, 1e-2 in bf16.
    pub fn holds(&self, precision: Precision) -> bool {
        let (outputs, gradients) = bounds(precision);
        [self.transact, self.logits, self.served].iter().all(|x| *x <= outputs) && self.gradients <= gradients
    }
}

/// Largest allowed difference of outputs and of gradients.
pub fn bounds(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (1e-4, 1e-3),
        Precision::Bf16 => (1e-2, 1e-2),
    }
}

/// Why a reference case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a safetensors file.
    #[error("reference case: {0}")]
    File(#[from] safetensors::SafeTensorError),
    /// A tensor or a key of the metadata is absent or unreadable.
    #[error(
        "reference case: `{0}` is absent or not readable: make the file again with the reference program"
    )]
    Missing(String),
    /// The weights do not fit the geometry.
    #[error("reference case: weight `{name}` has {got} values, {want} expected from the geometry")]
    Shape {
        /// The weight.
        name: String,
        /// Expected number.
        want: usize,
        /// Number in the file.
        got: usize,
    },
    /// The model refuses it.
    #[error("reference case: {0}")]
    Model(#[from] ModelError),
}

/// A file with named access.
struct Case<'a> {
    file: SafeTensors<'a>,
    meta: HashMap<String, String>,
}

impl<'a> Case<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ParityError> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let meta = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { file: SafeTensors::deserialize(bytes)?, meta })
    }
    fn bytes(&self, name: &str) -> Result<&'a [u8], ParityError> {
        Ok(self.file.tensor(name).map_err(|_| missing(name))?.data())
    }
    fn floats(&self, name: &str) -> Result<Vec<f32>, ParityError> {
        Ok(floats(self.bytes(name)?))
    }
    fn integers(&self, name: &str) -> Result<Vec<i64>, ParityError> {
        let (whole, _) = self.bytes(name)?.as_chunks::<8>();
        Ok(whole.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }
    fn shape(&self, name: &str, axis: usize) -> Result<usize, ParityError> {
        let tensor = self.file.tensor(name).map_err(|_| missing(name))?;
        tensor.shape().get(axis).copied().ok_or_else(|| missing(name))
    }
    fn number(&self, key: &str) -> Result<usize, ParityError> {
        self.meta.get(key).and_then(|v| v.parse().ok()).ok_or_else(|| missing(key))
    }
    fn flag(&self, key: &str) -> Result<bool, ParityError> {
        match self.meta.get(key).map(String::as_str) {
            Some("True") => Ok(true),
            Some("False") => Ok(false),
            _ => Err(missing(key)),
        }
    }
    fn model(&self) -> Result<Model, ParityError> {
        let mut model = Model::new(config(self)?, &schema(self)?, 0)?;
        for p in &mut model.network.parameters {
            let data = self.floats(&format!("weight.{}", p.name))?;
            if data.len() != p.data.len() {
                return Err(ParityError::Shape { name: p.name.clone(), want: p.data.len(), got: data.len() });
            }
            p.data = data;
        }
        Ok(model)
    }
    /// Number of layers named `prefix.0.weight`, `prefix.1.weight`, ...
    fn count(&self, prefix: &str) -> usize {
        (0..).take_while(|i| self.file.tensor(&format!("{prefix}.{i}.weight")).is_ok()).count()
    }
}

fn missing(name: &str) -> ParityError {
    ParityError::Missing(name.to_owned())
}

/// Runs one reference case in compatibility mode on the production code path.
///
/// # Errors
/// Where the file cannot be read or is incomplete.
pub fn run(path: &Path, precision: Precision) -> Result<ParityReport, ParityError> {
    match precision {
        Precision::F32 => run_on::<Cpu>(path, ServingPrecision::F32),
        Precision::Bf16 => run_on::<CpuBf16>(path, ServingPrecision::Bf16),
    }
}

/// [`run`] on any backend.
pub(crate) fn run_on<B: Backend<f32>>(
    path: &Path,
    serving: ServingPrecision,
) -> Result<ParityReport, ParityError> {
    let bytes = read(path)?;
    let case = Case::new(&bytes)?;
    let (model, batch) = (case.model()?, batch(&case)?);
    let (mut scratch, mut gradients) = (Scratch::default(), Gradients::zeros(&model));
    let (mut logits, mut transact) = (Vec::new(), Vec::new());
    model.network.score::<B>(&batch, &mut scratch, &mut logits, Some(&mut transact))?;
    let weight = vec![1.0 / batch.label.len() as f32; batch.label.len()];
    model.network.loss_and_gradient::<B>(&batch, &weight, None, &mut scratch, &mut gradients)?;
    let mut worst = (0.0, String::new());
    for (name, got, _) in gradients.iter() {
        let difference = relative(got, &case.floats(&format!("gradient.{name}"))?);
        if difference >= worst.0 {
            worst = (difference, name.to_owned());
        }
    }
    let expected = case.floats("logits")?;
    let served = Engine::new(Arc::new(model), serving).score(&batch, &mut EngineMemory::default())?;
    Ok(ParityReport {
        transact: relative(&transact, &case.floats("transact")?),
        logits: relative(&logits, &expected),
        served: relative(&served, &expected),
        gradients: worst.0,
        worst_gradient: worst.1,
    })
}

/// A reference case as other engines than this crate's take it.
#[derive(Debug)]
pub struct ReferenceCase {
    /// The model, in compatibility mode.
    pub model: Model,
    /// Its inputs, every row a request of its own.
    pub batch: FeatureBatch,
    /// What the reference program gives for them: rows x heads.
    pub logits: Vec<f32>,
}

/// Reads a reference case.
///
/// # Errors
/// Where the file cannot be read or is incomplete.
pub fn case(path: &Path) -> Result<ReferenceCase, ParityError> {
    let bytes = read(path)?;
    let case = Case::new(&bytes)?;
    Ok(ReferenceCase { model: case.model()?, batch: batch(&case)?, logits: case.floats("logits")? })
}

fn read(path: &Path) -> Result<Vec<u8>, ParityError> {
    std::fs::read(path).map_err(|source| ParityError::Read { path: path.display().to_string(), source })
}

/// Largest difference over the largest expected magnitude; infinite where lengths differ or a value is NaN.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    let pairs = || got.iter().zip(want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    if got.len() != want.len() || pairs().any(f64::is_nan) {
        return f64::INFINITY;
    }
    let scale = want.iter().fold(1e-30, |m, x| f64::from(x.abs()).max(m));
    pairs().fold(0.0, f64::max) / scale
}

fn config(case: &Case<'_>) -> Result<ModelConfig, ParityError> {
    let layers = case.count("weight.mlp");
    Ok(ModelConfig {
        encoder: Encoder::Transact,
        layers: case.number("layers")?,
        attention_heads: case.number("heads")?,
        ffn: case.number("ffn")?,
        first_k: case.number("first_k")?,
        max_pool: case.flag("max_pool")?,
        fusion: if case.flag("concat_candidate")? { Fusion::Concat } else { Fusion::None },
        action_dim: case.number("d_action")?,
        dropout: 0.0,
        cross_layers: case.count("weight.cross"),
        cross_width: 0,
        hidden: (0..layers)
            .map(|i| case.shape(&format!("weight.mlp.{i}.weight"), 0))
            .collect::<Result<_, _>>()?,
        compatibility: true,
        affinity: false,
        rate_hidden: 0,
        ..ModelConfig::default()
    })
}

/// A schema whose batches have the case's shapes: the dense inputs are numeric item features.
fn schema(case: &Case<'_>) -> Result<Schema, ParityError> {
    let action = |i| ActionType {
        name: format!("action{i}"),
        polarity: Polarity::Neutral,
        sequence: true,
        priority: 0,
        attribution_seconds: 0,
    };
    let head = |i| Head { name: format!("head{i}"), actions: vec!["action0".into()] };
    let dim = case.number("d_item")? as u16;
    let mut item_features = vec![FeatureKind::Embedding { name: "item".into(), dim }];
    let numeric = |i| FeatureKind::Numeric { name: format!("dense{i}"), log: false };
    item_features.extend((0..case.shape("input.dense", 1)?).map(numeric));
    let length = case.number("seq_len")? as u16;
    Ok(Schema {
        actions: (0..case.shape("weight.transact.action.weight", 0)?).map(action).collect(),
        heads: (0..case.shape("logits", 1)?).map(head).collect(),
        surfaces: Vec::new(),
        item_embedding: "item".into(),
        sequence: SequenceLimits { length, stored: length },
        user_features: Vec::new(),
        item_features,
        core_users: None,
        topic_feature: None,
        followed_feature: None,
    })
}

/// Every row is a request of its own, with all positions as tokens.
fn batch(case: &Case<'_>) -> Result<FeatureBatch, ParityError> {
    let mut batch = FeatureBatch::default();
    let (rows, length) = (case.shape("input.action_type", 0)?, case.shape("input.action_type", 1)?);
    let (request, action) = (case.integers("input.request_time")?, case.integers("input.action_time")?);
    for (row, times) in action.chunks_exact(length).enumerate() {
        let now = request.get(row).ok_or_else(|| missing("input.request_time"))?;
        batch.token_age_ms.extend(times.iter().map(|t| now - t));
        batch.row_offsets.push(row as u32 + 1);
        batch.token_offsets.push(((row + 1) * length) as u32);
    }
    batch.surface = vec![0; rows];
    batch.token_action = case.integers("input.action_type")?.iter().map(|a| *a as u8).collect();
    batch.token_surface = vec![0; rows * length];
    batch.token_actions = batch.token_action.iter().map(|a| action_bit(*a)).collect();
    batch.token_item = case.floats("input.item")?;
    batch.candidate = case.floats("input.candidate")?;
    batch.item.numeric = case.floats("input.dense")?;
    batch.item.embedding = batch.candidate.clone();
    batch.label = case.floats("label")?;
    Ok(batch)
}

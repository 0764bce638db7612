//! Weights of the official TransAct module (github pinterest/transformer_user_action) as safetensors: into a model in
//! compatibility mode, and back.
//!
//! Names, each optionally after `weight.` or `transact.`: those of the official PyTorch module (`action_emb_module`,
//! `transformer_encoder`, `out_linear`) or those of the reference program (`action`, `encoder`, `pool`). The layers
//! above TransAct (`cross.N`, `mlp.N`, `heads`) are no part of the module; a file may hold all of them or none.

use std::collections::{BTreeMap, HashMap};

use lately_features::Schema;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::checkpoint::{Data, Tensor};
use crate::{Encoder, Fusion, Model, ModelConfig, ModelError};

/// (name in the official module, name in the reference program and here).
const NAMES: [(&str, &str); 3] =
    [("action_emb_module.", "action."), ("transformer_encoder.", "encoder."), ("out_linear.", "pool.")];
/// The module's table of the vocabulary: the schema's order of actions stands in its place.
const VOCABULARY: &str = "action_type_lookup";

/// Key of the geometry in the metadata of an exported file.
const GEOMETRY: &str = "lately.geometry";

/// What no tensor tells; `None` where the file's metadata or the configuration says it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given {
    /// Attention heads, `nhead`.
    pub attention_heads: Option<usize>,
    /// First tokens that are given on, `latest_n_emb`; 0 for all.
    pub first_k: Option<usize>,
}

/// A model with official weights.
#[derive(Debug)]
pub struct Imported {
    /// The model, in compatibility mode.
    pub model: Model,
    /// Names of the parameters that the file does not hold; they are at their random start.
    pub untrained: Vec<String>,
}

/// Why weights are not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum OfficialError {
    /// The bytes are not a whole safetensors file.
    #[error("official weights: {0}: convert the PyTorch state dict with safetensors.torch.save_file")]
    File(#[from] safetensors::SafeTensorError),
    /// A tensor is absent.
    #[error("official weights: `{0}` is absent: save the whole state dict of the TransAct module")]
    Missing(String),
    /// A tensor that no part of the model takes.
    #[error("official weights: `{0}` is not known: rename it as in the official module or leave it out")]
    Unknown(String),
    /// Two tensors stand for one parameter.
    #[error("official weights: `{0}` is there twice under different names: leave one out")]
    Twice(String),
    /// A tensor is not of floating-point numbers.
    #[error("official weights: `{name}` is of {got:?}: save it as float32")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        got: Dtype,
    },
    /// A tensor does not fit the schema or the configuration.
    #[error("official weights: `{name}` is of shape {got:?}, {want:?} expected: {hint}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that fits.
        want: Vec<usize>,
        /// What to change.
        hint: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("official weights: `{0}` holds a number that is not finite")]
    NotFinite(String),
    /// The model has something that the official module does not know.
    #[error(
        "the official module does not know {0}: only a model in its own compatibility mode can be exported"
    )]
    NotOfficial(&'static str),
    /// The model refuses the configuration.
    #[error("official weights: {0}")]
    Model(#[from] ModelError),
}

/// A file's tensors by our parameters' names.
struct Weights<'a> {
    tensors: BTreeMap<String, (String, TensorView<'a>)>,
    meta: HashMap<String, String>,
}

impl<'a> Weights<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, OfficialError> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let meta = metadata.metadata().clone().unwrap_or_default();
        let file = SafeTensors::deserialize(bytes)?;
        // A reference case holds inputs and gradients beside its weights.
        let prefixed = file.names().iter().any(|n| n.starts_with("weight."));
        let mut tensors = BTreeMap::new();
        for (name, tensor) in file.tensors() {
            let Some(plain) = (if prefixed { name.strip_prefix("weight.") } else { Some(name.as_str()) })
            else {
                continue;
            };
            let plain = plain.strip_prefix("transact.").unwrap_or(plain);
            if plain != VOCABULARY && tensors.insert(ours(plain), (name.clone(), tensor)).is_some() {
                return Err(OfficialError::Twice(ours(plain)));
            }
        }
        Ok(Self { tensors, meta })
    }

    fn shape(&self, name: &str) -> Result<(usize, usize), OfficialError> {
        let (theirs, tensor) = self.tensors.get(name).ok_or_else(|| OfficialError::Missing(name.into()))?;
        match tensor.shape() {
            [rows, columns] => Ok((*rows, *columns)),
            got => Err(OfficialError::Shape {
                name: theirs.clone(),
                got: got.to_vec(),
                want: vec![0, 0],
                hint: "a matrix belongs here",
            }),
        }
    }

    fn holds(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Number of layers `prefix.0.suffix`, `prefix.1.suffix`, ...
    fn count(&self, prefix: &str, suffix: &str) -> usize {
        (0..).take_while(|i| self.holds(&format!("{prefix}.{i}.{suffix}"))).count()
    }

    /// A number of the metadata, of an exported file's or of a reference case's.
    fn number(&self, key: &str) -> Option<usize> {
        if let Some(text) = self.meta.get(key) {
            return text.parse().ok();
        }
        let geometry: serde_json::Value = serde_json::from_str(self.meta.get(GEOMETRY)?).ok()?;
        geometry.get(key)?.as_u64()?.try_into().ok()
    }
}

/// The parameter's name here; tensors of the layers above keep theirs.
fn ours(plain: &str) -> String {
    let renamed = NAMES.iter().find_map(|(official, here)| {
        plain.strip_prefix(official).or_else(|| plain.strip_prefix(here)).map(|rest| (here, rest))
    });
    renamed.map_or_else(|| plain.to_owned(), |(here, rest)| format!("transact.{here}{rest}"))
}

/// The parameter's name in the official module.
fn theirs(name: &str) -> String {
    let Some(plain) = name.strip_prefix("transact.") else { return name.to_owned() };
    let renamed = NAMES
        .iter()
        .find_map(|(official, here)| plain.strip_prefix(here).map(|rest| format!("{official}{rest}")));
    renamed.unwrap_or_else(|| plain.to_owned())
}

/// The geometry that the tensors and the file's metadata tell; the rest is as in `base`.
fn geometry(
    w: &Weights<'_>,
    schema: &Schema,
    base: &ModelConfig,
    given: Given,
) -> Result<ModelConfig, OfficialError> {
    let layer = |name: &str| format!("transact.encoder.layers.0.{name}");
    let (_, action_dim) = w.shape("transact.action.weight")?;
    let (_, width) = w.shape(&layer("self_attn.in_proj_weight"))?;
    let (ffn, _) = w.shape(&layer("linear1.weight"))?;
    let mlp = w.count("mlp", "weight");
    let top = w.holds("heads.weight");
    let hidden = (0..mlp).map(|i| Ok(w.shape(&format!("mlp.{i}.weight"))?.0));
    let hidden: Vec<usize> = hidden.collect::<Result<_, OfficialError>>()?;
    let fused = width > action_dim + schema.item_embedding_dim();
    Ok(ModelConfig {
        encoder: Encoder::Transact,
        layers: w.count("transact.encoder.layers", "self_attn.in_proj_weight"),
        attention_heads: given.attention_heads.or(w.number("heads")).unwrap_or(base.attention_heads),
        ffn,
        first_k: given.first_k.or(w.number("first_k")).unwrap_or(base.first_k),
        max_pool: w.holds("transact.pool.weight"),
        outputs: None,
        fusion: if fused { Fusion::Concat } else { Fusion::None },
        action_dim,
        cross_layers: if top { w.count("cross", "weight") } else { base.cross_layers },
        cross_width: if top { 0 } else { base.cross_width },
        hidden: if top { hidden } else { base.hidden.clone() },
        affinity: false,
        compatibility: true,
        ..base.clone()
    })
}

/// A model of the schema with the weights of a safetensors file. What tensors do not tell, the number of attention
/// heads and the first K, is `given`, or comes from the file's metadata (`heads`, `first_k`) or else from `base`; the
/// layers above come from `base` and, at random, from `seed` where the file holds none.
///
/// # Errors
/// Where a tensor is absent, unknown, or of another type or shape than schema and geometry ask for.
pub fn import(
    bytes: &[u8],
    schema: &Schema,
    base: &ModelConfig,
    given: Given,
    seed: u64,
) -> Result<Imported, OfficialError> {
    let mut weights = Weights::new(bytes)?;
    let top = weights.holds("heads.weight");
    let mut model = Model::new(geometry(&weights, schema, base, given)?, schema, seed)?;
    let mut untrained = Vec::new();
    for p in &mut model.network.parameters {
        match weights.tensors.remove(&p.name) {
            Some((name, tensor)) => p.data = values(&name, &p.name, &tensor, &p.shape)?,
            None if top || p.name.starts_with("transact.") => {
                return Err(OfficialError::Missing(p.name.clone()));
            }
            None => untrained.push(p.name.clone()),
        }
    }
    match weights.tensors.into_values().next() {
        Some((name, _)) => Err(OfficialError::Unknown(name)),
        None => Ok(Imported { model, untrained }),
    }
}

fn values(name: &str, ours: &str, t: &TensorView<'_>, shape: &[usize]) -> Result<Vec<f32>, OfficialError> {
    if t.shape() != shape {
        let (name, got, want, hint) = (name.to_owned(), t.shape().to_vec(), shape.to_vec(), hint(ours));
        return Err(OfficialError::Shape { name, got, want, hint });
    }
    let data: Vec<f32> = match t.dtype() {
        Dtype::F32 => crate::checkpoint::floats(t.data()),
        Dtype::F64 => t.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        got => return Err(OfficialError::Type { name: name.to_owned(), got }),
    };
    match data.iter().all(|x| x.is_finite()) {
        true => Ok(data),
        false => Err(OfficialError::NotFinite(name.to_owned())),
    }
}

fn hint(name: &str) -> &'static str {
    if name.starts_with("transact.action.") {
        "declare as many actions as the module's vocabulary has, in its order, the padding first"
    } else if name.starts_with("transact.") {
        "the schema's item embedding must be as wide as the module's"
    } else if name.starts_with("heads.") {
        "declare as many heads as the file has"
    } else {
        "these layers see TransAct's output and the numeric features; check their number and `first_k`"
    }
}

/// A model's weights with the official names, the geometry in the metadata: [`import`] gives the same model again.
///
/// # Errors
/// Where the model is not one that the official module can be.
pub fn export(model: &Model) -> Result<Vec<u8>, OfficialError> {
    let (config, plan) = (model.config(), &model.network.plan.encoder);
    let (first, max) = config.compression(model.length);
    let refusal = match config {
        c if !c.compatibility => Some("normalised inputs"),
        c if c.encoder != Encoder::Transact => Some("this encoder"),
        c if c.cross_width > 0 => Some("`cross_width`"),
        _ => (first == 0).then_some("the maximum alone"),
    };
    if let Some(what) = refusal {
        return Err(OfficialError::NotOfficial(what));
    }
    // One key, so that the same model gives the same bytes: the file's own map has no order.
    let geometry = serde_json::json!({
        "heads": config.attention_heads,
        "layers": config.layers,
        "ffn": config.ffn,
        "first_k": first,
        "max_pool": max,
        "concat_candidate": plan.candidate() > 0,
        "seq_len": model.length,
        "d_item": model.network.plan.item_dim,
        "d_action": config.action_dim,
    });
    let meta = (GEOMETRY.to_owned(), geometry.to_string());
    let tensors = model.parameters().iter();
    let tensors =
        tensors.map(|p| (theirs(&p.name), Tensor { shape: p.shape.clone(), data: Data::Numbers(&p.data) }));
    Ok(safetensors::serialize(tensors, Some(HashMap::from([meta])))?)
}

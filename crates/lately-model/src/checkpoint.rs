//! A model as bytes: one safetensors file whose metadata holds the manifest. Whatever the bytes, reading never panics.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use lately_features::{Schema, SchemaError};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::plan::{Parameter, Plan};
use crate::{Admission, Calibration, Golden, Model, ModelConfig, ModelError, Normaliser};

/// Written by this version; older ones are read, newer ones refused.
pub const FORMAT: u32 = 3;
/// Key of the manifest in the file's metadata.
const MANIFEST: &str = "lately.manifest";
/// Prefix of the tensors of admitted buckets, one a feature that has a `min_count`.
const ADMISSION: &str = "admission";
/// Name of the tensor of golden rows, which may be absent; no file of format 1 has it.
const GOLDEN: &str = "golden";
const NORMALISER: [&str; 5] = [
    "normaliser.user_mean",
    "normaliser.user_std",
    "normaliser.item_mean",
    "normaliser.item_std",
    "normaliser.embedding_scale",
];

/// All that serving needs to know about a model besides its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the file format.
    pub format: u32,
    /// Configuration of the model.
    pub config: ModelConfig,
    /// [`Schema::hash`] of `schema`.
    pub schema_hash: String,
    /// The schema whose batches the model takes.
    pub schema: Schema,
    /// Names of the action types, by position.
    pub actions: Vec<String>,
    /// Names of the heads, by position.
    pub heads: Vec<String>,
    /// Version of the item embeddings that it was trained on; empty for unversioned ones.
    #[serde(default)]
    pub embedding_version: String,
    /// First and last time of the training data, ms since 1970 UTC.
    #[serde(default)]
    pub data_range_ms: Option<(i64, i64)>,
    /// Seed of the run.
    pub seed: u64,
    /// Version of the model that training started from.
    #[serde(default)]
    pub parent: Option<String>,
    /// Metrics of the evaluation, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Calibration of the probabilities: that of the model.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// What the training rows looked like, in a form that carries its own version: what is served later is held
    /// against it. Absent in files of formats 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<serde_json::Value>,
}

impl Manifest {
    /// The manifest of a model of this schema, without data range, parent and metrics.
    pub fn new(model: &Model, schema: &Schema, seed: u64) -> Self {
        Self {
            format: FORMAT,
            config: model.config().clone(),
            schema_hash: schema.hash(),
            schema: schema.clone(),
            actions: schema.actions.iter().map(|a| a.name.clone()).collect(),
            heads: schema.heads.iter().map(|h| h.name.clone()).collect(),
            embedding_version: String::new(),
            data_range_ms: None,
            seed,
            parent: None,
            metrics: BTreeMap::new(),
            calibration: model.calibration().cloned(),
            profile: None,
        }
    }

    /// Refuses a schema that gives other batches than the model was trained on.
    ///
    /// # Errors
    /// Where the hashes differ.
    pub fn check_schema(&self, schema: &Schema) -> Result<(), CheckpointError> {
        let serving = schema.hash();
        if serving == self.schema_hash {
            return Ok(());
        }
        Err(CheckpointError::OtherSchema { model: self.schema_hash.clone(), serving })
    }

    /// Refuses rows whose items have other vectors than the model was trained on; `present` is the rows' version,
    /// empty for what items were sent with.
    ///
    /// # Errors
    /// Where the versions differ.
    pub fn check_embeddings(&self, present: &str) -> Result<(), CheckpointError> {
        if present == self.embedding_version {
            return Ok(());
        }
        let (model, present) = (self.embedding_version.clone(), present.to_owned());
        Err(CheckpointError::OtherEmbeddings { model, present })
    }
}

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not a whole safetensors file.
    #[error("checkpoint: {0}: the file is damaged or no safetensors file; publish the model again")]
    File(#[from] safetensors::SafeTensorError),
    /// The manifest is absent or cannot be read.
    #[error("checkpoint: manifest: {0}: the file was not written by Lately or is damaged")]
    Manifest(String),
    /// Written by a newer version.
    #[error("checkpoint: format {got} is newer than {FORMAT}: update this program")]
    Format {
        /// The file's format.
        got: u32,
    },
    /// The manifest's own schema is not valid.
    #[error("checkpoint: {0}")]
    Schema(#[from] SchemaError),
    /// The manifest contradicts itself.
    #[error(
        "checkpoint: the manifest's {0} does not match its schema or model: the file is damaged or was edited"
    )]
    Contradiction(&'static str),
    /// The model's configuration is out of range.
    #[error("checkpoint: {0}")]
    Model(#[from] ModelError),
    /// A tensor is absent, of another shape or not of f32.
    #[error("checkpoint: tensor `{name}`: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "checkpoint: tensor `{0}` holds a number that is not finite: training diverged, or the file is damaged"
    )]
    NotFinite(String),
    /// Its golden rows cannot be written or read.
    #[error("checkpoint: golden rows: {0}: the file is damaged; publish the model again")]
    Golden(String),
    /// It belongs to another schema.
    #[error(
        "the model was trained on schema {model}, this project has {serving}: train a model on the present schema"
    )]
    OtherSchema {
        /// Hash in the manifest.
        model: String,
        /// Hash of the present schema.
        serving: String,
    },
    /// It belongs to other item vectors.
    #[error(
        "the model was trained on the item vectors `{model}`, these rows have `{present}` (empty: what items were \
         sent with): take rows with the model's, or train a model on these"
    )]
    OtherEmbeddings {
        /// Version in the manifest.
        model: String,
        /// Version of the rows.
        present: String,
    },
}

/// f32 values as little-endian bytes, or bits.
pub(crate) struct Tensor<'a> {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    Numbers(&'a [f32]),
    Bits(&'a [u8]),
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.data {
            Data::Numbers(_) => Dtype::F32,
            Data::Bits(_) => Dtype::U8,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match self.data {
            Data::Numbers(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Bits(data) => Cow::Borrowed(data),
        }
    }
    fn data_len(&self) -> usize {
        match self.data {
            Data::Numbers(data) => data.len() * 4,
            Data::Bits(data) => data.len(),
        }
    }
}

/// The model as a safetensors file without golden rows; the same model and manifest always give the same bytes.
///
/// # Errors
/// Where the manifest is not that of this model, or a weight is not finite.
pub fn to_bytes(model: &Model, manifest: &Manifest) -> Result<Vec<u8>, CheckpointError> {
    to_bytes_with(model, manifest, None)
}

/// [`to_bytes`], with golden rows where there are any.
///
/// # Errors
/// As there.
pub fn to_bytes_with(
    model: &Model,
    manifest: &Manifest,
    golden: Option<&Golden>,
) -> Result<Vec<u8>, CheckpointError> {
    if manifest.schema_hash != model.schema_hash || manifest.config != *model.config() {
        return Err(CheckpointError::Contradiction("schema hash or configuration"));
    }
    if manifest.calibration != model.calibration {
        return Err(CheckpointError::Contradiction("calibration"));
    }
    let network = &model.network;
    if let Some(p) = network.parameters.iter().find(|p| p.data.iter().any(|x| !x.is_finite())) {
        return Err(CheckpointError::NotFinite(p.name.clone()));
    }
    let json = serde_json::to_string(&Manifest { format: FORMAT, ..manifest.clone() })
        .map_err(|e| CheckpointError::Manifest(e.to_string()))?;
    let scale = [network.normaliser.embedding_scale];
    let n = &network.normaliser;
    let normaliser =
        NORMALISER.into_iter().zip([&n.user_mean, &n.user_std, &n.item_mean, &n.item_std, &scale[..]]);
    let golden = golden.map(Golden::bytes).transpose();
    let golden = golden.map_err(|e| CheckpointError::Golden(e.to_string()))?;
    let numbers = |shape: Vec<usize>, data| Tensor { shape, data: Data::Numbers(data) };
    let tensors =
        (network.parameters.iter())
            .map(|p| (p.name.clone(), numbers(p.shape.clone(), &p.data)))
            .chain(normaliser.map(|(name, data)| (name.to_owned(), numbers(vec![data.len()], data))))
            .chain(model.admission.gates().iter().map(|gate| {
                let (shape, data) = (vec![gate.bits.len()], Data::Bits(&gate.bits));
                (format!("{ADMISSION}.{}", gate.name), Tensor { shape, data })
            }))
            .chain(golden.as_deref().map(|bytes| {
                (GOLDEN.to_owned(), Tensor { shape: vec![bytes.len()], data: Data::Bits(bytes) })
            }));
    Ok(safetensors::serialize(tensors, Some(HashMap::from([(MANIFEST.to_owned(), json)])))?)
}

/// Reads a model. Every size is checked against the manifest before memory is taken for it.
///
/// # Errors
/// Where anything is damaged, absent, of another shape or not finite; see [`CheckpointError`].
pub fn from_bytes(bytes: &[u8]) -> Result<(Model, Manifest), CheckpointError> {
    with_golden(bytes).map(|(model, manifest, _)| (model, manifest))
}

/// [`from_bytes`], and the golden rows where the file has them.
///
/// # Errors
/// As there, and where the golden rows are not rows of this model.
pub fn with_golden(bytes: &[u8]) -> Result<(Model, Manifest, Option<Golden>), CheckpointError> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let absent = || CheckpointError::Manifest(format!("no `{MANIFEST}` in the metadata"));
    let json = metadata.metadata().as_ref().and_then(|m| m.get(MANIFEST)).ok_or_else(absent)?;
    let manifest = read_manifest(json)?;
    let (plan, specs) = Plan::new(&manifest.config, &manifest.schema)?;
    let gates = Admission::open(&manifest.schema).gates().len();
    let has_golden = file.tensor(GOLDEN).is_ok();
    let known = specs.len() + NORMALISER.len() + gates + usize::from(has_golden);
    if file.len() != known {
        let problem = format!("the file holds {} tensors, {known} expected", file.len());
        return Err(CheckpointError::Tensor { name: "*".into(), problem });
    }
    let mut parameters = Vec::with_capacity(specs.len());
    for spec in specs {
        let data = read(&file, &spec.name, &spec.shape)?;
        parameters.push(Parameter { name: spec.name, shape: spec.shape, data, table: spec.table });
    }
    let (user, item) = (plan.user.layout.numeric_width, plan.item.layout.numeric_width);
    let normaliser = Normaliser {
        user_mean: read(&file, NORMALISER[0], &[user])?,
        user_std: read(&file, NORMALISER[1], &[user])?,
        item_mean: read(&file, NORMALISER[2], &[item])?,
        item_std: read(&file, NORMALISER[3], &[item])?,
        embedding_scale: read(&file, NORMALISER[4], &[1])?[0],
    };
    normaliser.validate(user, item)?;
    let admission = Admission::read(&manifest.schema, |name, length| bits(&file, name, length))?;
    let network = Network { config: manifest.config.clone(), plan, parameters, normaliser };
    let (schema_hash, length) = (manifest.schema_hash.clone(), manifest.schema.sequence.length.into());
    let mut model = Model { network, admission, schema_hash, length, calibration: None };
    model.set_calibration(manifest.calibration.clone())?;
    let golden = has_golden.then(|| golden(&file, &model)).transpose()?;
    Ok((model, manifest, golden))
}

fn golden(file: &SafeTensors<'_>, model: &Model) -> Result<Golden, CheckpointError> {
    let read = |bytes| Golden::read(bytes, model);
    let refused = || CheckpointError::Golden("they are no rows of this model".into());
    file.tensor(GOLDEN).ok().and_then(|t| read(t.data())).ok_or_else(refused)
}

fn read_manifest(json: &str) -> Result<Manifest, CheckpointError> {
    let manifest = |e: serde_json::Error| CheckpointError::Manifest(e.to_string());
    let value: serde_json::Value = serde_json::from_str(json).map_err(manifest)?;
    // A newer format may have other keys: say so instead of naming the first unknown one.
    if let Some(got) = value.get("format").and_then(serde_json::Value::as_u64)
        && got > u64::from(FORMAT)
    {
        return Err(CheckpointError::Format { got: u32::try_from(got).unwrap_or(u32::MAX) });
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(manifest)?;
    manifest.schema.validate()?;
    let schema = &manifest.schema;
    if manifest.schema_hash != schema.hash() {
        return Err(CheckpointError::Contradiction("schema hash"));
    }
    if !manifest.actions.iter().eq(schema.actions.iter().map(|a| &a.name)) {
        return Err(CheckpointError::Contradiction("action vocabulary"));
    }
    if !manifest.heads.iter().eq(schema.heads.iter().map(|h| &h.name)) {
        return Err(CheckpointError::Contradiction("list of heads"));
    }
    Ok(manifest)
}

/// The admitted buckets of a feature, `length` bytes.
fn bits(file: &SafeTensors<'_>, feature: &str, length: usize) -> Result<Vec<u8>, CheckpointError> {
    let name = format!("{ADMISSION}.{feature}");
    match file.tensor(&name) {
        Ok(t) if t.dtype() == Dtype::U8 && t.shape() == [length] => Ok(t.data().to_vec()),
        found => {
            let problem = if found.is_ok() { "of another type or shape" } else { "absent" };
            Err(CheckpointError::Tensor { name, problem: problem.to_owned() })
        }
    }
}

/// One f32 tensor of the given shape, all finite.
fn read(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
    let wrong = |problem: String| CheckpointError::Tensor { name: name.to_owned(), problem };
    let tensor = file.tensor(name).map_err(|_| wrong("absent".into()))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(wrong(format!("of type {:?}, F32 expected", tensor.dtype())));
    }
    if tensor.shape() != shape {
        return Err(wrong(format!("of shape {:?}, {shape:?} expected", tensor.shape())));
    }
    let data: Vec<f32> = floats(tensor.data());
    if data.len() != shape.iter().product::<usize>() {
        return Err(wrong("shorter than its shape".into()));
    }
    if data.iter().any(|x| !x.is_finite()) {
        return Err(CheckpointError::NotFinite(name.to_owned()));
    }
    Ok(data)
}

/// Little-endian f32 values.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (whole, _) = bytes.as_chunks::<4>();
    whole.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

//! The served model: load, validate, warm, swap, retire by generation.
//!
//! Whatever goes wrong, the last good model stays. A request holds the model that it started with until it ends. The
//! former model is kept for one generation more: where the new one fails on a request, it scores ([`ModelSlot::other`]).

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use lately_features::batch::Layout;
use lately_features::{
    Assembler, FeatureBatch, Features, RequestContext, Schema, Token, action_bit, assemble,
    schema::FeatureKind,
};
use lately_model::{
    Accelerator, Engine, EngineMemory, Golden, Manifest, Model, ServingPrecision, checkpoint,
};
use serde::Serialize;

use crate::accelerated::Accelerated;
use crate::agreement::{Agreement, GOLDEN_ERROR, PROBABILITY_ERROR, RANK_CORRELATION, probe};
use crate::batcher::lock;
use crate::config::RankPrecision;
use crate::generations::{Generations, Live};

/// Candidates of each warm-up request: as many as a tile, so that scratch memory is there.
const WARM_ROWS: usize = 32;

/// A model as it is served, with its manifest and its version in the registry.
#[derive(Debug)]
pub struct LoadedModel {
    engine: Engine,
    /// The same model on a device, which is asked first.
    accelerated: Option<Accelerated>,
    /// Until it is swapped in.
    golden: Option<Golden>,
    manifest: Manifest,
    version: String,
    generation: u64,
    /// Since it was swapped in.
    live: Option<Live>,
}

/// What `/v1/models` tells of a model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelSummary {
    /// Version in the registry.
    pub version: String,
    /// Swaps since the start, this one included.
    pub generation: u64,
    /// Hash of the schema it was trained with.
    pub schema_hash: String,
    /// Names of the heads.
    pub heads: Vec<String>,
    /// Version of the item embeddings.
    pub embedding_version: String,
    /// First and last time of the training data, ms since 1970 UTC.
    pub data_range_ms: Option<(i64, i64)>,
    /// The version it was trained on from.
    pub parent: Option<String>,
    /// Trained numbers.
    pub parameters: usize,
    /// In what it multiplies: f32, bf16 or int8.
    pub precision: &'static str,
    /// What scores it: `cpu`, or the name of a device.
    pub device: String,
}

/// Why a model is not served; the last good one still is.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The file is no checkpoint, or holds weights that are no numbers.
    #[error("model {version}: {source}; publish it again")]
    Checkpoint {
        /// Version.
        version: String,
        /// What is wrong.
        source: checkpoint::CheckpointError,
    },
    /// Trained with another schema.
    #[error("model {version} has the schema {model}, this server {server}: train one with this schema")]
    Schema {
        /// Version.
        version: String,
        /// The model's schema hash.
        model: String,
        /// The server's schema hash.
        server: String,
    },
    /// Trained with other item embeddings.
    #[error(
        "model {version} has the item embeddings `{model}`, this server `{server}` (empty: what items were sent with): \
         restart the server to serve it with its own, or train one with the server's"
    )]
    Embeddings {
        /// Version.
        version: String,
        /// The model's.
        model: String,
        /// The server's.
        server: String,
    },
    /// A parameter is NaN or infinite.
    #[error("model {version}: the parameter `{name}` is not finite; train again")]
    NotFinite {
        /// Version.
        version: String,
        /// Parameter.
        name: String,
    },
    /// This machine computes other scores than were published with it.
    #[error(
        "model {version}: probabilities of its golden rows differ by up to {error:.2e} from those it was published with (at \
         most {GOLDEN_ERROR:.0e} may be): the file is damaged or of another program; publish it again"
    )]
    Golden {
        /// Version.
        version: String,
        /// Largest difference of a probability.
        error: f32,
    },
    /// In another precision its scores are others.
    #[error(
        "model {version} in {precision} is not the model in f32: probabilities differ by up to {error:.4} (at most \
         {PROBABILITY_ERROR} may be), rank correlation {correlation:.5} (at least {RANK_CORRELATION}): set [rank] precision \
         to f32, or to auto"
    )]
    Precision {
        /// Version.
        version: String,
        /// The precision.
        precision: &'static str,
        /// Largest difference of a probability.
        error: f32,
        /// Smallest rank correlation of a head.
        correlation: f64,
    },
    /// It does not serve on the device that is asked for.
    #[error("model {version} does not serve on {device}: {reason}; set [rank] device to cpu, or to auto")]
    Device {
        /// Version.
        version: String,
        /// The device.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// The model cannot score.
    #[error("model {version} fails on a warm-up batch: {reason}; train again")]
    WarmUp {
        /// Version.
        version: String,
        /// What happened.
        reason: String,
    },
}

impl LoadedModel {
    /// Puts together what a [`ModelSlot`] takes, which compiles it for its precision.
    pub fn new(model: Model, manifest: Manifest, version: impl Into<String>) -> Self {
        let engine = Engine::new(Arc::new(model), ServingPrecision::F32);
        let (version, generation) = (version.into(), 0);
        Self { engine, accelerated: None, golden: None, manifest, version, generation, live: None }
    }

    /// Reads the bytes of a checkpoint.
    ///
    /// # Errors
    /// [`SwapError::Checkpoint`].
    pub fn from_bytes(version: &str, bytes: &[u8]) -> Result<Self, SwapError> {
        let (model, manifest, golden) = checkpoint::with_golden(bytes)
            .map_err(|source| SwapError::Checkpoint { version: version.to_owned(), source })?;
        Ok(Self { golden, ..Self::new(model, manifest, version) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.engine.model()
    }
    /// The model as it is served.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The model on a device, where it is on one.
    pub(crate) fn accelerated(&self) -> Option<&Accelerated> {
        self.accelerated.as_ref()
    }
    /// Whether a device is asked for its scores.
    pub(crate) fn on_device(&self) -> bool {
        self.accelerated.as_ref().is_some_and(Accelerated::is_up)
    }
    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// Its version in the registry.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// Swaps since the start, this one included; 0 before it is swapped in.
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.model().heads()
    }

    /// Logits of rows by which it is checked.
    fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, SwapError> {
        let failed = |e: lately_model::ModelError| SwapError::WarmUp {
            version: self.version.clone(),
            reason: e.to_string(),
        };
        self.engine.score(batch, &mut EngineMemory::default()).map_err(failed)
    }

    /// What to tell of it.
    pub fn summary(&self) -> ModelSummary {
        let on = self.accelerated.as_ref().filter(|a| a.is_up());
        ModelSummary {
            version: self.version.clone(),
            generation: self.generation,
            schema_hash: self.model().schema_hash().to_owned(),
            heads: self.manifest.heads.clone(),
            embedding_version: self.manifest.embedding_version.clone(),
            data_range_ms: self.manifest.data_range_ms,
            parent: self.manifest.parent.clone(),
            parameters: self.model().parameter_count(),
            precision: on.map_or(self.engine.precision(), Accelerated::precision).name(),
            device: on.map_or("cpu", Accelerated::device).to_owned(),
        }
    }
}

/// Holds the model that an alias names.
#[derive(Debug)]
pub struct ModelSlot {
    alias: String,
    schema: Arc<Schema>,
    hash: String,
    embedding_version: Option<String>,
    precision: RankPrecision,
    accelerator: Option<Arc<dyn Accelerator>>,
    /// Whether what does not serve on the device is refused.
    device_required: bool,
    current: ArcSwapOption<LoadedModel>,
    former: ArcSwapOption<LoadedModel>,
    generations: Generations,
    /// Serialises swaps; the last generation.
    generation: Mutex<u64>,
}

impl ModelSlot {
    /// An empty slot for models of a schema, for the champion.
    pub fn new(schema: Arc<Schema>) -> Self {
        let hash = schema.hash();
        Self {
            alias: "champion".to_owned(),
            schema,
            hash,
            embedding_version: None,
            precision: RankPrecision::F32,
            accelerator: None,
            device_required: false,
            current: ArcSwapOption::empty(),
            former: ArcSwapOption::empty(),
            generations: Generations::new("champion"),
            generation: Mutex::new(0),
        }
    }

    /// For another alias than the champion; metrics bear its name.
    pub fn for_alias(self, alias: &str) -> Self {
        Self { alias: alias.to_owned(), generations: Generations::new(alias), ..self }
    }

    /// Also refuses models of other item embeddings than these.
    pub fn with_embedding_version(mut self, version: impl Into<String>) -> Self {
        self.embedding_version = Some(version.into());
        self
    }

    /// Serves models in this precision, and refuses those whose scores in it are not those in f32.
    pub fn with_precision(mut self, precision: RankPrecision) -> Self {
        self.precision = precision;
        self
    }

    /// Also puts models on this device, and asks it first. One that it has no kernels for, or whose scores there are not those
    /// on the CPU, is refused where the device is `required`, else served from the CPU with a warning.
    pub fn with_accelerator(mut self, accelerator: Arc<dyn Accelerator>, required: bool) -> Self {
        (self.accelerator, self.device_required) = (Some(accelerator), required);
        self
    }

    /// The served model; whoever holds it may finish with it.
    pub fn current(&self) -> Option<Arc<LoadedModel>> {
        self.current.load_full()
    }

    /// A validated model of another generation: one that was swapped in meanwhile, else the former one.
    pub fn other(&self, than: u64) -> Option<Arc<LoadedModel>> {
        let differs = |m: &Arc<LoadedModel>| m.generation != than;
        self.current().filter(differs).or_else(|| self.former.load_full().filter(differs))
    }

    /// Generations in memory: the current and the former one, and older ones that requests still hold.
    pub fn live_generations(&self) -> usize {
        self.generations.live()
    }

    /// Hash of the schema that models must have.
    pub fn schema_hash(&self) -> &str {
        &self.hash
    }

    /// Reads a checkpoint, validates, warms and serves it; returns its generation. A version that is served already
    /// is left alone.
    ///
    /// # Errors
    /// Any [`SwapError`]; the last good model stays.
    pub fn swap_bytes(&self, version: &str, bytes: &[u8]) -> Result<u64, SwapError> {
        // Held from the look at what serves on: of two callers at once the second must find the first one's model.
        let mut generation = lock(&self.generation);
        if let Some(current) = self.current().filter(|c| c.version == version) {
            return Ok(current.generation);
        }
        let loaded = LoadedModel::from_bytes(version, bytes).inspect_err(|e| self.refused(e))?;
        self.swap_in(&mut generation, loaded)
    }

    /// Validates, warms and serves a model; returns its generation.
    ///
    /// # Errors
    /// Any [`SwapError`] but `Checkpoint`; the last good model stays.
    pub fn swap(&self, loaded: LoadedModel) -> Result<u64, SwapError> {
        self.swap_in(&mut lock(&self.generation), loaded)
    }

    /// Serves no model any more; returns whether there was one. Whoever holds it may finish with it.
    pub fn clear(&self) -> bool {
        let _generation = lock(&self.generation);
        let former = self.current.swap(None);
        self.former.store(None);
        if let Some(former) = &former {
            tracing::info!(alias = self.alias, version = former.version, "model taken away");
            let result = "cleared";
            metrics::counter!("lately_model_swaps_total", "alias" => self.alias.clone(), "result" => result)
                .increment(1);
        }
        former.is_some()
    }

    fn swap_in(&self, generation: &mut u64, mut loaded: LoadedModel) -> Result<u64, SwapError> {
        self.validate(&mut loaded).inspect_err(|e| self.refused(e))?;
        *generation += 1;
        loaded.generation = *generation;
        loaded.live = Some(self.generations.begin());
        tracing::info!(
            alias = self.alias,
            version = loaded.version,
            generation = *generation,
            "model swapped in"
        );
        let former = self.current.swap(Some(Arc::new(loaded)));
        self.former.store(former);
        metrics::gauge!("lately_model_generation", "alias" => self.alias.clone()).set(*generation as f64);
        let result = "swapped";
        metrics::counter!("lately_model_swaps_total", "alias" => self.alias.clone(), "result" => result)
            .increment(1);
        Ok(*generation)
    }

    /// Lets go of the former model: one that was taken back must not score where the current one fails.
    pub fn drop_former(&self) {
        let _generation = lock(&self.generation);
        self.former.store(None);
    }

    fn refused(&self, error: &SwapError) {
        tracing::warn!(alias = self.alias, %error, "model refused; the last good one stays");
        let result = "refused";
        metrics::counter!("lately_model_swaps_total", "alias" => self.alias.clone(), "result" => result)
            .increment(1);
    }

    /// Checks a model, puts it on the slot's device and compiles it for the slot's precision.
    fn validate(&self, loaded: &mut LoadedModel) -> Result<(), SwapError> {
        let version = || loaded.version.clone();
        for hash in [loaded.model().schema_hash(), &loaded.manifest.schema_hash] {
            if hash != self.hash {
                let (model, server) = (hash.to_owned(), self.hash.clone());
                return Err(SwapError::Schema { version: version(), model, server });
            }
        }
        if let Some(server) = &self.embedding_version
            && loaded.manifest.embedding_version != *server
        {
            let (model, server) = (loaded.manifest.embedding_version.clone(), server.clone());
            return Err(SwapError::Embeddings { version: version(), model, server });
        }
        // A score alone does not show it: max(NaN, 0) is 0.
        if let Some(p) = loaded.model().parameters().iter().find(|p| !p.data.iter().all(|x| x.is_finite())) {
            return Err(SwapError::NotFinite { version: version(), name: p.name.clone() });
        }
        self.warm_up(loaded)?;
        let golden = loaded.golden.take();
        if let Some(golden) = &golden {
            let logits = loaded.score(golden.batch())?;
            let error = Agreement::of(golden.batch(), golden.logits(), &logits, loaded.heads()).error;
            if error > GOLDEN_ERROR || error.is_nan() {
                return Err(SwapError::Golden { version: version(), error });
            }
        }
        // While the engine is in f32, by which both are judged.
        let accelerated = self.on_device(loaded, golden.as_ref())?;
        self.compile(loaded, golden.as_ref())?;
        loaded.accelerated = accelerated;
        Ok(())
    }

    /// The model on the slot's device, if it scores there as on the CPU: invented rows, and the golden ones.
    fn on_device(
        &self,
        loaded: &LoadedModel,
        golden: Option<&Golden>,
    ) -> Result<Option<Accelerated>, SwapError> {
        let Some(accelerator) = &self.accelerator else { return Ok(None) };
        let probe = probe(&self.schema);
        let batches = [&probe].into_iter().chain(golden.map(Golden::batch));
        let exact = batches.map(|b| Ok((b, loaded.score(b)?))).collect::<Result<Vec<_>, SwapError>>()?;
        let (version, device) = (&loaded.version, accelerator.name());
        match Accelerated::load(&**accelerator, loaded.engine.model(), &exact) {
            Ok(accelerated) => Ok(Some(accelerated)),
            Err(error) if self.device_required => {
                let (version, device) = (version.clone(), device.to_owned());
                Err(SwapError::Device { version, device, reason: error.to_string() })
            }
            Err(error) => {
                tracing::warn!(version, device, %error, "does not serve on the device: serving on the CPU");
                Ok(None)
            }
        }
    }

    /// Compiles a model for the slot's precision.
    fn compile(&self, loaded: &mut LoadedModel, golden: Option<&Golden>) -> Result<(), SwapError> {
        let wanted = self.precision.serving();
        if wanted == ServingPrecision::F32 {
            return Ok(());
        }
        match self.compiled(loaded, golden, wanted) {
            Ok(engine) => loaded.engine = engine,
            Err(SwapError::Precision { error, correlation, .. }) if self.precision == RankPrecision::Auto => {
                let (version, precision) = (&loaded.version, wanted.name());
                tracing::warn!(
                    version,
                    precision,
                    error,
                    correlation,
                    "not the model in f32: serving in f32"
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn warm_up(&self, loaded: &LoadedModel) -> Result<(), SwapError> {
        let failed = |reason: String| SwapError::WarmUp { version: loaded.version.clone(), reason };
        let batch = warm_up(&self.schema);
        let logits = loaded.score(&batch)?;
        if logits.len() != batch.rows() * self.schema.heads.len() {
            return Err(failed(format!("{} logits for {} candidates", logits.len(), batch.rows())));
        }
        if !logits.iter().all(|x| x.is_finite()) {
            return Err(failed("a score is not finite".to_owned()));
        }
        Ok(())
    }

    /// The model in another precision, if it scores as in f32: invented rows, and the golden ones.
    fn compiled(
        &self,
        loaded: &LoadedModel,
        golden: Option<&Golden>,
        precision: ServingPrecision,
    ) -> Result<Engine, SwapError> {
        let engine = Engine::new(Arc::clone(loaded.engine.model()), precision);
        let failed = |reason: String| SwapError::WarmUp { version: loaded.version.clone(), reason };
        let probe = probe(&self.schema);
        for batch in [&probe].into_iter().chain(golden.map(Golden::batch)) {
            let exact = loaded.score(batch)?;
            let rounded =
                engine.score(batch, &mut EngineMemory::default()).map_err(|e| failed(e.to_string()))?;
            let agreement = Agreement::of(batch, &exact, &rounded, loaded.heads());
            if !agreement.holds() {
                let Agreement { error, correlation } = agreement;
                let (version, precision) = (loaded.version.clone(), precision.name());
                return Err(SwapError::Precision { version, precision, error, correlation });
            }
        }
        Ok(engine)
    }
}

/// Three requests that go through every path: no history, one action, and a full history of every action type.
fn warm_up(schema: &Schema) -> FeatureBatch {
    let assembler = Assembler::new(schema);
    let (user, item) = (invented(&schema.user_features), Arc::new(invented(&schema.item_features)));
    let mut batch = FeatureBatch::default();
    for length in [0, 1, usize::from(schema.sequence.length)] {
        let token = |i: usize| Token {
            action: (i % schema.actions.len()) as u8,
            actions: action_bit((i % schema.actions.len()) as u8),
            surface: (i % (schema.surfaces.len() + 1)) as u16,
            time_ms: -(i as i64) * 60_000,
            item: (i % 7 != 3).then(|| item.clone()),
        };
        let tokens: Vec<_> = (0..length).map(token).collect();
        let context = RequestContext { time_ms: 0, surface: 0, watermark: u64::MAX };
        let candidates = (0..WARM_ROWS).map(|i| (i % 2 == 0).then_some(&*item));
        assemble(&mut batch, &assembler, &context, (length > 0).then_some(&user), &tokens, candidates);
    }
    batch
}

/// Features within the declared ranges, one bucket and number like another.
fn invented(kinds: &[FeatureKind]) -> Features {
    let layout = Layout::of(kinds);
    let wave = |i: usize| ((i * 37 % 17) as f32 - 8.0) / 8.0;
    Features {
        categorical: vec![1; layout.categorical_width].into(),
        numeric: (0..layout.numeric_width).map(wave).collect(),
        embedding: (0..layout.embedding_width).map(wave).collect(),
    }
}

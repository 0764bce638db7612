//! The model as other crates use it.

use lately_features::{FeatureBatch, Schema};

use crate::network::Network;
use crate::plan::{Parameter, Plan, initial};
use crate::{
    Admission, Calibration, Cpu, CpuBf16, CpuRounded, Gradients, ModelConfig, ModelError, Normaliser,
    Objective, Precision, Scratch,
};

/// The probability that a logit stands for; one function wherever it is served or replayed, so that the bits are the same.
pub fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// A ranking model for one schema, in f32 on the CPU.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) network: Network<f32>,
    pub(crate) admission: Admission,
    pub(crate) schema_hash: String,
    /// Tokens at most, of the schema.
    pub(crate) length: usize,
    pub(crate) calibration: Option<Calibration>,
}

impl Model {
    /// A model with random parameters, the same for one seed on every machine.
    ///
    /// # Errors
    /// Where the schema or the configuration is out of range.
    pub fn new(config: ModelConfig, schema: &Schema, seed: u64) -> Result<Self, ModelError> {
        let (plan, specs) = Plan::new(&config, schema)?;
        let parameters = initial(&specs, &config, seed);
        let network = Network { config, plan, parameters, normaliser: Normaliser::identity(schema) };
        let (schema_hash, length) = (schema.hash(), schema.sequence.length.into());
        let admission = Admission::open(schema);
        Ok(Self { network, admission, schema_hash, length, calibration: None })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Hash of the schema whose batches it takes.
    pub fn schema_hash(&self) -> &str {
        &self.schema_hash
    }

    /// Number of predicted probabilities H.
    pub fn heads(&self) -> usize {
        self.network.plan.heads
    }

    /// Logits N x H of a batch, row-major, calibrated where the model has a calibration; the probability is
    /// [`lately_kernels::loss::sigmoid`] of it.
    ///
    /// Deterministic. With a scratch of bf16 both factors of every product are rounded to it. A row's logits do not depend on what else is in the batch, up to rounding.
    ///
    /// # Errors
    /// Where the batch does not fit the schema or holds numbers that are not finite.
    pub fn score(&self, batch: &FeatureBatch, scratch: &mut Scratch) -> Result<Vec<f32>, ModelError> {
        let mut logits = Vec::with_capacity(batch.rows() * self.heads());
        let batch = self.admission.apply(batch);
        match scratch.precision {
            Precision::F32 => self.network.score::<Cpu>(&batch, scratch, &mut logits, None)?,
            Precision::Bf16 => self.network.score::<CpuRounded>(&batch, scratch, &mut logits, None)?,
        }
        if let Some(calibration) = &self.calibration {
            calibration.apply(&mut logits);
        }
        Ok(logits)
    }

    /// The sum over rows and heads of `weight` (N x H) times the binary cross-entropy of the batch's labels. Its gradient
    /// is added to `gradients`. `dropout_seed` sets the masks; `None` drops nothing.
    ///
    /// # Errors
    /// Where the batch does not fit the schema, has no labels or holds numbers that are not finite; `gradients` is then
    /// as before.
    pub fn loss_and_gradient(
        &self,
        batch: &FeatureBatch,
        weight: &[f32],
        dropout_seed: Option<u64>,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<f64, ModelError> {
        self.objective_and_gradient(batch, &Objective::rows(weight), dropout_seed, scratch, gradients)
    }

    /// [`Model::loss_and_gradient`] of any objective, such as one with lists.
    ///
    /// # Errors
    /// As there, and where the lists do not cover the rows.
    pub fn objective_and_gradient(
        &self,
        batch: &FeatureBatch,
        objective: &Objective<'_>,
        dropout_seed: Option<u64>,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<f64, ModelError> {
        let (network, seed) = (&self.network, dropout_seed);
        let batch = &self.admission.apply(batch);
        match scratch.precision {
            Precision::F32 => {
                network.objective_and_gradient::<Cpu>(batch, objective, seed, scratch, gradients)
            }
            Precision::Bf16 => {
                network.objective_and_gradient::<CpuBf16>(batch, objective, seed, scratch, gradients)
            }
        }
    }

    /// The frozen input normalisation.
    pub fn normaliser(&self) -> &Normaliser {
        &self.network.normaliser
    }

    /// Sets the input normalisation. In compatibility mode embeddings and numbers stay raw: leave it at the identity.
    ///
    /// # Errors
    /// Where widths differ from the schema's, a number is not finite or a deviation is not above 0.
    pub fn set_normaliser(&mut self, normaliser: Normaliser) -> Result<(), ModelError> {
        let plan = &self.network.plan;
        normaliser.validate(plan.user.layout.numeric_width, plan.item.layout.numeric_width)?;
        self.network.normaliser = normaliser;
        Ok(())
    }

    /// Which values of categorical features it knows.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Sets which values of categorical features it knows; before that, all.
    ///
    /// # Errors
    /// Where it was counted for other features than those of `schema`, the model's.
    pub fn set_admission(&mut self, admission: Admission, schema: &Schema) -> Result<(), ModelError> {
        admission.validate(schema)?;
        self.admission = admission;
        Ok(())
    }

    /// Sets the heads' bias, for example to the logit of each label's share so that training starts calibrated.
    ///
    /// # Errors
    /// Where it is not one finite number a head.
    pub fn set_head_bias(&mut self, bias: &[f32]) -> Result<(), ModelError> {
        ModelError::length("head bias", self.heads(), bias.len())?;
        if bias.iter().any(|b| !b.is_finite()) {
            return Err(ModelError::NotFinite("head bias"));
        }
        let id = self.network.plan.head + 1;
        self.network.parameters[id].data.copy_from_slice(bias);
        Ok(())
    }

    /// What [`Model::score`] does to the raw logits; the loss and its gradient are of raw ones.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Sets the calibration.
    ///
    /// # Errors
    /// Where it is not one rising function a head.
    pub fn set_calibration(&mut self, calibration: Option<Calibration>) -> Result<(), ModelError> {
        calibration.iter().try_for_each(|c| c.validate(self.heads()))?;
        self.calibration = calibration;
        Ok(())
    }

    /// All trained tensors, in fixed order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.network.parameters
    }

    /// Names and values of all trained tensors, in the order of [`Gradients::iter_mut`], for an optimiser.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = (&str, &mut [f32])> {
        self.network.parameters.iter_mut().map(|p| (p.name.as_str(), p.data.as_mut_slice()))
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.network.parameters.iter().map(|p| p.data.len()).sum()
    }
}

//! From what a run starts: a model from new, with what the rows say of it, or a trained one.

use lately_features::FeatureBatch;
use lately_model::{Admission, AdmissionFit, Model, ModelConfig, NormaliserFit};

use crate::config::TrainConfig;
use crate::dataset::{Slice, push_rows};
use crate::examples::Examples;
use crate::trainer::TrainError;

/// From what a run starts.
#[derive(Debug, Clone, Copy)]
pub enum Start<'m> {
    /// Random weights, with the rows' normalisation, rates and admission.
    New(&'m ModelConfig),
    /// The weights of a trained model. Its normalisation and admission stay, as the weights were learned with them: a value
    /// that it does not know is learned by the next training from new.
    From(&'m Model),
}

impl<'m> From<&'m ModelConfig> for Start<'m> {
    fn from(config: &'m ModelConfig) -> Self {
        Self::New(config)
    }
}

impl<'m> From<&'m Model> for Start<'m> {
    fn from(model: &'m Model) -> Self {
        Self::From(model)
    }
}

impl Start<'_> {
    /// A model into which a saved state is read.
    pub(crate) fn blank(self, slice: &Slice<'_>, config: &TrainConfig) -> Result<Model, TrainError> {
        match self {
            Self::New(model) => Ok(Model::new(model.clone(), &slice.dataset.schema, config.seed)?),
            Self::From(model) => uncalibrated(model),
        }
    }

    /// The model before the first step.
    pub(crate) fn model(self, examples: &Examples<'_>) -> Result<Model, TrainError> {
        match self {
            Self::New(model) => new(examples, model),
            Self::From(model) => uncalibrated(model),
        }
    }

    pub(crate) fn check(self, rows: &str) -> Result<(), TrainError> {
        match self {
            Self::From(model) if model.schema_hash() != rows => {
                let (model, rows) = (model.schema_hash().to_owned(), rows.to_owned());
                Err(TrainError::Schema { model, rows })
            }
            _ => Ok(()),
        }
    }
}

/// Training is on raw logits; the calibration is fitted again after it.
fn uncalibrated(model: &Model) -> Result<Model, TrainError> {
    let mut model = model.clone();
    model.set_calibration(None)?;
    Ok(model)
}

/// Which values of categorical features the rows hold often enough; a resumed run counts again.
pub(crate) fn admission(slice: &Slice<'_>) -> Admission {
    let mut fit = AdmissionFit::new(&slice.dataset.schema);
    if fit.is_empty() {
        return fit.finish();
    }
    let mut batch = FeatureBatch::default();
    for request in slice.iter() {
        batch.clear();
        push_rows(&mut batch, slice.dataset, request, &request.context(), &[], request.candidates.iter());
        fit.add(&batch);
    }
    fit.finish()
}

/// A new model with the rows' normalisation, each head's bias at the logit of its (weighted) rate, so that the first
/// steps need not learn it.
pub(crate) fn new(examples: &Examples<'_>, model: &ModelConfig) -> Result<Model, TrainError> {
    let slice = examples.slice;
    let mut model = Model::new(model.clone(), &slice.dataset.schema, examples.config.seed)?;
    if !model.config().compatibility {
        let mut fit = NormaliserFit::new(&slice.dataset.schema);
        let mut batch = FeatureBatch::default();
        for request in slice.iter() {
            batch.clear();
            let rows = request.candidates.iter();
            // Without tokens: they share the candidates' scale.
            push_rows(&mut batch, slice.dataset, request, &request.context(), &[], rows);
            fit.add(&batch);
        }
        model.set_normaliser(fit.finish())?;
    }
    let mut sums = vec![(0.0, 0.0); slice.dataset.heads()];
    for (candidate, weights) in examples.weighted() {
        for (head, (weight, sum)) in weights.zip(&mut sums).enumerate() {
            sum.0 += weight;
            sum.1 += weight * f64::from(u8::from(slice.dataset.label(candidate, head)));
        }
    }
    // Half a row of each class keeps a head without positives finite.
    let logit = |(all, positive): (f64, f64)| ((positive + 0.5) / (all - positive + 0.5)).ln() as f32;
    model.set_head_bias(&sums.into_iter().map(logit).collect::<Vec<_>>())?;
    Ok(model)
}

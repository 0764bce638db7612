//! Where a model is scored.

use std::sync::Arc;

use lately_cuda::{CudaEngine, CudaError, Device};
use lately_features::FeatureBatch;
use lately_model::{Engine, EngineMemory, Model, ServingPrecision};

use crate::Failure;

/// A card, or what stands in for one.
pub(crate) enum Place {
    Card(Arc<Device>),
    StandIn,
}

/// Scores a batch: N x H logits.
pub(crate) type Score = Box<dyn Fn(&FeatureBatch) -> Result<Vec<f32>, Failure> + Send + Sync>;

/// What became of a model.
pub(crate) enum Loaded {
    Scores(Score),
    /// There are no kernels for it, which is no failure: the CPU serves it.
    Unsupported(String),
}

impl Place {
    /// The first card.
    pub(crate) fn open() -> Result<Self, Failure> {
        Ok(Self::Card(Device::open(0)?))
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Card(device) => {
                let (major, minor) = device.compute_capability();
                let gib = device.memory() as f64 / f64::from(1 << 30);
                format!("{}, compute capability {major}.{minor}, {gib:.0} GiB", device.name())
            }
            Self::StandIn => "the CPU in bf16, NO CARD".to_owned(),
        }
    }

    /// Most candidates of a request that it is asked for: on a CPU thousands take too long.
    pub(crate) fn most_candidates(&self) -> usize {
        match self {
            Self::Card(_) => usize::MAX,
            Self::StandIn => 500,
        }
    }

    /// The card, where there is one.
    pub(crate) fn device(&self) -> Option<&Arc<Device>> {
        match self {
            Self::Card(device) => Some(device),
            Self::StandIn => None,
        }
    }

    pub(crate) fn load(&self, model: &Arc<Model>) -> Result<Loaded, Failure> {
        match self {
            Self::Card(device) => match CudaEngine::new(device, Arc::clone(model)) {
                Ok(engine) => Ok(Loaded::Scores(Box::new(move |batch| Ok(engine.score(batch)?)))),
                Err(error @ CudaError::Unsupported { .. }) => Ok(Loaded::Unsupported(error.to_string())),
                Err(error) => Err(error.into()),
            },
            Self::StandIn => {
                let engine = Engine::new(Arc::clone(model), ServingPrecision::Bf16);
                let score = move |batch: &FeatureBatch| -> Result<Vec<f32>, Failure> {
                    let logits = engine.score(batch, &mut EngineMemory::default())?;
                    match logits.iter().filter(|x| !x.is_finite()).count() {
                        0 => Ok(logits),
                        count => Err(format!("{count} logits are not finite").into()),
                    }
                };
                Ok(Loaded::Scores(Box::new(score)))
            }
        }
    }
}

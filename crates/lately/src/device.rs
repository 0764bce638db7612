//! On what this process scores and trains: what `[rank] device`, `[train] device` and `--device` ask for, opened once.

#[cfg(feature = "cuda")]
mod cuda;
mod group;
mod training;

use std::sync::Arc;

use anyhow::{Result, bail};
use lately_model::Accelerator;
use lately_rank::RankDevice;
use lately_train::TrainDevice;
use lately_train::replay::ReplayReport;

pub(crate) use group::{Seat, seat};
pub use training::TrainingDevice;

/// What is asked for, whatever for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A card where there is one.
    Auto,
    /// A card.
    Cuda,
    /// None.
    Cpu,
}

impl From<RankDevice> for Asked {
    fn from(device: RankDevice) -> Self {
        match device {
            RankDevice::Auto => Self::Auto,
            RankDevice::Cuda => Self::Cuda,
            RankDevice::Cpu => Self::Cpu,
        }
    }
}

impl From<TrainDevice> for Asked {
    fn from(device: TrainDevice) -> Self {
        match device {
            TrainDevice::Auto => Self::Auto,
            TrainDevice::Cuda => Self::Cuda,
            TrainDevice::Cpu => Self::Cpu,
        }
    }
}

/// Why there is no card.
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[cfg(not(feature = "cuda"))]
    #[error("this program was built without CUDA: build with --features cuda")]
    NotBuilt,
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] lately_cuda::CudaError),
}

/// The device that is asked for; `None`: the CPU. `ordinal`: which of the cards that the driver shows, from 0;
/// `CUDA_VISIBLE_DEVICES` makes others the first. `doing` says in a warning what the CPU does instead: serving or training.
///
/// # Errors
/// Where CUDA is demanded and is not there, with what is missing.
pub(crate) fn open(asked: Asked, ordinal: usize, doing: &str) -> Result<Option<Arc<dyn Accelerator>>> {
    if asked == Asked::Cpu {
        return Ok(None);
    }
    match card(ordinal) {
        Ok(card) => Ok(Some(card)),
        Err(absent) if asked == Asked::Cuda => {
            bail!("device cuda is asked for: {absent}, or ask for auto or cpu")
        }
        // Who builds without CUDA expects none.
        #[cfg(not(feature = "cuda"))]
        Err(Absent::NotBuilt) => {
            tracing::debug!("{doing} on the CPU: this program was built without CUDA");
            Ok(None)
        }
        #[cfg(feature = "cuda")]
        Err(Absent::Cuda(error)) => {
            tracing::warn!("{doing} on the CPU: no CUDA: {error}");
            Ok(None)
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn card(_ordinal: usize) -> Result<Arc<dyn Accelerator>, Absent> {
    Err(Absent::NotBuilt)
}

#[cfg(feature = "cuda")]
fn card(ordinal: usize) -> Result<Arc<dyn Accelerator>, Absent> {
    Ok(Arc::new(cuda::Card::open(ordinal)?))
}

/// By what the probabilities of a ranking that is made again on the CPU may differ. Where a device may have made it they
/// differ by as much as a model may differ there when it is loaded.
pub(crate) fn replay_bound(device: RankDevice) -> f64 {
    if cfg!(feature = "cuda") && device != RankDevice::Cpu {
        ReplayReport::DEVICE_BOUND
    } else {
        ReplayReport::BOUND
    }
}

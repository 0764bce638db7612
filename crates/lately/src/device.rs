//! On what this process scores: what `[rank] device` and `--device` ask for, opened once a server.

#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use anyhow::{Result, bail};
use lately_model::Accelerator;
use lately_rank::RankDevice;
use lately_train::replay::ReplayReport;

/// Why there is no card to score on.
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[cfg(not(feature = "cuda"))]
    #[error("this program was built without CUDA: build with --features cuda")]
    NotBuilt,
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] lately_cuda::CudaError),
}

/// The device that is asked for; `None`: the CPU.
///
/// # Errors
/// Where CUDA is demanded and is not there, with what is missing.
pub(crate) fn open(wanted: RankDevice) -> Result<Option<Arc<dyn Accelerator>>> {
    if wanted == RankDevice::Cpu {
        return Ok(None);
    }
    match card() {
        Ok(card) => Ok(Some(card)),
        Err(absent) if wanted == RankDevice::Cuda => {
            bail!("device cuda is asked for: {absent}, or ask for auto or cpu")
        }
        // Who builds without CUDA expects none.
        #[cfg(not(feature = "cuda"))]
        Err(Absent::NotBuilt) => Ok(None),
        #[cfg(feature = "cuda")]
        Err(Absent::Cuda(error)) => {
            tracing::warn!("serving on the CPU: no CUDA: {error}");
            Ok(None)
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn card() -> Result<Arc<dyn Accelerator>, Absent> {
    Err(Absent::NotBuilt)
}

/// The first card that the driver shows; `CUDA_VISIBLE_DEVICES` makes another one the first.
#[cfg(feature = "cuda")]
fn card() -> Result<Arc<dyn Accelerator>, Absent> {
    Ok(Arc::new(cuda::Card::open(0)?))
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

//! On what this process scores: what `[rank] device` and `--device` ask for, opened once a server.

use std::sync::Arc;

use anyhow::Result;
use lately_model::Accelerator;
use lately_rank::RankDevice;
use lately_train::replay::ReplayReport;

/// The device that is asked for; `None`: the CPU.
///
/// # Errors
/// Where CUDA is demanded and is not there, with what is missing.
#[cfg(not(feature = "cuda"))]
pub(crate) fn open(wanted: RankDevice) -> Result<Option<Arc<dyn Accelerator>>> {
    match wanted {
        RankDevice::Auto | RankDevice::Cpu => Ok(None),
        RankDevice::Cuda => anyhow::bail!(
            "device cuda is asked for, and this program was built without CUDA: build with --features cuda, or ask for auto or cpu"
        ),
    }
}

/// By what the probabilities of a ranking that is made again on the CPU may differ. Where a device may have made it they differ
/// by as much as a model may differ there when it is loaded.
pub(crate) fn replay_bound(device: RankDevice) -> f64 {
    if cfg!(feature = "cuda") && device != RankDevice::Cpu {
        ReplayReport::DEVICE_BOUND
    } else {
        ReplayReport::BOUND
    }
}

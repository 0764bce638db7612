//! What can go wrong on the way to a card and on it.

use lately_model::ModelError;

use crate::MeetingError;

/// Why a model cannot be served, or a batch not scored, on a card.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CudaError {
    /// A library is not on this machine.
    #[error("{library} was not found: {install}")]
    Missing {
        /// Its file.
        library: &'static str,
        /// What brings it.
        install: &'static str,
    },
    /// There is no such card.
    #[error(
        "there is no CUDA device {ordinal}, {count} are visible: choose a lower number, or check CUDA_VISIBLE_DEVICES"
    )]
    NoDevice {
        /// The one asked for.
        ordinal: usize,
        /// Those that there are.
        count: usize,
    },
    /// The card or its driver is older than what the kernels need.
    #[error("{what} is {got}, at least {least} is needed: {advice}")]
    TooOld {
        /// What is too old.
        what: &'static str,
        /// Its version.
        got: String,
        /// The oldest that will do.
        least: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// There is no kernel for this model.
    #[error("no kernel for {what}: {advice}")]
    Unsupported {
        /// What of the model.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// A request has more tokens than the model's schema says.
    #[error(
        "a request has {got} tokens, the schema's most are {limit}: assemble the batch by the model's schema"
    )]
    Tokens {
        /// Its tokens.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// The kernels did not compile.
    #[error(
        "kernels of {source_name} did not compile for {arch}: {log}: update NVRTC to the card's CUDA version"
    )]
    Compile {
        /// Which kernels.
        source_name: String,
        /// The architecture.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// The driver refused a call.
    #[error("the CUDA driver failed to {doing}: {reason}: see `nvidia-smi` for the card's memory and health")]
    Driver {
        /// The call in words.
        doing: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// The members of a group did not find each other, or lost each other.
    #[error(transparent)]
    Meeting(#[from] MeetingError),
    /// The cards of a group could not do something together.
    #[error(
        "the group's cards failed to {doing}: {reason}: the member that failed first says most, NCCL_DEBUG=INFO says more; \
         start all members again, from the last saved state"
    )]
    Group {
        /// What in words.
        doing: &'static str,
        /// NCCL's words.
        reason: String,
    },
    /// Some logits are not finite.
    #[error("{count} of {of} logits are not finite: score the batch on the CPU and check model and features")]
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// The model refuses the batch, or is itself not to be served.
    #[error(transparent)]
    Model(#[from] ModelError),
}

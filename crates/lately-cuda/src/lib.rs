//! Serving and training the ranking model on NVIDIA GPUs. A [`Device`] is an opened card, a [`CudaEngine`] a model that scores on
//! it, a [`CudaLearner`] one that learns.
//!
//! # From a batch to logits
//!
//! 1. The host makes the requests' features and tokens by the model's own code (`lately_model::device`), so that no feature is
//!    computed in two places. An item's are made once for as long as the card keeps them (`items`): a row is then the number of
//!    a slot. What the card does not have comes along. All is packed into page-locked memory (`layout`): one copy to the card.
//! 2. `request_part`, a block for 16 tokens of a request, makes what the request's candidates share in the first layer: its
//!    exponentials, values and candidate keys. It runs on the card, in f32, as its results are eight times as many bytes as
//!    its input and are read by every candidate from the card's second-level cache.
//! 3. `encode`, a block a candidate and a warp for each 16 of its tokens, runs the whole transformer with activations in
//!    registers and writes the encoder's columns of the top's inputs. Only tiles with tokens are computed. The first layer
//!    takes shared exponentials, and the plain softmax where their sum cannot be trusted.
//! 4. `affinity` and `place_features` write the other columns, the latter also the items that came along into their slots.
//! 5. `request_sums` makes what a request's columns add to the first product, in f32 and once a request; they stand last among
//!    the inputs (`columns`), and the product starts from that and leaves them out. The top's products run one after another,
//!    with bias, ReLU or the cross layers' gate done to their sums. Matrices lie in memory as the tensor cores' fragments: what
//!    one kernel writes is what the next one reads.
//! 6. One copy brings logits back; the rate tower, a few numbers a request, and the calibration are the host's.
//!
//! Operands are bfloat16; sums, norms, exponentials and cosines f32. All launches of a call are recorded once a shape and
//! played as one graph. Up to four calls run side by side, each with its own stream and memory, and share weights and items.
//! A row's score has the same bits whatever else is in the batch and wherever its item came from.
//!
//! # From a batch to a step
//!
//! `train` has it: kernels of their own, over the tape that a backward pass needs, in bfloat16 or, by factors of two numbers, in
//! f32; and for several cards `meeting` and NCCL behind the driver's seam. Products are kernels here and not cuBLASLt's, for three
//! reasons: what follows a product (gates, dropout, the masks of the backward) is done to its sums, the library is a download of 444 MB (nvidia-cublas
//! 13.10) that a machine must have beside the driver, and the emulation can hold nothing against the CPU that it cannot run. What that costs or
//! gains on a card is not measured.
//!
//! # Without a card
//!
//! The crate builds and tests where there is no CUDA: libraries are loaded when a device is opened, and the tests run the very
//! kernels as C++ on a CPU (`driver/emulation`), blocks one after another and threads as fibers that meet at barriers and
//! at the warp's instructions. The emulation follows the PTX manual's layouts, fills memory with NaN first and refuses
//! threads that meet at different places; it says nothing about speed, and nothing about races between two barriers but
//! those that show in either of two orders of threads.

mod columns;
mod device;
mod driver;
mod engine;
mod error;
mod fragment;
mod geometry;
mod items;
pub mod kernels;
mod layout;
mod meeting;
#[cfg(test)]
mod tests;
mod train;

pub use device::{CudaEngine, CudaLearner, Device};
pub use driver::times::Span;
pub use error::CudaError;
pub use meeting::MeetingError;

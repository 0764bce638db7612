//! Training on a device: weights, moments and gradients stay there, and a step sends a batch and brings back its logits.
//!
//! # A gradient
//!
//! 1. The host has staged the batch (`lately_model::training`); a stretch of it is packed into page-locked memory (`pack`):
//!    one copy.
//! 2. `forward`: tokens and inputs from the host's numbers and the trained tables, the transformer's layers, the top. What
//!    the backward wants stays on the `tape`.
//! 3. Logits come back, the host computes the loss, whose one definition is the model's, and sends its gradient.
//! 4. `backward`: the same the other way. Sums over rows, such as those of weights, are made in parts and then in a fixed
//!    order, and rows of tables by lists that the host has sorted: no atomics, so that the same batch gives the same bits.
//!
//! Then `squares` for the norm, and `adam`, one launch over all parameters, which also clears the gradient and rounds the
//! weights for the next step's products: in bfloat16 the f32 weights are the masters.
//!
//! The first layer projects a request's tokens once and its candidates once, as the CPU does (`encoder/attention/heads.rs` of
//! the model). Attention is written out for every number of heads; the CPU's folded form of one head is the same function
//! of the same parameters.

mod backward;
mod forward;
mod launches;
mod learner;
mod pack;
mod tape;
mod weights;

pub(crate) use learner::Learner;

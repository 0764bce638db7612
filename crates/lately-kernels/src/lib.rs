//! Fused CPU operations over slices, forward and backward, each with a scalar reference.
//!
//! One folder an operation: `mod.rs` says what it computes, with the shapes, and holds the fast path's entry;
//! `scalar.rs` is the reference in plain loops; `cases.rs` are the inputs on which both are compared, in f32 against
//! each other and in f64 against finite differences. Everything is generic over [`Real`], so that the gradient
//! checks run the very code that trains.
//!
//! All matrices are row-major and dense unless a stride is named. Gradients of parameters (`dw`, `db`, ...) are
//! added to; gradients of activations are overwritten unless the documentation says otherwise. Lengths that do not
//! fit the shapes panic: they are bugs of the caller, which checks data from outside.

pub mod adam;
pub mod add_norm;
pub mod attention;
pub mod bf16;
pub mod buffer;
pub mod columns;
pub mod dense;
pub mod dropout;
pub mod embedding;
pub mod expand;
pub mod fold;
pub mod folded;
pub mod lanes;
pub mod linear;
pub mod loss;
pub mod matrix;
pub mod parallel;
pub mod peak;
pub mod pool;
mod real;
pub mod shared;
pub mod simd;
mod softmax;
pub mod target;

pub use dropout::Dropout;
pub use real::Real;

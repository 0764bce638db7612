//! Inference on matrices of features x lanes: a lane is a token, or a row of a batch, and a vector holds one feature of 16
//! of them.
//!
//! In this layout nothing has to be packed between products, sums over features (norms) and over keys (softmax) need no
//! step across a vector, and a lane's result depends on no other lane: each number is summed in one order, whatever stands
//! beside it. A product is `y = [start +] left right`: `left` is a weight, packed once ([`Format::pack`]), or made of
//! activations ([`Activations`]); `right` are activations, features x lanes ([`Format::right`]).
//!
//! A matrix has a stride from feature to feature, a multiple of 16, as are the lanes that are computed; what stands in lanes
//! beyond the wanted ones is finite where the input is, and means nothing.

mod attend;
mod bf16;
mod exact;
mod int8;
mod left;
mod norm;
mod reorder;
pub mod scalar;
#[cfg(test)]
mod tests;

pub use attend::{combine, exponentials, exponentials_of, largest, plain, softmax};
pub use bf16::Bf16;
pub use exact::F32;
pub use int8::{Int8, Int8Isa};
pub use left::{Left, Packed};
pub use norm::{norm, relu};
pub use reorder::{from_rows, to_rows};

use std::fmt::Debug;

use crate::buffer::Buffer;
use crate::matrix::View;

/// Lanes of a vector; every count of lanes and every stride is a multiple.
pub const LANES: usize = 16;
/// Words of a block along the contracted dimension, and its rows: 1 KiB, a tile of AMX.
pub(crate) const SIDE: usize = 16;
/// Words of a block.
pub(crate) const BLOCK: usize = SIDE * SIDE;

/// What a product starts from. `bias`: one number a row of the output.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// The bias.
    Bias(&'a [f32]),
    /// What another matrix of the same stride holds, and the bias.
    Residual(&'a [f32], &'a [f32]),
    /// What the output holds.
    Add,
}

/// Rows of the output and lanes that are computed, and the strides of activations and output.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of the output.
    pub rows: usize,
    /// Lanes.
    pub lanes: usize,
    /// From feature to feature of the right factor.
    pub stride: usize,
    /// From row to row of the output.
    pub out: usize,
}

/// How the factors of a product are held: f32 as they are, others in words of several numbers.
pub trait Format: Copy + Debug + Send + Sync + 'static {
    /// A unit of a factor along the contracted dimension.
    type Word: Copy + Default + Debug + Send + Sync + 'static;

    /// A weight, rows x depth.
    fn pack(self, rows: usize, depth: usize, weight: View<'_, f32>) -> Packed<Self::Word>;

    /// Activations, depth x lanes at `stride`, as the right factor.
    fn right<'a>(
        self,
        depth: usize,
        stride: usize,
        x: &'a [f32],
        buffer: &'a mut Buffer<Self::Word>,
    ) -> &'a [Self::Word];

    /// `y = start + left right`. `y` has its rows rounded up to a multiple of 16; those beyond are undefined.
    ///
    /// # Panics
    /// Where a slice is shorter than its shape.
    fn product(
        self,
        s: Shape,
        left: Left<'_, Self::Word>,
        right: &[Self::Word],
        start: Start<'_>,
        y: &mut [f32],
    );
}

/// A format in which products of activations are made, too.
pub trait Activations: Format {
    /// The first `rows` lanes of a right factor, transposed: each a row of a left factor.
    fn keys<'a>(
        self,
        rows: usize,
        depth: usize,
        stride: usize,
        x: &'a [Self::Word],
        buffer: &'a mut Buffer<Self::Word>,
    ) -> Left<'a, Self::Word>;

    /// Activations, rows x lanes at `stride`, as a left factor over their first `depth` lanes.
    fn values<'a>(
        self,
        rows: usize,
        depth: usize,
        stride: usize,
        x: &'a [f32],
        buffer: &'a mut Buffer<Self::Word>,
    ) -> Left<'a, Self::Word>;
}

/// Checks what every product relies on.
fn check<W>(s: Shape, left: &Left<'_, W>, right: &[W], start: Start<'_>, y: &[f32]) {
    let reach = |rows: usize, stride: usize| if rows == 0 { 0 } else { (rows - 1) * stride + s.lanes };
    assert!(s.lanes.is_multiple_of(LANES) && s.stride >= s.lanes && s.out >= s.lanes, "lanes of {s:?}");
    assert!(right.len() >= reach(left.depth, s.stride), "the right factor is shorter than {s:?}");
    assert!(y.len() >= reach(s.rows.next_multiple_of(SIDE), s.out), "the output is shorter than {s:?}");
    assert!(left.covers(s.rows), "the left factor is shorter than {s:?}");
    match start {
        Start::Bias(bias) => assert!(bias.len() >= s.rows, "the bias is shorter than {s:?}"),
        Start::Residual(x, bias) => {
            assert!(
                bias.len() >= s.rows && x.len() >= reach(s.rows, s.out),
                "the start is shorter than {s:?}"
            );
        }
        Start::Zero | Start::Add => {}
    }
}

//! The seam between what is computed and where: memory, copies and launches.
//!
//! Two implementations run the same kernels: `card`, the CUDA driver, and in tests `emulation`, the kernels compiled as C++
//! for this machine's CPU.

use std::sync::Arc;

use crate::CudaError;
use crate::kernels::Source;

pub(crate) mod card;
#[cfg(test)]
pub(crate) mod emulation;

/// One launch of a kernel.
#[derive(Debug)]
pub(crate) struct Launch<'a, M> {
    pub(crate) kernel: Kernel,
    /// Blocks along x and y.
    pub(crate) grid: [u32; 2],
    /// Of a block, in whole warps.
    pub(crate) threads: u32,
    /// Bytes of shared memory of a block.
    pub(crate) shared: u32,
    pub(crate) arguments: Vec<Argument<'a, M>>,
}

/// One argument of a kernel.
#[derive(Debug)]
pub(crate) enum Argument<'a, M> {
    /// The lane's input, where its output goes, or some memory: a pointer.
    Input,
    Output,
    Memory(&'a M),
    Number(u32),
}

/// All kernels of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    RequestPart,
    Encode,
    PlaceFeatures,
    DenseLinear,
    DenseRelu,
    DenseGate,
    DenseLogits,
}

impl Kernel {
    /// With their names in the sources, and whether they are of the encoder, which a model may not have.
    pub(crate) const ALL: [(Self, &'static str, bool); 7] = [
        (Self::RequestPart, "request_part", true),
        (Self::Encode, "encode", true),
        (Self::PlaceFeatures, "place_features", false),
        (Self::DenseLinear, "dense_linear", false),
        (Self::DenseRelu, "dense_relu", false),
        (Self::DenseGate, "dense_gate", false),
        (Self::DenseLogits, "dense_logits", false),
    ];
}

/// Launches of one shape: calls of the same shape have the same grids and arguments, so that a recording of them can be
/// played again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Rows and requests, rounded up.
    pub(crate) rows: u32,
    pub(crate) requests: u32,
    /// Tiles of the longest history.
    pub(crate) tiles: u32,
}

/// Where kernels run.
pub(crate) trait Driver: Send + Sync + Sized {
    /// Compiled kernels.
    type Module: Send + Sync;
    /// Words on the device, freed when dropped.
    type Memory: Send + Sync;
    /// What one call at a time has for itself: a queue of work, and both ends of its two copies.
    type Lane: Send;

    /// Compiles and loads kernels. `shared`: most bytes of shared memory of a block of the encoder's kernels; empty for a model
    /// without an encoder, whose source has none of them. The same source again may give the same module.
    fn load(&self, source: &Source, shared: &[(Kernel, usize)]) -> Result<Arc<Self::Module>, CudaError>;
    /// Memory that holds these words, and is not written again.
    fn upload(&self, words: &[u32]) -> Result<Self::Memory, CudaError>;
    /// Memory that holds anything.
    fn allocate(&self, words: usize) -> Result<Self::Memory, CudaError>;
    /// A lane whose calls have at most so many words of input and numbers of output.
    fn lane(&self, input: usize, output: usize) -> Result<Self::Lane, CudaError>;
    /// The lane's input on this side, to be written.
    fn input<'a>(&self, lane: &'a mut Self::Lane) -> Result<&'a mut [u32], CudaError>;
    /// Copies the first `words` of the input to the device, launches in order, and copies the output back. Memory of the
    /// launches must be this lane's alone, or not be written by anyone.
    fn run(
        &self,
        module: &Self::Module,
        lane: &mut Self::Lane,
        shape: Shape,
        launches: &[Launch<'_, Self::Memory>],
        words: usize,
        output: &mut [f32],
    ) -> Result<(), CudaError>;
}

//! The seam between what is computed and where: memory, copies and launches.
//!
//! Two implementations run the same kernels: `card`, the CUDA driver, and in tests `emulation`, the kernels compiled as C++
//! for this machine's CPU.

use std::sync::Arc;

use lately_model::training::Group;

use crate::CudaError;
use crate::kernels::Source;

pub(crate) mod card;
#[cfg(test)]
pub(crate) mod emulation;
pub(crate) mod nccl;
pub(crate) mod peers;
pub(crate) mod times;

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
    /// From a word of the lane's input, or of some memory, on.
    InputAt(usize),
    MemoryAt(&'a M, usize),
    /// No pointer.
    Null,
    Number(u32),
    Real(f32),
}

/// Declares the kernels with their names in the sources.
macro_rules! kernels {
    ($($kernel:ident = $name:literal),* $(,)?) => {
        /// All kernels of the sources.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Kernel {
            $($kernel),*
        }

        impl Kernel {
            /// Its name in the sources.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kernel => $name),*
                }
            }
        }
    };
}

kernels! {
    RequestPart = "request_part",
    Encode = "encode",
    Affinity = "affinity",
    PlaceFeatures = "place_features",
    RequestSums = "request_sums",
    DenseLinear = "dense_linear",
    DenseRelu = "dense_relu",
    DenseGate = "dense_gate",
    DenseLogits = "dense_logits",
    LinearPlain = "linear_plain",
    LinearRelu = "linear_relu",
    LinearGate = "linear_gate",
    LinearLogits = "linear_logits",
    InputGradient = "input_gradient",
    InputGradientAdd = "input_gradient_add",
    InputGradientRelu = "input_gradient_relu",
    WeightGradient = "weight_gradient",
    Attention = "attention",
    AttentionBackward = "attention_backward",
    AddNorm = "add_norm",
    AddNormBackward = "add_norm_backward",
    Place = "place",
    Embed = "embed",
    Expand = "expand",
    NumberTokens = "number_tokens",
    CollectRows = "collect_rows",
    CollectTokens = "collect_tokens",
    CollectTable = "collect_table",
    CopyColumns = "copy_columns",
    Spread = "spread",
    Outputs = "outputs",
    ClearEmpty = "clear_empty",
    OutputsBackward = "outputs_backward",
    GateBackward = "gate_backward",
    Reduce = "reduce",
    Squares = "squares",
    Adam = "adam",
    ClearWords = "clear_words",
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
    /// This one's place among the members of a group, which it leaves when dropped.
    type Peers: Send;

    /// Compiles and loads a source's kernels. `shared`: most bytes of shared memory of a block of those that take more than 48
    /// KiB. The same source again may give the same module.
    fn load(&self, source: &Source, shared: &[(Kernel, usize)]) -> Result<Arc<Self::Module>, CudaError>;
    /// Memory that holds these words, and is not written again.
    fn upload(&self, words: &[u32]) -> Result<Self::Memory, CudaError>;
    /// Memory that holds anything.
    fn allocate(&self, words: usize) -> Result<Self::Memory, CudaError>;
    /// A lane whose calls have at most so many words of input and numbers of output.
    fn lane(&self, input: usize, output: usize) -> Result<Self::Lane, CudaError>;
    /// The lane's input on this side, to be written.
    fn input<'a>(&self, lane: &'a mut Self::Lane) -> Result<&'a mut [u32], CudaError>;
    /// Copies the first `words` of the input to the device, launches in order, and copies the output back. Words that
    /// the launches read or write must be this lane's alone until then, or not be written by anyone: of the table of items other
    /// lanes have others.
    fn run(
        &self,
        module: &Self::Module,
        lane: &mut Self::Lane,
        shape: Shape,
        launches: &[Launch<'_, Self::Memory>],
        words: usize,
        output: &mut [f32],
    ) -> Result<(), CudaError>;

    /// Copies the first `words` of the lane's input to the device.
    fn send(&self, lane: &mut Self::Lane, words: usize) -> Result<(), CudaError>;
    /// Launches in order, after what the lane was asked before; nothing is recorded, and nothing waited for.
    fn launch(
        &self,
        module: &Self::Module,
        lane: &mut Self::Lane,
        launches: &[Launch<'_, Self::Memory>],
    ) -> Result<(), CudaError>;
    /// Writes words into some memory, from the word `at` on, when what the lane was asked before is done.
    fn write(
        &self,
        lane: &mut Self::Lane,
        memory: &Self::Memory,
        at: usize,
        words: &[u32],
    ) -> Result<(), CudaError>;
    /// The same from some memory to the host.
    fn read(
        &self,
        lane: &mut Self::Lane,
        memory: &Self::Memory,
        at: usize,
        words: &mut [u32],
    ) -> Result<(), CudaError>;

    /// Joins a group: returns when all its members, each with its own card, are there and connected.
    fn join(&self, group: &Group) -> Result<Self::Peers, CudaError>;
    /// Adds up the f32 of all members' memory in `words` words from `at` on, in place (an all-reduce), after what the lane was
    /// asked before, and returns when that is done.
    ///
    /// All members call it in the same order with the same `words`. The sums are the same bits in all of them; in another run
    /// they may have been added in another order. After an error the words may be anything, and the group is of no more
    /// use: drop the peers, by which the other members' calls fail, too, instead of waiting for this one.
    fn add_up(
        &self,
        lane: &mut Self::Lane,
        peers: &mut Self::Peers,
        memory: &Self::Memory,
        at: usize,
        words: usize,
    ) -> Result<(), CudaError>;
}

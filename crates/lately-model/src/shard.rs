//! What one thread works on at a time in training: some rows of a chunk, cut into pieces.

use std::ops::Range;

use lately_kernels::Real;

use crate::Gradients;
use crate::chunk::Chunk;
use crate::plan::Parameter;
use crate::tape::{EncoderTape, Folded, GradientTape, Work};

/// Rows whose encoder runs at once, with what its backward needs.
#[derive(Debug, Default)]
pub(crate) struct Piece<R> {
    pub(crate) chunk: Chunk,
    pub(crate) tape: EncoderTape<R>,
}

/// Pieces, and the gradients of the encoder's parameters over them; memory is reused.
#[derive(Debug)]
pub(crate) struct Shard<R> {
    pub(crate) pieces: Vec<Piece<R>>,
    /// Pieces of the present chunk.
    pub(crate) used: usize,
    pub(crate) work: Work<R>,
    pub(crate) d: GradientTape<R>,
    pub(crate) gradients: Gradients<R>,
}

impl<R: Default> Default for Shard<R> {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            used: 0,
            work: Work::default(),
            d: GradientTape::default(),
            gradients: Gradients::none(),
        }
    }
}

impl<R: Real> Shard<R> {
    /// Sets the gradients of a range of the parameters to zero; the others have none here.
    pub(crate) fn clear_gradients(&mut self, parameters: &[Parameter<R>], range: Range<usize>) {
        if self.gradients.fits(parameters, &range) {
            self.gradients.clear();
        } else {
            self.gradients = Gradients::of_range(parameters, range);
        }
        self.d.folded.iter_mut().for_each(Folded::clear);
    }
}

//! One step of the optimiser over all parameters.

use lately_kernels::adam;

use crate::{Gradients, Model, Scratch};

pub use lately_kernels::adam::Step as AdamStep;

/// Weights that a thread updates at a time: 256 KiB of each of the four arrays.
const BLOCK: usize = 1 << 16;

impl Model {
    /// Moves every parameter by its gradient, with `moments` (Adam's first and second, of the parameters' lengths, in their
    /// order), and sets the gradients to zero.
    ///
    /// A table's rows that the gradients do not list stay as they are, moments included ("lazy" Adam): a step costs what
    /// the batch holds, and a rare id does not drift on old momentum. The result does not depend on the scratch's threads.
    ///
    /// # Panics
    /// Where the gradients or moments belong to a model of another shape.
    pub fn update(
        &mut self,
        step: AdamStep,
        gradients: &mut Gradients,
        moments: &mut [(Vec<f32>, Vec<f32>)],
        scratch: &Scratch,
    ) {
        let parameters = &mut self.network.parameters;
        assert_eq!(moments.len(), parameters.len(), "moments of another model");
        let mut dense = Vec::new();
        for ((p, (m, v)), gradient) in parameters.iter_mut().zip(moments).zip(gradients.iter_mut()) {
            assert!(
                m.len() == p.data.len() && v.len() == p.data.len(),
                "moments of another model: {}",
                p.name
            );
            assert_eq!(gradient.data.len(), p.data.len(), "gradients of another model: {}", p.name);
            match gradient.touched {
                None => {
                    let moments = m.chunks_mut(BLOCK).zip(v.chunks_mut(BLOCK));
                    dense.extend(p.data.chunks_mut(BLOCK).zip(gradient.data.chunks_mut(BLOCK)).zip(moments));
                }
                Some(rows) => {
                    let width = p.shape.get(1).copied().unwrap_or(1);
                    for row in rows {
                        let at = *row as usize * width..(*row as usize + 1) * width;
                        let (w, g) = (&mut p.data[at.clone()], &mut gradient.data[at.clone()]);
                        adam::update(step, w, g, &mut m[at.clone()], &mut v[at]);
                    }
                }
            }
        }
        scratch.pool().each(dense.into_iter(), |((w, g), (m, v))| adam::update(step, w, g, m, v));
        gradients.clear_touched();
    }
}

impl Gradients {
    /// Euclidean norm over all parameters, by the scratch's threads, in an order that does not depend on their number; NaN
    /// or infinite where a gradient is.
    pub fn norm_by(&self, scratch: &Scratch) -> f64 {
        let blocks: Vec<&[f32]> = self.parts().flat_map(|part| part.chunks(BLOCK)).collect();
        let mut sums = vec![0.0; blocks.len()];
        let pairs: Vec<_> = blocks.iter().zip(&mut sums).collect();
        scratch.pool().each(pairs.into_iter(), |(block, sum)| *sum = adam::squares(block));
        sums.iter().sum::<f64>().sqrt()
    }
}

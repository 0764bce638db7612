//! Rows of attention probabilities, padded so that no loop has a remainder.

use crate::dropout::Dropout;
use crate::simd::{LANES, max, sum, sum2};
use crate::{Real, simd};

/// Elements from one row of n probabilities to the next: a multiple of the widest vector, the rest 0. Of 75 columns 11
/// would else go one by one, exponentials among them.
pub(crate) fn stride(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Lengths of the segments between offsets.
pub(crate) fn lengths(offsets: &[u32]) -> impl Iterator<Item = usize> + '_ {
    offsets.windows(2).map(|w| (w[1] - w[0]) as usize)
}

/// Length of the probabilities of segments: n rows at [`stride`] for each.
pub(crate) fn length(offsets: &[u32]) -> usize {
    lengths(offsets).map(|n| n * stride(n)).sum()
}

/// Makes the logits of keys that may not be looked at (masked, or past the n-th) minus infinity.
#[inline(always)]
pub(crate) fn close<R: Real>(row: &mut [R], n: usize, masked: &[bool]) {
    row[n..].fill(R::NEG_INFINITY);
    for (x, m) in row.iter_mut().zip(masked) {
        *x = if *m { R::NEG_INFINITY } else { *x };
    }
}

/// From closed logits to e^(x - their maximum), 0 where closed; all 0 where all are closed. Returns the sum.
#[inline(always)]
pub(crate) fn exponentials<R: Real>(row: &mut [R]) -> R {
    let largest = max(row);
    if largest == R::NEG_INFINITY {
        row.fill(R::ZERO);
        return R::ZERO;
    }
    for x in row.iter_mut() {
        let open = *x > R::NEG_INFINITY;
        let e = (*x - largest).exp_fast();
        *x = if open { e } else { R::ZERO };
    }
    sum(row)
}

/// Softmax of a row of closed logits; all 0 where all are closed.
#[inline(always)]
pub(crate) fn softmax<R: Real>(row: &mut [R]) {
    let total = exponentials(row);
    if total > R::ZERO {
        let share = R::ONE / total;
        row.iter_mut().for_each(|x| *x *= share);
    }
}

/// Negates the probabilities that are dropped: the sign keeps the mask for the backward pass. `at`: of the row's first.
#[inline(always)]
pub(crate) fn drop_by_sign<R: Real>(dropout: Dropout, at: u32, row: &mut [R]) {
    for (i, p) in row.iter_mut().enumerate() {
        let dropped = dropout.factor::<R>(at.wrapping_add(i as u32)) == R::ZERO;
        *p = if dropped { -*p } else { *p };
    }
}

/// What dropout multiplies by what it keeps.
pub(crate) fn scale<R: Real>(dropout: Dropout) -> R {
    if dropout.is_off() { R::ONE } else { R::from_f32(1.0 / (1.0 - dropout.rate)) }
}

/// The kept probabilities without dropout's scale: the very same where nothing is dropped, else a copy in `scratch`.
pub(crate) fn kept<'a, R: Real>(dropout: Dropout, p: &'a [R], scratch: &'a mut Vec<R>) -> &'a [R] {
    if dropout.is_off() {
        return p;
    }
    scratch.resize(p.len(), R::ZERO);
    let out = &mut scratch[..p.len()];
    simd::wide(
        #[inline(always)]
        || out.iter_mut().zip(p).for_each(|(o, p)| *o = p.larger(R::ZERO)),
    );
    out
}

/// From the gradient of kept probabilities in `dp` (+ `more` in each) to that of the logits, in place:
/// p (g - sum p g), with g = the gradient times dropout's factor.
#[inline(always)]
pub(crate) fn backward<R: Real>(p: &[R], dp: &mut [R], more: R, scale: R) {
    let masked = |p: R, d: R| if p > R::ZERO { (d + more) * scale } else { R::ZERO };
    let mean = sum2(p, dp, |p, d| p * masked(p, d)); // 0 where dropped
    for (d, p) in dp.iter_mut().zip(p) {
        let size = if *p > R::ZERO { *p } else { -*p };
        *d = size * (masked(*p, *d) - mean);
    }
}

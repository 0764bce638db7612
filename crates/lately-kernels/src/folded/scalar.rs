//! Reference of [`super::forward`] and [`super::backward`].

use super::Shape;
use crate::Real;
use crate::softmax::stride;

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(a, b)| *a * *b).sum()
}

/// See [`super::forward`].
pub fn forward<R: Real>(
    s: Shape<'_>,
    x: &[R],
    qv: &[R],
    probabilities: &mut [R],
    out: &mut [R],
    _scratch: &mut Vec<R>,
) {
    let d = s.width;
    s.each(|start, n, at| {
        for i in 0..n {
            let open = |j: usize| s.masked.is_empty() || !s.masked[start + j];
            let query = &qv[(start + i) * 2 * d..][..d];
            let logits: Vec<R> = (0..n).map(|j| dot(query, &x[(start + j) * d..][..d])).collect();
            let largest = (0..n).filter(|j| open(*j)).map(|j| logits[j]).fold(R::NEG_INFINITY, R::larger);
            let exp = |j: usize| if open(j) { (logits[j] - largest).exp() } else { R::ZERO };
            let total: R = (0..n).map(exp).sum();
            let y = &mut out[(start + i) * d..][..d];
            y.fill(R::ZERO);
            for j in 0..stride(n) {
                let place = at + i * stride(n) + j;
                let p = if j < n && total > R::ZERO { exp(j) / total } else { R::ZERO };
                let factor = s.dropout.factor::<R>(place as u32);
                probabilities[place] = if factor > R::ZERO { p } else { -p };
                if j < n {
                    let value = &qv[(start + j) * 2 * d + d..][..d];
                    y.iter_mut().zip(value).for_each(|(y, v)| *y += p * factor * *v);
                }
            }
        }
    });
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    s: Shape<'_>,
    x: &[R],
    qv: &[R],
    probabilities: &[R],
    d_out: &[R],
    d_qv: &mut [R],
    d_x: &mut [R],
    _scratch: &mut Vec<R>,
) {
    let d = s.width;
    let tokens = s.offsets.last().map_or(0, |t| *t as usize);
    d_qv[..tokens * 2 * d].fill(R::ZERO);
    s.each(|start, n, at| {
        for i in 0..n {
            let dy = &d_out[(start + i) * d..][..d];
            let place = |j: usize| at + i * stride(n) + j;
            let p = |j: usize| R::larger(probabilities[place(j)], -probabilities[place(j)]);
            let value = |j: usize| &qv[(start + j) * 2 * d + d..][..d];
            let dp: Vec<R> =
                (0..n).map(|j| dot(dy, value(j)) * s.dropout.factor::<R>(place(j) as u32)).collect();
            let mean: R = (0..n).map(|j| p(j) * dp[j]).sum();
            for j in 0..n {
                let (ds, kept) = (p(j) * (dp[j] - mean), p(j) * s.dropout.factor::<R>(place(j) as u32));
                for e in 0..d {
                    d_qv[(start + j) * 2 * d + d + e] += kept * dy[e];
                    d_qv[(start + i) * 2 * d + e] += ds * x[(start + j) * d + e];
                    d_x[(start + j) * d + e] += ds * qv[(start + i) * 2 * d + e];
                }
            }
        }
    });
}

//! Reference of [`super::forward`] and [`super::backward`].

use super::Shape;
use crate::Real;

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(a, b)| *a * *b).sum()
}

/// See [`super::forward`].
pub fn forward<R: Real>(
    s: Shape<'_>,
    qkv: &[R],
    probabilities: &mut [R],
    context: &mut [R],
    _scratch: &mut Vec<R>,
) {
    let (d, dh) = (s.width, s.head_width());
    s.each(|start, n, head, at| {
        let part = |token: usize, i: usize| &qkv[(start + token) * 3 * d + i * d + head * dh..][..dh];
        for i in 0..n {
            let open = |j: usize| s.masked.is_empty() || !s.masked[start + j];
            let logits: Vec<R> = (0..n).map(|j| dot(part(i, 0), part(j, 1)) * s.factor()).collect();
            let largest = (0..n).filter(|j| open(*j)).map(|j| logits[j]).fold(R::NEG_INFINITY, R::larger);
            let exp = |j: usize| if open(j) { (logits[j] - largest).exp() } else { R::ZERO };
            let total: R = (0..n).map(exp).sum();
            let out = &mut context[(start + i) * d + head * dh..][..dh];
            out.fill(R::ZERO);
            for j in 0..n {
                let p = if total > R::ZERO { exp(j) / total } else { R::ZERO };
                probabilities[at + i * n + j] = p;
                let kept = p * s.dropout.factor((at + i * n + j) as u32);
                out.iter_mut().zip(part(j, 2)).for_each(|(o, v)| *o += kept * *v);
            }
        }
    });
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    s: Shape<'_>,
    qkv: &[R],
    probabilities: &[R],
    d_context: &[R],
    d_qkv: &mut [R],
    _scratch: &mut Vec<R>,
) {
    let (d, dh) = (s.width, s.head_width());
    let tokens = s.offsets.last().map_or(0, |t| *t as usize);
    d_qkv[..tokens * 3 * d].fill(R::ZERO);
    s.each(|start, n, head, at| {
        let place = |token: usize, i: usize| (start + token) * 3 * d + i * d + head * dh;
        for i in 0..n {
            let dc = &d_context[(start + i) * d + head * dh..][..dh];
            let p = &probabilities[at + i * n..][..n];
            let kept = |j: usize| s.dropout.factor::<R>((at + i * n + j) as u32);
            let dp: Vec<R> = (0..n).map(|j| dot(dc, &qkv[place(j, 2)..][..dh]) * kept(j)).collect();
            let mean = dot(&dp, p);
            for j in 0..n {
                let ds = p[j] * (dp[j] - mean) * s.factor();
                for e in 0..dh {
                    d_qkv[place(j, 2) + e] += p[j] * kept(j) * dc[e];
                    d_qkv[place(i, 0) + e] += ds * qkv[place(j, 1) + e];
                    d_qkv[place(j, 1) + e] += ds * qkv[place(i, 0) + e];
                }
            }
        }
    });
}

//! One step of Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019) on a slice of weights.

pub mod scalar;

use crate::simd::wide;

/// Keeps a division from a vanishing second moment.
const EPSILON: f64 = 1e-8;

/// What all elements share in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Factor on the gradient: 1, or less where its norm is clipped.
    pub scale: f32,
    /// 1 - decay of the first moment.
    pub first: f32,
    /// 1 - decay of the second moment.
    pub second: f32,
    /// Learning rate with both bias corrections.
    pub rate: f32,
    /// Added to the root of the second moment, with its bias correction.
    pub epsilon: f32,
    /// What weight decay leaves of a weight.
    pub keep: f32,
}

impl Step {
    /// Step `number` (from 1) with a learning rate, the moments' decays and a weight decay.
    ///
    /// The bias corrections go into the rate and epsilon, so that the loop has one division.
    pub fn new(rate: f64, (beta1, beta2): (f64, f64), decay: f64, scale: f64, number: u64) -> Self {
        let power = number.min(i32::MAX as u64) as i32;
        let root = (1.0 - beta2.powi(power)).sqrt();
        Self {
            scale: scale as f32,
            first: (1.0 - beta1) as f32,
            second: (1.0 - beta2) as f32,
            rate: (rate * root / (1.0 - beta1.powi(power))) as f32,
            epsilon: (EPSILON * root) as f32,
            keep: (1.0 - rate * decay) as f32,
        }
    }
}

/// Moves the weights `w` by the gradient `g`; `m` and `v` are the moments. `g` is 0 afterwards, ready for the next sum:
/// all in one pass, as a step over the paper's 5.3 million weights is bound by memory. All of one length.
pub fn update(step: Step, w: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = w.len();
    let (g, m, v) = (&mut g[..n], &mut m[..n], &mut v[..n]);
    wide(
        #[inline(always)]
        || {
            for i in 0..n {
                let x = g[i] * step.scale;
                m[i] += step.first * (x - m[i]);
                v[i] += step.second * (x * x - v[i]);
                w[i] = w[i] * step.keep - step.rate * m[i] / (v[i].sqrt() + step.epsilon);
                g[i] = 0.0;
            }
        },
    );
}

/// Sum of squares in f64, in a fixed order.
pub fn squares(x: &[f32]) -> f64 {
    const LANES: usize = 16;
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0f64; LANES];
    wide(
        #[inline(always)]
        || {
            for block in blocks {
                for (lane, x) in lanes.iter_mut().zip(block) {
                    *lane += f64::from(*x) * f64::from(*x);
                }
            }
        },
    );
    lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_paper_and_the_reference() {
        let n = 37;
        let start: Vec<f32> = (0..n).map(|i| (i as f32 - 17.0) / 9.0).collect();
        let (mut w, mut m, mut v) = (start.clone(), vec![0f32; n], vec![0f32; n]);
        let (mut sw, mut sm, mut sv) = (start.clone(), vec![0f32; n], vec![0f32; n]);
        let mut want: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
        let (mut wm, mut wv) = (vec![0f64; n], vec![0f64; n]);
        for number in 1..=3u64 {
            let gradient: Vec<f32> =
                (0..n).map(|i| ((i * 7 + number as usize * 5) % 11) as f32 - 5.0).collect();
            let step = Step::new(0.1, (0.9, 0.999), 0.01, 0.5, number);
            let mut g = gradient.clone();
            update(step, &mut w, &mut g, &mut m, &mut v);
            assert!(g.iter().all(|g| *g == 0.0));
            scalar::update(step, &mut sw, &mut gradient.clone(), &mut sm, &mut sv);
            for i in 0..n {
                let g = 0.5 * f64::from(gradient[i]);
                wm[i] = 0.9 * wm[i] + 0.1 * g;
                wv[i] = 0.999 * wv[i] + 0.001 * g * g;
                let power = number as i32;
                let corrected = wm[i] / (1.0 - 0.9f64.powi(power));
                let second = wv[i] / (1.0 - 0.999f64.powi(power));
                want[i] -= 0.1 * 0.01 * want[i] + 0.1 * corrected / (second.sqrt() + 1e-8);
            }
        }
        for i in 0..n {
            assert!((f64::from(w[i]) - want[i]).abs() < 1e-4, "{i}: {} {}", w[i], want[i]);
            assert!((w[i] - sw[i]).abs() < 1e-6, "{i}: {} {}", w[i], sw[i]);
        }
    }

    #[test]
    fn the_sum_of_squares() {
        let x: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(squares(&x), (0..37).map(|i| f64::from(i * i)).sum::<f64>());
    }
}

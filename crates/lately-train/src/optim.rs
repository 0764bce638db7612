//! Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), and its schedule.

/// Constants of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Learning rate of this step.
    pub(crate) rate: f64,
    /// Decay of the first moment.
    pub(crate) beta1: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Share of the weight that is taken away, times the rate.
    pub(crate) decay: f64,
    /// Number of this step, from 1.
    pub(crate) number: u64,
}

/// Keeps a division from a vanishing second moment.
const EPSILON: f32 = 1e-8;

/// One step on one parameter: `m` and `v` are its moments, `g` its gradient, all of one length.
pub(crate) fn adam(step: &Step, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let power = step.number.min(i32::MAX as u64) as i32;
    let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
    // The bias corrections go into the rate and epsilon, so that the loop has one division.
    let root = (1.0 - step.beta2.powi(power)).sqrt();
    let rate = (step.rate * root / (1.0 - step.beta1.powi(power))) as f32;
    let (epsilon, keep) = (EPSILON * root as f32, (1.0 - step.rate * step.decay) as f32);
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
        *m += (1.0 - b1) * (g - *m);
        *v += (1.0 - b2) * (g * g - *v);
        *w = *w * keep - rate * *m / (v.sqrt() + epsilon);
    }
}

/// Warm-up from 0 to `peak` over `warmup` steps, then half a cosine down to `peak` x `floor` at the last step.
/// `step` counts from 0.
pub(crate) fn schedule(peak: f64, warmup: u64, floor: f64, step: u64, steps: u64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_follows_the_paper() {
        let (mut w, mut m, mut v) = ([1.0f32, -2.0], [0f32; 2], [0f32; 2]);
        let gradients = [[0.5f32, -0.1], [0.4, 0.3], [-0.2, 0.0]];
        let (mut want, mut wm, mut wv) = ([1.0f64, -2.0], [0f64; 2], [0f64; 2]);
        for (t, g) in gradients.iter().enumerate() {
            let step = Step { rate: 0.1, beta1: 0.9, beta2: 0.999, decay: 0.01, number: t as u64 + 1 };
            adam(&step, &mut w, g, &mut m, &mut v);
            for i in 0..2 {
                let g = f64::from(g[i]);
                wm[i] = 0.9 * wm[i] + 0.1 * g;
                wv[i] = 0.999 * wv[i] + 0.001 * g * g;
                let corrected = wm[i] / (1.0 - 0.9f64.powi(t as i32 + 1));
                let second = wv[i] / (1.0 - 0.999f64.powi(t as i32 + 1));
                want[i] -= 0.1 * 0.01 * want[i] + 0.1 * corrected / (second.sqrt() + 1e-8);
            }
        }
        for i in 0..2 {
            assert!((f64::from(w[i]) - want[i]).abs() < 1e-4, "{w:?} {want:?}");
        }
    }

    #[test]
    fn the_rate_rises_then_falls() {
        let rate = |step| schedule(1.0, 10, 0.1, step, 110);
        assert_eq!((rate(0), rate(9), rate(10)), (0.1, 1.0, 1.0));
        assert!((rate(60) - 0.55).abs() < 1e-12 && (rate(110) - 0.1).abs() < 1e-12);
    }
}

//! Reference of [`super::update`].

use super::Step;

/// See [`super::update`].
pub fn update(step: Step, w: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    for i in 0..w.len() {
        let x = g[i] * step.scale;
        m[i] = m[i] + step.first * (x - m[i]);
        v[i] = v[i] + step.second * (x * x - v[i]);
        w[i] = w[i] * step.keep - step.rate * m[i] / (v[i].sqrt() + step.epsilon);
        g[i] = 0.0;
    }
}

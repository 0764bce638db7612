//! The schedule of the learning rate.

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
    fn the_rate_rises_then_falls() {
        let rate = |step| schedule(1.0, 10, 0.1, step, 110);
        assert_eq!((rate(0), rate(9), rate(10)), (0.1, 1.0, 1.0));
        assert!((rate(60) - 0.55).abs() < 1e-12 && (rate(110) - 0.1).abs() < 1e-12);
    }
}

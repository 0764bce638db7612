use proptest::prelude::*;

use super::*;
use crate::random::Random;

/// Rows whose true logit is `truth` of the model's.
fn rows(n: usize, seed: u64, truth: impl Fn(f64) -> f64) -> Vec<(f64, bool)> {
    let mut random = Random::of(seed, &[]);
    let mut row = || {
        let z = random.normal() * 1.5 - 1.0;
        (z, random.uniform() < 1.0 / (1.0 + (-truth(z)).exp()))
    };
    (0..n).map(|_| row()).collect()
}

/// Mean prediction over observed rate, in all and in each third by logit.
fn ratios(head: &HeadCalibration, mut rows: Vec<(f64, bool)>) -> Vec<f64> {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let thirds = rows.chunks(rows.len().div_ceil(3));
    let of = |rows: &[(f64, bool)]| {
        let predicted: f64 =
            rows.iter().map(|(z, _)| 1.0 / (1.0 + f64::from(-head.apply(*z as f32)).exp())).sum();
        predicted / rows.iter().filter(|(_, y)| *y).count() as f64
    };
    std::iter::once(of(&rows)).chain(thirds.map(of)).collect()
}

#[test]
fn platt_finds_the_line() {
    let truth = |z: f64| 0.5 * z - 0.8;
    let HeadCalibration::Platt { slope, intercept } =
        fit_head(&rows(40_000, 1, truth), CalibrationKind::Platt)
    else {
        panic!()
    };
    assert!((slope - 0.5).abs() < 0.03 && (intercept + 0.8).abs() < 0.05, "{slope} {intercept}");
}

#[test]
fn isotonic_finds_a_bend_that_no_line_has() {
    let truth = |z: f64| if z < -1.0 { -3.0 + 0.1 * z } else { 0.5 + z };
    let (past, future) = (rows(40_000, 2, truth), rows(40_000, 3, truth));
    let fitted = |kind| ratios(&fit_head(&past, kind), future.clone());
    let (bent, line) = (fitted(CalibrationKind::Isotonic), fitted(CalibrationKind::Platt));
    assert!(bent.iter().all(|r| (0.93..1.07).contains(r)), "{bent:?}");
    assert!((line[0] - 1.0).abs() < 0.03 && line[1..].iter().any(|r| (r - 1.0).abs() > 0.1), "{line:?}");
    let raw = ratios(&HeadCalibration::IDENTITY, future);
    assert!((raw[1] - 1.0).abs() > 0.5, "the model itself is off: {raw:?}");
}

#[test]
fn few_rows_one_class_and_a_useless_model_do_no_harm() {
    for kind in [CalibrationKind::Platt, CalibrationKind::Isotonic] {
        assert_eq!(fit_head(&[], kind), HeadCalibration::IDENTITY);
        assert_eq!(fit_head(&[(1.0, true); 500], kind), HeadCalibration::IDENTITY);
        // The order is the wrong way round: what is left is the rate.
        let upside_down = rows(5_000, 4, |z| -z - 2.0);
        let head = fit_head(&upside_down, kind);
        let all = ratios(&head, upside_down)[0];
        assert!((0.95..1.05).contains(&all), "{kind:?}: {all}");
        assert!(head.apply(1.0) > head.apply(0.0));
        // All logits equal.
        let flat: Vec<_> = (0..1_000).map(|i| (0.3, i % 4 == 0)).collect();
        let p = 1.0 / (1.0 + (-fit_head(&flat, kind).apply(0.3)).exp());
        assert!((p - 0.25).abs() < 0.01, "{kind:?}: {p}");
        // Perfectly separated.
        let split: Vec<_> = (-500..500).map(|i| (f64::from(i) / 100.0, i >= 0)).collect();
        let head = fit_head(&split, kind);
        assert!(head.apply(5.0).is_finite() && head.apply(-5.0) < head.apply(5.0));
    }
}

proptest! {
    /// Whatever the rows, the function is one that a model takes and rises over all f32, so the order never turns.
    #[test]
    fn a_fit_rises(
        scores in prop::collection::vec((-40i32..40, 0.0f64..1.0), 60..600),
        mut probes in prop::collection::vec(-60f32..60.0, 2..50),
        threshold in 0.1f64..0.9,
    ) {
        for kind in [CalibrationKind::Platt, CalibrationKind::Isotonic] {
            let rows: Vec<_> = scores.iter().map(|(z, u)| (f64::from(*z) / 8.0, *u < threshold)).collect();
            let head = fit_head(&rows, kind);
            if let HeadCalibration::Isotonic { knots } = &head {
                prop_assert!(knots.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
                // At a knot and right beside it.
                let near = knots.iter().flat_map(|(x, _)| {
                    let x = *x as f32;
                    [x.next_down(), x, x.next_up()]
                });
                probes.extend(near);
            }
            probes.sort_by(f32::total_cmp);
            for pair in probes.windows(2) {
                let (a, b) = (head.apply(pair[0]), head.apply(pair[1]));
                prop_assert!(a <= b && a.is_finite() && b.is_finite(), "{pair:?} -> {a} {b}");
                // Strictly, but for rounding.
                prop_assert!(a < b || pair[1] - pair[0] < 1.0, "{pair:?} -> {a} {b} {head:?}");
            }
        }
    }
}

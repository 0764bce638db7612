//! Many comparisons at once.

/// p-values such that the probability of even one false finding among all below alpha is at most alpha, whatever depends
/// on what (Holm 1979). In the order of the input; a NaN is not counted and stays.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = p.to_vec();
    let mut least: f64 = 0.0;
    for (rank, at) in order.iter().enumerate() {
        least = least.max(p[*at] * (order.len() - rank) as f64).min(1.0);
        adjusted[*at] = least;
    }
    adjusted
}

/// p-values such that of all findings below alpha a share of alpha is expected to be false, among independent or
/// positively dependent comparisons (Benjamini and Hochberg 1995). Else as [`holm`].
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = p.to_vec();
    let mut most: f64 = 1.0;
    for (rank, at) in order.iter().enumerate().rev() {
        most = most.min(p[*at] * order.len() as f64 / (rank + 1) as f64);
        adjusted[*at] = most;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).filter(|at| !p[*at].is_nan()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(of: &[f64], want: &[f64]) {
        assert!(of.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{of:?}");
    }

    #[test]
    fn adjusted_values_are_those_of_r() {
        // p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") and "BH".
        let p = [0.01, 0.04, 0.03, 0.005];
        near(&holm(&p), &[0.03, 0.06, 0.06, 0.02]);
        near(&benjamini_hochberg(&p), &[0.02, 0.04, 0.04, 0.02]);
        let with_unknown = holm(&[f64::NAN, 0.02, 0.9]);
        assert!(with_unknown[0].is_nan());
        near(&with_unknown[1..], &[0.04, 0.9]);
        assert!(holm(&[]).is_empty());
    }
}

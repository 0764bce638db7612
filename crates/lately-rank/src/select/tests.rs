use super::residual::tests::plain;
use super::*;
use proptest::prelude::*;

fn config(diversity: Diversity) -> SelectConfig {
    SelectConfig { diversity, topic_run: 0, ..SelectConfig::default() }
}

/// A page of candidates without embeddings, with one label for all rules.
fn page(scores: &[f32], labels: &[u32], limit: usize, config: &SelectConfig) -> Vec<usize> {
    let labels = vec![labels.to_vec(); config.spacing.len() + config.caps.len()];
    let none = vec![&[][..]; scores.len()];
    let topics = vec![0; scores.len()];
    blend(Pool { scores, topics: &topics, embeddings: &none, dim: 0, labels: &labels }, limit, config)
}

fn spacing(mode: SpacingMode, window: usize, at_most: usize, penalty: f32) -> SelectConfig {
    let rule = SpacingRule { feature: "author".into(), mode, window, at_most, penalty };
    SelectConfig { spacing: vec![rule], ..config(Diversity::None) }
}

#[test]
fn best_first_and_ties_in_the_order_of_the_candidates() {
    let plain = config(Diversity::None);
    assert_eq!(page(&[1.0, 2.0, 1.0], &[], 9, &plain), [1, 0, 2]);
    assert_eq!(page(&[1.0, 2.0], &[], 1, &plain), [1]);
    assert_eq!(page(&[], &[], 5, &config(Diversity::Ssd)), [0usize; 0]);
}

#[test]
fn hard_spacing_is_never_broken_and_soft_spacing_has_its_price() {
    let scores = [5.0, 4.0, 3.0, 2.0, 1.0];
    let hard = spacing(SpacingMode::Hard, 3, 1, 1.0);
    assert_eq!(page(&scores, &[7, 7, 8, 9, 7], 5, &hard), [0, 2, 3, 1], "the last one would break it");
    assert_eq!(page(&scores, &[0; 5], 5, &hard), [0, 1, 2, 3, 4], "0 is no label");
    assert_eq!(page(&scores, &[7, 7, 7, 8, 7], 5, &spacing(SpacingMode::Hard, 3, 2, 1.0)), [0, 1, 3, 2, 4]);
    let soft = |penalty| page(&scores, &[7, 7, 8, 9, 7], 5, &spacing(SpacingMode::Soft, 2, 1, penalty));
    assert_eq!(soft(0.1), [0, 1, 2, 3, 4]);
    assert_eq!(soft(100.0), [0, 2, 3, 1, 4], "soft: all come");
}

#[test]
fn a_cap_holds_for_the_whole_page_and_after_the_blended_places() {
    let cap = CapRule { feature: "author".into(), at_most: 2 };
    let capped = SelectConfig { caps: vec![cap], blend_places: 1, ..config(Diversity::None) };
    assert_eq!(page(&[5.0, 4.0, 3.0, 2.0, 1.0], &[7, 7, 7, 0, 8], 9, &capped), [0, 1, 3, 4]);
}

/// What each candidate is worth after `chosen`, from scratch in f64.
fn plain_worth(scores: &[f32], vectors: &[Vec<f32>], chosen: &[usize], config: &SelectConfig) -> Vec<f64> {
    let n = scores.len() as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    let sd = (scores.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let z = scores.iter().map(|s| (f64::from(*s) - mean) / sd);
    let ssd = config.diversity == Diversity::Ssd;
    let window = if ssd { config.ssd.window } else { config.dpp.window };
    let (volume, left) = plain(vectors, chosen, window);
    let worth = |(z, left): (f64, f64)| {
        if ssd {
            return z + f64::from(config.ssd.gamma) * volume * left.max(0.0).sqrt();
        }
        // The determinant of the kernel grows by quality^2 x what is left.
        ((f64::from(config.dpp.alpha) * z / 2.0).exp().powi(2) * left.max(1e-4)).ln()
    };
    z.zip(left).map(worth).collect()
}

proptest! {
    #[test]
    fn each_step_of_ssd_and_dpp_is_the_best_by_brute_force(
        rows in prop::collection::vec((-1.0f32..1.0, prop::collection::vec(-1.0f32..1.0, 6)), 8..14),
        window in 1usize..6,
        ssd in any::<bool>(),
        weight in 0.1f32..4.0,
    ) {
        let (scores, vectors): (Vec<f32>, Vec<Vec<f32>>) = rows.into_iter().unzip();
        let mut config = config(if ssd { Diversity::Ssd } else { Diversity::Dpp });
        config.ssd = SsdConfig { gamma: weight, window };
        config.dpp = DppConfig { alpha: weight, window };
        let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let topics = vec![0; scores.len()];
        let pool = Pool { scores: &scores, topics: &topics, embeddings: &views, dim: 6, labels: &[] };
        let chosen = blend(pool, scores.len(), &config);
        for n in 0..chosen.len() {
            let worth = plain_worth(&scores, &vectors, &chosen[..n], &config);
            let best = chosen[n..].iter().map(|i| worth[*i]).fold(f64::MIN, f64::max);
            prop_assert!(worth[chosen[n]] >= best - 2e-2, "step {n}: {} of {best}", worth[chosen[n]]);
        }
    }

    #[test]
    fn a_page_is_a_permutation_of_a_subset_whatever_is_configured(
        rows in prop::collection::vec((-3i8..3, 0u32..4, prop::collection::vec(-1i8..2, 3)), 0..40),
        diversity in prop::sample::select(vec![Diversity::None, Diversity::Ssd, Diversity::Dpp]),
        limit in 0usize..50,
        places in 1usize..20,
        hard in any::<bool>(),
        run in 0usize..3,
    ) {
        let scores: Vec<f32> = rows.iter().map(|r| f32::from(r.0)).collect();
        let topics: Vec<u32> = rows.iter().map(|r| r.1).collect();
        let vectors: Vec<Vec<f32>> = rows.iter().map(|r| r.2.iter().map(|x| f32::from(*x)).collect()).collect();
        let mode = if hard { SpacingMode::Hard } else { SpacingMode::Soft };
        let mut config = SelectConfig { diversity, topic_run: run, ..spacing(mode, 3, 1, 0.5) };
        (config.blend_places, config.blend_candidates) = (places, 30);
        let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let labels = [topics.clone()];
        let pool = Pool { scores: &scores, topics: &topics, embeddings: &views, dim: 3, labels: &labels };
        let chosen = blend(pool, limit, &config);
        prop_assert_eq!(&chosen, &blend(pool, limit, &config));
        let mut once = chosen.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert!(once.len() == chosen.len() && once.iter().all(|i| *i < rows.len()));
        prop_assert!(hard || chosen.len() == limit.min(rows.len()), "soft rules drop nothing");
        let apart = |w: &[usize]| topics[w[0]] == 0 || topics[w[0]] != topics[w[1]];
        prop_assert!(!hard || chosen.windows(2).all(apart));
    }
}

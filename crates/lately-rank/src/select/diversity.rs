//! How varied a page is.

use std::collections::HashMap;

/// Numbers of one page; see [`page_diversity`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PageDiversity {
    /// Topics that are on it.
    pub unique_topics: usize,
    /// Entropy of the topics, nats: 0 where all items share one. Items without a topic do not count.
    pub topic_entropy: f64,
    /// Mean over pairs of items with embeddings of 1 - cosine, 0 to 2; 0 where there are fewer than two.
    pub intra_list_distance: f64,
}

/// How varied a page is, by the first topics of its items (0: none) and their embeddings (zeros or empty: none).
pub fn page_diversity(topics: &[u32], embeddings: &[&[f32]]) -> PageDiversity {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    topics.iter().filter(|t| **t != 0).for_each(|t| *counts.entry(*t).or_default() += 1);
    let all = counts.values().sum::<usize>() as f64;
    let mut shares: Vec<f64> = counts.values().map(|n| *n as f64 / all).collect();
    shares.sort_by(f64::total_cmp); // the same sum in every run
    PageDiversity {
        unique_topics: counts.len(),
        topic_entropy: shares.iter().map(|p| -p * p.ln()).sum(),
        intra_list_distance: distance(embeddings),
    }
}

/// By the length of the sum s of n unit vectors: pairs' cosines sum to (|s|^2 - n) / 2.
fn distance(embeddings: &[&[f32]]) -> f64 {
    let d = embeddings.iter().map(|e| e.len()).max().unwrap_or(0);
    let (mut sum, mut n) = (vec![0.0f64; d], 0.0);
    for embedding in embeddings {
        let norm = embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 && norm.is_finite() {
            n += 1.0;
            sum.iter_mut().zip(*embedding).for_each(|(s, x)| *s += f64::from(*x) / norm);
        }
    }
    if n < 2.0 {
        return 0.0;
    }
    let square: f64 = sum.iter().map(|s| s * s).sum();
    (1.0 - (square - n) / (n * (n - 1.0))).clamp(0.0, 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_topics_and_measures_distances() {
        let (a, b, c) = ([2.0f32, 0.0], [0.0f32, 3.0], [-1.0f32, 0.0]);
        let page = page_diversity(&[1, 1, 2, 0], &[&a, &b, &c, &[]]);
        assert_eq!(page.unique_topics, 2);
        assert!((page.topic_entropy - 0.6365).abs() < 1e-3, "{page:?}");
        assert!((page.intra_list_distance - 4.0 / 3.0).abs() < 1e-9, "{page:?}");
        assert_eq!(page_diversity(&[7, 7], &[&a, &a]).intra_list_distance, 0.0);
        assert_eq!(page_diversity(&[], &[]), PageDiversity::default());
    }
}

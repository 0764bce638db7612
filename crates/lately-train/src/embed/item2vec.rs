//! Vectors by skip-gram with negative sampling over people's histories.
//!
//! Mikolov et al., "Distributed Representations of Words and Phrases" (2013), with items for words: Barkan and
//! Koenigstein, "Item2Vec" (2016). One thread and one stream of random numbers, so that a seed gives one result.

use super::{EmbedOptions, frequent, rescale};
use crate::random::Random;

/// Passes over the histories; Mikolov et al. take 3 to 15 for small corpora.
const EPOCHS: usize = 10;
/// Items drawn against each pair, as Mikolov et al. advise for small corpora (5 to 20).
const NEGATIVES: usize = 5;
/// First learning rate; it falls linearly to a thousandth.
const RATE: f64 = 0.025;
/// Places of the table from which negatives are drawn, at least: an item has as many as its share.
const DRAWS: usize = 1 << 20;

/// Vectors of `items` items, items x dim, as [`super::ppmi_svd`] takes and gives them. `window` is the largest distance
/// of a pair (each place draws one up to it), `smoothing` the exponent of the frequency with which negatives are drawn.
pub fn item2vec(sequences: &[Vec<u32>], items: usize, options: &EmbedOptions) -> Vec<f32> {
    let kept: Vec<Vec<u32>> = frequent(sequences, items, options.min_count).filter(|s| s.len() > 1).collect();
    let mut counts = vec![0u32; items];
    kept.iter().flatten().for_each(|item| counts[*item as usize] += 1);
    let mut net = Net::new(&counts, options);
    let places: usize = EPOCHS * kept.iter().map(Vec::len).sum::<usize>();
    if places == 0 || options.window == 0 || options.dim == 0 {
        return vec![0.0; items * options.dim];
    }
    let mut done = 0;
    for _ in 0..EPOCHS {
        for sequence in &kept {
            for at in 0..sequence.len() {
                let rate = RATE * (1.0 - done as f64 / places as f64).max(1e-3);
                net.place(sequence, at, options.window, rate as f32);
                done += 1;
            }
        }
    }
    for (item, row) in net.words.chunks_exact_mut(options.dim).enumerate() {
        if counts[item] == 0 {
            row.fill(0.0); // its random start
        }
    }
    rescale(&mut net.words, options.dim);
    net.words
}

/// The two tables and the stream of random numbers.
struct Net {
    dim: usize,
    words: Vec<f32>,
    contexts: Vec<f32>,
    draws: Vec<u32>,
    random: Random,
    step: Vec<f32>,
}

impl Net {
    fn new(counts: &[u32], options: &EmbedOptions) -> Self {
        let dim = options.dim;
        let mut random = Random::of(options.seed, &[]);
        let words = (0..counts.len() * dim).map(|_| ((random.uniform() - 0.5) / dim as f64) as f32).collect();
        let draws = draws(counts, options.smoothing);
        Self { dim, words, contexts: vec![0.0; counts.len() * dim], draws, random, step: vec![0.0; dim] }
    }

    /// The pairs of one place of a history.
    fn place(&mut self, sequence: &[u32], at: usize, window: usize, rate: f32) {
        let reach = 1 + self.random.below(window);
        let (first, end) = (at.saturating_sub(reach), (at + reach + 1).min(sequence.len()));
        for other in (first..end).filter(|other| *other != at && sequence[*other] != sequence[at]) {
            self.pair(sequence[at], sequence[other], rate);
        }
    }

    fn pair(&mut self, word: u32, context: u32, rate: f32) {
        self.step.fill(0.0);
        self.pull(word, context, 1.0, rate);
        for _ in 0..NEGATIVES {
            let other = self.draws[self.random.below(self.draws.len())];
            if other != context && other != word {
                self.pull(word, other, 0.0, rate);
            }
        }
        let at = word as usize * self.dim;
        self.words[at..at + self.dim].iter_mut().zip(&self.step).for_each(|(w, s)| *w += s);
    }

    /// One logistic step on a pair; the word's part is collected in `step`.
    fn pull(&mut self, word: u32, context: u32, label: f32, rate: f32) {
        let d = self.dim;
        let word = &self.words[word as usize * d..][..d];
        let context = &mut self.contexts[context as usize * d..][..d];
        let dot: f32 = word.iter().zip(&*context).map(|(w, c)| w * c).sum();
        let pull = rate * (label - 1.0 / (1.0 + (-dot).exp()));
        for ((w, c), s) in word.iter().zip(context).zip(&mut self.step) {
            *s += pull * *c;
            *c += pull * w;
        }
    }
}

/// Each item as often as its share of the counts to the power of `smoothing`.
fn draws(counts: &[u32], smoothing: f64) -> Vec<u32> {
    let size = DRAWS.max(8 * counts.len());
    let weight = |n: &u32| if *n == 0 { 0.0 } else { f64::from(*n).powf(smoothing) };
    let total: f64 = counts.iter().map(weight).sum();
    let mut draws = Vec::with_capacity(size);
    let mut sum = 0.0;
    for (item, n) in counts.iter().enumerate() {
        sum += weight(n);
        let end = (sum / total.max(f64::MIN_POSITIVE) * size as f64).round() as usize;
        draws.resize(end.clamp(draws.len(), size), item as u32);
    }
    draws
}

#[cfg(test)]
mod tests {
    use super::super::tests::{near_and_far, planted};
    use super::*;

    #[test]
    fn items_of_one_group_stand_together_and_a_seed_gives_one_result() {
        let options = EmbedOptions { dim: 8, window: 5, ..EmbedOptions::default() };
        let vectors = item2vec(&planted(), 41, &options);
        let (inside, across) = near_and_far(&vectors, 8);
        assert!(inside > across + 0.3, "{inside} against {across}");
        assert!(vectors[40 * 8..].iter().all(|x| *x == 0.0), "an item without history has zeros");
        assert_eq!(vectors, item2vec(&planted(), 41, &options));
        assert_ne!(vectors, item2vec(&planted(), 41, &EmbedOptions { seed: 2, ..options }));
    }

    #[test]
    fn negatives_are_drawn_by_their_share() {
        let draws = draws(&[16, 0, 1], 0.5);
        let share = |item: u32| draws.iter().filter(|d| **d == item).count() as f64 / draws.len() as f64;
        assert!((share(0) - 0.8).abs() < 1e-3 && share(1) == 0.0 && (share(2) - 0.2).abs() < 1e-3);
    }

    #[test]
    fn no_history_gives_zeros() {
        assert_eq!(
            item2vec(&[vec![0]], 1, &EmbedOptions { dim: 2, min_count: 1, ..Default::default() }),
            [0.0; 2]
        );
    }
}

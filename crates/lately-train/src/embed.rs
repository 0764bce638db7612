//! Item vectors from what people did: three methods, and the versioned artifact that serving and training read.
//!
//! Read in this order: [`histories`] (what is taken from the log), [`ppmi`], [`item2vec`](mod@item2vec) and `residual`
//! (the methods), `cold` (items without history), [`artifact`] (the bytes).

pub mod artifact;
mod cold;
pub mod histories;
pub mod item2vec;
pub mod ppmi;
mod residual;
mod sparse;
mod svd;

use lately_features::batch::Layout;
use lately_features::{Features, Schema};
use serde::{Deserialize, Serialize};

pub use artifact::{EmbeddingManifest, Table};
pub use histories::Histories;
pub use item2vec::item2vec;
pub use ppmi::ppmi_svd;

/// How vectors are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Truncated SVD of the shifted positive PMI of items that people met near to each other.
    Ppmi,
    /// Skip-gram with negative sampling over the same histories.
    Item2vec,
    /// Factors of the outcomes less the rates of person and item: taste without exposure.
    Residual,
}

/// How to make the vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedOptions {
    /// Length of a vector. Default 32.
    pub dim: usize,
    /// Items at most this many steps apart in a user's history occur together. Default 10.
    pub window: usize,
    /// Exponent of the context's frequency; below 1 it tempers the bias of PMI towards rare items. Default 0.75.
    pub smoothing: f64,
    /// ln of the number of negative samples that the shift stands for. Default 0: no shift.
    pub shift: f64,
    /// An item must occur this often to have a vector; others get zeros. Default 3.
    pub min_count: u32,
    /// Power iterations of the SVD. Default 4.
    pub iterations: usize,
    /// Seed of the start.
    pub seed: u64,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { dim: 32, window: 10, smoothing: 0.75, shift: 0.0, min_count: 3, iterations: 4, seed: 1 }
    }
}

/// Why no vectors can be learned.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// More meetings than memory is given for.
    #[error("the range holds more than {0} meetings of people and items: learn from fewer days")]
    TooLarge(usize),
    /// Nothing occurs often enough, or nothing occurs together.
    #[error("no item has a history to learn from: widen the range of days, or lower min_count")]
    NoHistory,
    /// There is nothing to tell taste from.
    #[error(
        "all outcomes are alike: `residual` needs items that were shown and not wanted; \
         log impressions or a neutral action, or take `ppmi` or `item2vec`"
    )]
    NoContrast,
    /// More numbers than the schema's item embedding has.
    #[error("vectors of {got} numbers do not fit into the schema's item embedding of {most}: ask for fewer")]
    Dim {
        /// What was asked for.
        got: usize,
        /// The schema's.
        most: usize,
    },
}

/// Learns the vectors of all items that have a history, and how to predict those of the others from their features.
/// A vector is as long as the schema's item embedding; beyond `options.dim` it holds zeros.
///
/// # Errors
/// Any [`EmbedError`] but `TooLarge`.
pub fn learn(
    histories: &mut Histories,
    schema: &Schema,
    method: Method,
    options: &EmbedOptions,
) -> Result<Table, EmbedError> {
    let most = schema.item_embedding_dim();
    if options.dim > most || options.dim == 0 {
        return Err(EmbedError::Dim { got: options.dim, most });
    }
    let items = histories.items().len();
    let learned = match method {
        Method::Ppmi => ppmi_svd(&histories.sequences(), items, options),
        Method::Item2vec => item2vec(&histories.sequences(), items, options),
        Method::Residual => {
            let outcomes = histories.outcomes();
            if outcomes.is_empty() {
                return Err(EmbedError::NoHistory);
            }
            residual::residual_factors(&outcomes, (histories.counts().0, items), options)?
        }
    };
    let mut table = Table::default();
    let mut known: Vec<(&Features, usize)> = Vec::new();
    for (item, row) in learned.chunks_exact(options.dim).enumerate() {
        if row.iter().any(|x| *x != 0.0) {
            known.extend(histories.features(item).map(|f| (f, table.items.len())));
            table.items.push(histories.items()[item].clone());
            table.values.extend(row);
            table.values.resize(table.items.len() * most, 0.0);
        }
    }
    if table.items.is_empty() {
        return Err(EmbedError::NoHistory);
    }
    table.cold = cold_items(schema, &known, &table.values, most);
    Ok(table)
}

/// `None` where the schema has no feature to predict from, or no item with a vector has any.
fn cold_items(
    schema: &Schema,
    known: &[(&Features, usize)],
    values: &[f32],
    dim: usize,
) -> Option<lately_features::vectors::ColdItems> {
    let layout = Layout::of(&schema.item_features);
    if known.is_empty() || layout.categorical_width + layout.numeric_width == 0 {
        return None;
    }
    let (features, rows): (Vec<&Features>, Vec<usize>) = known.iter().copied().unzip();
    let wanted: Vec<f32> = rows.iter().flat_map(|row| &values[row * dim..][..dim]).copied().collect();
    Some(cold::fit(&layout, &features, &wanted, dim))
}

/// The histories without items that occur fewer than `min_count` times over all of them. They are taken out before
/// a window is laid, so that it reaches over them.
fn frequent(sequences: &[Vec<u32>], items: usize, min_count: u32) -> impl Iterator<Item = Vec<u32>> + '_ {
    let mut counts = vec![0u32; items];
    for item in sequences.iter().flatten().filter(|i| (**i as usize) < items) {
        counts[*item as usize] += 1;
    }
    let kept = move |item: &&u32| counts.get(**item as usize).is_some_and(|n| *n >= min_count);
    sequences.iter().map(move |sequence| sequence.iter().filter(&kept).copied().collect())
}

/// Brings the root mean square length of the rows that are not zero to 1.
fn rescale(out: &mut [f32], dim: usize) {
    if dim == 0 {
        return;
    }
    let rows = out.chunks_exact(dim).filter(|row| row.iter().any(|x| *x != 0.0)).count();
    let squares: f64 = out.iter().map(|x| f64::from(*x).powi(2)).sum();
    if rows > 0 && squares > 0.0 {
        let scale = (rows as f64 / squares).sqrt() as f32;
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use lately_features::{Event, ItemId, ItemVectors};

    use super::*;
    use crate::dates::DateRange;
    use crate::fixtures::{action, impression, item, schema};
    use crate::random::Random;

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum() };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
    }

    /// Users who stay in one of four groups of ten items most of the time.
    pub(super) fn planted() -> Vec<Vec<u32>> {
        let mut random = Random::of(5, &[]);
        let user = |u: usize, random: &mut Random| {
            let step = |random: &mut Random| match random.uniform() < 0.9 {
                true => (u % 4 * 10 + random.below(10)) as u32,
                false => random.below(40) as u32,
            };
            (0..20).map(|_| step(random)).collect()
        };
        (0..200).map(|u| user(u, &mut random)).collect()
    }

    /// Mean cosine of the first 40 vectors within and across the groups of [`planted`].
    pub(super) fn near_and_far(vectors: &[f32], dim: usize) -> (f64, f64) {
        let row = |i: usize| &vectors[i * dim..][..dim];
        let (mut inside, mut across) = (Vec::new(), Vec::new());
        for a in 0..40 {
            for b in 0..a {
                if a / 10 == b / 10 { &mut inside } else { &mut across }.push(cosine(row(a), row(b)));
            }
        }
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
        (mean(&inside), mean(&across))
    }

    /// The planted histories as a log: shown in lists of five, the item of the own group is saved. Items of the first
    /// two groups have fewer than 100 views, the others more.
    fn log() -> Vec<Event> {
        let mut events: Vec<Event> = (0..45)
            .map(|i| item(&format!("i{i}"), [9.0; 4], if i % 40 < 20 { 50.0 } else { 150.0 }))
            .collect();
        for (u, history) in planted().iter().enumerate() {
            for (n, items) in history.chunks(5).enumerate() {
                let (user, request) = (format!("u{u}"), format!("r{u}.{n}"));
                let mut ids: Vec<String> = items.iter().map(|i| format!("i{i}")).collect();
                ids.sort();
                ids.dedup();
                let shown: Vec<&str> = ids.iter().map(String::as_str).collect();
                let at = (u * 100 + n) as i64;
                events.push(Event::Impression(impression(&request, &user, &shown, at)));
                for item in items {
                    let name = if (*item as usize) / 10 == u % 4 { "save" } else { "seen" };
                    events.push(action(&user, &format!("i{item}"), name, at, &request));
                }
            }
        }
        events
    }

    fn learned(method: Method, dim: usize) -> Result<Table, EmbedError> {
        let mut histories = Histories::new(&schema(), DateRange::ALL, Histories::LIMIT);
        for (offset, event) in (0..).zip(&log()) {
            histories.push(offset, event)?;
        }
        learn(&mut histories, &schema(), method, &EmbedOptions { dim, ..EmbedOptions::default() })
    }

    #[test]
    fn each_method_tells_the_groups_apart_in_a_log() {
        for method in [Method::Ppmi, Method::Item2vec, Method::Residual] {
            let table = learned(method, 4).unwrap();
            assert_eq!(table.items.len(), 40);
            let mut vectors = vec![0.0; 160];
            for (row, id) in table.items.iter().enumerate() {
                let item: usize = id.as_str()[1..].parse().unwrap();
                vectors[item * 4..][..4].copy_from_slice(&table.values[row * 4..][..4]);
            }
            let (inside, across) = near_and_far(&vectors, 4);
            assert!(inside > across + 0.4, "{method:?}: {inside} against {across}");
        }
    }

    #[test]
    fn a_shorter_vector_is_padded_and_a_longer_one_refused() {
        let table = learned(Method::Ppmi, 3).unwrap();
        assert!(table.values.chunks_exact(4).all(|row| row[3] == 0.0 && row[0] != 0.0));
        assert!(matches!(learned(Method::Ppmi, 5), Err(EmbedError::Dim { got: 5, most: 4 })));
    }

    #[test]
    fn a_cold_item_stands_with_those_of_like_features() {
        let table = learned(Method::Ppmi, 4).unwrap();
        let vectors = ItemVectors::new(&schema(), "v", table.items, table.values, table.cold).unwrap();
        let of = |id: &str, views: f64| {
            let Event::Item(e) = item(id, [9.0; 4], views) else { panic!("not an item") };
            Features::encode_item(&schema(), Some(&vectors), &e.item, &e.features).unwrap().embedding
        };
        let mean = |groups: std::ops::Range<usize>| {
            let mut sum = [0f32; 4];
            for i in groups {
                let own = vectors.get(&ItemId::new(format!("i{i}")).unwrap()).unwrap();
                sum.iter_mut().zip(own).for_each(|(s, x)| *s += x);
            }
            sum
        };
        let (few, many) = (of("cold", 50.0), of("cold", 150.0));
        assert!(cosine(&few, &mean(0..20)) > 0.9 && cosine(&many, &mean(20..40)) > 0.9);
    }
}

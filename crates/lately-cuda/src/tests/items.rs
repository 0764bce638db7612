//! Items that are on the card already, and what a request's rows share: neither may change a bit of a score.

use std::sync::Arc;
use std::time::Instant;

use lately_features::{FeatureBatch, Schema};
use lately_model::device::{ItemStaging, Staging};
use lately_model::{Encoder, ModelConfig, SequenceActions};

use super::score::{agrees, near};
use super::world::{batch, model, schema, tiny};
use crate::CudaError;
use crate::driver::Driver;
use crate::driver::emulation::{Emulation, compiler};
use crate::engine::Engine;
use crate::items::{Found, ItemTable};

/// Models that take different parts of an item and of a request.
fn forms() -> [(&'static str, ModelConfig); 5] {
    [
        ("tiny", tiny()),
        ("projected", ModelConfig { cross_width: 20, ..tiny() }),
        ("no cross layers", ModelConfig { cross_layers: 0, ..tiny() }),
        ("heads alone", ModelConfig { cross_layers: 0, hidden: vec![], ..tiny() }),
        ("no encoder", ModelConfig { encoder: Encoder::None, ..tiny() }),
    ]
}

/// Some rows of a batch of one request.
fn rows(b: &FeatureBatch, rows: std::ops::Range<usize>) -> FeatureBatch {
    let part = |list: &[f32]| {
        let width = list.len() / b.rows();
        list[rows.start * width..rows.end * width].to_vec()
    };
    let mut out = FeatureBatch { row_offsets: vec![0, rows.len() as u32], ..b.clone() };
    out.item.numeric = part(&b.item.numeric);
    out.item.embedding = part(&b.item.embedding);
    out.candidate = part(&b.candidate);
    let width = b.item.categorical.len() / b.rows();
    out.item.categorical = b.item.categorical[rows.start * width..rows.end * width].to_vec();
    out
}

/// The requests of both.
fn joined(a: &FeatureBatch, b: &FeatureBatch) -> FeatureBatch {
    let mut out = a.clone();
    for (to, from) in [(&mut out.user, &b.user), (&mut out.item, &b.item)] {
        to.categorical.extend_from_slice(&from.categorical);
        to.numeric.extend_from_slice(&from.numeric);
        to.embedding.extend_from_slice(&from.embedding);
    }
    let (rows, tokens) = (a.rows() as u32, a.tokens() as u32);
    out.row_offsets.extend(b.row_offsets[1..].iter().map(|at| rows + at));
    out.token_offsets.extend(b.token_offsets[1..].iter().map(|at| tokens + at));
    out.surface.extend_from_slice(&b.surface);
    out.token_action.extend_from_slice(&b.token_action);
    out.token_actions.extend_from_slice(&b.token_actions);
    out.token_surface.extend_from_slice(&b.token_surface);
    out.token_age_ms.extend_from_slice(&b.token_age_ms);
    out.token_item.extend_from_slice(&b.token_item);
    out.candidate.extend_from_slice(&b.candidate);
    out
}

#[test]
fn a_row_has_the_same_bits_wherever_its_item_comes_from() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    for (name, config) in forms() {
        let model = model(&config, &schema);
        let driver = Arc::new(Emulation::default());
        let all = batch(&schema, &[(17, 40)], 2, |_| false);
        let want = Engine::new(&driver, Arc::clone(&model)).unwrap().score(&all).unwrap();
        near(name, &model, &all, &want);
        // None is kept; so few that each call takes others' slots, and does not store all of its own; all are kept.
        for slots in [0, 1, 7, 30, 1000] {
            let engine = Engine::with_items(&driver, Arc::clone(&model), slots).unwrap();
            for range in [0..3, 1..5, 20..40, 0..40, 0..40, 3..9, 0..40] {
                let got = engine.score(&rows(&all, range.clone())).unwrap();
                let heads = model.heads();
                assert_eq!(
                    got[..],
                    want[range.start * heads..range.end * heads],
                    "{name}, {slots} {range:?}"
                );
            }
        }
    }
}

#[test]
fn items_are_read_from_the_table_once_they_are_there() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    for (name, config) in forms() {
        let driver = Arc::new(Emulation::default());
        let engine = Engine::with_items(&driver, model(&config, &schema), 64).unwrap();
        let all = batch(&schema, &[(17, 40)], 2, |_| false);
        let first = rows(&all, 0..20);
        let want = engine.score(&first).unwrap();
        assert_eq!(engine.score(&first).unwrap(), want, "{name}");
        // No numbers where they were: an item takes 8 words or 16.
        let mut lane = driver.lane(1, 1).unwrap();
        driver.write(&mut lane, engine.table(), 0, &[u32::MAX; 64 * 8]).unwrap();
        let heads = want.len() / 20;
        assert_eq!(
            engine.score(&first),
            Err(CudaError::NotFinite { count: 20 * heads, of: 20 * heads }),
            "{name}"
        );
        assert!(engine.score(&rows(&all, 20..40)).is_ok(), "{name}: others come with their call");
    }
}

#[test]
fn requests_share_items_and_nothing_else() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    for (name, config) in forms() {
        let model = model(&config, &schema);
        let driver = Arc::new(Emulation::default());
        // The same candidates for another user with another history, twice within one request.
        let first = batch(&schema, &[(17, 9)], 2, |_| false);
        let mut second = FeatureBatch { item: first.item.clone(), ..batch(&schema, &[(5, 9)], 3, |_| false) };
        second.candidate.clone_from(&first.candidate);
        let engine = Engine::new(&driver, Arc::clone(&model)).unwrap();
        let alone = [&first, &second].map(|b| engine.score(b).unwrap()).concat();
        let both = joined(&first, &second);
        for engine in [&engine, &Engine::new(&driver, Arc::clone(&model)).unwrap()] {
            assert_eq!(engine.score(&both).unwrap(), alone, "{name}");
        }
        let heads = model.heads();
        assert_ne!(alone[..9 * heads], alone[9 * heads..], "{name}: the user makes a difference");
        agrees(name, &model, &both);
    }
}

/// Requests with few columns, or none, of their own.
#[test]
fn requests_without_user_features_score_as_the_cpu() {
    let mut schema = schema(4, 20);
    schema.user_features.clear();
    let b = batch(&schema, &[(17, 9), (0, 3), (3, 20)], 2, |_| false);
    for (name, config) in forms() {
        agrees(&format!("{name}, a surface alone"), &model(&config, &schema), &b);
        let config = ModelConfig { compatibility: true, attention_heads: 1, ..config };
        agrees(&format!("{name}, nothing"), &model(&config, &schema), &b);
    }
    // As many columns as fill their tiles, and some more: item columns are 2 + 4 a topic + the embedding.
    for item in [10, 11, 26] {
        let schema = super::world::schema(item, 20);
        let b = batch(&schema, &[(17, 9), (3, 20)], 2, |_| false);
        let config = ModelConfig { encoder: Encoder::None, ..tiny() };
        agrees(&format!("items of {item} and 6"), &model(&config, &schema), &b);
    }
}

/// Tokens and candidates without a length, types that no token has, and tokens that the model leaves out.
#[test]
fn affinity_leaves_out_what_the_cpu_leaves_out() {
    let schema: Schema = schema(4, 20);
    let mut b = batch(&schema, &[(20, 6), (2, 3), (17, 4)], 2, |_| false);
    b.token_item[4..12].fill(0.0);
    b.token_item[80..88].fill(0.0); // all of the second request
    b.candidate[8..12].fill(0.0);
    b.token_age_ms[3] = 3_600_000;
    b.token_age_ms[4] = 3_600_001;
    b.token_age_ms[22..].fill(i64::MAX);
    for (name, sequence_actions) in
        [("all", SequenceActions::All), ("positive alone", SequenceActions::Positive)]
    {
        // Heads alone see affinity in its own columns.
        for hidden in [vec![9, 7], vec![]] {
            let config = ModelConfig { sequence_actions, cross_layers: 0, hidden, ..tiny() };
            agrees(&format!("affinity, {name}"), &model(&config, &schema), &b);
        }
    }
}

/// Calls at once over a table that holds only some of their items.
#[test]
fn threads_share_a_small_table() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = model(&ModelConfig { layers: 1, ..tiny() }, &schema);
    let all = batch(&schema, &[(5, 48)], 2, |_| false);
    let driver = Arc::new(Emulation::default());
    let want = Engine::new(&driver, Arc::clone(&model)).unwrap().score(&all).unwrap();
    let engine = Engine::with_items(&driver, Arc::clone(&model), 24).unwrap();
    let heads = model.heads();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (engine, all, want) = (&engine, &all, &want);
            scope.spawn(move || {
                for turn in 0..12 {
                    let start = (thread * 5 + turn * 7) % 36;
                    let got = engine.score(&rows(all, start..start + 12)).unwrap();
                    assert_eq!(got[..], want[start * heads..(start + 12) * heads], "rows from {start} on");
                }
            });
        }
    });
}

/// What the host does for 2,000 candidates, in microseconds; nothing is asserted of them.
#[test]
#[ignore = "a measurement"]
fn how_long_the_host_takes() {
    let schema = schema(32, 100);
    let model = model(&ModelConfig::default(), &schema);
    let b = batch(&schema, &[(100, 2_000)], 2, |_| false);
    let (table, mut found) = (ItemTable::new(1 << 16), Found::default());
    let (mut staging, mut items) = (Staging::default(), ItemStaging::default());
    let all: Vec<u32> = (0..2_000).collect();
    let find = |found: &mut Found| {
        let mut visit = table.visit();
        visit.find(&b, 0..2_000, found);
        visit.stored();
    };
    find(&mut found);
    let mut least = [f64::INFINITY; 3];
    for _ in 0..50 {
        let time = |work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64() * 1e6
        };
        let times = [
            time(&mut || find(&mut found)),
            time(&mut || _ = staging.fill(&model, &b, 0..2_000)),
            time(&mut || _ = items.fill(&model, &b, &all)),
        ];
        least = std::array::from_fn(|i| least[i].min(times[i]));
    }
    assert!(found.staged.is_empty());
    eprintln!(
        "to find items {:.0} us, to stage a request {:.0} us, to stage new items {:.0} us",
        least[0], least[1], least[2]
    );
}

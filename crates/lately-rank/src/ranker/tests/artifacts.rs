//! Ten thousand damaged artifacts, by the way that the server takes: registry, slot, ranking.

use super::*;
use crate::model_slot::SwapError;
use lately_model::{CheckpointError, Encoder, checkpoint};
use lately_store::{Registry, RegistryError};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Damages in all.
const DAMAGES: usize = 10_000;

/// As small as a model gets: ten thousand of them are read.
fn nano(schema: &Schema, seed: u64) -> (Model, Manifest) {
    let config = ModelConfig {
        encoder: Encoder::Mean,
        cross_layers: 1,
        cross_width: 4,
        hidden: vec![4],
        action_dim: 2,
        ..ModelConfig::default()
    };
    let model = Model::new(config, schema, seed).unwrap();
    let manifest = Manifest::new(&model, schema, seed);
    (model, manifest)
}

fn artifact(seed: u64) -> Vec<u8> {
    let (model, manifest) = nano(&schema(), seed);
    checkpoint::to_bytes(&model, &manifest).unwrap()
}

/// Where the tensors begin: behind the length and the header.
fn body(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// One of several kinds of damage; never the bytes themselves.
fn damaged(good: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    match random.random_range(0..6) {
        // Anywhere, in the header, which is small beside the weights, or several at once.
        0 => flip(&mut bytes, random, 0),
        1 => {
            let header = body(good);
            let at = random.random_range(0..header);
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        2 => (0..random.random_range(2..64)).for_each(|_| flip(&mut bytes, random, 0)),
        3 => bytes.truncate(random.random_range(0..good.len())),
        4 => {
            let from = random.random_range(0..good.len());
            let to = random.random_range(from..good.len().min(from + 4_096)) + 1;
            random.fill_bytes(&mut bytes[from..to]);
        }
        // A weight that is no number.
        _ => {
            let words = (good.len() - body(good)) / 4;
            let at = body(good) + 4 * random.random_range(0..words);
            let no_number = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][random.random_range(0..3)];
            bytes[at..at + 4].copy_from_slice(&no_number.to_le_bytes());
        }
    }
    if bytes == good {
        flip(&mut bytes, random, 0);
    }
    bytes
}

fn flip(bytes: &mut [u8], random: &mut ChaCha8Rng, from: usize) {
    let at = random.random_range(from..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}

/// Scores as bits, of the version that must serve.
fn serves(house: &House, version: &str) -> Vec<(String, u32)> {
    let response = house.ranker.rank(RankRequest::new(user("u"), candidates(5))).unwrap();
    assert_eq!((&response.degraded[..], response.model.unwrap().version.as_str()), (&[][..], version));
    response.items.into_iter().map(|i| (i.item.into(), i.score.to_bits())).collect()
}

#[test]
fn ten_thousand_damaged_artifacts_never_serve_and_the_last_good_one_does() {
    let house = house(patient());
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (old, new) = (artifact(1), artifact(2));
    let champion = registry.publish(&old, &serde_json::Value::Null).unwrap();
    let next = registry.publish(&new, &serde_json::Value::Null).unwrap();
    registry.set_alias("champion", &champion).unwrap();
    house.slot.swap_bytes(champion.as_str(), &registry.load(&champion).unwrap()).unwrap();
    let good = serves(&house, champion.as_str());

    let file = dir.path().join(format!("artifacts/{next}.bin"));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for n in 0..DAMAGES {
        let bytes = damaged(&new, &mut random);
        std::fs::write(&file, &bytes).unwrap();
        // The way of the server: whatever was damaged after it was published stops at its hash.
        let refused = registry.load(&next);
        assert!(matches!(&refused, Err(RegistryError::Damaged(v)) if *v == next), "damage {n}: {refused:?}");
        if n % 500 == 0 {
            assert!(registry.set_alias("champion", &next).is_err());
            assert_eq!(registry.alias("champion").unwrap(), Some(champion.clone()));
            assert_eq!(serves(&house, champion.as_str()), good);
        }
    }
    assert_eq!(house.slot.current().unwrap().generation(), 1);
    std::fs::write(&file, &new).unwrap();
    house.slot.swap_bytes(next.as_str(), &registry.load(&next).unwrap()).unwrap();
    assert_ne!(serves(&house, next.as_str()), good, "undamaged it serves");
}

/// Bytes that were damaged before they were published have their own hash, so the slot must look for itself: it
/// refuses whatever is no model of this schema, and what it lets in is one: other weights, finite scores.
#[test]
fn ten_thousand_damaged_checkpoints_are_refused_or_are_models() {
    let house = house(patient());
    let (old, new) = (artifact(1), artifact(2));
    house.slot.swap_bytes("good", &old).unwrap();
    let good = serves(&house, "good");
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let (mut refused, mut passed) = (0, 0);
    for n in 0..DAMAGES {
        let bytes = damaged(&new, &mut random);
        match house.slot.swap_bytes("damaged", &bytes) {
            Err(_) => {
                refused += 1;
                assert_eq!(serves(&house, "good"), good, "damage {n}");
            }
            Ok(_) => {
                passed += 1;
                let all_finite =
                    |m: &Model| m.parameters().iter().all(|p| p.data.iter().all(|x| x.is_finite()));
                assert!(all_finite(house.slot.current().unwrap().model()), "damage {n}");
                let response = house.ranker.rank(RankRequest::new(user("u"), candidates(5))).unwrap();
                super::ladder::sound(&response, &candidates(5));
                house.slot.swap_bytes("good", &old).unwrap();
                assert_eq!(serves(&house, "good"), good, "damage {n}");
            }
        }
    }
    assert!(refused > DAMAGES / 2 && passed > DAMAGES / 50, "{refused} refused, {passed} passed");
}

#[test]
fn artifacts_of_another_form_are_refused_by_what_is_wrong() {
    let house = house(patient());
    house.slot.swap_bytes("good", &artifact(1)).unwrap();
    let good = serves(&house, "good");
    let refused = |bytes: &[u8]| {
        let error = house.slot.swap_bytes("bad", bytes).unwrap_err();
        assert_eq!(serves(&house, "good"), good);
        error
    };
    let header = |change: &dyn Fn(String) -> String| {
        let bytes = artifact(2);
        let text = change(String::from_utf8(bytes[8..body(&bytes)].to_vec()).unwrap());
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[body(&bytes)..]].concat()
    };
    let source = |error: SwapError| match error {
        SwapError::Checkpoint { source, .. } => source,
        other => panic!("{other}"),
    };
    let dtype = source(refused(&header(&|t| t.replacen("F32", "I32", 1))));
    assert!(matches!(&dtype, CheckpointError::Tensor { problem, .. } if problem.contains("I32")), "{dtype}");
    // item.topic is 32 x 3.
    let shape = source(refused(&header(&|t| t.replacen("[32,3]", "[3,32]", 1))));
    assert!(matches!(&shape, CheckpointError::Tensor { name, .. } if name == "item.topic"), "{shape}");
    let renamed = source(refused(&header(&|t| t.replacen("item.topic", "item.tonic", 1))));
    assert!(matches!(renamed, CheckpointError::Tensor { .. }), "{renamed}");
    let newer = source(refused(&header(&|t| t.replacen("{\\\"format\\\":3", "{\\\"format\\\":4", 1))));
    assert!(matches!(newer, CheckpointError::Format { got: 4 }), "{newer}");
    let other = Schema::from_toml(&SCHEMA.replace("length = 8", "length = 9")).unwrap();
    let (model, manifest) = nano(&other, 2);
    let foreign = refused(&checkpoint::to_bytes(&model, &manifest).unwrap());
    assert!(matches!(foreign, SwapError::Schema { .. }), "{foreign}");
    for junk in [&b""[..], b"junk", &[0xff; 64], &artifact(2)[..7]] {
        assert!(matches!(refused(junk), SwapError::Checkpoint { .. }));
    }
}

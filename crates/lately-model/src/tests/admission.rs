use lately_features::FeatureBatch;

use super::world::{SMALL, batch, tiny};
use crate::checkpoint::{CheckpointError, Manifest, from_bytes, to_bytes};
use crate::{Admission, AdmissionFit, Gradients, Model, Scratch};
use lately_features::Schema;

/// The schema with a `min_count` on a feature of each side.
fn gated() -> Schema {
    let text = SMALL.replacen("name = \"country\",", "name = \"country\", min_count = 2,", 1);
    Schema::from_toml(&text.replacen("name = \"topic\",", "name = \"topic\", min_count = 3,", 1)).unwrap()
}

/// Sets all of the feature's slots: the country of the first request, and the topics (3 slots before the author).
fn with(mut b: FeatureBatch, country: u32, topics: [u32; 3]) -> FeatureBatch {
    b.user.categorical.fill(country);
    b.item.categorical.chunks_exact_mut(4).for_each(|row| row[..3].copy_from_slice(&topics));
    b
}

fn one(country: u32, topics: [u32; 3]) -> FeatureBatch {
    with(batch(&gated(), &[(3, 1)], 1), country, topics)
}

/// Country 2 twice and 3 once; topics 4 three times and 5 once.
fn admission() -> Admission {
    let mut fit = AdmissionFit::new(&gated());
    fit.add(&one(2, [4, 4, 5]));
    fit.add(&one(2, [4, 0, 0]));
    fit.add(&one(3, [0; 3]));
    fit.finish()
}

fn model() -> Model {
    let mut model = Model::new(tiny(), &gated(), 3).unwrap();
    model.set_admission(admission(), &gated()).unwrap();
    model
}

fn score(model: &Model, b: &FeatureBatch) -> Vec<f32> {
    model.score(b, &mut Scratch::default()).unwrap()
}

#[test]
fn rare_values_are_counted_out() {
    let counts: Vec<_> = admission().counts().map(|(n, a, all)| (n.to_owned(), a, all)).collect();
    assert_eq!(counts, [("user.country".to_owned(), 1, 4), ("item.topic".to_owned(), 1, 5)]);
}

#[test]
fn a_rare_value_scores_as_a_missing_one() {
    let model = model();
    assert_eq!(score(&model, &one(3, [5, 1, 0])), score(&model, &one(0, [0; 3])));
    assert_eq!(score(&model, &one(2, [4, 5, 0])), score(&model, &one(2, [4, 0, 0])), "left out of the mean");
    assert_ne!(score(&model, &one(2, [4, 0, 0])), score(&model, &one(0, [0; 3])));
    let open = Model::new(tiny(), &gated(), 3).unwrap();
    assert_ne!(
        score(&open, &one(3, [5, 1, 0])),
        score(&open, &one(0, [0; 3])),
        "before training all are known"
    );
}

#[test]
fn training_touches_the_row_of_the_missing_and_not_that_of_the_rare() {
    let model = model();
    let touched = |b: &mut FeatureBatch, table: &str| {
        b.label = vec![1.0; 2];
        let mut gradients = Gradients::zeros(&model);
        model.loss_and_gradient(b, &[1.0; 2], None, &mut Scratch::default(), &mut gradients).unwrap();
        gradients.iter().find(|g| g.0 == table).unwrap().2.unwrap().to_vec()
    };
    assert_eq!(touched(&mut one(3, [5, 4, 0]), "user.country"), [0]);
    assert_eq!(touched(&mut one(3, [5, 4, 0]), "item.topic"), [4]);
    assert_eq!(touched(&mut one(2, [5, 5, 1]), "item.topic"), [0]);
}

#[test]
fn the_admitted_are_in_the_checkpoint() {
    let model = model();
    let bytes = to_bytes(&model, &Manifest::new(&model, &gated(), 3)).unwrap();
    let (read, _) = from_bytes(&bytes).unwrap();
    assert_eq!(read.admission(), model.admission());
    assert_eq!(score(&read, &one(3, [5, 4, 1])), score(&model, &one(3, [5, 4, 1])));
    let json = String::from_utf8_lossy(&bytes).replace("admission.item.topic", "admission.item.tropic");
    assert!(json.contains("tropic"));
    let at = bytes.windows(20).position(|w| w == b"admission.item.topic").unwrap();
    let mut renamed = bytes.clone();
    renamed[at + 19] = b'k';
    assert!(matches!(from_bytes(&renamed), Err(CheckpointError::Tensor { .. })));
}

#[test]
fn a_schema_without_counts_is_as_before() {
    let plain = Schema::from_toml(SMALL).unwrap();
    assert!(Admission::open(&plain).is_empty() && AdmissionFit::new(&plain).is_empty());
    assert_eq!(plain.hash(), gated().hash(), "batches are the same");
    assert!(!serde_json::to_string(&plain).unwrap().contains("min_count"), "so older programs read it");
    let mut model = Model::new(tiny(), &plain, 3).unwrap();
    assert!(model.set_admission(admission(), &plain).is_err(), "gates of another schema");
}

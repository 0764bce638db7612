//! A whole training run, from logged events to a model: on the emulated card as on the CPU.

use std::convert::Infallible;
use std::sync::Arc;

use lately_features::event::FeatureValues;
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, UserId,
};
use lately_model::training::{Learner as Seam, LearnerOptions, Moments, StagedBatch};
use lately_model::{Accelerator, AcceleratorError, AdamStep, Model, ModelConfig, Precision, Scorer};
use lately_train::trainer::TrainReport;
use lately_train::{Control, Dataset, JoinOptions, Outcome, Place, TrainConfig, join, train_on};

use super::world::tiny;
use crate::CudaError;
use crate::driver::emulation::{Emulation, compiler};
use crate::train::Learner;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home"]
    actions = [
        { name = "click", polarity = "positive", attribution_seconds = 60 },
        { name = "hide", polarity = "negative", attribution_seconds = 60 },
    ]
    heads = [{ name = "click", actions = ["click"] }, { name = "hide", actions = ["hide"] }]
    sequence = { length = 6, stored = 6 }
    item_features = [
        { kind = "embedding", name = "vector", dim = 4 },
        { kind = "categorical", name = "topic", buckets = 50, dim = 3 },
    ]
"#;
const T0: i64 = 1_650_000_000_000;
const USERS: usize = 12;
const PAGES: usize = 5;
const ITEMS: usize = 10;

/// Users who click what lies on their side and hide the rest; a page of three items every ten minutes.
fn dataset() -> Dataset {
    let item_id = |i: usize| ItemId::new(format!("i{i}")).unwrap();
    let mut log = Vec::new();
    for i in 0..ITEMS {
        let side = if i % 2 == 0 { 1.0 } else { -1.0 };
        let vector = (0..4).map(|k| side * 0.5 + ((i * 7 + k * 3) % 5) as f32 * 0.1 - 0.2).collect();
        let features = FeatureValues::from([
            ("vector".to_owned(), FeatureValue::Vector(vector)),
            ("topic".to_owned(), FeatureValue::Text(format!("t{}", i % 4))),
        ]);
        log.push(Event::Item(Item { item: item_id(i), time_ms: T0, features, active: true }));
    }
    for page in 0..PAGES {
        for u in 0..USERS {
            let (user, time_ms) = (UserId::new(format!("u{u}")).unwrap(), T0 + page as i64 * 600_000);
            let request = RequestId::new(format!("r{u}-{page}")).unwrap();
            let items: Vec<usize> = (0..3).map(|k| (u * 5 + page * 3 + k * 7) % ITEMS).collect();
            let shown = items.iter().enumerate();
            let shown = shown.map(|(at, i)| ImpressionItem::unscored(item_id(*i), at as u16)).collect();
            log.push(Event::Impression(Impression::outside(
                request.clone(),
                user.clone(),
                Some("home".into()),
                time_ms,
                shown,
            )));
            for i in items {
                let action = if i % 2 == u % 2 { "click" } else { "hide" };
                log.push(Event::Action(Action {
                    event_id: EventId::new(format!("{u}/{page}/{i}")).unwrap(),
                    user: user.clone(),
                    item: item_id(i),
                    action: action.into(),
                    time_ms: time_ms + 1_000,
                    request: Some(request.clone()),
                    surface: None,
                }));
            }
        }
    }
    let schema = Arc::new(Schema::from_toml(SCHEMA).unwrap());
    let log = log.into_iter().enumerate().map(|(i, event)| Ok::<_, Infallible>((i as u64, event)));
    join(&schema, log, JoinOptions::default()).unwrap()
}

/// The emulated card behind the seam of `lately-model`, as the program has the real one.
#[derive(Debug)]
struct Emulated;

struct OnCard(Learner<Emulation>);

impl std::fmt::Debug for OnCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnCard")
    }
}

fn seen(error: CudaError) -> AcceleratorError {
    AcceleratorError::Failed(Box::new(error))
}

impl Accelerator for Emulated {
    fn name(&self) -> &str {
        "emulation"
    }

    fn load(&self, _: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError> {
        Err(AcceleratorError::Unsupported("scoring".into()))
    }

    fn learner(
        &self,
        model: &Model,
        moments: &Moments,
        options: &LearnerOptions,
    ) -> Result<Box<dyn Seam>, AcceleratorError> {
        let driver = Arc::new(Emulation::default());
        Ok(Box::new(OnCard(Learner::new(&driver, model, moments, options).map_err(seen)?)))
    }
}

impl Seam for OnCard {
    fn gradient(&mut self, batch: &StagedBatch, seed: Option<u64>) -> Result<f64, AcceleratorError> {
        self.0.gradient(batch, seed).map_err(seen)
    }
    fn norm(&mut self) -> Result<f64, AcceleratorError> {
        self.0.norm().map_err(seen)
    }
    fn update(&mut self, step: AdamStep) -> Result<(), AcceleratorError> {
        self.0.update(step).map_err(seen)
    }
    fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), AcceleratorError> {
        self.0.read(model, moments).map_err(seen)
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        batch_rows: 60,
        epochs: 4,
        learning_rate: 0.01,
        list_weight: 0.5,
        negative_rate: 0.8,
        save_seconds: 0,
        threads: 1,
        ..TrainConfig::default()
    }
}

/// Trains to the end, stopping after `stop` steps and going on from the saved state where that is given.
fn run(
    place: Place<'_>,
    model: &ModelConfig,
    config: &TrainConfig,
    stop: Option<u64>,
) -> (Model, TrainReport) {
    let dataset = dataset();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let once = |stop: Option<u64>| {
        let progress = &mut |p: &lately_train::Progress| match stop == Some(p.step) {
            true => Control::Stop,
            false => Control::Continue,
        };
        train_on(place, &dataset.all(), model, config, Some(&state), progress).unwrap()
    };
    if stop.is_some() {
        assert!(matches!(once(stop), Outcome::Stopped { .. }));
    }
    match once(None) {
        Outcome::Finished { model, report } => (*model, report),
        other => panic!("it did not finish: {other:?}"),
    }
}

const CARD: Place<'_> = Place::Device { accelerator: &Emulated, group: None };

#[test]
fn a_run_on_the_card_is_the_run_on_the_cpu() {
    if compiler().is_none() {
        return;
    }
    // Without dropout, whose masks the two number differently.
    let model = ModelConfig { dropout: 0.0, ..tiny() };
    let (on_cpu, want) = run(Place::Cpu, &model, &config(), None);
    let (on_card, got) = run(CARD, &model, &config(), None);
    assert_eq!((got.steps, got.rows), (want.steps, want.rows));
    assert!(
        got.steps >= 10 && want.loss[want.loss.len() - 1] < 0.8 * want.loss[0],
        "it learns: {:?}",
        want.loss
    );
    for (step, (got, want)) in got.loss.iter().zip(&want.loss).enumerate() {
        assert!((got - want).abs() < 2e-3 * want, "step {step}: loss {got} instead of {want}");
    }
    assert_eq!(on_card.normaliser(), on_cpu.normaliser());
    assert_eq!(on_card.admission(), on_cpu.admission());
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes_and_bf16_learns_too() {
    if compiler().is_none() {
        return;
    }
    let config = TrainConfig { epochs: 2, precision: Precision::Bf16, ..config() };
    let model = tiny();
    let (whole, report) = run(CARD, &model, &config, None);
    let (resumed, again) = run(CARD, &model, &config, Some(2));
    assert_eq!(again.resumed_at, 2);
    assert_eq!(again.loss, report.loss, "to the bit, dropout and all");
    assert!(whole.parameters() == resumed.parameters(), "the same weights to the bit");
    assert!(report.loss[report.loss.len() - 1] < report.loss[0], "{:?}", report.loss);
}

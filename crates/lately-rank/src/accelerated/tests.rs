//! A device for tests, which scores by the CPU's engine in bf16 or goes wrong in every way that the seam allows.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use lately_model::training::{Learner, LearnerOptions, Moments};
use lately_model::{Engine, EngineMemory, Golden, checkpoint};

use super::*;
use crate::model_slot::{LoadedModel, ModelSlot, SwapError};
use crate::ranker::tests::{model, schema};

/// What the device does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    Right,
    Fails,
    Panics,
    NotFinite,
    TooFew,
    /// Scores that order otherwise.
    Wrong,
    /// Takes no model.
    Unsupported,
}

/// The device; models loaded on it do what it does at the time.
#[derive(Debug)]
pub(crate) struct Card {
    does: Arc<Mutex<Does>>,
    /// Calls of all its models, the checks at loading included.
    pub(crate) calls: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct OnCard {
    engine: Engine,
    does: Arc<Mutex<Does>>,
    calls: Arc<AtomicUsize>,
}

impl Card {
    pub(crate) fn new(does: Does) -> Arc<Self> {
        Arc::new(Self { does: Arc::new(Mutex::new(does)), calls: Arc::default() })
    }

    pub(crate) fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Accelerator for Card {
    fn name(&self) -> &str {
        "card:0"
    }

    fn load(&self, model: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError> {
        if *self.does.lock().unwrap() == Does::Unsupported {
            return Err(AcceleratorError::Unsupported("an encoder of this kind".to_owned()));
        }
        let engine = Engine::new(Arc::clone(model), ServingPrecision::Bf16);
        let (does, calls) = (Arc::clone(&self.does), Arc::clone(&self.calls));
        Ok(Box::new(OnCard { engine, does, calls }))
    }

    fn learner(
        &self,
        _: &Model,
        _: &Moments,
        _: &LearnerOptions,
    ) -> Result<Box<dyn Learner>, AcceleratorError> {
        Err(AcceleratorError::Unsupported("training".to_owned()))
    }
}

impl Scorer for OnCard {
    fn precision(&self) -> ServingPrecision {
        ServingPrecision::Bf16
    }

    fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, AcceleratorError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut logits = self.engine.score(batch, &mut EngineMemory::default())?;
        let does = *self.does.lock().unwrap_or_else(PoisonError::into_inner);
        match does {
            Does::Right | Does::Unsupported => {}
            Does::Fails => return Err(AcceleratorError::Failed("the launch failed".into())),
            Does::Panics => panic!("as bindings do where a library is missing"),
            Does::NotFinite => logits[0] = f32::NAN,
            Does::TooFew => drop(logits.pop()),
            Does::Wrong => logits.reverse(),
        }
        Ok(logits)
    }
}

pub(crate) fn slot(card: &Arc<Card>, required: bool) -> ModelSlot {
    ModelSlot::new(Arc::new(schema())).with_accelerator(Arc::clone(card) as Arc<dyn Accelerator>, required)
}

fn told(slot: &ModelSlot) -> (String, &'static str, String) {
    let summary = slot.current().unwrap().summary();
    (summary.version, summary.precision, summary.device)
}

#[test]
fn a_model_that_the_device_scores_rightly_serves_on_it() {
    for required in [false, true] {
        let card = Card::new(Does::Right);
        let slot = slot(&card, required);
        slot.swap(model(1)).unwrap();
        assert_eq!(told(&slot), ("m1".to_owned(), "bf16", "card:0".to_owned()));
        assert_eq!(card.calls(), 1, "the invented rows");
    }
}

#[test]
fn golden_rows_are_scored_on_the_device_too() {
    let loaded = model(5);
    let golden = Golden::new(loaded.model(), crate::agreement::probe(&schema())).unwrap();
    let bytes = checkpoint::to_bytes_with(loaded.model(), loaded.manifest(), Some(&golden)).unwrap();
    let card = Card::new(Does::Right);
    slot(&card, true).swap_bytes("v", &bytes).unwrap();
    assert_eq!(card.calls(), 2);
}

#[test]
fn what_does_not_pass_on_the_device_serves_from_the_cpu_or_is_refused() {
    let wrong = [
        (Does::Fails, "the launch failed"),
        (Does::Panics, "it panicked"),
        (Does::NotFinite, "1 of its logits are not finite"),
        (Does::TooFew, "it gave 2399 logits instead of 2400"),
        (Does::Wrong, "its probabilities differ from those of the CPU in f32"),
        (Does::Unsupported, "it has no kernels for an encoder of this kind"),
    ];
    for (does, reason) in wrong {
        let card = Card::new(does);
        let auto = slot(&card, false);
        auto.swap(model(1)).unwrap();
        assert_eq!(told(&auto), ("m1".to_owned(), "f32", "cpu".to_owned()), "{does:?}");

        card.now(Does::Right);
        let required = slot(&card, true);
        required.swap(model(1)).unwrap();
        card.now(does);
        let refused: Result<u64, SwapError> = required.swap(model(2));
        let Err(SwapError::Device { version, device, reason: why }) = &refused else {
            panic!("{does:?}: {refused:?}")
        };
        assert_eq!((version.as_str(), device.as_str()), ("m2", "card:0"));
        assert!(why.contains(reason), "{does:?}: {why}");
        assert!(refused.unwrap_err().to_string().contains("set [rank] device to cpu, or to auto"));
        assert_eq!(told(&required).0, "m1", "the last good model stays");
    }
}

#[test]
fn a_device_that_is_given_up_is_asked_again_by_the_next_model() {
    let card = Card::new(Does::Right);
    let slot = slot(&card, false);
    slot.swap(model(1)).unwrap();
    let served: Arc<LoadedModel> = slot.current().unwrap();
    let device = served.accelerated().unwrap();
    for _ in 0..2 {
        device.failed(&AcceleratorError::Failed("once".into()));
    }
    let batch = crate::agreement::probe(&schema());
    assert!(device.score(&batch).unwrap().is_ok(), "two in a row are not enough");
    for failures in 1..=3 {
        assert!(served.on_device(), "before failure {failures}");
        device.failed(&AcceleratorError::NotFinite { count: 1 });
    }
    assert!(!served.on_device() && device.score(&batch).is_none());
    assert_eq!(told(&slot), ("m1".to_owned(), "f32", "cpu".to_owned()));
    slot.swap(model(2)).unwrap();
    assert_eq!(told(&slot), ("m2".to_owned(), "bf16", "card:0".to_owned()));
}

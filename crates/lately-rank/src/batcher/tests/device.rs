//! Calls to a device, and what is answered where it fails.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::accelerated::tests::{Card, Does, slot};

/// A model on a card.
fn on_card() -> (Arc<Card>, Arc<LoadedModel>) {
    let card = Card::new(Does::Right);
    let slot = slot(&card, true);
    slot.swap(model(1)).unwrap();
    (card, slot.current().unwrap())
}

/// Logits of pieces that are scored in one call on this thread, and the metrics of that.
fn call(pieces: &[line::Piece<Arc<Request>>]) -> (Vec<Result<Vec<f32>, ScoreError>>, String) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let mut memory = worker::Memory::new(Arc::new(PartCache::new(1 << 20)));
    metrics::with_local_recorder(&recorder, || memory.score_all(pieces, |_| {}));
    let answers = pieces.iter().map(|p| p.load.wait().map(|a| a.logits)).collect();
    (answers, recorder.handle().render())
}

/// What the CPU gives in f32, and the card in bf16.
fn both(work: &Work) -> [Vec<f32>; 2] {
    let on = |precision| {
        let mut batch = FeatureBatch::default();
        let candidates = work.candidates.iter().map(Option::as_deref);
        assemble(&mut batch, &work.assembler, &work.context, None, &work.tokens, candidates);
        let engine = lately_model::Engine::new(Arc::clone(work.model.engine().model()), precision);
        engine.score(&batch, &mut EngineMemory::default()).unwrap()
    };
    [lately_model::ServingPrecision::F32, lately_model::ServingPrecision::Bf16].map(on)
}

#[test]
fn the_device_answers_several_requests_in_one_call() {
    let (card, model) = on_card();
    let works =
        || [(1, 5, 3), (2, 40, 8), (3, 7, 0)].map(|(seed, rows, tokens)| work(&model, seed, rows, tokens));
    let before = card.calls();
    let (answers, metrics) = call(&works().map(piece));
    assert_eq!(card.calls(), before + 1);
    for (answer, work) in answers.into_iter().zip(works()) {
        let [cpu, device] = both(&work);
        assert_ne!(cpu, device, "the test must tell them apart");
        assert_eq!(answer.unwrap(), device);
    }
    assert!(metrics.contains("lately_accelerator_calls_total 1"), "{metrics}");
    assert!(!metrics.contains("fallbacks"), "{metrics}");
}

#[test]
fn what_the_device_fails_on_the_cpu_answers_and_it_is_counted_by_reason() {
    let ways = [
        (Does::Fails, "failed"),
        (Does::Panics, "failed"),
        (Does::NotFinite, "not_finite"),
        (Does::TooFew, "length"),
    ];
    for (does, reason) in ways {
        let (card, model) = on_card();
        card.now(does);
        let before = card.calls();
        for round in 0..5 {
            let (answers, metrics) = call(&[piece(work(&model, round, 20, 3))]);
            assert_eq!(answers, [Ok(alone(&work(&model, round, 20, 3)))], "{does:?}");
            let reason = if round < 3 { reason } else { "given_up" };
            let counted = format!("lately_accelerator_fallbacks_total{{reason=\"{reason}\"}} 1");
            assert!(metrics.contains(&counted), "{does:?}: {metrics}");
        }
        assert_eq!(card.calls(), before + 3, "then it is asked no more");
    }
}

#[test]
fn a_request_that_no_engine_takes_is_no_failure_of_the_device() {
    let (_, model) = on_card();
    for round in 0..4 {
        let mut bad = work(&model, round, 5, 3);
        let mut item = item_features("t", [0.0, 1.0]);
        item.embedding = [f32::INFINITY, 0.0].into(); // refused at the door of events
        bad.tokens[0].item = Some(Arc::new(item));
        let good = || work(&model, round + 10, 5, 3);
        let (mut answers, metrics) = call(&[piece(bad), piece(good())]);
        assert_eq!(answers.pop().unwrap().unwrap(), both(&good())[1]);
        let refused = answers.pop().unwrap().unwrap_err();
        assert!(matches!(&refused, ScoreError::Model(why) if why.contains("finite")), "{refused}");
        assert!(!metrics.contains("fallbacks"), "{metrics}");
    }
    assert!(model.on_device());
}

#[test]
fn a_large_request_goes_to_the_device_in_one_call_whatever_the_threads() {
    let (card, model) = on_card();
    let batcher = Batcher::start(&config(4)).unwrap();
    let ask = || work(&model, 1, 700, 8);
    let before = card.calls();
    assert_eq!(batcher.score(&Arc::new(ask()), soon()).unwrap().logits, both(&ask())[1]);
    assert_eq!(card.calls(), before + 1);
    card.now(Does::Fails);
    for _ in 0..4 {
        assert_eq!(batcher.score(&Arc::new(ask()), soon()).unwrap().logits, alone(&ask()));
    }
    assert_eq!(card.calls(), before + 4, "given up, and the CPU's threads share it again");
}

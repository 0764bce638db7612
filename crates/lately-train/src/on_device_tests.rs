//! A device that notes what it is told, and whose weights follow from the batches that it was given: the course of a run is
//! looked at, not a gradient.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::dataset::Dataset;
use crate::examples::Examples;
use crate::fixtures::{quick, small, world};
use crate::memory::Memory;
use crate::sampler::Epoch;
use crate::state::StateError;
use crate::trainer::{Control, Outcome, Progress, TrainReport, train, train_on};
use crate::{Place, TrainConfig};
use lately_model::training::{Moments, StagedBatch};
use lately_model::{AdamStep, Encoder, Model, Scorer};

/// What a learner was told, a line each.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Did {
    /// A gradient of so many rows, with this mark of batch and seed.
    Gradient(usize, u64),
    Norm,
    Update,
    Read,
}

/// What goes wrong, and at which call of its kind, from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Never,
    Load,
    Gradient(usize),
    Update(usize),
    Read(usize),
    Infinite(usize),
}

#[derive(Debug)]
struct Recorder {
    name: &'static str,
    fault: Fault,
    did: Arc<Mutex<Vec<Did>>>,
}

impl Recorder {
    fn new(fault: Fault) -> Self {
        Self { name: "recorder", fault, did: Arc::default() }
    }

    fn did(&self) -> Vec<Did> {
        self.did.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct Recording {
    weights: Vec<Vec<f32>>,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    mark: u64,
    fault: Fault,
    did: Arc<Mutex<Vec<Did>>>,
}

impl Recording {
    /// Notes it; fails where it is the one of its kind that goes wrong.
    fn note(&self, what: Did, fault: fn(usize) -> Fault) -> Result<(), AcceleratorError> {
        let mut did = self.did.lock().unwrap();
        let kind = std::mem::discriminant(&what);
        let before = did.iter().filter(|d| std::mem::discriminant(*d) == kind).count();
        did.push(what);
        if self.fault == fault(before) {
            return Err(AcceleratorError::Failed("it fell from the bus".into()));
        }
        Ok(())
    }
}

impl Accelerator for Recorder {
    fn name(&self) -> &str {
        self.name
    }

    fn load(&self, _: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError> {
        Err(AcceleratorError::Unsupported("scoring".into()))
    }

    fn learner(
        &self,
        model: &Model,
        moments: &Moments,
        _: &LearnerOptions,
    ) -> Result<Box<dyn Learner>, AcceleratorError> {
        if self.fault == Fault::Load {
            return Err(AcceleratorError::Unsupported("this encoder".into()));
        }
        Ok(Box::new(Recording {
            weights: model.parameters().iter().map(|p| p.data.clone()).collect(),
            moments: moments.to_vec(),
            mark: 0,
            fault: self.fault,
            did: Arc::clone(&self.did),
        }))
    }
}

impl Learner for Recording {
    fn gradient(&mut self, batch: &StagedBatch, seed: Option<u64>) -> Result<f64, AcceleratorError> {
        self.mark = xxhash_rust::xxh3::xxh3_64(format!("{batch:?} {seed:?}").as_bytes());
        let did = Did::Gradient(batch.rows(), self.mark);
        self.note(did, Fault::Gradient)?;
        let gradients = self.did.lock().unwrap().iter().filter(|d| matches!(d, Did::Gradient(..))).count();
        let infinite = self.fault == Fault::Infinite(gradients - 1);
        Ok(if infinite { f64::INFINITY } else { (self.mark % 1000) as f64 })
    }

    fn norm(&mut self) -> Result<f64, AcceleratorError> {
        self.did.lock().unwrap().push(Did::Norm);
        Ok(1.0)
    }

    fn update(&mut self, _: AdamStep) -> Result<(), AcceleratorError> {
        self.note(Did::Update, Fault::Update)?;
        // Depends on all batches so far, in their order.
        let (w, m) = (&mut self.weights[0][0], &mut self.moments[0].0[0]);
        *m = 0.9 * *m + (self.mark % 97) as f32;
        *w += 1e-3 * *m;
        Ok(())
    }

    fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), AcceleratorError> {
        let fails = self.note(Did::Read, Fault::Read);
        for ((_, data), weights) in model.parameters_mut().zip(&self.weights) {
            data.copy_from_slice(weights);
        }
        fails?; // with a part of it copied
        moments.clone_from_slice(&self.moments);
        Ok(())
    }
}

fn go(
    recorder: &Recorder,
    (rank, size): (usize, usize),
    d: &Dataset,
    config: &TrainConfig,
    (state, stop): (Option<&Path>, u64),
) -> Result<Outcome, TrainError> {
    let group = (size > 1).then(|| Group { rank, size, meeting: "127.0.0.1:1".into() });
    let place = Place::Device { accelerator: recorder, group: group.as_ref() };
    let progress = &mut |p: &Progress| if p.step == stop { Control::Stop } else { Control::Continue };
    train_on(place, &d.all(), &small(Encoder::Transact), config, state, progress)
}

fn finish(
    recorder: &Recorder,
    d: &Dataset,
    config: &TrainConfig,
    state: Option<&Path>,
) -> (Model, TrainReport) {
    match go(recorder, (0, 1), d, config, (state, 0)).unwrap() {
        Outcome::Finished { model, report } => (*model, report),
        other => panic!("{other:?}"),
    }
}

fn weights(model: &Model) -> Vec<f32> {
    model.parameters().iter().flat_map(|p| p.data.iter().copied()).collect()
}

fn config() -> TrainConfig {
    TrainConfig { epochs: 2, list_weight: 0.5, save_seconds: 3600, ..quick() }
}

#[test]
fn weights_are_read_at_the_end_and_before_each_save_and_never_else() {
    let d = world(60, 4);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let step = [None, Some(Did::Norm), Some(Did::Update)];
    let steps = |did: &[Did]| -> Vec<Option<Did>> {
        did.iter().map(|d| if matches!(d, Did::Gradient(..)) { None } else { Some(*d) }).collect()
    };
    for state in [None, Some(path.as_path())] {
        let recorder = Recorder::new(Fault::Never);
        let (_, report) = finish(&recorder, &d, &config(), state);
        assert_eq!((report.steps, report.device.as_str()), (10, "recorder"));
        let want = step.iter().copied().cycle().take(30).chain([Some(Did::Read)]).collect::<Vec<_>>();
        assert_eq!(steps(&recorder.did()), want);
    }
    std::fs::remove_file(&path).unwrap();
    let each = Recorder::new(Fault::Never);
    finish(&each, &d, &TrainConfig { save_seconds: 0, clip_norm: 0.0, ..config() }, Some(&path));
    let step = [None, Some(Did::Update), Some(Did::Read)];
    let want = step.iter().copied().cycle().take(30).chain([Some(Did::Read)]).collect::<Vec<_>>();
    assert_eq!(steps(&each.did()), want, "after each step, and no norm where nothing is clipped");
    // Without a file a stop has nothing to save.
    let stopped = Recorder::new(Fault::Never);
    let outcome = go(&stopped, (0, 1), &d, &config(), (None, 3)).unwrap();
    assert!(matches!(outcome, Outcome::Stopped { step: 3 }));
    assert!(!stopped.did().contains(&Did::Read));
}

#[test]
fn batches_come_in_the_order_of_the_course_by_any_number_of_threads() {
    let d = world(60, 4);
    let marks = |threads| {
        let recorder = Recorder::new(Fault::Never);
        let (model, _) = finish(&recorder, &d, &TrainConfig { threads, ..config() }, None);
        (recorder.did(), weights(&model))
    };
    let want = marks(1);
    for threads in [1, 3, 3] {
        assert_eq!(marks(threads), want);
    }
    let gradients =
        want.0.iter().filter_map(|d| if let Did::Gradient(_, mark) = d { Some(*mark) } else { None });
    let mut gradients: Vec<u64> = gradients.collect();
    assert_eq!(gradients.len(), 10);
    // Made one by one, without a thread: the very batches and seeds.
    let (slice, config) = (d.all(), config());
    let examples = Examples::new(&slice, &config).unwrap();
    let course = Course::new(&examples);
    let model = finish(&Recorder::new(Fault::Never), &d, &config, None).0;
    let mut maker = Maker::new(&course, Member::ALONE, Stager::new(&model, 1)).unwrap();
    let mut batches = course.from(0);
    for (step, mark) in gradients.iter().enumerate() {
        let (order, batch) = batches.next().unwrap();
        let ready = maker.make(order, batch).unwrap();
        let seed = Some(dropout_seed(&config, step as u64, Member::ALONE));
        assert_eq!(xxhash_rust::xxh3::xxh3_64(format!("{:?} {seed:?}", ready.staged).as_bytes()), *mark);
    }
    assert!(batches.next().is_none());
    gradients.sort_unstable();
    gradients.dedup();
    assert_eq!(gradients.len(), 10, "no batch comes twice");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_weights() {
    let d = world(60, 4);
    let dir = tempfile::tempdir().unwrap();
    let (whole, report) = finish(&Recorder::new(Fault::Never), &d, &config(), None);
    for stop in [1, 5, 9] {
        let path = dir.path().join(stop.to_string());
        let stopped = Recorder::new(Fault::Never);
        let outcome = go(&stopped, (0, 1), &d, &config(), (Some(&path), stop)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped { step } if step == stop));
        assert_eq!(stopped.did().iter().filter(|d| **d == Did::Read).count(), 1);
        let (model, resumed) = finish(&Recorder::new(Fault::Never), &d, &config(), Some(&path));
        assert_eq!((resumed.resumed_at, &resumed.loss), (stop, &report.loss));
        assert_eq!(weights(&model), weights(&whole));
    }
    // It is another run's on the CPU, on another card, and in a group.
    let path = dir.path().join("5");
    let on_cpu =
        train(&d.all(), &small(Encoder::Transact), &config(), Some(&path), &mut |_| Control::Continue);
    let other = Recorder { name: "another", ..Recorder::new(Fault::Never) };
    let on_other = go(&other, (0, 1), &d, &config(), (Some(&path), 0));
    let in_group = go(&Recorder::new(Fault::Never), (0, 2), &d, &config(), (Some(&path), 0));
    for refused in [on_cpu, on_other, in_group] {
        assert!(matches!(refused, Err(TrainError::State(StateError::OtherRun(_)))), "{refused:?}");
    }
}

#[test]
fn a_device_that_fails_ends_the_run_with_the_last_saved_state() {
    let d = world(60, 4);
    let config = TrainConfig { save_seconds: 0, ..config() };
    let (whole, _) = finish(&Recorder::new(Fault::Never), &d, &config, None);
    let dir = tempfile::tempdir().unwrap();
    // A read that fails comes after its step.
    for (n, (fault, step)) in
        [(Fault::Gradient(6), 6), (Fault::Update(6), 6), (Fault::Read(6), 7)].iter().enumerate()
    {
        let path = dir.path().join(n.to_string());
        let error = go(&Recorder::new(*fault), (0, 1), &d, &config, (Some(&path), 0)).unwrap_err();
        let TrainError::Device { step: at, saved, .. } = &error else { panic!("{error}") };
        assert_eq!((*at, *saved), (*step, Some(6)), "{fault:?}");
        let text = error.to_string();
        assert!(text.contains("recorder failed at step") && text.contains("it fell from the bus"), "{text}");
        assert!(text.contains("the state of step 6 is kept") && text.contains("--device cpu"), "{text}");
        let (model, report) = finish(&Recorder::new(Fault::Never), &d, &config, Some(&path));
        assert_eq!((report.resumed_at, weights(&model)), (6, weights(&whole)), "{fault:?}");
    }
    let error = go(&Recorder::new(Fault::Gradient(2)), (0, 1), &d, &config, (None, 0)).unwrap_err();
    assert!(matches!(error, TrainError::Device { step: 2, saved: None, .. }), "{error}");
    let infinite = go(&Recorder::new(Fault::Infinite(4)), (0, 1), &d, &config, (None, 0)).unwrap_err();
    assert!(matches!(infinite, TrainError::Diverged(4)), "{infinite}");
    let unsupported = go(&Recorder::new(Fault::Load), (0, 1), &d, &config, (None, 0)).unwrap_err();
    assert!(matches!(&unsupported, TrainError::Unsupported { what, .. } if what == "this encoder"));
}

#[test]
fn members_take_every_row_of_a_batch_once_and_the_first_alone_saves() {
    let d = world(60, 4);
    let config = TrainConfig { negative_rate: 0.7, ..config() };
    let slice = d.all();
    let examples = Examples::new(&slice, &config).unwrap();
    let course = Course::new(&examples);
    let model = finish(&Recorder::new(Fault::Never), &d, &config, None).0;
    let maker = |rank, size| Maker::new(&course, Member { rank, size }, Stager::new(&model, 1)).unwrap();
    let order = Epoch::new(&examples, 1);
    // More members than a batch has groups: some have none.
    for size in [2, 3, 40] {
        for batch in &order.batches {
            let mut alone = maker(0, 1);
            let whole = alone.make(&order, batch.clone()).unwrap();
            let (mut rows, mut labels, mut weights) = (0, Vec::new(), Vec::new());
            for rank in 0..size {
                let mut member = maker(rank, size);
                let ready = member.make(&order, batch.clone()).unwrap();
                assert_eq!((ready.rows, ready.epoch), (whole.rows, 1), "they tell of the whole batch");
                rows += ready.staged.rows() as u64;
                labels.extend_from_slice(&member.part.batch.label);
                weights.extend_from_slice(&member.part.weights);
            }
            assert_eq!(rows, whole.rows);
            assert!(labels == alone.part.batch.label && weights == alone.part.weights, "in order, each once");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seeds = Vec::new();
    for rank in 0..2 {
        let path = dir.path().join(rank.to_string());
        let recorder = Recorder::new(Fault::Never);
        let outcome = go(&recorder, (rank, 2), &d, &config, (Some(&path), 0)).unwrap();
        let reads = recorder.did().iter().filter(|d| **d == Did::Read).count();
        match outcome {
            Outcome::Finished { report, .. } => assert_eq!((rank, reads, report.steps), (0, 1, course.steps)),
            Outcome::Followed { steps } => assert_eq!((rank, reads, steps), (1, 0, course.steps)),
            Outcome::Stopped { .. } => panic!("nobody stopped it"),
        }
        assert_eq!(path.exists(), rank == 0);
        seeds.push(dropout_seed(&config, 3, Member { rank, size: 2 }));
    }
    assert_ne!(seeds[0], seeds[1], "they drop other activations");
    let none = go(&Recorder::new(Fault::Never), (2, 2), &d, &config, (None, 0)).unwrap_err();
    assert!(matches!(none, TrainError::Member { rank: 2, size: 2 }), "{none}");
}

#[test]
fn a_bound_on_memory_holds_for_what_the_host_keeps() {
    let d = world(60, 4);
    let free = config();
    let slice = d.all();
    let examples = Examples::new(&slice, &free).unwrap();
    let course = Course::new(&examples);
    let model = finish(&Recorder::new(Fault::Never), &d, &free, None).0;
    let mut maker = Maker::new(&course, Member::ALONE, Stager::new(&model, 1)).unwrap();
    let least = Memory::beside_device(&model, &examples, &mut maker).unwrap();
    let on_cpu = Memory::measure(&model, &examples).unwrap();
    assert!(least.step > 0 && least.gradient == 0 && least.total() < on_cpu.total(), "{least:?} {on_cpu:?}");
    let bound = |memory_bytes| TrainConfig { memory_bytes, ..config() };
    let (tight, _) = finish(&Recorder::new(Fault::Never), &d, &bound(least.total()), None);
    assert_eq!(weights(&tight), weights(&model));
    let refused =
        go(&Recorder::new(Fault::Never), (0, 1), &d, &bound(least.total() - 1), (None, 0)).unwrap_err();
    assert!(matches!(refused, TrainError::Memory { .. }), "{refused}");
}

use std::sync::Arc;

use lately_model::training::{Learner, LearnerOptions, Moments, StagedBatch};
use lately_model::{Accelerator, AcceleratorError, AdamStep, Scorer};
use lately_train::{Dataset, JoinOptions, join_store};

use super::*;
use crate::data_dir::DataDir;
use crate::world::{SCHEMA, World, WorldConfig};

/// A device that learns nothing, for so many steps; with none it has no kernels.
#[derive(Debug, Clone)]
struct Feeble(u32);

impl Accelerator for Feeble {
    fn name(&self) -> &str {
        "feeble:0"
    }

    fn load(&self, _: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError> {
        Err(AcceleratorError::Unsupported("scoring".into()))
    }

    fn learner(
        &self,
        _: &Model,
        _: &Moments,
        _: &LearnerOptions,
    ) -> Result<Box<dyn Learner>, AcceleratorError> {
        if self.0 == 0 {
            return Err(AcceleratorError::Unsupported("such a model".into()));
        }
        Ok(Box::new(self.clone()))
    }
}

impl Learner for Feeble {
    fn gradient(&mut self, _: &StagedBatch, _: Option<u64>) -> Result<f64, AcceleratorError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| AcceleratorError::Failed("it is worn out".into()))?;
        Ok(0.5)
    }

    fn norm(&mut self) -> Result<f64, AcceleratorError> {
        Ok(1.0)
    }

    fn update(&mut self, _: AdamStep) -> Result<(), AcceleratorError> {
        Ok(())
    }

    fn read(&mut self, _: &mut Model, _: &mut Moments) -> Result<(), AcceleratorError> {
        Ok(())
    }
}

fn rows(path: &Path) -> Dataset {
    let dir = DataDir::create(path, &format!("[schema]\n{SCHEMA}")).unwrap();
    let store = dir.store().unwrap();
    let config = WorldConfig { users: 10, items: 32, topics: 4, seed: 3, ..WorldConfig::default() };
    let (world, end_ms) = (World::new(config).unwrap(), 1_767_398_400_000);
    let before = end_ms - 2 * 86_400_000;
    for events in [world.items(before), world.users(before), world.bootstrap(2, end_ms).unwrap()] {
        store.append(events).unwrap();
    }
    join_store(&store, &dir.schema, JoinOptions::default()).unwrap()
}

/// A plan on a device, and the same on the CPU.
fn plans(device: Feeble, demanded: bool, state: Option<&Path>) -> [Plan<'_>; 2] {
    let on_cpu = Plan {
        model: ModelConfig { cross_width: 16, hidden: vec![8], ..ModelConfig::default() },
        train: TrainConfig { batch_rows: 64, save_seconds: 0, ..TrainConfig::default() },
        device: TrainingDevice::default(),
        start: None,
        parent: None,
        state,
    };
    let device = TrainingDevice::of_test(Arc::new(device), demanded);
    [Plan { device, ..on_cpu.clone() }, on_cpu]
}

#[test]
fn the_cpu_trains_what_a_device_cannot_unless_the_device_is_demanded() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = rows(dir.path());
    let [auto, on_cpu] = plans(Feeble(0), false, None);
    let mut began = Vec::new();
    let trained =
        learn_together(&dataset.all(), &auto, false, &mut |device| began.push(device.to_owned())).unwrap();
    let trained = trained.unwrap();
    assert_eq!((began, trained.report.device.as_str()), (vec!["cpu".to_owned()], "cpu"));
    let same = learn(&dataset.all(), &on_cpu, false).unwrap();
    assert_eq!(trained.report.loss, same.report.loss, "as if none had been asked for");
    let [demanded, _] = plans(Feeble(0), true, None);
    let refused = learn(&dataset.all(), &demanded, false).unwrap_err().to_string();
    assert!(refused.contains("feeble:0 has no kernels for such a model"), "{refused}");
}

#[test]
fn a_run_on_a_device_keeps_a_state_of_its_own_which_a_run_on_the_cpu_leaves_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = rows(dir.path());
    let (state, own) = (dir.path().join("a.state"), dir.path().join("a.device.state"));
    let [worn, on_cpu] = plans(Feeble(3), false, Some(&state));
    // It may fall back on a model that it does not know, not in the middle of a run.
    let failed = learn(&dataset.all(), &worn, false).unwrap_err().to_string();
    assert!(failed.contains("feeble:0 failed at step 3: it is worn out"), "{failed}");
    assert!(failed.contains("the state of step 3 is kept"), "{failed}");
    assert!(own.exists() && !state.exists());
    let trained = learn(&dataset.all(), &on_cpu, false).unwrap();
    assert_eq!((trained.report.resumed_at, trained.report.device.as_str()), (0, "cpu"));
    assert!(own.exists() && state.exists());
    trained.done().unwrap();
    assert!(own.exists() && !state.exists());
    let [strong, _] = plans(Feeble(u32::MAX), false, Some(&state));
    let trained = learn(&dataset.all(), &strong, false).unwrap();
    assert_eq!((trained.report.resumed_at, trained.report.device.as_str()), (3, "feeble:0"));
    trained.done().unwrap();
    assert!(!own.exists());
}

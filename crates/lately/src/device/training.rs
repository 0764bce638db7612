//! The device that a process trains on.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use lately_model::Accelerator;
use lately_model::training::Group;
use lately_train::{Place, TrainDevice};

use super::{Asked, Seat, open};

/// On what a process trains, opened. Default: the CPU.
#[derive(Debug, Clone, Default)]
pub struct TrainingDevice {
    accelerator: Option<Arc<dyn Accelerator>>,
    /// Whether a model that it has no kernels for is refused, and not trained on the CPU.
    demanded: bool,
    group: Option<Group>,
}

impl TrainingDevice {
    /// What `[train] device` asks for, for this process alone.
    ///
    /// # Errors
    /// Where CUDA is demanded and is not there, with what is missing.
    pub fn open(asked: TrainDevice) -> Result<Self> {
        Self::at(asked, Seat::ALONE)
    }

    /// The same for a process that may be one of several.
    ///
    /// # Errors
    /// Also where there are several and no device for this one.
    pub(crate) fn at(asked: TrainDevice, seat: Seat) -> Result<Self> {
        let Seat { group, ordinal } = seat;
        let mut wanted = Asked::from(asked);
        let together = group.as_ref().map(|group| {
            format!("WORLD_SIZE is {}: several processes train together on CUDA devices alone", group.size)
        });
        if let Some(together) = &together {
            if wanted == Asked::Cpu {
                bail!("{together}: ask for --device cuda, or run one process");
            }
            wanted = Asked::Cuda;
        }
        let opened = open(wanted, ordinal, "training");
        let accelerator = match together {
            Some(together) => opened.context(together)?,
            None => opened?,
        };
        Ok(Self { accelerator, demanded: wanted == Asked::Cuda, group })
    }

    /// Where a model is trained.
    pub(crate) fn place(&self) -> Place<'_> {
        match &self.accelerator {
            None => Place::Cpu,
            Some(accelerator) => Place::Device { accelerator: &**accelerator, group: self.group.as_ref() },
        }
    }

    /// Whether the CPU may train what the device cannot.
    pub(crate) fn may_fall_back(&self) -> bool {
        self.accelerator.is_some() && !self.demanded
    }

    /// How many processes train together.
    pub(crate) fn members(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size)
    }

    /// Whether it is the process that tells, saves and publishes.
    pub(crate) fn leads(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.rank == 0)
    }

    /// A device of a test.
    #[cfg(test)]
    pub(crate) fn of_test(accelerator: Arc<dyn Accelerator>, demanded: bool) -> Self {
        Self { accelerator: Some(accelerator), demanded, group: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_do_not_train_on_the_cpu() {
        let group = Some(Group { rank: 1, size: 4, meeting: "a:1".into() });
        let refused = |asked| {
            TrainingDevice::at(asked, Seat { group: group.clone(), ordinal: 1 })
                .map(|d| d.place().name().to_owned())
        };
        let said = format!("{:#}", refused(TrainDevice::Cpu).unwrap_err());
        assert!(
            said.contains("WORLD_SIZE is 4") && said.contains("--device cuda, or run one process"),
            "{said}"
        );
        // Where there is a second card it is taken.
        match refused(TrainDevice::Auto) {
            Ok(name) => assert!(name.starts_with("cuda:1"), "{name}"),
            Err(error) => {
                let said = format!("{error:#}");
                assert!(
                    said.contains("WORLD_SIZE is 4") && said.contains("device cuda is asked for"),
                    "{said}"
                );
            }
        }
    }
}

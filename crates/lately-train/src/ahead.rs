//! Batches made ahead: while a device learns from one, a thread assembles and stages the next. Their order is that of the
//! course, whoever is faster.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use lately_model::training::{StagedBatch, Stager};

use crate::course::Course;
use crate::examples::Part;
use crate::place::Member;
use crate::sampler::Epoch;
use crate::trainer::TrainError;

/// Batches that wait for the device. One hides a batch that takes longer to make than its neighbours; more would only take
/// memory, as the device is waited for in the long run, or the thread is.
const WAITING: usize = 1;

/// Staged batches that exist at once: those that wait, the one that is being made and the one that is learned from.
pub(crate) const ALIVE: usize = WAITING + 2;

/// A batch that is ready to be learned from.
pub(crate) struct Ready {
    /// The member's part.
    pub(crate) staged: StagedBatch,
    /// Epoch of the batch.
    pub(crate) epoch: u64,
    /// Rows of the whole batch.
    pub(crate) rows: u64,
}

/// Assembles and stages batches.
pub(crate) struct Maker<'c> {
    course: &'c Course<'c>,
    member: Member,
    stager: Stager,
    /// For each head the weight of the list term.
    head_weight: Vec<f32>,
    pub(crate) part: Part,
}

impl<'c> Maker<'c> {
    pub(crate) fn new(course: &'c Course<'c>, member: Member, stager: Stager) -> Result<Self, TrainError> {
        let examples = course.examples;
        let head_weight = examples.config.list_head_weights(&examples.slice.dataset.schema)?;
        Ok(Self { course, member, stager, head_weight, part: Part::default() })
    }

    /// The member's part of a batch of an epoch. The loss is a mean over the whole one, so that members' losses add up to it.
    pub(crate) fn make(&mut self, order: &Epoch, batch: Range<usize>) -> Result<Ready, TrainError> {
        let size = order.size(&batch);
        let own = self.member.part(batch.clone().map(|group| order.size(&(group..group + 1)).rows));
        let groups = &order.groups[batch][own];
        self.course.examples.assemble(order.number, groups, 1.0 / size.stands_for, &mut self.part);
        let staged = self.stager.stage(&self.part.batch, &self.part.objective(&self.head_weight))?;
        Ok(Ready { staged, epoch: order.number, rows: size.rows as u64 })
    }
}

/// The batches that a thread makes.
pub(crate) struct Ahead<'s> {
    ready: Receiver<Result<Ready, TrainError>>,
    thread: Option<ScopedJoinHandle<'s, ()>>,
}

impl<'s> Ahead<'s> {
    /// Begins to make those from `step` on. The thread ends after the last one, after an error, and when this is dropped.
    pub(crate) fn start(scope: &'s Scope<'s, '_>, mut maker: Maker<'s>, step: u64) -> std::io::Result<Self> {
        let (send, ready) = sync_channel(WAITING);
        let make = move || {
            let mut batches = maker.course.from(step);
            while let Some((order, batch)) = batches.next() {
                let made = maker.make(order, batch);
                let failed = made.is_err();
                // Nobody takes it any more: the training has ended.
                if send.send(made).is_err() || failed {
                    return;
                }
            }
        };
        let thread = Builder::new().name("batches".to_owned()).spawn_scoped(scope, make)?;
        Ok(Self { ready, thread: Some(thread) })
    }

    /// The next one; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Ready>, TrainError> {
        if let Ok(made) = self.ready.recv() {
            return made.map(Some);
        }
        // Its end is the end of the course, unless it panicked.
        match self.thread.take().map(ScopedJoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => Ok(None),
        }
    }
}

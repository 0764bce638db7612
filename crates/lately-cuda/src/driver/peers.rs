//! A card's place among those of a group.
//!
//! NCCL alone would wait for ever for a member that is gone, as cards that reach into each other's memory see no difference
//! between a slow one and a dead one. So nothing here blocks in NCCL or in the driver: each wait also looks at the meeting's
//! connections, which end with their process, and has a limit for what shows in none of them.

#![allow(unsafe_code)] // calls of the driver

use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{self, CUdeviceptr, CUstream, cudaError_enum as Code};
use lately_model::training::Group;

use super::nccl::{Communicator, Nccl};
use crate::CudaError;
use crate::meeting::{Links, MeetingError, meet};

/// How long members may come one after another, as PyTorch's have by default.
const MEETING: Duration = Duration::from_secs(300);
const PATIENCE: Patience = Patience { busy: Duration::from_secs(600), gone: Duration::from_secs(5) };
/// Between two looks at the connections.
const LOOK: Duration = Duration::from_millis(100);
/// How long a wait only yields before it sleeps, and how long it then sleeps at a time: short beside a step of training. Not
/// measured on a card yet.
const EAGER: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_micros(50);

/// How long a member waits for the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While they are busy with something else, such as writing a state; as PyTorch's by default.
    pub(crate) busy: Duration,
    /// When one is gone: it may have come to its regular end, a moment before this one does.
    pub(crate) gone: Duration,
}

/// A card's place among those of a group; none after a failure.
pub(crate) struct Peers(Option<Connected>);

/// Dropped in this order: the others learn of it first, as the card's end may take longer.
struct Connected {
    links: Links,
    communicator: Communicator,
}

/// Joins with this thread's current card.
pub(crate) fn join(group: &Group) -> Result<Peers, CudaError> {
    // First, so that a machine without it is found out before anybody waits.
    let nccl = Nccl::get()?;
    let (ticket, links) = meet(group, MEETING, || nccl.ticket())?;
    let communicator = Communicator::start(nccl, group, &ticket)?;
    let connected = Connected { links, communicator };
    wait("connect", &connected.links, PATIENCE, || connected.communicator.settled())?;
    Ok(Peers(Some(connected)))
}

impl Peers {
    /// Adds up, and waits for it.
    ///
    /// # Safety
    /// The numbers are `words` f32 on the card that joined, which is current, as the stream is, and nobody else touches
    /// either meanwhile.
    pub(crate) unsafe fn add_up(
        &mut self,
        numbers: CUdeviceptr,
        words: usize,
        stream: CUstream,
    ) -> Result<(), CudaError> {
        let gone = || CudaError::Group { doing: "add up", reason: "they failed before".into() };
        // Put back at the end only: a failure leaves none, by which the others learn of it and the card stops.
        let mut connected = self.0.take().ok_or_else(gone)?;
        // SAFETY: the caller's promise; the wait below ends with the stream done, or the communicator is dropped, which ends
        // what it runs.
        unsafe { connected.communicator.add_up(numbers, words, stream) }?;
        wait("add up", &connected.links, PATIENCE, || {
            // Until it is settled the stream may look done, as nothing is in it.
            // SAFETY: the caller's stream.
            Ok(connected.communicator.settled()? && unsafe { done(stream) }?)
        })?;
        self.0 = Some(connected);
        Ok(())
    }
}

/// Whether a stream has done all that it was asked.
///
/// # Safety
/// The stream is there, and its card current.
unsafe fn done(stream: CUstream) -> Result<bool, CudaError> {
    // SAFETY: the caller's promise.
    match unsafe { sys::cuStreamQuery(stream) }.result() {
        Ok(()) => Ok(true),
        Err(DriverError(Code::CUDA_ERROR_NOT_READY)) => Ok(false),
        Err(e) => Err(CudaError::Driver { doing: "add up", reason: e.to_string() }),
    }
}

/// Waits until something is done, but not for a member that is gone, and not for ever.
pub(crate) fn wait(
    doing: &'static str,
    links: &Links,
    patience: Patience,
    mut done: impl FnMut() -> Result<bool, CudaError>,
) -> Result<(), CudaError> {
    let start = Instant::now();
    let mut looked = start;
    let mut gone = None;
    while !done()? {
        let now = Instant::now();
        if gone.is_none() && now - looked >= LOOK {
            looked = now;
            gone = links.gone().map(|rank| (rank, now));
        }
        if let Some((rank, since)) = gone
            && now - since >= patience.gone
        {
            return Err(MeetingError::Gone { rank }.into());
        }
        if now - start >= patience.busy {
            let reason = format!("not all did so within {:?}, though their processes run", patience.busy);
            return Err(CudaError::Group { doing, reason });
        }
        match now - start < EAGER {
            true => yield_now(),
            false => sleep(PAUSE),
        }
    }
    Ok(())
}

//! Times on a card, by events before and after what its streams are asked. Off unless asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, CudaStream};

use super::card::failed;
use crate::CudaError;

/// What a card did between two events on a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// `copy in`, `copy out`, `graph` (all kernels of a call that scores), `add up` (over several cards), or the name of one
    /// kernel.
    pub what: &'static str,
    /// From the event before to the event after, ms.
    pub milliseconds: f64,
}

/// Spans whose times nobody has asked for yet.
#[derive(Default)]
pub(crate) struct Times {
    on: AtomicBool,
    open: Mutex<Vec<(&'static str, CudaEvent, CudaEvent)>>,
}

impl Times {
    pub(crate) fn record(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Does what is queued on a stream by `work` between two events, where times are recorded.
    pub(crate) fn around<T>(
        &self,
        stream: &Arc<CudaStream>,
        what: &'static str,
        work: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        if !self.on.load(Ordering::Relaxed) {
            return work();
        }
        let event = || stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(failed("record an event"));
        let begin = event()?;
        let done = work()?;
        let end = event()?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push((what, begin, end));
        Ok(done)
    }

    /// All spans since the last call, in the order in which they were queued. Waits for the last of them.
    pub(crate) fn take(&self) -> Result<Vec<Span>, CudaError> {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let span = |(what, begin, end): (_, CudaEvent, CudaEvent)| {
            let milliseconds = begin.elapsed_ms(&end).map_err(failed("read the time between two events"))?;
            Ok(Span { what, milliseconds: f64::from(milliseconds) })
        };
        open.into_iter().map(span).collect()
    }
}

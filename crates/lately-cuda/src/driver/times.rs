//! Times on a card, by events before and after what its streams are asked. Off unless asked for.

#![allow(unsafe_code)] // a call of the driver

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUevent, CUevent_flags_enum::CU_EVENT_DEFAULT, CUresult};
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
        // What was queued must not outlive what it copies: where the stream cannot be waited for, the context is lost anyway.
        let end = event().inspect_err(|_| _ = stream.synchronize())?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push((what, begin, end));
        Ok(done)
    }

    /// All spans since the last call, in the order in which they were queued. Waits for the last of them.
    pub(crate) fn take(&self) -> Result<Vec<Span>, CudaError> {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let span = |(what, begin, end): &(&'static str, CudaEvent, CudaEvent)| {
            Ok(Span { what, milliseconds: f64::from(between(begin, end)?) })
        };
        open.iter().map(span).collect()
    }
}

/// Milliseconds from one event to another, which is waited for.
fn between(begin: &CudaEvent, end: &CudaEvent) -> Result<f32, CudaError> {
    type Elapsed = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
    const DOING: &str = "read the time between two events";
    end.synchronize().map_err(failed(DOING))?;
    // The second form, which cudarc calls without asking whether it is there, is no part of drivers before 12.8.
    let names = [&b"cuEventElapsedTime_v2\0"[..], b"cuEventElapsedTime\0"];
    // SAFETY: the library has been found, as events were made by it; both functions have this type.
    let found = names.into_iter().find_map(|name| unsafe { sys::culib().get::<Elapsed>(name) }.ok());
    let Some(elapsed) = found else {
        let reason = "it has no cuEventElapsedTime".to_owned();
        return Err(CudaError::Driver { doing: DOING, reason });
    };
    let mut milliseconds = 0.0;
    // SAFETY: writes one number of ours; both events live, are of one stream, and have been recorded.
    unsafe { elapsed(&raw mut milliseconds, begin.cu_event(), end.cu_event()) }
        .result()
        .map_err(failed(DOING))?;
    Ok(milliseconds)
}

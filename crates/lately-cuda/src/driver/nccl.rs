//! NVIDIA's library of collective operations, NCCL.
//!
//! It is loaded here and not by `cudarc`, which looks for `libnccl.so` alone and panics where a function is missing:
//! NVIDIA's packages have `libnccl.so.2`, and a machine may have an old one.

#![allow(unsafe_code)] // calls of NCCL

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use lately_model::training::Group;
use libloading::Library;

use crate::CudaError;
use crate::meeting::{TICKET_BYTES, Ticket};

const FILES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// The oldest that has been looked at, 2.18: all functions and codes below are in it, and none has changed since.
const OLDEST: c_int = 21_800;
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const FLOAT32: c_int = 7;
const SUM: c_int = 0;
/// How long an abort may take before its memory is given up.
const ABORT: Duration = Duration::from_secs(10);

type Raw = *mut c_void;

#[repr(C)]
struct UniqueId([c_char; TICKET_BYTES]);

/// The first form of NCCL's `ncclConfig_t`, of 2.14: later ones take it by its size and version, and choose the rest.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

/// Declares the functions with their names in the library.
macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The loaded library.
        pub(crate) struct Nccl {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
            _library: Library,
        }

        impl Nccl {
            fn functions(library: Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the types are those of NCCL's header; the library stays loaded as long as they are there.
                    $($field: *unsafe { library.get($name.as_bytes()) }?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    version = "ncclGetVersion": fn(*mut c_int) -> c_int;
    unique_id = "ncclGetUniqueId": fn(*mut UniqueId) -> c_int;
    start = "ncclCommInitRankConfig": fn(*mut Raw, c_int, UniqueId, c_int, *mut Config) -> c_int;
    state = "ncclCommGetAsyncError": fn(Raw, *mut c_int) -> c_int;
    all_reduce = "ncclAllReduce": fn(*const c_void, *mut c_void, usize, c_int, c_int, Raw, CUstream) -> c_int;
    abort = "ncclCommAbort": fn(Raw) -> c_int;
    words = "ncclGetErrorString": fn(c_int) -> *const c_char;
    last_words = "ncclGetLastError": fn(Raw) -> *const c_char;
}

impl Nccl {
    /// This machine's, loaded once and never unloaded, as it has threads of its own.
    pub(crate) fn get() -> Result<&'static Self, CudaError> {
        static NCCL: OnceLock<Result<Nccl, CudaError>> = OnceLock::new();
        NCCL.get_or_init(|| Self::open(&FILES)).as_ref().map_err(CudaError::clone)
    }

    /// The first of these files that can be loaded.
    pub(crate) fn open(files: &[&str]) -> Result<Self, CudaError> {
        // SAFETY: the loader runs NVIDIA's library's own initialisers; nothing else happens.
        let library = files.iter().find_map(|file| unsafe { Library::new(*file) }.ok());
        let library = library.ok_or(CudaError::Missing {
            library: "libnccl.so.2",
            install: "install NCCL 2.18 or newer (package libnccl2 of NVIDIA's repository), or train on one card",
        })?;
        let old = |got: String| CudaError::TooOld {
            what: "NCCL",
            got,
            least: "2.18",
            advice: "install a newer package libnccl2 of NVIDIA's repository",
        };
        let nccl = Self::functions(library).map_err(|e| old(format!("without a function ({e})")))?;
        let mut version = 0;
        // SAFETY: writes one number of ours.
        nccl.check("say its version", unsafe { (nccl.version)(&raw mut version) })?;
        match version < OLDEST {
            true => Err(old(format!("version {version}"))),
            false => Ok(nccl),
        }
    }

    /// What one member makes, and by which all find each other.
    pub(crate) fn ticket(&self) -> Result<Ticket, CudaError> {
        let mut id = UniqueId([0; TICKET_BYTES]);
        // SAFETY: writes the bytes of one id.
        self.check("make an id", unsafe { (self.unique_id)(&raw mut id) })?;
        Ok(id.0.map(c_char::cast_unsigned))
    }

    /// Whether a call is over; not: it goes on in the background.
    fn check(&self, doing: &'static str, code: c_int) -> Result<bool, CudaError> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(code == SUCCESS);
        }
        // SAFETY: both return text that stays; the second takes no communicator.
        let [words, last] =
            unsafe { [(self.words)(code), (self.last_words)(std::ptr::null_mut())] }.map(text);
        let last = if last.is_empty() { last } else { format!(" ({last})") };
        Err(CudaError::Group { doing, reason: format!("{words}{last}") })
    }
}

fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: NCCL's text ends with a zero and stays.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().trim().to_owned()
}

/// NCCL's own handle; null: there is none.
struct Handle(Raw);

// SAFETY: NCCL takes a communicator from any thread, one at a time, which holds as this is not `Sync`.
unsafe impl Send for Handle {}

/// A member's end of the connections among the group's cards. No call of it blocks: what was asked goes on in the background
/// until [`settled`](Self::settled).
pub(crate) struct Communicator {
    nccl: &'static Nccl,
    handle: Handle,
}

impl Communicator {
    /// Begins to connect this thread's current card with the others', who have the same ticket.
    pub(crate) fn start(nccl: &'static Nccl, group: &Group, ticket: &Ticket) -> Result<Self, CudaError> {
        let mut communicator = Self { nccl, handle: Handle(std::ptr::null_mut()) };
        let mut config =
            Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: 21_400, blocking: 0 };
        let id = UniqueId(ticket.map(u8::cast_signed));
        let (size, rank) = (group.size as c_int, group.rank as c_int); // `meeting::check` saw that they fit
        // SAFETY: NCCL reads the configuration by its size, and writes the one pointer.
        let code = unsafe { (nccl.start)(&raw mut communicator.handle.0, size, id, rank, &raw mut config) };
        nccl.check("connect", code)?;
        Ok(communicator)
    }

    /// Whether what was asked last is set up: connected, or put into its stream.
    pub(crate) fn settled(&self) -> Result<bool, CudaError> {
        let mut state = SUCCESS;
        // SAFETY: the communicator lives as long as `self`; one number of ours is written.
        self.nccl.check("say how they are", unsafe { (self.nccl.state)(self.handle.0, &raw mut state) })?;
        self.nccl.check("work together", state)
    }

    /// Asks for sums of `count` f32, in place.
    ///
    /// # Safety
    /// The numbers are on this communicator's card, as the stream is, and nobody else touches either until this is settled
    /// and the stream done.
    pub(crate) unsafe fn add_up(
        &mut self,
        numbers: CUdeviceptr,
        count: usize,
        stream: CUstream,
    ) -> Result<(), CudaError> {
        let at = std::ptr::with_exposed_provenance_mut::<c_void>(numbers as usize);
        // SAFETY: the caller's promise.
        let code = unsafe { (self.nccl.all_reduce)(at, at, count, FLOAT32, SUM, self.handle.0, stream) };
        self.nccl.check("add up", code).map(|_| ())
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Aborted in every case: that ends what still runs on the card, and waits for nobody, as an orderly end does. It is
        // known to hang in some versions, so another thread does it, which is left behind with its memory where it takes too
        // long. What it says of an end has no use.
        let Self { nccl, ref mut handle } = *self;
        let handle = std::mem::replace(handle, Handle(std::ptr::null_mut()));
        if handle.0.is_null() {
            return;
        }
        let (done, wait) = channel();
        let abort = move || {
            let handle = handle; // whole, as it is what may go to another thread
            // SAFETY: made by NCCL, and not used again.
            let _ = unsafe { (nccl.abort)(handle.0) };
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("nccl-abort".into()).spawn(abort).is_ok() {
            let _ = wait.recv_timeout(ABORT);
        }
    }
}

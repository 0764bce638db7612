//! The CUDA driver.

#![allow(unsafe_code)] // calls of the driver

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as Of};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PinnedHostSlice,
    PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use lately_model::training::Group;

use super::peers::{self, Peers};
use super::times::Times;
use super::{Argument, Driver, Kernel, Launch, Shape};
use crate::kernels::{Source, compile};
use crate::{CudaError, kernels};

/// The oldest driver: of CUDA 12.0.
const DRIVER: i32 = 12_000;
/// The oldest card: bfloat16 in tensor cores.
const CAPABILITY: (i32, i32) = (8, 0);
/// Names of what is no single kernel, see [`super::times::Span`].
const COPY_IN: &str = "copy in";
const COPY_OUT: &str = "copy out";
const ADD_UP: &str = "add up";
const GRAPH: &str = "graph";

/// An opened card.
pub(crate) struct Card {
    context: Arc<CudaContext>,
    pub(crate) name: String,
    pub(crate) capability: (u32, u32),
    pub(crate) memory: usize,
    /// Most bytes of shared memory of a block.
    shared: usize,
    /// Modules in use: models of one geometry share them.
    modules: Mutex<HashMap<Source, Weak<Module>>>,
    pub(crate) times: Times,
}

/// Loaded kernels.
pub(crate) struct Module {
    functions: HashMap<Kernel, CudaFunction>,
}

/// Words on the card.
pub(crate) struct Memory(CudaSlice<u32>);

impl Drop for Memory {
    fn drop(&mut self) {
        // Freed right after this, possibly by a thread that never used the card. Where the context cannot be had, its memory
        // is gone with it.
        let _ = self.0.context().bind_to_thread();
    }
}

/// A stream, and both ends of its copies in page-locked memory.
pub(crate) struct Lane {
    graphs: HashMap<Shape, Recorded>,
    input: CudaSlice<u32>,
    output: CudaSlice<f32>,
    host_input: PinnedHostSlice<u32>,
    host_output: PinnedHostSlice<f32>,
    stream: Arc<CudaStream>,
}

/// Launches that were recorded once and are played as one.
struct Recorded(CudaGraph);

// SAFETY: a graph may be used by any thread, by one at a time: it is in a lane, which is only used through `&mut`.
unsafe impl Send for Recorded {}

impl Drop for Lane {
    fn drop(&mut self) {
        // What is freed next must not be in use. A stream that cannot be waited for is in a context that is lost anyway.
        let _ = self.stream.context().bind_to_thread().and_then(|()| self.stream.synchronize());
    }
}

pub(super) fn failed(doing: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { doing, reason: error.to_string() }
}

impl Card {
    pub(crate) fn open(ordinal: usize) -> Result<Self, CudaError> {
        present()?;
        let doing = failed("open the card");
        let count = CudaContext::device_count().map_err(&doing)?;
        let count = usize::try_from(count).unwrap_or(0);
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).map_err(&doing)?;
        // SAFETY: a word is written by one stream, for which the host waits before another one reads it (`run`, `read`), or by
        // the host before any stream sees it (`upload`): no events are needed to order them.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(&doing)?;
        let capability = context.compute_capability().map_err(&doing)?;
        if capability < CAPABILITY {
            return Err(CudaError::TooOld {
                what: "the card's compute capability",
                got: format!("{}.{} ({name})", capability.0, capability.1),
                least: "8.0",
                advice: "use an Ampere card or a newer one, or serve on the CPU",
            });
        }
        let shared = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let memory = context.total_mem().map_err(&doing)?;
        Ok(Self {
            context,
            name,
            capability: (capability.0.unsigned_abs(), capability.1.unsigned_abs()),
            memory,
            shared: usize::try_from(shared.map_err(&doing)?).unwrap_or(0),
            modules: Mutex::default(),
            times: Times::default(),
        })
    }

    /// The architecture that kernels are compiled for.
    pub(crate) fn arch(&self) -> String {
        let (major, minor) = self.capability;
        format!("sm_{major}{minor}{}", if major == 9 { "a" } else { "" })
    }

    fn module(&self, source: &Source, shared: &[(Kernel, usize)]) -> Result<Module, CudaError> {
        if let Some((_, bytes)) = shared.iter().find(|(_, bytes)| *bytes > self.shared) {
            return Err(CudaError::Unsupported {
                what: format!("{bytes} bytes of shared memory a block, {} has {}", self.name, self.shared),
                advice: "shorten the schema's sequence, or serve on the CPU",
            });
        }
        let doing = failed("load the kernels");
        let code = compile(source, &self.arch())?;
        let module = self.context.load_module(Ptx::from_binary(code)).map_err(&doing)?;
        let mut functions = HashMap::new();
        for kernel in &source.kernels {
            let function = module.load_function(kernel.name()).map_err(&doing)?;
            if let Some((_, bytes)) = shared.iter().find(|(k, _)| k == kernel) {
                let limit = Of::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(limit, *bytes as i32).map_err(&doing)?;
            }
            // Loads its code now: the driver else waits until the first launch, which is recorded.
            function.num_regs().map_err(&doing)?;
            functions.insert(*kernel, function);
        }
        Ok(Module { functions })
    }
}

/// Checks for both libraries before any of their functions, as those panic where theirs is not there.
fn present() -> Result<(), CudaError> {
    // SAFETY: the loader runs NVIDIA's library's own initialisers; nothing else happens.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::Missing {
            library: "libcuda.so.1",
            install: "install NVIDIA's driver, version 525 or newer, run the container with --gpus, or use the CPU",
        });
    }
    let mut version = 0;
    // SAFETY: writes one number of ours, and may be called before `cuInit`.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("say its version"))?;
    if version < DRIVER {
        return Err(CudaError::TooOld {
            what: "the driver's CUDA version",
            got: format!("{}.{}", version / 1000, version % 1000 / 10),
            least: "12.0",
            advice: "install NVIDIA's driver, version 525 or newer",
        });
    }
    kernels::present()?;
    result::init().map_err(failed("start"))
}

impl Driver for Card {
    type Module = Module;
    type Memory = Memory;
    type Lane = Lane;
    type Peers = Peers;

    fn load(&self, source: &Source, shared: &[(Kernel, usize)]) -> Result<Arc<Module>, CudaError> {
        // Held while compiling, so that two models of one geometry compile once.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(source).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let module = Arc::new(self.module(source, shared)?);
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(source.clone(), Arc::downgrade(&module));
        Ok(module)
    }

    fn upload(&self, words: &[u32]) -> Result<Memory, CudaError> {
        let stream = self.context.default_stream();
        let doing = failed("copy the weights");
        let memory = Memory(stream.clone_htod(words).map_err(&doing)?);
        stream.synchronize().map_err(&doing)?;
        Ok(memory)
    }

    fn allocate(&self, words: usize) -> Result<Memory, CudaError> {
        let stream = self.context.default_stream();
        let doing = failed("allocate working memory");
        // SAFETY: kernels write each part of it before they read it; the tests' emulation fills it with NaN first.
        let memory = Memory(unsafe { stream.alloc(words) }.map_err(&doing)?);
        stream.synchronize().map_err(&doing)?;
        Ok(memory)
    }

    fn lane(&self, input: usize, output: usize) -> Result<Lane, CudaError> {
        let doing = failed("allocate a lane");
        let stream = self.context.new_stream().map_err(&doing)?;
        // SAFETY: `input` writes words before `run` copies them, and `run` copies from the card before it reads.
        let (host_input, host_output, on_card) = unsafe {
            (
                self.context.alloc_pinned(input).map_err(&doing)?,
                self.context.alloc_pinned_with_flags(output, 0).map_err(&doing)?,
                (stream.alloc(input).map_err(&doing)?, stream.alloc(output).map_err(&doing)?),
            )
        };
        let (input, output) = on_card;
        Ok(Lane { graphs: HashMap::new(), input, output, host_input, host_output, stream })
    }

    fn input<'a>(&self, lane: &'a mut Lane) -> Result<&'a mut [u32], CudaError> {
        lane.host_input.as_mut_slice().map_err(failed("wait for a copy"))
    }

    fn run(
        &self,
        module: &Module,
        lane: &mut Lane,
        shape: Shape,
        launches: &[Launch<'_, Memory>],
        words: usize,
        output: &mut [f32],
    ) -> Result<(), CudaError> {
        let Lane { graphs, input, output: on_card, host_input, host_output, stream } = lane;
        let doing = failed("score a batch");
        self.context.bind_to_thread().map_err(&doing)?;
        let host = &host_input.as_slice().map_err(&doing)?[..words];
        let (to, _) = input.device_ptr(stream);
        self.times.around(stream, COPY_IN, || {
            // SAFETY: `to` is as long as the host's side, which stays as it is until the stream is waited for below.
            unsafe { result::memcpy_htod_async(to, host, stream.cu_stream()) }.map_err(&doing)
        })?;
        let recorded = match graphs.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(record(module, stream, launches, input, on_card)?),
        };
        self.times.around(stream, GRAPH, || recorded.0.launch().map_err(&doing))?;
        let back = &mut host_output.as_mut_slice().map_err(&doing)?[..output.len()];
        let (from, _) = on_card.device_ptr(stream);
        self.times.around(stream, COPY_OUT, || {
            // SAFETY: as above, the other way.
            unsafe { result::memcpy_dtoh_async(&mut *back, from, stream.cu_stream()) }.map_err(&doing)
        })?;
        stream.synchronize().map_err(&doing)?;
        output.copy_from_slice(back);
        Ok(())
    }

    fn send(&self, lane: &mut Lane, words: usize) -> Result<(), CudaError> {
        let doing = failed("copy a batch");
        self.context.bind_to_thread().map_err(&doing)?;
        let host = &lane.host_input.as_slice().map_err(&doing)?[..words];
        let (to, _) = lane.input.device_ptr(&lane.stream);
        self.times.around(&lane.stream, COPY_IN, || {
            // SAFETY: `to` is as long as the host's side. Who writes to that next has read from this lane before, and so waited.
            unsafe { result::memcpy_htod_async(to, host, lane.stream.cu_stream()) }.map_err(&doing)
        })
    }

    fn launch(
        &self,
        module: &Module,
        lane: &mut Lane,
        launches: &[Launch<'_, Memory>],
    ) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(failed("launch a kernel"))?;
        launches.iter().try_for_each(|l| {
            let go = || launch(module, &lane.stream, l, &lane.input, &lane.output);
            self.times.around(&lane.stream, l.kernel.name(), go)
        })
    }

    fn write(&self, lane: &mut Lane, memory: &Memory, at: usize, words: &[u32]) -> Result<(), CudaError> {
        let doing = failed("copy to the card");
        self.context.bind_to_thread().map_err(&doing)?;
        let to = part(&memory.0, at, words.len(), &lane.stream)?;
        self.times.around(&lane.stream, COPY_IN, || {
            // SAFETY: `part` has checked the length; the words stay until the stream has been waited for.
            unsafe { result::memcpy_htod_async(to, words, lane.stream.cu_stream()) }.map_err(&doing)
        })?;
        lane.stream.synchronize().map_err(&doing)
    }

    fn read(&self, lane: &mut Lane, memory: &Memory, at: usize, words: &mut [u32]) -> Result<(), CudaError> {
        let doing = failed("copy from the card");
        self.context.bind_to_thread().map_err(&doing)?;
        let from = part(&memory.0, at, words.len(), &lane.stream)?;
        self.times.around(&lane.stream, COPY_OUT, || {
            // SAFETY: as above, the other way.
            unsafe { result::memcpy_dtoh_async(words, from, lane.stream.cu_stream()) }.map_err(&doing)
        })?;
        lane.stream.synchronize().map_err(&doing)
    }

    fn join(&self, group: &Group) -> Result<Peers, CudaError> {
        self.context.bind_to_thread().map_err(failed("join a group"))?;
        peers::join(group)
    }

    fn add_up(
        &self,
        lane: &mut Lane,
        peers: &mut Peers,
        memory: &Memory,
        at: usize,
        words: usize,
    ) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(failed("add up"))?;
        let numbers = part(&memory.0, at, words, &lane.stream)?;
        self.times.around(&lane.stream, ADD_UP, || {
            // SAFETY: `part` has checked the length; the lane is not used by another meanwhile, and its memory by nobody else.
            unsafe { peers.add_up(numbers, words, lane.stream.cu_stream()) }
        })
    }
}

/// Where a part of some memory is.
fn part(
    memory: &CudaSlice<u32>,
    at: usize,
    words: usize,
    stream: &Arc<CudaStream>,
) -> Result<sys::CUdeviceptr, CudaError> {
    if at + words > memory.len() {
        let reason = format!("{words} words from {at} on are not in a memory of {}", memory.len());
        return Err(CudaError::Driver { doing: "find a part of its memory", reason });
    }
    let (start, _) = memory.device_ptr(stream);
    Ok(start + (at * size_of::<u32>()) as sys::CUdeviceptr)
}

/// Records launches as one graph, so that a call costs one launch.
fn record(
    module: &Module,
    stream: &Arc<CudaStream>,
    launches: &[Launch<'_, Memory>],
    input: &CudaSlice<u32>,
    output: &CudaSlice<f32>,
) -> Result<Recorded, CudaError> {
    let doing = failed("record the launches");
    // Other threads' calls are none of this recording's business.
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).map_err(&doing)?;
    let launched = launches.iter().try_for_each(|l| launch(module, stream, l, input, output));
    // Ended in any case: a stream that is still recorded is of no use.
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    launched?;
    let none = || CudaError::Driver { doing: "record the launches", reason: "the recording is empty".into() };
    graph.map_err(&doing)?.map(Recorded).ok_or_else(none)
}

fn launch(
    module: &Module,
    stream: &Arc<CudaStream>,
    launch: &Launch<'_, Memory>,
    input: &CudaSlice<u32>,
    output: &CudaSlice<f32>,
) -> Result<(), CudaError> {
    let Some(function) = module.functions.get(&launch.kernel) else {
        let reason = format!("{:?} is not loaded", launch.kernel);
        return Err(CudaError::Driver { doing: "launch a kernel", reason });
    };
    // Parts first: the builder borrows what it is given.
    let parts = launch.arguments.iter().map(|argument| match argument {
        Argument::InputAt(at) => part(input, *at, 0, stream),
        Argument::MemoryAt(memory, at) => part(&memory.0, *at, 0, stream),
        _ => Ok(0),
    });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let mut builder = stream.launch_builder(function);
    for (argument, part) in launch.arguments.iter().zip(&parts) {
        match argument {
            Argument::Input => builder.arg(input),
            Argument::Output => builder.arg(output),
            Argument::Memory(memory) => builder.arg(&memory.0),
            Argument::InputAt(_) | Argument::MemoryAt(..) | Argument::Null => builder.arg(part),
            Argument::Number(number) => builder.arg(number),
            Argument::Real(number) => builder.arg(number),
        };
    }
    let config = LaunchConfig {
        grid_dim: (launch.grid[0], launch.grid[1], 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared,
    };
    // SAFETY: the arguments are those of the kernel's declaration, as the tests' emulation, which calls it by its declared
    // types, checks; its memory outlives the graph, as both are in one slot, and is this lane's alone or never written.
    unsafe { builder.launch(config) }.map(|_| ()).map_err(failed("launch a kernel"))
}

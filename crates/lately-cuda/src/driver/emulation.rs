//! The kernels as C++ on this machine's CPU: see `emulation/shim.h` for what is emulated and what is checked.

#![allow(unsafe_code)] // calls of the compiled kernels

mod peers;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lately_model::training::Group;
use libloading::Library;
use tempfile::TempDir;

use self::peers::Peers;
use super::{Argument, Driver, Kernel, Launch, Shape};
use crate::CudaError;
use crate::kernels::Source;

const SHIM: &str = include_str!("emulation/shim.h");
/// Fills memory: a number of f32 that is none, and of bfloat16, too.
const UNSET: u32 = 0xffff_ffff;
/// Words behind each memory, which no kernel may write.
const GUARD_WORDS: usize = 64;
const GUARD: u32 = 0xa5a5_a5a5;

type Run = unsafe extern "C" fn(*const u32, u32, u32, *mut *mut c_void, u32, u32) -> *const c_char;

/// A CPU that passes for a card.
#[derive(Default)]
pub(crate) struct Emulation {
    /// Whether threads run in falling order.
    order: AtomicU32,
    launches: AtomicUsize,
}

/// Compiled kernels.
pub(crate) struct Module {
    functions: HashMap<Kernel, Run>,
    _library: Library,
    _folder: TempDir,
}

/// Words with a guard behind them.
pub(crate) struct Memory {
    words: Box<[std::cell::UnsafeCell<u32>]>,
}

// SAFETY: kernels of one lane run one after another, and words that two lanes see are not written, see `Driver::run`.
unsafe impl Sync for Memory {}

/// Both ends of the copies.
pub(crate) struct Lane {
    host_input: Vec<u32>,
    input: Memory,
    output: Memory,
}

impl Memory {
    fn new(words: usize) -> Self {
        let guarded = (0..words + GUARD_WORDS).map(|i| if i < words { UNSET } else { GUARD });
        Self { words: guarded.map(std::cell::UnsafeCell::new).collect() }
    }

    fn pointer(&self) -> *mut c_void {
        self.words.as_ptr().cast_mut().cast()
    }

    fn fill(&mut self, from: &[u32]) {
        self.words.iter_mut().zip(from).for_each(|(to, from)| *to.get_mut() = *from);
    }

    fn len(&self) -> usize {
        self.words.len() - GUARD_WORDS
    }

    fn read(&self, at: usize) -> u32 {
        // SAFETY: no kernel runs on this memory while it is read: `run` reads after its last launch.
        unsafe { *self.words[at].get() }
    }

    fn whole(&self) -> bool {
        (self.len()..self.words.len()).all(|i| self.read(i) == GUARD)
    }
}

impl Emulation {
    /// Threads of a block from the last to the first.
    pub(crate) fn turn_around(&self, backwards: bool) {
        self.order.store(backwards.into(), Ordering::Relaxed);
    }

    /// Launches so far.
    pub(crate) fn launches(&self) -> usize {
        self.launches.load(Ordering::Relaxed)
    }

    fn start(&self, module: &Module, lane: &Lane, launch: &Launch<'_, Memory>) -> Result<(), CudaError> {
        let memories: Vec<&Memory> = launch
            .arguments
            .iter()
            .filter_map(|argument| match argument {
                Argument::Input | Argument::InputAt(_) => Some(&lane.input),
                Argument::Output => Some(&lane.output),
                Argument::Memory(memory) | Argument::MemoryAt(memory, _) => Some(*memory),
                Argument::Null | Argument::Number(_) | Argument::Real(_) => None,
            })
            .collect();
        // The values that the kernel is called with, of 8 bytes as pointers are.
        let mut memory = memories.iter();
        let mut values: Vec<u64> = launch
            .arguments
            .iter()
            .map(|argument| {
                let at = match argument {
                    Argument::Null => return 0,
                    Argument::Number(number) => return u64::from(*number),
                    Argument::Real(number) => return u64::from(number.to_bits()),
                    Argument::InputAt(at) | Argument::MemoryAt(_, at) => *at,
                    _ => 0,
                };
                let memory = memory.next().unwrap();
                assert!(at <= memory.len(), "an argument is from word {at} on of {}", memory.len());
                memory.pointer() as u64 + 4 * at as u64
            })
            .collect();
        let mut arguments: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let run = module.functions[&launch.kernel];
        let order = self.order.load(Ordering::Relaxed);
        let count = arguments.len() as u32;
        self.launches.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the arguments point to values that live here; the kernel's number of them is checked by the callee.
        let error = unsafe {
            run(launch.grid.as_ptr(), launch.threads, launch.shared, arguments.as_mut_ptr(), count, order)
        };
        let failed = |reason: String| CudaError::Driver { doing: "emulate", reason };
        if !error.is_null() {
            // SAFETY: the callee's text lives until this thread launches again.
            let text = unsafe { CStr::from_ptr(error) }.to_string_lossy();
            return Err(failed(format!("{:?}: {text}", launch.kernel)));
        }
        match memories.iter().all(|m| m.whole()) {
            true => Ok(()),
            false => Err(failed(format!("{:?} wrote beyond a memory", launch.kernel))),
        }
    }
}

impl Driver for Emulation {
    type Module = Module;
    type Memory = Memory;
    type Lane = Lane;
    type Peers = Peers;

    fn load(&self, source: &Source, _: &[(Kernel, usize)]) -> Result<Arc<Module>, CudaError> {
        static MODULES: OnceLock<Mutex<HashMap<Source, Arc<Module>>>> = OnceLock::new();
        let modules = MODULES.get_or_init(Mutex::default);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(source) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(compile(source)?);
        modules.insert(source.clone(), Arc::clone(&module));
        Ok(module)
    }

    fn upload(&self, words: &[u32]) -> Result<Memory, CudaError> {
        let mut memory = Memory::new(words.len());
        memory.fill(words);
        Ok(memory)
    }

    fn allocate(&self, words: usize) -> Result<Memory, CudaError> {
        Ok(Memory::new(words))
    }

    fn lane(&self, input: usize, output: usize) -> Result<Lane, CudaError> {
        Ok(Lane { host_input: vec![UNSET; input], input: Memory::new(input), output: Memory::new(output) })
    }

    fn input<'a>(&self, lane: &'a mut Lane) -> Result<&'a mut [u32], CudaError> {
        Ok(&mut lane.host_input)
    }

    fn run(
        &self,
        module: &Module,
        lane: &mut Lane,
        _: Shape,
        launches: &[Launch<'_, Memory>],
        words: usize,
        output: &mut [f32],
    ) -> Result<(), CudaError> {
        lane.input.fill(&lane.host_input[..words]);
        let unset = vec![UNSET; lane.output.len()];
        lane.output.fill(&unset);
        launches.iter().try_for_each(|l| self.start(module, lane, l))?;
        output.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from_bits(lane.output.read(i)));
        Ok(())
    }

    fn send(&self, lane: &mut Lane, words: usize) -> Result<(), CudaError> {
        lane.input.fill(&lane.host_input[..words]);
        Ok(())
    }

    fn launch(
        &self,
        module: &Module,
        lane: &mut Lane,
        launches: &[Launch<'_, Memory>],
    ) -> Result<(), CudaError> {
        launches.iter().try_for_each(|l| self.start(module, lane, l))
    }

    fn write(&self, _: &mut Lane, memory: &Memory, at: usize, words: &[u32]) -> Result<(), CudaError> {
        assert!(at + words.len() <= memory.len(), "a copy beyond a memory");
        for (to, from) in memory.words[at..].iter().zip(words) {
            // SAFETY: launches run before they return, so no kernel runs on this memory now.
            unsafe { *to.get() = *from };
        }
        Ok(())
    }

    fn read(&self, _: &mut Lane, memory: &Memory, at: usize, words: &mut [u32]) -> Result<(), CudaError> {
        assert!(at + words.len() <= memory.len(), "a copy beyond a memory");
        words.iter_mut().enumerate().for_each(|(i, word)| *word = memory.read(at + i));
        Ok(())
    }

    fn join(&self, group: &Group) -> Result<Peers, CudaError> {
        Peers::join(group)
    }

    fn add_up(
        &self,
        lane: &mut Lane,
        peers: &mut Peers,
        memory: &Memory,
        at: usize,
        words: usize,
    ) -> Result<(), CudaError> {
        let mut bits = vec![0; words];
        self.read(lane, memory, at, &mut bits)?;
        let sums = peers.add_up(bits.into_iter().map(f32::from_bits).collect())?;
        self.write(lane, memory, at, &sums.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    }
}

/// The C++ compiler of this machine; none where there is none, which is said loudly.
pub(crate) fn compiler() -> Option<&'static str> {
    let found = Command::new("c++").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: no `c++` on this machine, the CUDA kernels are not emulated");
    }
    found.then_some("c++")
}

fn compile(source: &Source) -> Result<Module, CudaError> {
    let failed =
        |log: String| CudaError::Compile { source_name: source.name.clone(), arch: "this CPU".into(), log };
    let folder = TempDir::new().map_err(|e| failed(e.to_string()))?;
    let (file, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
    let entry = |kernel: &Kernel| {
        let name = kernel.name();
        format!(
            "extern \"C\" const char *run_{name}(const unsigned *grid, unsigned threads, unsigned shared, void **arguments, \
             unsigned count, unsigned order) {{ return emulation::launch({name}, grid, threads, shared, arguments, count, \
             order); }}\n"
        )
    };
    let text: String = source.kernels.iter().map(entry).collect();
    std::fs::write(&file, format!("{SHIM}{}{text}", source.text)).map_err(|e| failed(e.to_string()))?;
    build(&file, &library).map_err(&failed)?;
    // SAFETY: the library is the one built above; loading it runs no code but the C++ runtime's.
    let library = unsafe { Library::new(&library) }.map_err(|e| failed(e.to_string()))?;
    let mut functions = HashMap::new();
    for kernel in &source.kernels {
        // SAFETY: `entry` declares it with this type; the library stays loaded as long as the module.
        let run = unsafe { library.get::<Run>(format!("run_{}", kernel.name()).as_bytes()) };
        functions.insert(*kernel, *run.map_err(|e| failed(e.to_string()))?);
    }
    Ok(Module { functions, _library: library, _folder: folder })
}

fn build(file: &Path, library: &Path) -> Result<(), String> {
    let compiler = compiler().ok_or("no C++ compiler")?;
    // Strict aliasing is off, as kernels read one memory as words, as numbers and as vectors, which CUDA allows. No fortified
    // jumps: they refuse one to another stack.
    let flags = ["-std=c++17", "-O2", "-march=native", "-shared", "-fPIC", "-fno-strict-aliasing", "-w"];
    let output = Command::new(compiler)
        .args(flags)
        .args(["-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"])
        .arg("-o")
        .arg(library)
        .arg(file)
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

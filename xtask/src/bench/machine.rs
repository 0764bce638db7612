//! On what a measurement was made: read from `/proc`, so on Linux.

use std::process::Command;

use serde::Serialize;

use crate::error::TaskError;
use crate::workspace;

/// Instruction sets that our kernels choose between.
const FEATURES: &[&str] = &[
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
];

/// The machine, as far as it explains a number.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    /// Logical cores that this process may use.
    cores: usize,
    features: Vec<String>,
    memory_bytes: u64,
    os: String,
    /// Load of the last minute before the run: above 0.5 somebody else was busy.
    load_before: f64,
}

impl Machine {
    /// One line.
    pub(super) fn summary(&self) -> String {
        let memory = self.memory_bytes as f64 / f64::from(1 << 30);
        let Self { cpu, cores, load_before, .. } = self;
        format!("{cpu}, {cores} cores, {memory:.0} GiB, load before {load_before:.2}")
    }
}

/// Looks at this machine.
pub(super) fn look() -> Result<Machine, TaskError> {
    let cpuinfo = text("/proc/cpuinfo")?;
    let flags = value(&cpuinfo, "flags").or_else(|| value(&cpuinfo, "Features")).unwrap_or_default();
    let has = |name: &&&str| flags.split_whitespace().any(|f| f == **name);
    let memory = value(&text("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let load = text("/proc/loadavg")?;
    Ok(Machine {
        cpu: value(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        features: FEATURES.iter().filter(has).map(|f| (*f).to_owned()).collect(),
        memory_bytes: kib * 1024,
        os: line_of("uname", &["-sr"])?,
        load_before: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
    })
}

/// The trimmed stdout of a program that is run in the workspace.
pub(super) fn line_of(program: &str, args: &[&str]) -> Result<String, TaskError> {
    let out = workspace::output(Command::new(program).args(args).current_dir(workspace::root()))?;
    Ok(String::from_utf8_lossy(&out).trim().to_owned())
}

fn text(path: &str) -> Result<String, TaskError> {
    Ok(String::from_utf8_lossy(&workspace::read(path.as_ref())?).into_owned())
}

/// The value of the first line `KEY : VALUE`.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

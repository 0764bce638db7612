//! Where the workspace is, which files it holds, and how programs are run in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::TaskError;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What is off by default. Nothing of it needs CUDA or a server to be built and tested, so all steps have it on: cargo builds
/// a crate once for each set of features that is asked for.
pub(crate) const FEATURES: &str = "lately/cuda,lately/s3";

/// An example of the workspace. Where one is asked for, cargo takes the features of development dependencies too.
pub(crate) const EXAMPLE: [&str; 2] = ["--example", "compile_kernels"];

/// Builds targets, named by cargo's options, as the tests' step does, so that neither builds what the other has; returns the
/// folder of binaries.
pub(crate) fn build(targets: &[&str]) -> Result<PathBuf, TaskError> {
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--workspace", "--features", FEATURES]).args(EXAMPLE).args(targets);
    status(command.current_dir(root()))?;
    Ok(target_directory()?.join("debug"))
}

/// Runs a program with our terminal and without stdin; an exit status other than 0 is an error.
pub(crate) fn status(command: &mut Command) -> Result<(), TaskError> {
    let status =
        command.stdin(std::process::Stdio::null()).status().map_err(|source| start(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(TaskError::Failed { command: shown(command), status, output: String::new() })
}

/// Runs a program and returns its stdout.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, TaskError> {
    let out = command.output().map_err(|source| start(command, source))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let output = format!(": {}", String::from_utf8_lossy(&out.stderr).trim());
    Err(TaskError::Failed { command: shown(command), status: out.status, output })
}

/// Whether `cargo NAME --version` works.
pub(crate) fn has_cargo_command(name: &str) -> bool {
    let mut command = Command::new(cargo());
    output(command.args([name, "--version"]).current_dir(root())).is_ok()
}

fn start(command: &Command, source: std::io::Error) -> TaskError {
    TaskError::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TaskError> {
    std::fs::read(path).map_err(|source| TaskError::File { path: path.to_owned(), source })
}

/// Files that are tracked, or would be by `git add --all`, as paths from the root, sorted.
pub(crate) fn files() -> Result<Vec<String>, TaskError> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let out = output(&mut command)?;
    let mut files: Vec<String> = out
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        // Deleted but not yet from the index.
        .filter(|name| root().join(name).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// What `cargo metadata` says of a crate of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Name.
    pub(crate) name: String,
    /// One sentence.
    pub(crate) description: Option<String>,
    /// Its Cargo.toml.
    pub(crate) manifest_path: PathBuf,
    /// All direct dependencies.
    pub(crate) dependencies: Vec<Dependency>,
    /// Library, binaries, examples, tests.
    pub(crate) targets: Vec<CargoTarget>,
}

/// A direct dependency.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) name: String,
    /// `None` is normal; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// What cargo can build of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct CargoTarget {
    /// Name.
    pub(crate) name: String,
    /// `lib`, `bin`, `example` and so on.
    pub(crate) kind: Vec<String>,
    /// Its root file.
    pub(crate) src_path: PathBuf,
}

/// What `cargo metadata` says of the workspace.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

fn metadata() -> Result<Metadata, TaskError> {
    let mut command = Command::new(cargo());
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root());
    let out = output(&mut command)?;
    serde_json::from_slice(&out)
        .map_err(|e| TaskError::Output { what: "cargo metadata".into(), message: e.to_string() })
}

/// The workspace's crates.
pub(crate) fn packages() -> Result<Vec<Package>, TaskError> {
    Ok(metadata()?.packages)
}

/// Where cargo builds.
pub(crate) fn target_directory() -> Result<PathBuf, TaskError> {
    Ok(metadata()?.target_directory)
}

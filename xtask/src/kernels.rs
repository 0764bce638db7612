//! `cargo xtask kernels`: compiles every CUDA kernel for the architectures that are served. No card is needed, only NVIDIA's
//! runtime compiler, which is looked for and else downloaded.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::TaskError;
use crate::workspace;

/// The package with the compiler. Its version is that of the CUDA on the cards that were measured; the kernels include no
/// header, so that nothing else is needed. 90 MB, once.
const WHEEL: &str = "nvidia-cuda-nvrtc==13.0.88";
/// How the library is called, whatever its version.
const LIBRARY: &str = "libnvrtc.so";
/// Where CUDA's installers put it.
const INSTALLED: &str = "/usr/local/cuda/lib64";

/// Compiles all kernels and prints a line for each. [`TaskError::Skip`] where there is no compiler to be had.
pub(crate) fn run() -> Result<(), TaskError> {
    let folder = find()?;
    println!("libnvrtc of {}", folder.display());
    let program = workspace::build(&[])?.join("examples").join(workspace::EXAMPLE[1]);
    let paths = [folder].into_iter().chain(search_path());
    let paths = std::env::join_paths(paths)
        .map_err(|e| TaskError::Output { what: "LD_LIBRARY_PATH".into(), message: e.to_string() })?;
    let mut compile = Command::new(program);
    workspace::status(compile.env("LD_LIBRARY_PATH", paths).current_dir(workspace::root()))
}

/// The folder with libnvrtc: `LATELY_NVRTC`, LD_LIBRARY_PATH, where CUDA is installed, else downloaded.
fn find() -> Result<PathBuf, TaskError> {
    if let Some(named) = std::env::var_os("LATELY_NVRTC").map(PathBuf::from) {
        return if holds_library(&named) {
            Ok(named)
        } else {
            Err(TaskError::Unknown(format!("LATELY_NVRTC is {}: no {LIBRARY}* is in it", named.display())))
        };
    }
    let there = search_path().into_iter().chain([INSTALLED.into()]).find(|folder| holds_library(folder));
    there.map_or_else(|| downloaded(&workspace::target_directory()?.join("nvrtc")), Ok)
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()).collect()
}

/// Unpacks the wheel into `folder`, unless that was done before.
fn downloaded(folder: &Path) -> Result<PathBuf, TaskError> {
    // Of this version: another one is downloaded beside it.
    let folder = folder.join(WHEEL.replace("==", "-"));
    if let Some(found) = below(&folder) {
        return Ok(found);
    }
    eprintln!("{LIBRARY} is not here: downloads {WHEEL}");
    let wheels = folder.join("wheel");
    python(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"], &wheels, &[WHEEL.into()])?;
    for wheel in entries(&wheels) {
        python(["-m", "zipfile", "-e"], &wheel, &[folder.clone().into_os_string()])?;
    }
    below(&folder).ok_or_else(|| TaskError::Output {
        what: WHEEL.into(),
        message: format!("no {LIBRARY}* is in it: set LATELY_NVRTC to a folder that holds it"),
    })
}

/// Runs `python3 WORDS PATH REST`; whatever goes wrong, the step is skipped, as a machine may have no Python and no network.
fn python<const N: usize>(words: [&str; N], path: &Path, rest: &[OsString]) -> Result<(), TaskError> {
    let mut command = Command::new("python3");
    command.args(words).arg(path).args(rest);
    workspace::output(&mut command).map(drop).map_err(|error| {
        let last = error.to_string();
        let last = last.lines().last().unwrap_or_default();
        TaskError::Skip(format!(
            "the CUDA kernels are not compiled: {LIBRARY} is neither here nor to be downloaded ({last}); install CUDA's \
             nvrtc, or set LATELY_NVRTC to the folder that holds it"
        ))
    })
}

fn holds_library(folder: &Path) -> bool {
    entries(folder).iter().any(|path| is_library(path))
}

/// Its versioned names too (`libnvrtc.so.13`), but not its neighbours (`libnvrtc-builtins.so`).
fn is_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY))
}

/// The folder with the library, somewhere below.
fn below(folder: &Path) -> Option<PathBuf> {
    let entries = entries(folder);
    if entries.iter().any(|path| is_library(path)) {
        return Some(folder.to_owned());
    }
    entries.iter().filter(|path| path.is_dir()).find_map(|path| below(path))
}

/// Nothing of a folder that is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_under_any_version_and_below_any_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(below(dir.path()), None);
        let lib = dir.path().join("nvidia/cu13/lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("libnvrtc-builtins.so.13.0"), "").unwrap();
        assert!(!holds_library(&lib));
        std::fs::write(lib.join("libnvrtc.so.13"), "").unwrap();
        assert!(holds_library(&lib));
        assert_eq!(below(dir.path()), Some(lib.clone()));
        assert!(!holds_library(&dir.path().join("absent")));
    }

    #[test]
    fn what_python_cannot_do_skips_the_step_and_says_what_to_set() {
        let failed = python(["-c", "import no_such_module"], Path::new("x"), &[]).unwrap_err();
        assert!(matches!(&failed, TaskError::Skip(why) if why.contains("LATELY_NVRTC")), "{failed}");
    }
}

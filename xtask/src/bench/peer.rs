//! The PyTorch module that we measure ourselves against: whether it can run here, and how it is run.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::error::TaskError;
use crate::workspace;

/// Runs a script: what is measured, the path and arguments follow. Keeps every list of times of which it takes the median, and closes
/// with the most memory that the process ever held: both in the line protocol of `benchsuite/README.md`.
const WRAPPER: &str = r#"
import json, runpy, statistics, sys
def say(name, unit, samples):
    print(json.dumps({"name": name, "unit": unit, "samples": samples}), flush=True)
what, median = sys.argv[1], statistics.median
def keep(times):
    say(what, "ms", [t * 1e3 for t in times])
    return median(times)
statistics.median = keep
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
with open("/proc/self/status") as status:
    peak = [line.split()[1] for line in status if line.startswith("VmHWM:")]
say("peak memory, " + what, "MiB", [int(peak[0]) / 1024])
"#;

/// Prints the versions that a record names.
const VERSIONS: &str = "import platform, torch; print(torch.__version__, platform.python_version())";

/// A peer that can run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Peer {
    #[serde(skip)]
    python: PathBuf,
    #[serde(skip)]
    script: PathBuf,
    torch: String,
    python_version: String,
}

impl Peer {
    /// One line.
    pub(super) fn summary(&self) -> String {
        format!("PyTorch {}, Python {}", self.torch, self.python_version)
    }

    /// The program that measures `name` by the script's `what` with `args`.
    pub(super) fn command(&self, name: &str, what: &str, args: &[String]) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", WRAPPER, name]).arg(&self.script).arg(what).args(args);
        command
    }
}

/// The folder with the module and, beside it, the reference cases: `LATELY_REFERENCE`, or beside the repository.
pub(super) fn folder() -> PathBuf {
    let near = workspace::root().join("../shared/reference");
    std::env::var_os("LATELY_REFERENCE").map_or(near, PathBuf::from)
}

/// Looks for the module and a Python that has torch: `python`, else `LATELY_PYTHON`, else `python3`.
///
/// # Errors
/// Words that say what to install or set.
pub(super) fn find(folder: &Path, python: Option<&Path>) -> Result<Peer, String> {
    let script = folder.join("pinnability.py");
    if !script.is_file() {
        return Err(format!(
            "{} is absent: set LATELY_REFERENCE to the folder that holds it",
            script.display()
        ));
    }
    let named = || std::env::var_os("LATELY_PYTHON").map(PathBuf::from);
    let python = python.map(Path::to_owned).or_else(named).unwrap_or_else(|| "python3".into());
    let said =
        workspace::output(Command::new(&python).args(["-c", VERSIONS])).map_err(|e| advice(&python, &e))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let mut words = said.split_whitespace().map(str::to_owned);
    match (words.next(), words.next()) {
        (Some(torch), Some(python_version)) => Ok(Peer { python, script, torch, python_version }),
        _ => Err(format!("{} said `{said}` instead of the versions of torch and Python", python.display())),
    }
}

fn advice(python: &Path, error: &TaskError) -> String {
    let last = error.to_string();
    let last = last.lines().last().unwrap_or_default();
    format!(
        "{} has no PyTorch ({last}). Install it outside the repository:\n  python3 -m venv DIR && DIR/bin/pip install torch \
         numpy\nand give --python DIR/bin/python or set LATELY_PYTHON",
        python.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path(), None).unwrap_err().contains("LATELY_REFERENCE"));
        std::fs::write(dir.path().join("pinnability.py"), "").unwrap();
        // `false` stands for a Python without torch.
        let error = find(dir.path(), Some(Path::new("false"))).unwrap_err();
        assert!(error.contains("pip install torch") && error.contains("LATELY_PYTHON"), "{error}");
        // `true` says nothing at all.
        assert!(find(dir.path(), Some(Path::new("true"))).unwrap_err().contains("instead of the versions"));
    }
}

//! `lately serve` as a process of its own, for tests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running `lately serve` on free ports. Dropping it kills it as `kill -9` does.
pub(crate) struct Served {
    child: Child,
    /// Kept open: a server whose output nobody can take must not be what fails.
    _stdout: BufReader<ChildStdout>,
    /// `http://host:port` of the data door.
    pub(crate) base: String,
}

impl Served {
    /// Starts it on a data directory and waits until it listens.
    pub(crate) fn start(data: &Path) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lately"))
            .args(["serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the binary")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            if let Some((_, base)) =
                line.trim_end().split_once(" on http://").filter(|_| line.starts_with("serving "))
            {
                let base = format!("http://{base}");
                return Ok(Self { child, _stdout: stdout, base });
            }
            line.clear();
        }
        let status = child.wait()?;
        bail!("the server ended with {status} before it listened");
    }

    /// SIGKILL, then waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Killed before by `kill`: both fail, and there is nothing left to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

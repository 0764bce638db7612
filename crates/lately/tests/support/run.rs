//! Runs of the real binary, and a small data directory to run it on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::world::{SCHEMA, World, WorldConfig};
use tempfile::TempDir;

/// 3 January 2026 00:00 UTC.
pub(crate) const WORLD_END_MS: i64 = 1_767_398_400_000;

/// What a run of the binary came to.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary with arguments that are separated by spaces, and paths where `{}` stands.
pub(crate) fn lately(arguments: &str, paths: &[&Path]) -> Result<Run> {
    let mut paths = paths.iter();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lately"));
    for argument in arguments.split(' ') {
        match argument {
            "{}" => command.arg(paths.next().context("a path is missing")?),
            text => command.arg(text),
        };
    }
    let output = command.output().context("cannot start the binary")?;
    Ok(Run {
        code: output.status.code().context("ended by a signal")?,
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

impl Run {
    /// Ended with this status, and said all of this.
    pub(crate) fn ended(&self, code: i32, said: &[&str]) -> Result<()> {
        let all = format!("{}\n{}", self.out, self.err);
        ensure!(self.code == code, "ended with {} instead of {code}: {all}", self.code);
        let missing: Vec<_> = said.iter().filter(|text| !all.contains(**text)).collect();
        ensure!(missing.is_empty(), "did not say {missing:?}: {all}");
        Ok(())
    }
}

/// A data directory with two days of a small world, 1 and 2 January 2026, and a small model to be trained.
pub(crate) fn small_world() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let toml =
        format!("[model]\ncross_width = 16\nhidden = [16]\n[train]\nbatch_rows = 256\n[schema]\n{SCHEMA}");
    let store = DataDir::create(dir.path(), &toml)?.store()?;
    let world =
        World::new(WorldConfig { users: 30, items: 64, topics: 4, seed: 3, ..WorldConfig::default() })?;
    let before = WORLD_END_MS - 2 * 86_400_000;
    for events in [world.items(before), world.users(before), world.bootstrap(2, WORLD_END_MS)?] {
        store.append(events)?;
    }
    Ok(dir)
}

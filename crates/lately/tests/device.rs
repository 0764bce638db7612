//! On what a server scores: what it says where there is a GPU, none, or no program for one.

#[path = "support/gpu.rs"]
mod gpu;
#[path = "support/http.rs"]
mod http;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately_model::{Manifest, Model, ModelConfig};
use lately_train::publish::{CHAMPION, publish};
use serde_json::json;
use tempfile::TempDir;

use crate::gpu::has_gpu;
use crate::http::Http;
use crate::run::{lately, small_world};

/// What a server without a GPU says when it is told to use one.
const REFUSAL: &[&str] = if cfg!(feature = "cuda") {
    &["device cuda is asked for: ", "ask for auto or cpu"]
} else {
    &["built without CUDA: build with --features cuda, or ask for auto or cpu"]
};

/// A data directory with a model, and these keys of `[rank]`.
fn with_model(rank: &str) -> Result<TempDir> {
    let dir = small_world()?;
    let toml = dir.path().join("lately.toml");
    fs::write(&toml, format!("[rank]\n{rank}\n{}", fs::read_to_string(&toml)?))?;
    let there = DataDir::open(dir.path())?;
    let model = Model::new(ModelConfig { hidden: vec![8], ..ModelConfig::default() }, &there.schema, 1)?;
    let manifest = Manifest::new(&model, &there.schema, 1);
    publish(&there.registry()?, &model, &manifest, Some(CHAMPION))?;
    Ok(dir)
}

/// A server that has said where it listens and on what it scores.
struct Served {
    child: Child,
    /// Kept open: a server whose output nobody takes must not be what fails.
    _stdout: Box<dyn Read>,
    base: String,
    device: String,
}

impl Served {
    fn start(data: &Path, options: &[&str]) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lately"))
            .args(["serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the binary")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        let (mut base, mut line) = (None, String::new());
        while stdout.read_line(&mut line)? > 0 {
            if let Some((_, at)) =
                line.trim_end().split_once(" on http://").filter(|_| line.starts_with("serving "))
            {
                base = Some(format!("http://{at}"));
            }
            if let Some(device) = line.trim_end().strip_prefix("scoring on ") {
                let device = device.to_owned();
                let base = base.context("it scores before it listens")?;
                return Ok(Self { child, _stdout: Box::new(stdout), base, device });
            }
            line.clear();
        }
        anyhow::bail!("the server ended with {} before it said on what it scores", child.wait()?);
    }

    /// Kills it; what it had written to stderr.
    fn end(mut self) -> Result<String> {
        self.child.kill()?;
        let mut stderr = String::new();
        self.child.stderr.take().context("no stderr")?.read_to_string(&mut stderr)?;
        self.child.wait()?;
        Ok(stderr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ended before by `end`: both fail, and there is nothing left to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_gpu_that_is_demanded_and_not_there_ends_the_start() -> Result<()> {
    if has_gpu() {
        return Ok(());
    }
    let dir = with_model("")?;
    let serve = |options: &str| {
        lately(
            &format!("serve --data {{}} --bind 127.0.0.1:0 --admin-bind 127.0.0.1:0{options}"),
            &[dir.path()],
        )
    };
    serve(" --device cuda")?.ended(1, REFUSAL)?;
    let toml = dir.path().join("lately.toml");
    let demanded = fs::read_to_string(&toml)?.replace("[rank]\n", "[rank]\ndevice = \"cuda\"\n");
    fs::write(&toml, demanded)?;
    serve("")?.ended(1, REFUSAL)?;
    serve(" --device tpu")?.ended(2, &["auto, cuda or cpu"])
}

#[test]
fn without_a_gpu_the_cpu_serves_and_the_start_and_the_models_say_so() -> Result<()> {
    if has_gpu() {
        return Ok(());
    }
    // What the command line says goes over lately.toml.
    for (rank, options) in [("", &[] as &[&str]), ("device = \"cuda\"", &["--device", "auto"])] {
        let dir = with_model(rank)?;
        let server = Served::start(dir.path(), options)?;
        ensure!(server.device == "cpu", "it scores on {}", server.device);
        let models = Http::new(&server.base).json("GET", "/v1/models", None)?;
        let current = &models["current"];
        ensure!(current["device"] == "cpu" && current["precision"] == "f32", "{models}");
        let ask = json!({"user": "u", "candidates": ["a", "b"]});
        let ranked = Http::new(&server.base).json("POST", "/v1/rank", Some(&ask))?;
        ensure!(ranked["model"]["version"] == current["version"], "{ranked}");
        let said = server.end()?;
        let told = said.lines().filter(|l| l.contains("serving on the CPU: no CUDA: ")).count();
        ensure!(told == usize::from(cfg!(feature = "cuda")), "one line, or none without CUDA: {said}");
    }
    Ok(())
}

#[test]
fn the_cpu_that_is_asked_for_is_not_explained() -> Result<()> {
    let dir = with_model("device = \"cpu\"")?;
    let server = Served::start(dir.path(), &[])?;
    ensure!(server.device == "cpu", "it scores on {}", server.device);
    let said = server.end()?;
    ensure!(!said.contains("CUDA"), "{said}");
    Ok(())
}

//! On what `lately train` trains: what it says where there is a GPU, none, or no program for one, and which of several
//! processes it is.

#[path = "support/gpu.rs"]
mod gpu;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::gpu::has_gpu;
use crate::run::{Run, lately, small_world};

/// What a training without a GPU says when it is told to use one.
const REFUSAL: &[&str] = if cfg!(feature = "cuda") {
    &["device cuda is asked for: ", "ask for auto or cpu"]
} else {
    &["built without CUDA: build with --features cuda, or ask for auto or cpu"]
};

#[test]
fn a_gpu_that_is_demanded_and_not_there_ends_the_training_before_the_join() -> Result<()> {
    if has_gpu() {
        return Ok(());
    }
    let dir = small_world()?;
    let train = |options: &str| lately(&format!("train --data {{}}{options}"), &[dir.path()]);
    let refused = train(" --device cuda")?;
    refused.ended(1, REFUSAL)?;
    ensure!(!refused.out.contains("joined"), "it joined first: {}", refused.out);
    let toml = dir.path().join("lately.toml");
    fs::write(&toml, fs::read_to_string(&toml)?.replace("[train]\n", "[train]\ndevice = \"cuda\"\n"))?;
    train("")?.ended(1, REFUSAL)?;
    train(" --device tpu")?.ended(2, &["auto, cuda or cpu"])?;
    lately("retrain --data {} --full", &[dir.path()])?.ended(1, REFUSAL)?;
    // What the command line says goes over lately.toml; the CPU that is asked for is not explained.
    let trained = train(" --device cpu")?;
    trained.ended(0, &["training on cpu\n", "published"])?;
    ensure!(!trained.err.contains("CUDA"), "{}", trained.err);
    Ok(())
}

#[test]
fn without_a_gpu_auto_trains_on_the_cpu_and_says_so() -> Result<()> {
    if has_gpu() {
        return Ok(());
    }
    let dir = small_world()?;
    for options in ["", " --incremental --epochs 1"] {
        let trained = lately(&format!("train --data {{}} --device auto{options}"), &[dir.path()])?;
        if !options.is_empty() {
            trained.ended(1, &["no row has come since"])?;
        } else {
            trained.ended(0, &["published"])?;
            ensure!(trained.out.matches("training on ").count() == 1, "{}", trained.out);
            ensure!(trained.out.contains("training on cpu\n"), "{}", trained.out);
        }
        let told = trained.err.lines().filter(|l| l.contains("training on the CPU: no CUDA: ")).count();
        ensure!(
            told == usize::from(cfg!(feature = "cuda")),
            "one line, or none without CUDA: {}",
            trained.err
        );
    }
    Ok(())
}

#[test]
fn what_says_which_of_several_processes_it_is_must_make_sense() -> Result<()> {
    let dir = small_world()?;
    let train = |variables: &str, device: &str| -> Result<Run> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lately"));
        command.args(["train", "--device", device, "--data"]).arg(dir.path());
        command.envs(variables.split(' ').filter_map(|pair| pair.split_once('=')));
        let output = command.output().context("cannot start the binary")?;
        Ok(Run {
            code: output.status.code().context("ended by a signal")?,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    };
    train("WORLD_SIZE=2", "cuda")?.ended(1, &["WORLD_SIZE is set and RANK is not", "torchrun"])?;
    let address = "MASTER_ADDR=127.0.0.1 MASTER_PORT=29500";
    let beyond = format!("RANK=2 WORLD_SIZE=2 LOCAL_RANK=0 {address}");
    train(&beyond, "cuda")?.ended(1, &["RANK is `2`: it must be from 0 and below WORLD_SIZE, 2"])?;
    let second = format!("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 {address}");
    let on_cpu = ["WORLD_SIZE is 2: several processes", "ask for --device cuda, or run one process"];
    train(&second, "cpu")?.ended(1, &on_cpu)?;
    if !has_gpu() {
        for device in ["auto", "cuda"] {
            train(&second, device)?.ended(1, &["WORLD_SIZE is 2", "device cuda is asked for: "])?;
        }
    }
    // One that torchrun started is alone, wherever it trains.
    train("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0", "cpu")?.ended(0, &["training on cpu\n", "published"])
}

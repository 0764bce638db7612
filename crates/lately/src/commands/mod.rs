//! One file a subcommand.

mod ablate;
mod bench;
mod decay;
mod demo;
mod doctor;
mod embed;
mod eval;
mod experiment;
mod import;
mod join;
mod model;
mod promotion;
mod replay;
mod retrain;
mod serve;
mod simulate;
mod size;
mod train;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Ranks a feed by what each person did a moment ago.
#[derive(Debug, Parser)]
#[command(name = "lately", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole loop on a synthetic world, in one process.
    Demo(demo::Args),
    /// Bring logged data into a data directory.
    #[command(subcommand)]
    Import(import::Command),
    /// Learn or list item vectors, and choose those that training uses.
    #[command(subcommand)]
    Embed(embed::Command),
    /// Join the log with what followed, into Parquet files.
    Join(join::Args),
    /// Train a model from a data directory's log and publish it.
    Train(train::Args),
    /// Take turns of learning: join, judge the rows, train, judge the model, promote it.
    Retrain(retrain::Args),
    /// Evaluate a model on a range of days.
    Eval(eval::Args),
    /// Compare configurations of the model over several seeds.
    Ablate(ablate::Args),
    /// Measure what a model loses by standing still, and what retraining gives back.
    Decay(decay::Args),
    /// Serve rankings over HTTP and gRPC.
    Serve(serve::Args),
    /// Make served rankings again from the log, and compare.
    Replay(replay::Args),
    /// Compare variants between people.
    #[command(subcommand)]
    Experiment(experiment::Command),
    /// Live weeks of a synthetic product: A/B experiments, launches, diversity.
    Simulate(simulate::Args),
    /// Look a data directory over: disk, model, log, drift, calibration, replay.
    Doctor(doctor::Args),
    /// Load a server and see how it holds up.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Cores, memory, disk and network for a product of a given size.
    Size(size::Args),
    /// Look at models: parity with the reference, the registry, aliases.
    #[command(subcommand)]
    Model(model::Command),
}

impl Cli {
    /// Runs the chosen subcommand.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Demo(args) => demo::run(&args),
            Command::Import(command) => import::run(&command),
            Command::Embed(command) => embed::run(&command),
            Command::Join(args) => join::run(&args),
            Command::Train(args) => train::run(&args),
            Command::Retrain(args) => retrain::run(&args),
            Command::Eval(args) => eval::run(&args),
            Command::Ablate(args) => ablate::run(&args),
            Command::Decay(args) => decay::run(&args),
            Command::Serve(args) => serve::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Experiment(command) => experiment::run(&command),
            Command::Simulate(args) => simulate::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Bench(command) => bench::run(&command),
            Command::Size(args) => size::run(&args),
            Command::Model(command) => model::run(&command),
        }
    }
}

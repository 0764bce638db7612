//! `lately serve`: rankings over HTTP.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use lately_rank::RankDevice;

use crate::data_dir::DataDir;
use crate::interrupt::Interrupt;
use crate::retrain::{Due, Learner, RetrainConfig, newest_row_ms};
use crate::wire_up::{Server, now_ms};

/// Between looks at whether a turn of learning is due.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Data directory with lately.toml; its store and registry are made where they do not exist.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address of the data port; default: lately.toml's. Port 0 takes a free one.
    #[arg(long)]
    bind: Option<String>,
    /// Address of the admin port (metrics, model reload); default: lately.toml's.
    #[arg(long)]
    admin_bind: Option<String>,
    /// Seconds between retrainings inside the server; 0: never; default: lately.toml's.
    #[arg(long, value_name = "SECONDS")]
    retrain_seconds: Option<u64>,
    /// On what models are scored: auto (a CUDA device where there is one, else the CPU), cuda or cpu; default: lately.toml's.
    #[arg(long, value_parser = parse_device)]
    device: Option<RankDevice>,
}

fn parse_device(text: &str) -> Result<RankDevice, String> {
    serde_json::from_value(text.into()).map_err(|_| "auto, cuda or cpu".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut dir = DataDir::open(&args.data)?;
    let retrain = &mut dir.config.retrain;
    retrain.every_seconds = args.retrain_seconds.unwrap_or(retrain.every_seconds);
    let device = &mut dir.config.rank.device;
    *device = args.device.unwrap_or(*device);
    let config = &dir.config.serve;
    let bind = args.bind.as_ref().unwrap_or(&config.bind);
    let admin_bind = args.admin_bind.as_ref().unwrap_or(&config.admin_bind);
    let server = Server::start(&dir, bind, admin_bind, None)?;
    println!("serving {} on http://{}", server.model_version(), server.address);
    println!("admin and metrics on http://{}", server.admin_address);
    println!("scoring on {}", server.device());
    learn(&dir, &server, &interrupt)?;
    println!("stopping: finishing requests in work");
    server.stop()
}

/// Takes turns of learning as they are due, until the process is asked to end.
fn learn(dir: &DataDir, server: &Server, interrupt: &Interrupt) -> Result<()> {
    let config = &dir.config.retrain;
    if config.every_seconds == 0 {
        interrupt.wait(None);
        return Ok(());
    }
    let mut learner = None;
    let mut last = Instant::now();
    while !interrupt.wait(Some(LOOK)) {
        match due(config, server, last) {
            Ok(None) => continue,
            Ok(Some(due)) => tracing::info!(%due, "a turn of learning"),
            // A registry that cannot be read for a while must not end the serving; the next look asks again.
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "whether a turn of learning is due is not known"
                );
                continue;
            }
        }
        // The log may still be too short to learn from; the server serves on.
        if let Err(error) = turn(dir, server, &mut learner) {
            eprintln!("retraining failed: {error:#}");
            learner = None; // a lake whose commit failed must be opened again
        }
        last = Instant::now();
    }
    Ok(())
}

fn due(config: &RetrainConfig, server: &Server, last: Instant) -> Result<Option<Due>> {
    let newest = if config.max_age_hours > 0.0 { newest_row_ms(&server.registry)? } else { None };
    let drift = server.watch.demands_retrain()?.map(|reason| reason.to_string());
    Ok(config.due(last.elapsed(), newest, now_ms(), drift))
}

fn turn(dir: &DataDir, server: &Server, learner: &mut Option<Learner>) -> Result<()> {
    server.flush_impressions();
    let learner = match learner {
        Some(learner) => learner,
        None => learner.insert(Learner::new(dir, &server.store, &server.registry)?),
    };
    println!("{}", learner.turn(None)?);
    server.reload()?;
    Ok(())
}

//! `lately serve`: rankings over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::data_dir::DataDir;
use crate::interrupt::Interrupt;
use crate::retrain::turn;
use crate::wire_up::Server;

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
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let dir = DataDir::open(&args.data)?;
    let config = &dir.config.serve;
    let bind = args.bind.as_ref().unwrap_or(&config.bind);
    let admin_bind = args.admin_bind.as_ref().unwrap_or(&config.admin_bind);
    let server = Server::start(&dir, bind, admin_bind, None)?;
    println!("serving {} on http://{}", server.model_version(), server.address);
    println!("admin and metrics on http://{}", server.admin_address);
    let retrain = args.retrain_seconds.unwrap_or(config.retrain_seconds);
    let interval = (retrain > 0).then(|| Duration::from_secs(retrain));
    while !interrupt.wait(interval) {
        server.flush_impressions();
        match turn(
            &dir,
            &server.store,
            &server.registry,
            config.retrain_window_days,
            dir.config.train.threads,
        ) {
            Ok(done) => {
                println!("{done}");
                server.reload()?;
            }
            // The log may still be too short to learn from; the server serves on.
            Err(error) => eprintln!("retraining failed: {error:#}"),
        }
    }
    println!("stopping: finishing requests in work");
    server.stop()
}

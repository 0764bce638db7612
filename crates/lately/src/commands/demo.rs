//! `lately demo`: the whole loop on a synthetic world, in one process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;

use super::train::write_json;
use crate::demo::crowd::Crowd;
use crate::demo::summary::Summary;
use crate::demo::{Demo, DemoOptions};
use crate::interrupt::Interrupt;
use crate::retrain::{Learner, Turn};
use crate::world::WorldConfig;

/// Time to the first retraining where the demo has no end.
const RETRAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// How long people act, such as 120s or 5m; default: until Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    duration: Option<Duration>,
    /// Where the data goes; default: a temporary directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address of the page and the data port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7000")]
    bind: String,
    /// Address of the admin port.
    #[arg(long, default_value = "127.0.0.1:7001")]
    admin_bind: String,
    /// People of the world.
    #[arg(long, default_value_t = 400)]
    users: usize,
    /// Things of the world.
    #[arg(long, default_value_t = 1200)]
    items: usize,
    /// Seed of the world and its people.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pause of a person between two pages, milliseconds; two people act at a time.
    #[arg(long, default_value_t = 40)]
    pause_ms: u64,
    /// Write the summary as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no time: write it like 120s"))?;
    Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let interrupt = Interrupt::install()?;
    let options = DemoOptions {
        dir: args.dir.clone(),
        world: WorldConfig {
            users: args.users,
            items: args.items,
            seed: args.seed,
            ..WorldConfig::default()
        },
        bind: args.bind.clone(),
        admin_bind: args.admin_bind.clone(),
        ..DemoOptions::default()
    };
    let demo = Demo::start(&options, &mut |line| println!("{line}"))?;
    first_page(&demo)?;
    let first_page_seconds = begun.elapsed().as_secs_f64();
    println!("first ranked page after {first_page_seconds:.1} s; open http://{}/", demo.server.address);

    let base = format!("http://{}", demo.server.address);
    let crowd = Crowd::start(&demo.world, &base, 2, Duration::from_millis(args.pause_ms), args.seed)?;
    let acting = Instant::now();
    let retrain_at = args.duration.map_or(RETRAIN_AFTER, |d| d.mul_f64(0.4));
    let mut unseen_from = demo.trained_to;
    if !interrupt.wait(Some(retrain_at)) {
        let done = learn_from_what_was_served(&demo)?;
        unseen_from = done.trained_to;
        println!("{done}\nserving generation {}", demo.server.generation());
    }
    interrupt.wait(args.duration.map(|d| d.saturating_sub(acting.elapsed())));
    let seconds = acting.elapsed().as_secs_f64();
    let tally = crowd.stop();
    let summary = Summary::of(&demo, &tally, seconds, first_page_seconds, unseen_from)?;
    println!("\n{summary}");
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&summary)?)?;
    }
    if let Ok(errors) = tally.first_errors.lock()
        && !errors.is_empty()
    {
        bail!("{} requests failed, the first: {}", summary.errors, errors.join("; "));
    }
    Ok(())
}

fn first_page(demo: &Demo) -> Result<()> {
    let user = demo.world.user_ids().swap_remove(0);
    let url = format!("http://{}/v1/feed?user={user}&limit=12", demo.server.address);
    let page = ureq::get(url).call().context("the first page")?.body_mut().read_to_string()?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    let ranked = page["items"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(ranked > 0, "the first page is empty: {page}");
    Ok(())
}

fn learn_from_what_was_served(demo: &Demo) -> Result<Turn> {
    demo.server.flush_impressions();
    let done = Learner::new(&demo.dir, &demo.server.store, &demo.server.registry)?.turn(None)?;
    demo.server.reload()?;
    Ok(done)
}

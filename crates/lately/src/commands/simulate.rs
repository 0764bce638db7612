//! `lately simulate`: weeks of a synthetic product, A/B experiments and launches.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};

use super::train::write_json;
use crate::simulate::{Part, Recipe, draw, headline};

/// What can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// All of the following, beside the article's figures.
    Headline,
    /// The sequence, in an experiment and launched to all.
    Sequence,
    /// Models that are retrained, and one that is not.
    Retraining,
    /// The time-window mask.
    Mask,
    /// What diversity costs and brings.
    Diversity,
}

impl Suite {
    fn parts(self) -> Vec<Part> {
        match self {
            Self::Headline => Part::EACH.to_vec(),
            Self::Sequence => vec![Part::Sequence],
            Self::Retraining => vec![Part::Retraining],
            Self::Mask => vec![Part::Mask],
            Self::Diversity => vec![Part::Diversity],
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// What is simulated.
    #[arg(long, value_enum, default_value = "headline")]
    suite: Suite,
    /// Seeds of the worlds.
    #[arg(long, value_delimiter = ',', default_values_t = Recipe::default().seeds)]
    seeds: Vec<u64>,
    /// People of a town that is split between variants.
    #[arg(long, default_value_t = Recipe::default().people)]
    people: usize,
    /// People of a town with one policy for all.
    #[arg(long, default_value_t = Recipe::default().twins)]
    twins: usize,
    /// People of a town with one policy for all that is looked at on its first day only.
    #[arg(long, default_value_t = Recipe::default().first_day)]
    first_day: usize,
    /// Days that are simulated.
    #[arg(long, default_value_t = Recipe::default().days)]
    days: u32,
    /// Candidates of a page.
    #[arg(long, default_value_t = Recipe::default().candidates)]
    candidates: usize,
    /// Towns at a time; default: one for each core.
    #[arg(long, default_value_t = Recipe::default().threads)]
    threads: usize,
    /// `lately.toml` of the towns, without `[schema]`; default: a small model.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the plots, SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let built_in = Recipe::default();
    let settings = match &args.config {
        None => built_in.settings.clone(),
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    let recipe = Recipe {
        seeds: args.seeds.clone(),
        people: args.people,
        twins: args.twins,
        first_day: args.first_day,
        days: args.days,
        candidates: args.candidates,
        threads: args.threads,
        settings,
        ..built_in
    };
    let begun = Instant::now();
    let found = headline(&recipe, &args.suite.parts(), &|line| eprintln!("{line}"))?;
    println!("{}", found.table());
    eprintln!("{:.0} s", begun.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&found)?)?;
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, draw(&found)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

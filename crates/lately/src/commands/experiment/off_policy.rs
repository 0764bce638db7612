//! `lately experiment off-policy`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_experiment::{OffPolicySettings, Value};

use crate::commands::train::Days;
use crate::data_dir::DataDir;
use crate::experiments::{Judged, OtherWeights};
use crate::log_source::Log;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    days: Days,
    /// Weights of heads by which the shuffled places would be ordered; a head that is not named weighs 0.
    #[arg(long, value_delimiter = ',', value_name = "HEAD=WEIGHT", required = true, value_parser = weight)]
    weights: Vec<(String, f32)>,
    /// Probability with which an interval covers, above 0, below 1.
    #[arg(long, default_value_t = OffPolicySettings::default().confidence)]
    confidence: f64,
    /// Count weights (how much likelier an item is at its place than it was) above this as this; default: none.
    #[arg(long, value_name = "WEIGHT")]
    max_weight: Option<f64>,
    /// Print all numbers as JSON in the place of the table.
    #[arg(long)]
    json: bool,
}

fn weight(text: &str) -> Result<(String, f32), String> {
    let wrong = || format!("`{text}` is no weight: write it like save=1.0");
    let (head, weight) = text.split_once('=').ok_or_else(wrong)?;
    Ok((head.trim().to_owned(), weight.trim().parse().map_err(|_| wrong())?))
}

pub(super) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.days.data)?;
    let range = args.days.range(&args.days.zone(&dir.config)?)?;
    let mut weights = BTreeMap::new();
    for (head, weight) in &args.weights {
        if weights.insert(head.clone(), *weight).is_some() {
            bail!("--weights names `{head}` twice: give each head once");
        }
    }
    let mut other = OtherWeights::new(&dir.schema, weights, range)?;
    Log::open(&dir)?.each(&mut |_, event| other.observe(&event))?;
    let settings = OffPolicySettings { confidence: args.confidence, max_weight: args.max_weight };
    let judged = other.judge(&settings)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&judged)?),
        false => print(&judged),
    }
    Ok(())
}

fn print(judged: &Judged) {
    let overlap = &judged.overlap;
    println!(
        "{} lists with {} shuffled places, of {} people; as good as {:.0} places of the other order",
        judged.lists, overlap.rows, overlap.users, overlap.effective_rows
    );
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["a place earns", "as shown", "IPS", "SNIPS", "doubly robust"]);
    for (action, evaluation) in &judged.actions {
        let maybe = |value: Option<Value>| value.map_or("-".to_owned(), |v| shown(&v));
        table.add_row([
            action.clone(),
            shown(&evaluation.logged),
            shown(&evaluation.ips),
            maybe(evaluation.snips),
            maybe(evaluation.doubly_robust),
        ]);
    }
    println!("{table}");
    for warning in &judged.warnings {
        println!("WARNING {warning}");
    }
}

fn shown(value: &Value) -> String {
    format!("{:.4} [{:.4}, {:.4}]", value.value, value.low, value.high)
}

//! `lately experiment power`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_experiment::{Plan, Settings};

use crate::data_dir::DataDir;
use crate::experiments::past;
use crate::log_source::Log;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The metric's mean, of a person in the control: 0.12 where 12 % of the people save.
    #[arg(long, value_name = "MEAN", conflicts_with = "data", required_unless_present = "data")]
    baseline: Option<f64>,
    /// Its variance between people; default: that of a share, MEAN x (1 - MEAN).
    #[arg(long, conflicts_with = "data")]
    variance: Option<f64>,
    /// People who are seen for the first time on each day, in the experiment or not.
    #[arg(long, value_name = "N", conflicts_with = "data")]
    users_per_day: Option<f64>,
    /// Take mean, variance and people from this directory's log; a server may have it open.
    #[arg(long, value_name = "DIR", requires = "metric")]
    data: Option<PathBuf>,
    /// With --data: the metric, as a report names it, such as save_per_user.
    #[arg(long, requires = "data")]
    metric: Option<String>,
    /// With --data: newest days of the log. What people do grows with the days: take as many as the experiment will run.
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=365))]
    log_days: u32,
    /// Relative effect to be found, 0.02 for 2 %; default: wanted_lift of [experiments.readout].
    #[arg(long)]
    lift: Option<f64>,
    /// Days after which the smallest effect is told.
    #[arg(long, value_delimiter = ',', default_values_t = [7, 14, 28], value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: Vec<u32>,
    /// Shares of all people in the control and in the variant.
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 0.5])]
    shares: Vec<f64>,
    /// Probability of finding the effect; default: power of [experiments.readout].
    #[arg(long)]
    power: Option<f64>,
    /// Probability of finding what is not there; default: alpha of [experiments.readout].
    #[arg(long)]
    alpha: Option<f64>,
    /// Share of the variance that CUPED leaves; default: what the log says, or 1.
    #[arg(long)]
    kept: Option<f64>,
}

/// A plan, the effect that is wanted, and the people of each day.
struct Asked {
    plan: Plan,
    lift: f64,
    new_users: Vec<f64>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let asked = asked(args)?;
    let Asked { plan, lift, .. } = &asked;
    println!(
        "a lift of {:.1} % on a mean of {:.4} (variance {:.4}, of which CUPED leaves {:.0} %), found with a probability of \
         {:.0} %,\nby {:.0} % of the people against {:.0} %; found in error: {:.0} %",
        100.0 * lift,
        plan.mean,
        plan.variance,
        100.0 * plan.kept,
        100.0 * plan.power,
        100.0 * plan.shares.1,
        100.0 * plan.shares.0,
        100.0 * plan.alpha
    );
    println!("{}", table(&asked, &args.days));
    Ok(())
}

fn asked(args: &Args) -> Result<Asked> {
    let (settings, past) = match (&args.data, &args.metric) {
        (Some(data), Some(metric)) => {
            let dir = DataDir::open(data)?;
            let settings = dir.config.experiments.readout.clone();
            let past = past(&Log::open(&dir)?, &dir.schema, &settings, metric, args.log_days)?;
            println!("{metric}: {} people of the newest {} days of the log", past.users, args.log_days);
            (settings, Some(past))
        }
        _ => (Settings::default(), None),
    };
    let mean =
        past.as_ref().map(|p| p.mean).or(args.baseline).context("give --baseline, or --data and --metric")?;
    let of_a_share = (mean < 1.0).then_some(mean * (1.0 - mean));
    let Some(variance) = past.as_ref().map(|p| p.variance).or(args.variance).or(of_a_share) else {
        bail!("--baseline {mean} is no share of the people: give --variance too, or --data and --metric");
    };
    let new_users = match &past {
        Some(past) => past.new_users.clone(),
        None => vec![args.users_per_day.context("give --users-per-day, or --data and --metric")?],
    };
    let [control, variant] = args.shares[..] else {
        bail!("--shares has {} numbers: give two, of the control and of the variant", args.shares.len());
    };
    let plan = Plan {
        mean,
        variance,
        kept: args.kept.or(past.map(|p| p.kept)).unwrap_or(1.0),
        alpha: args.alpha.unwrap_or(settings.alpha),
        power: args.power.unwrap_or(settings.power),
        shares: (control, variant),
        sequential: false,
    };
    let asked = Asked { plan, lift: args.lift.unwrap_or(settings.wanted_lift), new_users };
    asked.check()?;
    Ok(asked)
}

impl Asked {
    fn check(&self) -> Result<()> {
        let plan = &self.plan;
        let (control, variant) = plan.shares;
        let above = |n: f64| n > 0.0 && n.is_finite();
        let inside = |n: f64| n > 0.0 && n < 1.0;
        ensure!(above(plan.mean), "--baseline is {}: it must be above 0", plan.mean);
        ensure!(above(plan.variance), "--variance is {}: it must be above 0", plan.variance);
        ensure!(above(self.lift), "--lift is {}: it must be above 0, such as 0.02 for 2 %", self.lift);
        ensure!(inside(plan.power), "--power is {}: it must be above 0 and below 1", plan.power);
        ensure!(inside(plan.alpha), "--alpha is {}: it must be above 0 and below 1", plan.alpha);
        ensure!(
            above(plan.kept) && plan.kept <= 1.0,
            "--kept is {}: it must be above 0, at most 1",
            plan.kept
        );
        ensure!(
            above(control) && above(variant) && control + variant <= 1.0 + 1e-9,
            "--shares are {control} and {variant}: each must be above 0, and both together at most 1"
        );
        let users: f64 = self.new_users.iter().sum();
        ensure!(above(users), "--users-per-day is {users}: it must be above 0");
        Ok(())
    }

    /// People in both variants after so many days.
    fn users(&self, days: u32) -> u64 {
        let last = self.new_users.last().copied().unwrap_or(0.0);
        let of = |day: u32| self.new_users.get(day as usize).copied().unwrap_or(last);
        let (control, variant) = self.plan.shares;
        ((0..days).map(of).sum::<f64>() * (control + variant)) as u64
    }
}

fn table(asked: &Asked, days: &[u32]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    let smallest = days.iter().map(|day| format!("finds after {day} d"));
    table.set_header(["decides", "people", "days"].map(str::to_owned).into_iter().chain(smallest));
    for (name, sequential) in [("one look", false), ("any look", true)] {
        let plan = Plan { sequential, ..asked.plan };
        let needed = plan.days_for(asked.lift, &asked.new_users);
        let needed = needed.map_or("over 10 years".to_owned(), |days| days.to_string());
        let finds = days.iter().map(|day| match asked.users(*day) {
            0 => "-".to_owned(),
            users => format!("{:.1} %", 100.0 * plan.detectable(users)),
        });
        let people = plan.users_for(asked.lift).to_string();
        table.add_row([name.to_owned(), people, needed].into_iter().chain(finds));
    }
    table
}

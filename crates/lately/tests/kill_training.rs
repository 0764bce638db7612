//! `lately train` killed at any moment: the next run goes on, and what is published is to the byte what an undisturbed run
//! publishes, once, with nothing left over. `LATELY_KILLS=25` sets the number of kills of each kind.

#[path = "support/run.rs"]
mod run;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lately::data_dir::DataDir;
use lately_store::registry::Change;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::run::{lately, small_world};

/// The state is saved after each of many steps.
const SETTINGS: [&str; 2] = ["batch_rows = 256", "batch_rows = 64\nsave_seconds = 0\nepochs = 3"];

#[test]
fn a_training_killed_at_any_moment_publishes_the_model_that_an_undisturbed_one_does() -> Result<()> {
    let kills: usize = std::env::var("LATELY_KILLS").map_or(Ok(5), |n| n.parse())?;
    let dir = small_world()?;
    let path = dir.path();
    let toml = path.join("lately.toml");
    let text = fs::read_to_string(&toml)?;
    ensure!(text.contains(SETTINGS[0]), "the world has other settings");
    fs::write(&toml, text.replace(SETTINGS[0], SETTINGS[1]))?;
    let begun = Instant::now();
    lately("train --data {}", &[path])?.ended(0, &["published", "as champion"])?;
    let mut whole = begun.elapsed();
    let expected = only_version(path)?;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    // Anywhere, then around the end, where the model is published and the state removed.
    let anywhere = killed(path, kills, 0.0..1.0, &mut whole, &mut random)?;
    ensure!(only_version(path)? == expected, "killed anywhere, another model was published");
    let published = killed(path, kills, 0.8..1.2, &mut whole, &mut random)?;
    ensure!(only_version(path)? == expected, "killed around its end, another model was published");
    println!("{anywhere} and {published} kills: always {expected:.12}, once, and nothing left over");
    Ok(())
}

fn train(path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lately"));
    command.args(["train", "--data"]).arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Begins without a model, kills trainings until there were so many kills, and lets the last one end. One that ends before
/// its kill is begun anew; `whole`, how long one takes, is then what that one took: a machine that was busy when it was first
/// measured and is idle now would else let every training end.
fn killed(
    path: &Path,
    kills: usize,
    moment: Range<f64>,
    whole: &mut Duration,
    random: &mut ChaCha8Rng,
) -> Result<usize> {
    let anew = || -> Result<()> {
        for folder in ["registry", "training"] {
            let folder = path.join(folder);
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    };
    anew()?;
    let (mut done, mut ended, mut from_the_start) = (0, 0, true);
    while done < kills {
        // A training that goes on is done earlier: its end is found by halving.
        let share = random.random_range(moment.clone()) / f64::from(1 << (done % 3));
        let begun = Instant::now();
        let mut child = train(path).spawn()?;
        if let Some(status) = wait(&mut child, begun + whole.mul_f64(share))? {
            ensure!(status.success(), "a training that was not killed failed");
            ended += 1;
            ensure!(ended < 10 * kills, "it always ends before it is killed");
            if from_the_start {
                *whole = begun.elapsed();
            }
            anew()?;
            from_the_start = true;
            continue;
        }
        child.kill()?;
        child.wait()?;
        done += 1;
        from_the_start = false;
    }
    ensure!(train(path).status()?.success(), "the training after the kills failed");
    Ok(done)
}

/// How it ended, if it did before the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if status.is_some() || left.is_zero() {
            return Ok(status);
        }
        std::thread::sleep(left.min(Duration::from_millis(2)));
    }
}

/// The one version there is, which the champion alias names; refuses whatever a crash left.
fn only_version(path: &Path) -> Result<String> {
    let registry = DataDir::open(path)?.registry()?;
    let versions = registry.versions()?;
    ensure!(versions.len() == 1, "{} versions", versions.len());
    let version = versions[0].version.clone();
    registry.load(&version)?;
    ensure!(registry.alias("champion")? == Some(version.clone()), "the champion is another one");
    let published = |change: &Change| matches!(change, Change::Publish { .. });
    let times = registry.audit()?.iter().filter(|r| published(&r.change)).count();
    ensure!(times == 1, "published {times} times");
    let left = registry.gc(&lately_store::registry::Garbage::default())?.leftovers;
    ensure!(left.is_empty(), "a part of {left:?} is left");
    let training = path.join("training");
    let states = if training.exists() { fs::read_dir(&training)?.count() } else { 0 };
    ensure!(states == 0, "{states} states are left in {}", training.display());
    Ok(version.to_string())
}

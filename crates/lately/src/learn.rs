//! From rows to a published version: what `lately train`, `lately eval --against`, the server's retraining and the
//! demo share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use lately_model::{Golden, Manifest, Model, ModelConfig};
use lately_store::{Registry, Version};
use lately_train::drift::Profile;
use lately_train::predict::golden;
use lately_train::publish::{CHAMPION, publish_with};
use lately_train::state::StateError;
use lately_train::trainer::{Control, Outcome, Progress, Start, TrainError, TrainReport, train_on};
use lately_train::{Place, Slice, TrainConfig};

use crate::device::TrainingDevice;

/// Key in a manifest's metrics: the newest row of the last training from new that a model goes back to, ms since 1970 UTC.
pub const FULL_MS: &str = "trained_from_new_to_ms";

/// What is to be trained.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Shape of the model.
    pub model: ModelConfig,
    /// Settings.
    pub train: TrainConfig,
    /// On what it is trained; the settings' `device` is what was asked for.
    pub device: TrainingDevice,
    /// Model whose weights it goes on from, of the same shape; `None`: from new.
    pub start: Option<&'a Model>,
    /// Version that is replaced, or gone on from.
    pub parent: Option<Version>,
    /// File in which a killed run is kept, `NAME.state`; one on a device, which only such a device can go on with, is kept in
    /// `NAME.device.state`. `None`: a killed run starts anew.
    pub state: Option<&'a Path>,
}

/// A trained model.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: Box<Model>,
    /// All that serving needs to know of it.
    pub manifest: Manifest,
    /// Some of its rows, with what it says of them.
    pub golden: Golden,
    /// How training went.
    pub report: TrainReport,
    /// File of the run's state, until [`done`](Self::done).
    state: Option<PathBuf>,
}

/// Trains on a slice, with a progress bar on the terminal if `bar`. A state file of another run is set aside.
pub fn learn(slice: &Slice<'_>, plan: &Plan<'_>, bar: bool) -> Result<Trained> {
    let trained = learn_together(slice, plan, bar, &mut |_| {})?;
    trained.context("only the first process of a group has the model")
}

/// As [`learn`], by a process that may be one of several: `None` where it is not the first of them. `began` is told on what it
/// trains, once, when a first step is done there.
pub(crate) fn learn_together(
    slice: &Slice<'_>,
    plan: &Plan<'_>,
    bar: bool,
    began: &mut dyn FnMut(&str),
) -> Result<Option<Trained>> {
    if let Some(dir) = plan.state.and_then(Path::parent) {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let bar = if bar { progress_bar(&plan.model) } else { ProgressBar::hidden() };
    let mut told = false;
    let mut show = |place: &str, p: &Progress| {
        if !std::mem::replace(&mut told, true) {
            began(place);
        }
        draw(&bar, p);
    };
    let device = &plan.device;
    let (outcome, state) = match on(device.place(), slice, plan, &mut show) {
        Err(TrainError::Unsupported { device: name, what }) if device.may_fall_back() => {
            tracing::warn!("training on the CPU: {name} has no kernels for {what}");
            on(Place::Cpu, slice, plan, &mut show)
        }
        tried => tried,
    }?;
    bar.finish_and_clear();
    let (model, report) = match outcome {
        Outcome::Finished { model, report } => (model, report),
        Outcome::Followed { .. } => return Ok(None),
        Outcome::Stopped { .. } => bail!("training was stopped"),
    };
    let schema = &slice.dataset.schema;
    let mut manifest = Manifest::new(&model, schema, plan.train.seed);
    let times = slice.iter().map(|r| r.time_ms);
    manifest.data_range_ms = times.clone().min().zip(times.max());
    manifest.embedding_version = slice.dataset.embedding_version.clone();
    manifest.parent = plan.parent.as_ref().map(Version::to_string);
    let metrics = [
        ("rows", slice.rows() as f64),
        ("requests", report.requests as f64),
        ("steps", report.steps as f64),
        ("last_loss", tail_mean(&report.loss)),
    ];
    manifest.metrics.extend(metrics.map(|(name, value)| (name.to_owned(), value)));
    if let (None, Some((_, last))) = (plan.start, manifest.data_range_ms) {
        manifest.metrics.insert(FULL_MS.to_owned(), last as f64);
    }
    manifest.profile = Some(Profile::of(slice).to_json()?);
    let golden = golden(slice, &model)?;
    Ok(Some(Trained { model, manifest, golden, report, state }))
}

/// Trains in a place; with the outcome the file of the state.
fn on(
    place: Place<'_>,
    slice: &Slice<'_>,
    plan: &Plan<'_>,
    show: &mut dyn FnMut(&str, &Progress),
) -> Result<(Outcome, Option<PathBuf>), TrainError> {
    let state = plan.state.map(|path| match place {
        Place::Cpu => path.to_owned(),
        Place::Device { .. } => path.with_extension("device.state"),
    });
    let start = plan.start.map_or(Start::New(&plan.model), Start::From);
    let mut run = |state: Option<&Path>| {
        let progress = &mut |p: &Progress| {
            show(place.name(), p);
            Control::Continue
        };
        train_on(place, slice, start, &plan.train, state, progress)
    };
    let outcome = match (run(state.as_deref()), &state) {
        // Of several processes the first sets it aside; the others find it, or find it gone, and begin with the first.
        (Err(TrainError::State(_)), Some(_)) if !plan.device.leads() => run(None),
        (
            Err(TrainError::State(error @ (StateError::OtherRun(_) | StateError::Damaged { .. }))),
            Some(path),
        ) => {
            tracing::warn!(%error, "the state of an unfinished run does not fit: beginning anew");
            fs::remove_file(path).map_err(|source| StateError::Io { path: path.clone(), source })?;
            run(Some(path))
        }
        (outcome, _) => outcome,
    };
    Ok((outcome?, state))
}

impl Trained {
    /// Publishes the model and lets `alias` name it; then it is [`done`](Self::done).
    pub fn publish(&self, registry: &Registry, alias: Option<&str>) -> Result<Version> {
        let version = publish_with(registry, &self.model, &self.manifest, Some(&self.golden), alias)?;
        self.done()?;
        Ok(version)
    }

    /// Removes the state file of the run, which is no longer needed when the model is safe elsewhere.
    pub fn done(&self) -> Result<()> {
        match self.state.as_deref().filter(|path| path.exists()) {
            Some(path) => fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display())),
            None => Ok(()),
        }
    }
}

/// Mean of the last tenth of the losses.
fn tail_mean(loss: &[f64]) -> f64 {
    let tail = &loss[loss.len() - (loss.len() / 10).max(1).min(loss.len())..];
    tail.iter().sum::<f64>() / tail.len().max(1) as f64
}

/// The version that the champion alias names.
pub fn champion(registry: &Registry) -> Result<Option<Version>> {
    Ok(registry.alias(CHAMPION)?)
}

fn progress_bar(model: &ModelConfig) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{prefix} {bar:32} {percent:>3} % {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(format!("train {}", encoder_name(model)));
    bar
}

fn draw(bar: &ProgressBar, p: &Progress) {
    bar.set_length(p.steps);
    bar.set_position(p.step);
    let left = Duration::from_secs(p.left.as_secs());
    bar.set_message(format!(
        "epoch {} loss {:.4} {:.0} rows/s, {} left",
        p.epoch + 1,
        p.smooth_loss,
        p.rows_per_second,
        indicatif::HumanDuration(left),
    ));
}

/// The encoder's name in configuration files.
pub fn encoder_name(model: &ModelConfig) -> String {
    serde_json::to_value(model.encoder).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;

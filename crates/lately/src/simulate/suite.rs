//! The suite `headline`: which towns are made.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};
use lately_model::Encoder;
use lately_rank::{Diversity, SelectConfig, SsdConfig};
use lately_train::TrainConfig;

use super::compare::Made;
use super::person::Inhabitant;
use super::recipe::Recipe;
use super::report::Headline;
use super::town::{Learner, Town, base};

/// The same model without the sequence, retrained: the control.
pub(super) const CONTROL: &str = "control";
/// TransAct, retrained.
pub(super) const TRANSACT: &str = "transact";
/// TransAct as it was on the first day.
pub(super) const FROZEN: &str = "frozen";
/// TransAct with the time-window mask of the paper in training.
pub(super) const MASKED: &str = "masked";
/// Hours of the mask, as in the paper, and the share of the examples that it is applied to.
const MASK: (f64, f64) = (24.0, 0.5);
/// Strengths of sliding spectrum decomposition on the frontier.
pub(super) const GAMMAS: [f32; 3] = [1.0, 2.0, 4.0];

/// A town to be made.
struct Job {
    seed: u64,
    people: usize,
    select: SelectConfig,
    learners: Vec<Learner>,
}

/// Runs the suite; `say` is told of each day of each town.
///
/// # Errors
/// Where the recipe makes no sense or a town fails.
pub fn headline(recipe: &Recipe, say: &(dyn Fn(&str) + Sync)) -> Result<Headline> {
    recipe.check()?;
    let [control, transact, frozen, masked] = learners(recipe)?;
    let plain = SelectConfig { topic_run: 0, ..SelectConfig::default() };
    let split_town = [control.clone(), transact.clone(), frozen, masked];
    let mut jobs = Vec::new();
    for seed in &recipe.seeds {
        let job = |people, select: &SelectConfig, learners: &[Learner]| Job {
            seed: *seed,
            people,
            select: select.clone(),
            learners: learners.to_vec(),
        };
        jobs.push(job(recipe.people, &plain, &split_town));
        for learner in [&control, &transact] {
            jobs.push(job(recipe.twins, &plain, std::slice::from_ref(learner)));
        }
        for gamma in GAMMAS {
            let ssd = SsdConfig { gamma, ..SsdConfig::default() };
            let select = SelectConfig { diversity: Diversity::Ssd, ssd, ..plain.clone() };
            jobs.push(job(recipe.twins, &select, std::slice::from_ref(&transact)));
        }
    }
    let mut towns = all(&jobs, recipe, say)?.into_iter();
    // Each seed has its jobs one after another, in the order above.
    let mut made = Made { diverse: vec![Vec::new(); GAMMAS.len()], ..Made::default() };
    for _ in &recipe.seeds {
        made.split.extend(towns.next());
        made.all_control.extend(towns.next());
        made.all_transact.extend(towns.next());
        made.diverse.iter_mut().for_each(|of_gamma| of_gamma.extend(towns.next()));
    }
    made.compare(recipe)
}

pub(super) fn learners(recipe: &Recipe) -> Result<[Learner; 4]> {
    let (model, train) = base(recipe)?;
    let mut without = model.clone();
    without.encoder = Encoder::None; // which takes the affinities to the latest actions away too
    let mask = TrainConfig { window_hours: MASK.0, window_probability: MASK.1, ..train.clone() };
    let learner = |alias, model: &lately_model::ModelConfig, train: &TrainConfig, retrained| Learner {
        alias,
        model: model.clone(),
        train: train.clone(),
        retrained,
    };
    Ok([
        learner(CONTROL, &without, &train, true),
        learner(TRANSACT, &model, &train, true),
        learner(FROZEN, &model, &train, false),
        learner(MASKED, &model, &mask, true),
    ])
}

/// All towns, as many at a time as there are threads; in the order of the jobs.
fn all(jobs: &[Job], recipe: &Recipe, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Vec<Inhabitant>>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Vec<Inhabitant>>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..recipe.threads.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let people = Town::found(recipe, job.people, job.seed, job.select.clone())
                        .and_then(|town| town.live(&job.learners, say));
                    if people.is_err() {
                        next.store(jobs.len(), Ordering::Relaxed); // the others would be in vain
                    }
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((at, people));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(at, _)| *at);
    let towns: Vec<_> = done.into_iter().map(|(_, people)| people).collect::<Result<_>>()?;
    if towns.len() == jobs.len() { Ok(towns) } else { Err(anyhow!("a town was not finished")) }
}

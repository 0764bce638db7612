//! Whether the new rows can be learned from.

use std::collections::HashMap;

use lately_features::Features;
use lately_model::{Manifest, Model};

use super::{Failure, GateConfig, GateError, JUDGED_AUC, Verdict};
use crate::chunks::Chunks;
use crate::dataset::Slice;
use crate::drift::{Bounds, Profile};
use crate::eval::{EvalOptions, Group, evaluate};
use crate::predict::own;
use crate::scores::Scores;

/// New rows below which a share of one user, a rate or a coverage says nothing.
const LEAST_ROWS: usize = 200;

/// Judges the rows that came since the champion was trained, against those before and what the champion makes of them.
///
/// # Errors
/// Where the champion cannot score them.
pub fn judge_rows(
    new: &Slice<'_>,
    seen: &Slice<'_>,
    champion: Option<(&Model, &Manifest)>,
    config: &GateConfig,
    threads: usize,
) -> Result<Verdict, GateError> {
    let mut verdict = Verdict { failures: not_finite(new).into_iter().collect(), not_judged: Vec::new() };
    if !verdict.passed() || new.rows() < LEAST_ROWS {
        return Ok(verdict);
    }
    verdict.failures.extend(user_share(new, config));
    if seen.rows() >= LEAST_ROWS {
        verdict.failures.extend(coverage(new, seen, config));
        verdict.failures.extend(rates(new, seen, config));
    }
    if let Some((model, manifest)) = champion {
        verdict.failures.extend(champion_auc(new, model, manifest, config, threads)?);
    }
    Ok(verdict)
}

/// Those whose features are no numbers: no model takes a batch with one of them.
fn not_finite(new: &Slice<'_>) -> Option<Failure> {
    // A number that is missing is a NaN; one that is infinite came from nowhere good, and no vector is missing in part.
    let broken = |f: &Features| {
        f.numeric.iter().any(|x| x.is_infinite()) || f.embedding.iter().any(|x| !x.is_finite())
    };
    let mut first = None;
    let mut rows = 0;
    for request in new.iter() {
        let user = request.features.as_deref().is_some_and(broken)
            || request.tokens.iter().any(|t| t.item.as_deref().is_some_and(broken));
        for candidate in &request.candidates {
            if user || candidate.features.as_deref().is_some_and(broken) {
                rows += 1;
                first.get_or_insert(candidate.item);
            }
        }
    }
    let first = new.dataset.items[first? as usize].to_string();
    Some(Failure::NotFiniteRows { rows, first })
}

fn user_share(new: &Slice<'_>, config: &GateConfig) -> Option<Failure> {
    let mut rows = HashMap::<u32, usize>::new();
    for request in new.iter() {
        *rows.entry(request.user).or_default() += request.candidates.len();
    }
    let share = *rows.values().max()? as f64 / new.rows() as f64;
    (share > config.max_user_share).then_some(Failure::UserShare { share, bound: config.max_user_share })
}

fn coverage(new: &Slice<'_>, seen: &Slice<'_>, config: &GateConfig) -> Vec<Failure> {
    let before = Profile::of(seen);
    let margin = config.coverage_margin;
    let bounds = Bounds { psi: f64::INFINITY, coverage: margin };
    let drift = before.drift(&before.again(new), &bounds);
    let gone = drift.into_iter().filter(|d| d.uncovered(&bounds));
    gone.map(|d| Failure::Coverage { column: d.name, now: d.coverage, before: d.coverage_before, margin })
        .collect()
}

fn rates(new: &Slice<'_>, seen: &Slice<'_>, config: &GateConfig) -> Vec<Failure> {
    let (rows, rows_before) = (new.rows() as f64, seen.rows() as f64);
    let of = |(head, (now, before)): (usize, (u64, u64))| {
        let (expected, factor) = (before as f64 / rows_before * rows, config.max_rate_factor);
        // Half a row on both sides: a head that had none before may begin to have some.
        let ratio = (now as f64 + 0.5) / (expected + 0.5);
        let enough = expected.max(now as f64) >= config.min_positives as f64;
        (enough && (ratio > factor || ratio * factor < 1.0)).then(|| Failure::Rate {
            head: new.dataset.schema.heads[head].name.clone(),
            now: now as f64 / rows,
            before: before as f64 / rows_before,
            factor,
        })
    };
    new.positives().into_iter().zip(seen.positives()).enumerate().filter_map(of).collect()
}

fn champion_auc(
    new: &Slice<'_>,
    model: &Model,
    manifest: &Manifest,
    config: &GateConfig,
    threads: usize,
) -> Result<Vec<Failure>, GateError> {
    let rows = own(new, model, threads)?;
    let scores = Scores { name: "champion".to_owned(), rows, in_chunk: None, in_user: None, logits: true };
    let options = EvalOptions { resamples: config.resamples, threads, ..EvalOptions::default() };
    let chunks = Chunks { list: Vec::new(), ..Chunks::of(new, &Default::default(), 2) };
    let report = evaluate(new, &chunks, &[scores], &options)?;
    let margin = config.max_auc_fall;
    let of = |head: &crate::eval::HeadReport| {
        let group = report.group(&head.head, Group::All)?;
        let auc = &group.scorers.first()?.metrics.auc;
        let (now, high) = (auc.value?, auc.high?);
        // Where nothing was recorded, guessing is what it must beat.
        let recorded = manifest.metrics.get(&format!("{JUDGED_AUC}{}", head.head)).copied();
        let (before, fell) = match recorded {
            // Also that the rows can tell: what was recorded is known no better than what is seen now.
            Some(before) => (before, now < before - margin && high < before - margin / 2.0),
            None => (0.5, high < 0.5),
        };
        let enough = group.positives >= config.min_positives;
        (enough && fell).then(|| Failure::ChampionAuc { head: head.head.clone(), now, before, margin })
    };
    Ok(report.heads.iter().filter_map(of).collect())
}

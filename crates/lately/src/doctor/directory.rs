//! Configuration, disk and model of a directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use indicatif::HumanBytes;
use lately_model::checkpoint;
use lately_rank::ModelSlot;

use super::Check;
use super::page::span;
use crate::data_dir::DataDir;
use crate::learn::champion;
use crate::wire_up::now_ms;

/// Free bytes below which a journal file of 64 MiB and a model may find no place.
const LEAST_FREE: u64 = 256 << 20;
/// Parts of the directory that grow.
const PARTS: [&str; 4] = ["store", "registry", "embeddings", "lake"];

pub(super) fn configuration(dir: &DataDir) -> Check {
    let s = &dir.schema;
    let found = format!(
        "lately.toml; schema {:.12} with {} actions, {} heads, {} user and {} item features",
        s.hash(),
        s.actions.len(),
        s.heads.len(),
        s.user_features.len(),
        s.item_features.len()
    );
    Check::ok("configuration", found)
}

/// Sizes of what grows, and what is left.
pub(super) fn disk(dir: &DataDir) -> Vec<Check> {
    let sized = || -> Result<(Vec<String>, u64)> {
        let (mut sizes, mut all) = (Vec::new(), 0);
        for part in PARTS {
            let path = dir.path.join(part);
            if path.exists() {
                let bytes = size(&path)?;
                all += bytes;
                sizes.push(format!("{part} {}", HumanBytes(bytes)));
            }
        }
        Ok((sizes, all))
    };
    let free = || -> Result<u64> {
        let stat = rustix::fs::statvfs(&dir.path).with_context(|| format!("{}", dir.path.display()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    };
    let (sizes, all, free) = match sized().and_then(|(sizes, all)| Ok((sizes, all, free()?))) {
        Ok(known) => known,
        Err(error) => return vec![Check::warn("disk", format!("{error:#}"), "see whether it may be read")],
    };
    let sizes = if sizes.is_empty() { "nothing yet".to_owned() } else { sizes.join(", ") };
    let found = format!("{sizes}; {} free", HumanBytes(free));
    vec![if free < LEAST_FREE {
        Check::fail("disk", found, "free space: after a failed write the log stops until a restart")
    } else {
        let todo = "there is less left than the directory holds: free space, or move it";
        Check::ok_if(free > all, "disk", found, todo)
    }]
}

/// Bytes of all files below.
fn size(path: &Path) -> Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        // A file may go while we look: a server has the directory open.
        let Ok(meta) = entry.metadata() else { continue };
        all += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(all)
}

/// The champion, checked as a server checks it before it swaps it in.
pub(super) fn model(dir: &DataDir) -> Vec<Check> {
    let train = format!("`lately train --data {}`", dir.path.display());
    if !dir.path.join("registry").exists() {
        return vec![Check::warn("model", "there is none: rankings go by popularity", train)];
    }
    match served(dir) {
        Ok(Some(checks)) => checks,
        Ok(None) => vec![Check::warn("model", "no champion: rankings go by popularity", train)],
        Err(error) => {
            let data = dir.path.display();
            let todo = format!(
                "`lately model rollback --data {data}`, `lately model list` and `promote`, or {train}"
            );
            vec![Check::fail("model", format!("{error:#}"), todo)]
        }
    }
}

fn served(dir: &DataDir) -> Result<Option<Vec<Check>>> {
    let registry = dir.registry()?;
    let Some(version) = champion(&registry)? else { return Ok(None) };
    let bytes = registry.load(&version)?;
    let (_, manifest, golden) =
        checkpoint::with_golden(&bytes).with_context(|| format!("model {version}"))?;
    manifest.check_schema(&dir.schema)?;
    let vectors = dir.embedding(&manifest.embedding_version)?;
    let slot = ModelSlot::new(Arc::clone(&dir.schema))
        .with_embedding_version(manifest.embedding_version.clone())
        .with_precision(dir.config.rank.precision);
    let name = version.to_string();
    slot.swap_bytes(&name, &bytes)?;
    let rows = golden.as_ref().map_or(0, |g| g.batch().rows());
    let precision = slot.current().map_or("", |m| m.summary().precision);
    let found = format!("champion {name:.12}, {precision}, loads and scores; {rows} golden rows hold");
    let todo = "it was published without: train one with this program, so that damage is noticed";
    let mut checks = vec![Check::ok_if(rows > 0, "model", found, todo)];
    let vectors = match vectors {
        Some(e) => {
            format!("{:.12} by {}, {} items", manifest.embedding_version, e.manifest.method, e.manifest.items)
        }
        None => "those that items are sent with".to_owned(),
    };
    checks.push(Check::ok("item vectors", vectors));
    let published = registry.versions()?.into_iter().find(|v| v.version == version).map(|v| v.published_ms);
    let now = now_ms();
    let age = |since: Option<i64>| since.map_or("unknown".to_owned(), |since| span(now - since));
    let last = manifest.data_range_ms.map(|(_, last)| last);
    let bound = i64::from(dir.config.watch.age_hours) * crate::watch::HOUR_MS;
    let found = format!("newest training row {} ago, published {} ago", age(last), age(published));
    let young = bound == 0 || last.is_none_or(|last| now - last <= bound);
    let todo = format!("older than [watch] age_hours = {}: train again", dir.config.watch.age_hours);
    checks.push(Check::ok_if(young, "model age", found, todo));
    Ok(Some(checks))
}

//! What an ablation leaves on paper: JSON with all that was compared, table and plot.

use lately_train::Slice;
use lately_train::ablation::CellReport;
use serde_json::{Value, json};

use super::runs::{Bench, Outcome};
use super::suite::Suite;

/// All numbers, with what decided them. No resamples: they follow from rows and seeds.
pub fn json(
    suite: &Suite,
    baseline: &str,
    bench: &Bench<'_>,
    outcomes: &[Outcome],
    cells: &[CellReport],
) -> Value {
    let configuration = |o: &Outcome| {
        json!({
            "name": o.entry.name,
            "seeds": o.seeds,
            "seconds": o.seconds,
            "model": o.entry.model,
            "train": o.entry.train,
        })
    };
    json!({
        "suite": suite,
        "baseline": baseline,
        "trained_on": rows(&bench.train),
        "tested_on": rows(&bench.test),
        "chunk_kind": bench.chunks.kind,
        "resamples": bench.options.resamples,
        "resample_seed": bench.options.seed,
        "configurations": outcomes.iter().map(configuration).collect::<Vec<_>>(),
        "cells": cells,
    })
}

/// Which rows a slice holds.
fn rows(slice: &Slice<'_>) -> Value {
    let times = || slice.iter().map(|r| r.time_ms);
    json!({
        "requests": slice.requests.len(),
        "rows": slice.rows(),
        "range_ms": [times().min(), times().max()],
        "fingerprint": format!("{:032x}", slice.fingerprint()),
    })
}

//! The lists within which HIT@3 ranks.
//!
//! Where requests hold several items, a chunk is one request. Where each holds one (imported logs), a chunk is what
//! one user saw on one calendar day, and all of it is scored with the sequence as it stood at the first of them:
//! sequences that stream inside a chunk tell its later rows how the earlier ones went, and bias the metric below
//! even a random order.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::dataset::Slice;
use crate::dates::Zone;

/// How a chunk came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkKind {
    /// One request.
    Request,
    /// One user's calendar day.
    UserDay,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Positions in [`Slice::requests`], in order of time; the first fixes the sequence.
    pub requests: Vec<u32>,
}

/// The lists of a slice.
#[derive(Debug, Clone)]
pub struct Chunks {
    /// How they came about.
    pub kind: ChunkKind,
    /// The lists, each of at least the wanted number of rows.
    pub list: Vec<Chunk>,
}

impl Chunks {
    /// Cuts a slice into lists; shorter ones than `min_rows` (4 is the reference: of three all are in the top 3) are
    /// left out.
    pub fn of(slice: &Slice<'_>, zone: &Zone, min_rows: usize) -> Self {
        if slice.iter().any(|r| r.candidates.len() > 1) {
            let long = slice.iter().enumerate().filter(|(_, r)| r.candidates.len() >= min_rows);
            let list = long.map(|(at, _)| Chunk { requests: vec![at as u32] }).collect();
            return Self { kind: ChunkKind::Request, list };
        }
        let mut days = BTreeMap::<(u32, i32), Vec<u32>>::new();
        for (at, r) in slice.iter().enumerate() {
            days.entry((r.user, zone.day(r.time_ms))).or_default().push(at as u32);
        }
        let list = days.into_values().filter(|r| r.len() >= min_rows).map(|requests| Chunk { requests });
        Self { kind: ChunkKind::UserDay, list: list.collect() }
    }
}

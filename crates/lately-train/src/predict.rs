//! Scores of a slice's rows by a model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use lately_features::{FeatureBatch, RequestContext, Token, assemble};
use lately_model::{Model, ModelError, Scratch};

use crate::chunks::{ChunkKind, Chunks};
use crate::dataset::{Candidate, Request, Slice};
use crate::scores::Scores;

/// Rows that one call of the model scores: enough to fill its matrix products, few enough for the caches.
const PIECE: usize = 256;

/// Some rows that are scored with one user part.
struct Job<'a> {
    start: &'a Request,
    surface: u16,
    candidates: Vec<(u32, &'a Candidate)>,
}

/// Scores every row with its own sequence and, where chunks are user days, again with the sequence of the chunk's
/// start. The result does not depend on `threads`.
pub fn by_model(
    name: &str,
    slice: &Slice<'_>,
    chunks: &Chunks,
    model: &Model,
    threads: usize,
) -> Result<Scores, ModelError> {
    let (jobs, first_rows) = own_jobs(slice);
    let rows = run(slice, model, &jobs, slice.rows(), threads)?;
    let in_chunk = match chunks.kind {
        ChunkKind::Request => None,
        ChunkKind::UserDay => {
            Some(run(slice, model, &chunk_jobs(slice, chunks, &first_rows), slice.rows(), threads)?)
        }
    };
    Ok(Scores { name: name.to_owned(), rows, in_chunk, logits: true })
}

/// N x H logits, every row with its own sequence. The result does not depend on `threads`.
pub(crate) fn own(slice: &Slice<'_>, model: &Model, threads: usize) -> Result<Vec<f32>, ModelError> {
    run(slice, model, &own_jobs(slice).0, slice.rows(), threads)
}

/// One job for each request, and each request's first row.
fn own_jobs<'a>(slice: &Slice<'a>) -> (Vec<Job<'a>>, Vec<u32>) {
    let mut row = 0;
    let mut first_rows = Vec::with_capacity(slice.requests.len());
    let mut jobs = Vec::with_capacity(slice.requests.len());
    for at in &slice.requests {
        let request = &slice.dataset.requests[*at as usize];
        first_rows.push(row);
        let candidates: Vec<_> = (row..).zip(&request.candidates).collect();
        row += candidates.len() as u32;
        jobs.push(Job { start: request, surface: request.surface, candidates });
    }
    (jobs, first_rows)
}

/// One job for each surface in a chunk: rows keep their own surface, all else of the user is as at the start.
fn chunk_jobs<'a>(slice: &Slice<'a>, chunks: &Chunks, first_rows: &[u32]) -> Vec<Job<'a>> {
    let request = |at: u32| &slice.dataset.requests[slice.requests[at as usize] as usize];
    let mut jobs = Vec::new();
    for chunk in &chunks.list {
        let start = request(chunk.requests[0]);
        let mut surfaces = BTreeMap::<u16, Vec<(u32, &Candidate)>>::new();
        for at in &chunk.requests {
            let of_surface = surfaces.entry(request(*at).surface).or_default();
            of_surface.extend((first_rows[*at as usize]..).zip(&request(*at).candidates));
        }
        jobs.extend(surfaces.into_iter().map(|(surface, candidates)| Job { start, surface, candidates }));
    }
    jobs
}

fn run(
    slice: &Slice<'_>,
    model: &Model,
    jobs: &[Job<'_>],
    rows: usize,
    threads: usize,
) -> Result<Vec<f32>, ModelError> {
    let mut pieces = Vec::new();
    let (mut start, mut count) = (0, 0);
    for (at, job) in jobs.iter().enumerate() {
        count += job.candidates.len();
        if count >= PIECE || at + 1 == jobs.len() {
            pieces.push(&jobs[start..=at]);
            (start, count) = (at + 1, 0);
        }
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<f32>)>, ModelError> {
        let (mut batch, mut scratch, mut done) = (FeatureBatch::default(), Scratch::default(), Vec::new());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(at) else { return Ok(done) };
            batch.clear();
            piece.iter().for_each(|job| push(&mut batch, slice, job));
            done.push((at, model.score(&batch, &mut scratch)?));
        }
    };
    let heads = slice.dataset.heads();
    let mut out = vec![f32::NAN; rows * heads];
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    for result in results {
        for (piece, logits) in result? {
            let rows = pieces[piece].iter().flat_map(|job| &job.candidates);
            for ((row, _), logits) in rows.zip(logits.chunks_exact(heads)) {
                out[*row as usize * heads..][..heads].copy_from_slice(logits);
            }
        }
    }
    Ok(out)
}

fn push(batch: &mut FeatureBatch, slice: &Slice<'_>, job: &Job<'_>) {
    let context = RequestContext { surface: job.surface, ..job.start.context() };
    let candidates = job.candidates.iter().map(|(_, c)| c.features.as_deref());
    let (user, tokens): (_, &[Token]) = (job.start.features.as_deref(), &job.start.tokens);
    assemble(batch, &slice.dataset.assembler, &context, user, tokens, candidates);
}

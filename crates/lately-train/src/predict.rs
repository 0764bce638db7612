//! Scores of a slice's rows by a model: with each row's own sequence, with that of its list's start, and with that of
//! its user's first request.
//!
//! The last is for the order within a user. With their own sequences the rows of a user know how the user's earlier
//! rows went, and of a given number of positives those that came before are missing after: any honest estimate of the
//! user's own rate then stands lower at the positives than at the negatives. With outcomes that are independent given
//! the user, the rate alone has an AUC below 0.5 within the user, and it pulls down all that is added to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use lately_features::{FeatureBatch, RequestContext, Token, assemble};
use lately_model::{Golden, Model, ModelError, Scratch};

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
/// start and with that of the user's first request in the slice. The result does not depend on `threads`.
pub fn by_model(
    name: &str,
    slice: &Slice<'_>,
    chunks: &Chunks,
    model: &Model,
    threads: usize,
) -> Result<Scores, ModelError> {
    let (jobs, first_rows) = own_jobs(slice);
    let rows = run(slice, model, &jobs, slice.rows(), threads)?;
    let at_start = |lists: &mut dyn Iterator<Item = &[u32]>| {
        let jobs: Vec<_> = lists.flat_map(|list| list_jobs(slice, list, &first_rows)).collect();
        run(slice, model, &jobs, slice.rows(), threads)
    };
    let (in_chunk, in_user) = match chunks.kind {
        ChunkKind::Request => (None, None),
        ChunkKind::UserDay => (
            Some(at_start(&mut chunks.list.iter().map(|c| c.requests.as_slice()))?),
            Some(at_start(&mut users(slice).values().map(Vec::as_slice))?),
        ),
    };
    Ok(Scores { name: name.to_owned(), rows, in_chunk, in_user, logits: true })
}

/// Requests and rows of golden rows at most: enough for a rank correlation, 100 to 400 KB in a model's file.
const GOLDEN: (usize, usize) = (8, 256);

/// Some of a slice's rows, from all over it, to be published with a model: see [`Golden`].
pub fn golden(slice: &Slice<'_>, model: &Model) -> Result<Golden, ModelError> {
    let (jobs, _) = own_jobs(slice);
    let mut batch = FeatureBatch::default();
    for mut job in jobs.into_iter().step_by(slice.requests.len().div_ceil(GOLDEN.0).max(1)) {
        job.candidates.truncate(GOLDEN.1 / GOLDEN.0);
        push(&mut batch, slice, &job);
    }
    Golden::new(model, batch)
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

/// Each user's requests, as positions in the slice in order of time.
fn users(slice: &Slice<'_>) -> BTreeMap<u32, Vec<u32>> {
    let mut users = BTreeMap::<u32, Vec<u32>>::new();
    for (at, request) in (0..).zip(slice.iter()) {
        users.entry(request.user).or_default().push(at);
    }
    users
}

/// The rows of some requests of a user: each keeps its surface, all else of the user is as at the first.
fn list_jobs<'a>(slice: &Slice<'a>, list: &[u32], first_rows: &[u32]) -> Vec<Job<'a>> {
    let request = |at: u32| &slice.dataset.requests[slice.requests[at as usize] as usize];
    let start = request(list[0]);
    let mut surfaces = BTreeMap::<u16, Vec<(u32, &Candidate)>>::new();
    for at in list {
        let of_surface = surfaces.entry(request(*at).surface).or_default();
        of_surface.extend((first_rows[*at as usize]..).zip(&request(*at).candidates));
    }
    let mut jobs = Vec::new();
    for (surface, candidates) in surfaces {
        let pieces = candidates.chunks(PIECE).map(<[_]>::to_vec);
        jobs.extend(pieces.map(|candidates| Job { start, surface, candidates }));
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::dates::Zone;
    use crate::fixtures::*;
    use crate::join::{JoinOptions, join};
    use lately_features::Event;
    use lately_model::ModelConfig;

    /// Scores that differ by less are the same: batches of another shape add in another order.
    const NEAR: f32 = 1e-5;

    #[test]
    fn in_a_user_all_rows_have_the_sequence_of_the_first() {
        // Three users; each gets one item an hour, 30 times over three days, and clicks it or another: of one item alone
        // all tokens would be the same, however many.
        let mut log = Vec::new();
        for hour in 0..30 {
            for user in ["u", "v", "w"] {
                let request = format!("{user}{hour}");
                log.push(Event::Impression(impression(&request, user, &["a"], 3600 * hour)));
                let clicked = ["a", "b", "c"][hour as usize % 3];
                log.push(action(user, clicked, "click", 3600 * hour + 1, &request));
            }
        }
        log.insert(0, item("a", [1.0, -1.0, 0.5, 2.0], 3.0));
        log.insert(0, item("b", [-1.0, 0.5, 1.0, 0.0], 3.0));
        log.insert(0, item("c", [0.0, 2.0, -0.5, 1.0], 3.0));
        let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
        let d = join(&schema(), log, JoinOptions::default()).unwrap();
        let mut slice = d.all();
        slice.requests.drain(..6); // each user has two clicks by then
        let config = ModelConfig { cross_width: 8, hidden: vec![8], ..ModelConfig::default() };
        let model = Model::new(config, &d.schema, 7).unwrap();
        let scores = by_model("m", &slice, &Chunks::of(&slice, &Zone::utc(), 4), &model, 2).unwrap();
        let (in_user, in_chunk) = (scores.in_user.unwrap(), scores.in_chunk.unwrap());
        let far = |a: f32, b: f32| (a - b).abs() > NEAR;
        for (at, r) in slice.iter().enumerate() {
            let first = slice.iter().position(|f| f.user == r.user).unwrap();
            let value = |column: &[f32], row: usize| column[row * d.heads()];
            assert!(!far(value(&in_user, at), value(&scores.rows, first)), "row {at}");
        }
        let moved = |column: &[f32]| column.iter().zip(&in_user).filter(|(a, b)| far(**a, **b)).count();
        assert!(moved(&scores.rows) > 0, "the model does not see the sequence");
        assert!(moved(&in_chunk) > 0, "later days start with another sequence");
    }

    #[test]
    fn requests_of_several_items_need_no_other_sequence() {
        let log = [Event::Impression(impression("r", "u", &["a", "b", "c", "d"], 0))];
        let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
        let d = join(&schema(), log, JoinOptions::default()).unwrap();
        let slice = d.all();
        let config = ModelConfig { cross_width: 8, hidden: vec![8], ..ModelConfig::default() };
        let model = Model::new(config, &d.schema, 7).unwrap();
        let scores = by_model("m", &slice, &Chunks::of(&slice, &Zone::utc(), 4), &model, 1).unwrap();
        assert!(scores.in_user.is_none() && scores.in_chunk.is_none());
    }
}

//! What waits, in numbers alone: no lock, no clock, no model, so that its rules can be tested step by step.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::ScoreError;
use super::codel::CoDel;
use super::pace::Pace;
use crate::config::MAX_CANDIDATES;
use crate::error::Shed;
use crate::request::Priority;

/// A tile has at least so many rows where a request has them: fewer repeat the user's part for nothing.
pub(super) const LEAST_ROWS: usize = 16;
/// Requests looked at for company of one model. Others stand between them only while models are swapped or compared.
const LOOK: usize = 64;
/// An estimate may be so much too short. Work that ends just after its deadline is lost.
const MARGIN: f64 = 1.25;
/// Rows of a call to a device: a ranking of the most candidates goes in one, as small ones together do. Copies and launches
/// of a call take the same time whatever its size, and a device has far more units than the CPU's tile of 128 rows fills.
const DEVICE_ROWS: usize = MAX_CANDIDATES;
/// Longest time after which a refused caller is told to come again.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The bounds of a [`Line`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Scoring threads.
    pub(super) threads: usize,
    /// Units that may wait.
    pub(super) units: u64,
    /// Rows of a call to the CPU.
    pub(super) tile_rows: usize,
    /// Units of a call to the CPU; one row it always has.
    pub(super) tile_units: u64,
    /// Target and interval of [`CoDel`].
    pub(super) target: Duration,
    pub(super) interval: Duration,
}

/// A request that waits, or a part of one.
#[derive(Debug)]
pub(super) struct Ask<T> {
    pub(super) load: T,
    /// Requests of one number may share a call.
    pub(super) model: usize,
    pub(super) rows: usize,
    pub(super) row_units: u64,
    pub(super) priority: Priority,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// Goes to a device: in one piece, by one thread.
    pub(super) whole: bool,
    /// Rows that are scored or in a thread's hands.
    pub(super) taken: usize,
}

/// Rows of one request in a call.
#[derive(Debug)]
pub(super) struct Piece<T> {
    pub(super) load: T,
    pub(super) rows: Range<usize>,
    pub(super) priority: Priority,
    /// How long the request waited, at its first piece.
    pub(super) waited: Option<Duration>,
}

/// What a thread takes: one call, and the requests that left the line without.
#[derive(Debug)]
pub(super) struct Taken<T> {
    pub(super) pieces: Vec<Piece<T>>,
    pub(super) units: u64,
    pub(super) gone: Vec<(T, ScoreError)>,
}

/// Two queues in order of arrival, one a priority, and what is in the threads' hands.
#[derive(Debug)]
pub(super) struct Line<T> {
    bounds: Bounds,
    waiting: [VecDeque<Ask<T>>; 2],
    /// Units of each of them.
    units: [u64; 2],
    /// Units in the threads' hands.
    in_work: u64,
    /// Threads without work.
    pub(super) idle: usize,
    pub(super) closed: bool,
    codel: CoDel,
    pub(super) pace: Pace,
}

impl<T> Ask<T> {
    /// Units of what is left. The user's part is made once a request and counts as a row.
    fn units(&self) -> u64 {
        ((self.rows - self.taken) as u64 + u64::from(self.taken == 0)) * self.row_units
    }
}

impl<T: Clone> Line<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: [VecDeque::new(), VecDeque::new()],
            units: [0; 2],
            in_work: 0,
            idle: 0,
            closed: false,
            codel: CoDel::new(bounds.target, bounds.interval),
            pace: Pace::default(),
        }
    }

    /// Units that wait, by [`Priority`].
    pub(super) fn units(&self) -> [u64; 2] {
        self.units
    }

    /// Lets a request in, or says why not. Background that makes room for it is put into `gone`.
    ///
    /// Where nothing is in front of it a request is let in whatever its size and whatever the estimate says: a wrong
    /// estimate is mended by the next measurement, and nothing would ever be measured again.
    pub(super) fn submit(
        &mut self,
        now: Instant,
        ask: Ask<T>,
        gone: &mut Vec<(T, ScoreError)>,
    ) -> Result<(), ScoreError> {
        if self.closed {
            return Err(ScoreError::Closed);
        }
        self.pace.request(ask.units());
        self.in_time(now, &ask)?;
        self.make_room(&ask, gone)?;
        self.units[ask.priority as usize] += ask.units();
        self.waiting[ask.priority as usize].push_back(ask);
        Ok(())
    }

    /// Refuses what would have to wait too long.
    fn in_time(&self, now: Instant, ask: &Ask<T>) -> Result<(), ScoreError> {
        let ahead = self.ahead(ask.priority);
        if ahead == 0 {
            return Ok(());
        }
        let wait = self.pace.of(ahead) / self.bounds.threads as u32;
        if self.codel.standing() && (ask.priority == Priority::Background || wait > self.codel.patience()) {
            return Err(self.shed(Shed::Standing));
        }
        let (own, left) = (self.own(ask), ask.deadline.saturating_duration_since(now));
        if own > left {
            return Err(ScoreError::DeadlineExceeded);
        }
        if (wait + own).mul_f64(MARGIN) > left {
            return Err(self.shed(Shed::Late));
        }
        Ok(())
    }

    /// Refuses what the bound of the line has no room for. Interactive requests take the room of background ones, which
    /// take no more than half.
    fn make_room(&mut self, ask: &Ask<T>, gone: &mut Vec<(T, ScoreError)>) -> Result<(), ScoreError> {
        let [interactive, background] = self.units;
        let (waiting, limit) = match ask.priority {
            Priority::Interactive => (interactive, self.bounds.units),
            Priority::Background => (interactive + background, self.bounds.units / 2),
        };
        if waiting > 0 && waiting + ask.units() > limit {
            return Err(self.shed(Shed::QueueFull));
        }
        while self.units.iter().sum::<u64>() + ask.units() > self.bounds.units {
            let Some(last) = self.waiting[Priority::Background as usize].pop_back() else { break };
            self.units[Priority::Background as usize] -= last.units();
            gone.push((last.load, self.shed(Shed::Displaced)));
        }
        Ok(())
    }

    /// Units in front of a request that comes now. Of what is in work half is done, on the average.
    fn ahead(&self, priority: Priority) -> u64 {
        let [interactive, background] = self.units;
        let waiting = if priority == Priority::Interactive { interactive } else { interactive + background };
        waiting + self.in_work / 2
    }

    /// Time for a request with as many threads on it as it can use.
    fn own(&self, ask: &Ask<T>) -> Duration {
        let threads = if ask.whole { 1 } else { (ask.rows / LEAST_ROWS).clamp(1, self.bounds.threads) };
        self.pace.of(ask.units()) / threads as u32
    }

    /// Time until so many units, asked for now, would be done by all threads; `None` before anything was measured.
    pub(super) fn estimate(&self, units: u64) -> Option<Duration> {
        let all = self.ahead(Priority::Interactive) + units;
        (self.pace.unit_seconds() > 0.0).then(|| self.pace.of(all) / self.bounds.threads as u32)
    }

    fn shed(&self, reason: Shed) -> ScoreError {
        let waiting = self.units.iter().sum::<u64>() + self.in_work;
        let retry_after = (self.pace.of(waiting) / self.bounds.threads as u32).min(LONGEST_RETRY);
        ScoreError::Overloaded { reason, retry_after }
    }

    /// The next call. No pieces and nothing gone: there is nothing to do.
    pub(super) fn take(&mut self, now: Instant) -> Taken<T> {
        let mut out = Taken { pieces: Vec::new(), units: 0, gone: Vec::new() };
        if self.codel.standing() {
            while let Some(ask) = self.waiting[Priority::Background as usize].pop_front() {
                self.units[Priority::Background as usize] -= ask.units();
                out.gone.push((ask.load, self.shed(Shed::Standing)));
            }
        }
        self.fill(Priority::Interactive, now, &mut out);
        if self.waiting[Priority::Interactive as usize].is_empty() {
            self.codel.left(now, Duration::ZERO, self.usual());
        }
        if out.pieces.is_empty() {
            self.fill(Priority::Background, now, &mut out);
        }
        self.in_work += out.units;
        out
    }

    /// Requests in order of arrival, of one model, as long as the call has room and all of it will be in time.
    fn fill(&mut self, priority: Priority, now: Instant, out: &mut Taken<T>) {
        let (mut at, mut rows, mut by, mut model, mut share) = (0, 0, None::<Instant>, None, 0);
        for _ in 0..LOOK {
            let Some(ask) = self.waiting[priority as usize].get(at) else { return };
            if let Some(reason) = self.hopeless(now, ask) {
                self.remove(priority, at, reason, out);
                continue;
            }
            if model.is_some_and(|m| m != ask.model) {
                at += 1;
                continue;
            }
            if model.is_none() {
                share = if ask.whole { DEVICE_ROWS } else { self.share(priority) };
            }
            let room = self.room(share - rows, out.units, ask);
            let left = ask.rows - ask.taken;
            let take = match model {
                None if ask.whole => left,
                None => left.min(room.max(1)),
                Some(_) if left <= room => left,
                Some(_) if room >= LEAST_ROWS && !ask.whole => room,
                Some(_) => return,
            };
            let units = (take as u64 + u64::from(ask.taken == 0)) * ask.row_units;
            let first = by.map_or(ask.deadline, |by| by.min(ask.deadline));
            if model.is_some() && now + self.pace.of(out.units + units) > first {
                return;
            }
            (by, model) = (Some(first), Some(ask.model));
            rows += take;
            out.units += units;
            self.cut(priority, at, take, now, out);
            if rows >= share {
                return;
            }
            at += usize::from(take < left);
        }
    }

    /// Rows of a call to the CPU: what is there shared among the threads that have nothing to do.
    fn share(&self, priority: Priority) -> usize {
        let rows: usize = self.waiting[priority as usize].iter().take(LOOK).map(|a| a.rows - a.taken).sum();
        rows.div_ceil(self.idle + 1).clamp(LEAST_ROWS.min(self.bounds.tile_rows), self.bounds.tile_rows)
    }

    /// Rows of `ask` that a call of `units` has room for.
    fn room(&self, rows: usize, units: u64, ask: &Ask<T>) -> usize {
        if ask.whole {
            return rows;
        }
        let left = self.bounds.tile_units.saturating_sub(units) / ask.row_units.max(1);
        rows.min(left.saturating_sub(u64::from(ask.taken == 0)) as usize)
    }

    /// Why a request need not be scored any more. One that is begun is finished while there is time.
    fn hopeless(&self, now: Instant, ask: &Ask<T>) -> Option<ScoreError> {
        let sojourn = now.saturating_duration_since(ask.since);
        if now >= ask.deadline {
            return Some(ScoreError::DeadlineExceeded);
        }
        if ask.taken > 0 || ask.priority == Priority::Background {
            return None;
        }
        if self.codel.standing() && sojourn > self.codel.patience() {
            return Some(self.shed(Shed::Standing));
        }
        // It would only take the time of others; alone it is tried, see `submit`.
        let others = self.waiting[Priority::Interactive as usize].len() > 1;
        (others && now + self.own(ask) > ask.deadline).then_some(ScoreError::DeadlineExceeded)
    }

    fn remove(&mut self, priority: Priority, at: usize, reason: ScoreError, out: &mut Taken<T>) {
        let Some(ask) = self.waiting[priority as usize].remove(at) else { return };
        self.units[priority as usize] -= ask.units();
        out.gone.push((ask.load, reason));
    }

    /// Cuts the next `rows` off the request at a place.
    fn cut(&mut self, priority: Priority, at: usize, rows: usize, now: Instant, out: &mut Taken<T>) {
        let usual = self.usual();
        let ask = &mut self.waiting[priority as usize][at];
        let before = ask.units();
        let waited = (ask.taken == 0).then(|| now.saturating_duration_since(ask.since));
        let load = ask.load.clone();
        out.pieces.push(Piece { load, rows: ask.taken..ask.taken + rows, priority, waited });
        ask.taken += rows;
        let done = ask.taken == ask.rows;
        self.units[priority as usize] -= before - ask.units();
        if let (Some(waited), Priority::Interactive) = (waited, priority) {
            self.codel.left(now, waited, usual);
        }
        if done {
            self.waiting[priority as usize].remove(at);
        }
    }

    /// Time for a usual request with all threads on it.
    fn usual(&self) -> Duration {
        self.pace.usual() / self.bounds.threads as u32
    }

    /// A call of `units` took a thread so long; `None`: it failed, which says nothing.
    pub(super) fn done(&mut self, units: u64, took: Option<Duration>) {
        self.in_work -= units;
        if let Some(took) = took {
            self.pace.measure(units, took);
        }
    }

    /// Frees the place of requests for which nobody waits any more.
    pub(super) fn withdraw(&mut self, which: impl Fn(&T) -> bool) {
        for (waiting, units) in self.waiting.iter_mut().zip(&mut self.units) {
            waiting.retain(|ask| {
                let stays = !which(&ask.load);
                *units -= if stays { 0 } else { ask.units() };
                stays
            });
        }
    }
}

#[cfg(test)]
mod tests;

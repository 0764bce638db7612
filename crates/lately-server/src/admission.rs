//! Admission of rankings: before a byte of the body is read, so that a refusal costs microseconds.
//!
//! As many rankings are in work as [`Concurrency`] allows. Further ones wait for a place, in order of arrival and at
//! most `rankings_waiting` of them, for `wait_ms`: a burst passes. Where somebody has waited all the time for that
//! long, arrivals exceed what is worked off, and who waits longer than [`STANDING`] would only be late ("Fail at Scale",
//! Maurer 2015). Background rankings take at most half of the places and never wait. Whoever gets no place is refused
//! as overloaded. A permit is held until the work ends, also where nobody waits for it any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lately_rank::{Priority, RankError, RankResponse, Rung};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::concurrency::{Concurrency, Sample};
use crate::error::ApiError;
use crate::limits::Limits;

/// Rankings in work at the start, before anything was measured.
const START: usize = 32;
/// How long a ranking waits for a place where others always do.
const STANDING: Duration = Duration::from_millis(5);

pub(crate) struct Admission {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    wait: Duration,
    most_waiting: usize,
}

struct State {
    control: Concurrency,
    /// Places that there are, in use or not.
    places: usize,
    /// Places in use that are to go when they become free.
    owed: usize,
    in_work: usize,
    background: usize,
    waiting: usize,
    /// When last nobody waited.
    empty: Instant,
}

/// A place for one ranking.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    place: Option<OwnedSemaphorePermit>,
    priority: Priority,
    waited: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = limits.rankings_max.min(Semaphore::MAX_PERMITS);
        let control = Concurrency::new(START, limits.rankings_min, most);
        let places = control.limit();
        metrics::gauge!("lately_rankings_limit").set(places as f64);
        let empty = Instant::now();
        let state = State { control, places, owed: 0, in_work: 0, background: 0, waiting: 0, empty };
        Self {
            places: Arc::new(Semaphore::new(places)),
            state: Mutex::new(state),
            wait: limits.wait(),
            most_waiting: limits.rankings_waiting,
        }
    }

    /// A place for a ranking, or the refusal.
    pub(crate) async fn admit(self: &Arc<Self>, priority: Priority) -> Result<Permit, ApiError> {
        let begin = Instant::now();
        if let Some(place) = self.free(priority)? {
            return Ok(self.permit(place, priority, Duration::ZERO));
        }
        let (waiting, patience) = self.wait_in_line()?;
        let place = tokio::time::timeout(patience, self.places.clone().acquire_owned()).await;
        drop(waiting);
        match place {
            Ok(Ok(place)) => Ok(self.permit(place, priority, begin.elapsed())),
            _ => Err(refusal("limit", priority)),
        }
    }

    /// A place that nobody has, for background one of its half.
    fn free(&self, priority: Priority) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let state = self.lock();
        let background = priority == Priority::Background;
        if background && !state.room_for_background() {
            return Err(refusal("background", priority));
        }
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) if background => Err(refusal("background", priority)),
            Err(_) => Ok(None),
        }
    }

    /// Who waits, and for how long at most.
    fn wait_in_line(&self) -> Result<(Waiting<'_>, Duration), ApiError> {
        let (mut state, now) = (self.lock(), Instant::now());
        if state.waiting >= self.most_waiting {
            return Err(refusal("waiting", Priority::Interactive));
        }
        if state.waiting == 0 {
            state.empty = now;
        }
        state.waiting += 1;
        let standing = now.saturating_duration_since(state.empty) > self.wait;
        let patience = if standing { STANDING.min(self.wait) } else { self.wait };
        drop(state);
        Ok((Waiting(self), patience))
    }

    fn permit(self: &Arc<Self>, place: OwnedSemaphorePermit, priority: Priority, waited: Duration) -> Permit {
        let mut state = self.lock();
        state.in_work += 1;
        state.background += usize::from(priority == Priority::Background);
        metrics::gauge!("lately_rankings_in_work").set(state.in_work as f64);
        drop(state);
        metrics::histogram!("lately_rankings_wait_seconds").record(waited.as_secs_f64());
        Permit { admission: Arc::clone(self), place: Some(place), priority, waited }
    }

    /// Learns from a ranking that ended.
    fn ended(&self, sample: Sample) {
        let mut state = self.lock();
        let in_work = state.in_work;
        state.control.ended(Instant::now(), sample, in_work);
        state.resize(&self.places);
        metrics::gauge!("lately_rankings_limit").set(state.places as f64);
    }

    /// Nothing is left half done where it is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room_for_background(&self) -> bool {
        self.background < (self.places / 2).max(1)
    }

    /// Makes places, or takes away those that are free now and owes the rest.
    fn resize(&mut self, semaphore: &Semaphore) {
        let want = self.control.limit();
        if want > self.places {
            let more = want - self.places;
            let kept = more.min(self.owed);
            self.owed -= kept;
            semaphore.add_permits(more - kept);
        } else {
            let fewer = self.places - want;
            self.owed += fewer - semaphore.forget_permits(fewer);
        }
        self.places = want;
    }
}

/// Counts one that waits, also where it goes away.
struct Waiting<'a>(&'a Admission);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            state.empty = Instant::now();
        }
    }
}

impl Permit {
    /// How long the ranking waited for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    pub(crate) fn priority(&self) -> Priority {
        self.priority
    }

    /// The body says that it is a background ranking: it gives its place back where those have theirs.
    pub(crate) fn lower(&mut self) -> Result<(), ApiError> {
        if self.priority == Priority::Background {
            return Ok(());
        }
        let mut state = self.admission.lock();
        if !state.room_for_background() {
            return Err(refusal("background", Priority::Background));
        }
        state.background += 1;
        self.priority = Priority::Background;
        Ok(())
    }

    /// Ranks on a thread that may block.
    pub(crate) async fn run(
        self,
        rank: impl FnOnce() -> Result<RankResponse, RankError> + Send + 'static,
    ) -> Result<RankResponse, ApiError> {
        let done = tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            let result = rank();
            if let Some(sample) = sample(begin.elapsed(), &result) {
                self.admission.ended(sample);
            }
            drop(self);
            result
        });
        Ok(done.await.map_err(|error| ApiError::internal("a request's thread", &error))??)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.in_work -= 1;
        state.background -= usize::from(self.priority == Priority::Background);
        metrics::gauge!("lately_rankings_in_work").set(state.in_work as f64);
        match self.place.take() {
            Some(place) if state.owed > 0 => {
                state.owed -= 1;
                place.forget();
            }
            place => drop(place),
        }
    }
}

/// What a ranking says about the load; a refused request says nothing.
fn sample(took: Duration, result: &Result<RankResponse, RankError>) -> Option<Sample> {
    match result {
        Ok(response) => {
            let queue = response.timings_us.iter().find(|(stage, _)| *stage == "queue");
            let waited = Duration::from_micros(queue.map_or(0, |(_, us)| *us));
            let lost =
                [Rung::ScoreDeadline, Rung::FirstN].iter().any(|rung| response.degraded.contains(rung));
            Some(Sample { took, waited, lost })
        }
        Err(RankError::Overloaded { .. }) => Some(Sample { took, waited: Duration::ZERO, lost: true }),
        Err(_) => None,
    }
}

fn refusal(reason: &'static str, priority: Priority) -> ApiError {
    let labels = [("reason", reason), ("priority", priority.name())];
    metrics::counter!("lately_rankings_refused_total", &labels).increment(1);
    ApiError::overloaded("too many rankings are in work", Duration::ZERO)
}

#[cfg(test)]
mod tests;

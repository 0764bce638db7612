//! Members of a group as threads of one process, who meet by the name of their meeting.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lately_model::training::Group;

use crate::CudaError;
use crate::meeting::{MeetingError, check};

/// How long a member waits for the others: a test that would hang fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// Where groups meet that are not complete yet.
static MEETINGS: Mutex<BTreeMap<String, Arc<Table>>> = Mutex::new(BTreeMap::new());

/// What the members of one group share.
struct Table {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    joined: Vec<usize>,
    /// What was laid down for the sum at hand, by rank.
    parts: Vec<Option<Vec<f32>>>,
    /// The sum until all have taken it, and how many have.
    sum: Option<Vec<f32>>,
    taken: usize,
    /// Who left first: with it the group ends.
    left: Option<usize>,
}

/// A member's place.
pub(crate) struct Peers {
    rank: usize,
    table: Arc<Table>,
}

impl Table {
    fn new(size: usize) -> Arc<Self> {
        let state = State { parts: vec![None; size], ..State::default() };
        Arc::new(Self { size, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state is such.
    fn wait<'a>(
        &self,
        doing: &'static str,
        state: MutexGuard<'a, State>,
        such: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, CudaError> {
        let on = |state: &mut State| !such(state) && state.left.is_none();
        let waited = self.changed.wait_timeout_while(state, LIMIT, on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.left {
            _ if such(&state) => Ok(state),
            Some(rank) => Err(MeetingError::Gone { rank }.into()),
            None => Err(CudaError::Group { doing, reason: format!("not all did within {LIMIT:?}") }),
        }
    }
}

impl Peers {
    pub(super) fn join(group: &Group) -> Result<Self, CudaError> {
        check(group)?;
        let Group { rank, size, ref meeting } = *group;
        let place = Self { rank, table: sit_down(meeting, rank, size)? };
        let state = place.table.lock();
        drop(place.table.wait("connect", state, |state| state.joined.len() == size)?);
        Ok(place)
    }

    /// Sums of all members' numbers, added in the order of ranks, by one for all.
    pub(super) fn add_up(&mut self, part: Vec<f32>) -> Result<Vec<f32>, CudaError> {
        let sum = self.try_add_up(part);
        if sum.is_err() {
            self.leave();
        }
        sum
    }

    fn try_add_up(&self, part: Vec<f32>) -> Result<Vec<f32>, CudaError> {
        let table = &*self.table;
        // Until all have taken the sum before.
        let mut state = table.wait("add up", table.lock(), |state| state.sum.is_none())?;
        state.parts[self.rank] = Some(part);
        if state.parts.iter().all(Option::is_some) {
            let parts: Vec<Vec<f32>> = state.parts.iter_mut().filter_map(Option::take).collect();
            state.sum = Some(added(&parts)?);
            state.taken = 0;
            table.changed.notify_all();
        }
        let mut state = table.wait("add up", state, |state| state.sum.is_some())?;
        let sum = state.sum.clone().unwrap_or_default();
        state.taken += 1;
        if state.taken == table.size {
            state.sum = None;
            table.changed.notify_all();
        }
        Ok(sum)
    }

    fn leave(&self) {
        self.table.lock().left.get_or_insert(self.rank);
        self.table.changed.notify_all();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.leave();
        let mut meetings = MEETINGS.lock().unwrap_or_else(PoisonError::into_inner);
        meetings.retain(|_, table| !Arc::ptr_eq(table, &self.table));
    }
}

/// Takes a place where the group meets.
fn sit_down(meeting: &str, rank: usize, size: usize) -> Result<Arc<Table>, MeetingError> {
    let mut meetings = MEETINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let table = meetings.entry(meeting.to_owned()).or_insert_with(|| Table::new(size));
    let table = Arc::clone(table);
    if table.size != size {
        return Err(MeetingError::Size { ours: size, theirs: table.size });
    }
    let mut state = table.lock();
    if state.joined.contains(&rank) {
        return Err(MeetingError::Taken { rank });
    }
    state.joined.push(rank);
    if state.joined.len() == size {
        // Who comes here from now on is of another group.
        meetings.remove(meeting);
    }
    drop(state);
    table.changed.notify_all();
    Ok(table)
}

fn added(parts: &[Vec<f32>]) -> Result<Vec<f32>, CudaError> {
    let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
    if lengths.iter().any(|length| *length != lengths[0]) {
        let reason = format!("they have {lengths:?} numbers to add up");
        return Err(CudaError::Group { doing: "add up", reason });
    }
    let mut sum = parts[0].clone();
    for part in &parts[1..] {
        sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    Ok(sum)
}

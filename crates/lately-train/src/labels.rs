//! The label join: which shown item an action belongs to, and whether it came in time. It runs when all actions have
//! been read, so that the order of their arrival does not matter; [`crate::join`] states the rules.

use lately_features::Schema;
use lately_features::event::MAX_FUTURE_MS;

use crate::dataset::Request;
use crate::stats::JoinStats;

/// One shown item, to be found by the actions on it. `row` is [`NO_ROW`] where the request made no row: an action on
/// it must not go to an older impression instead.
pub(crate) struct Shown {
    pub(crate) user: u32,
    pub(crate) item: u32,
    pub(crate) time_ms: i64,
    /// XXH3-64 of the request id.
    pub(crate) request: u64,
    /// Position of the request in the list that is labelled.
    pub(crate) row: u32,
    pub(crate) candidate: u32,
}

/// See [`Shown`].
pub(crate) const NO_ROW: u32 = u32::MAX;

/// One action that can be a label.
pub(crate) struct Labelled {
    pub(crate) user: u32,
    pub(crate) item: u32,
    pub(crate) time_ms: i64,
    /// XXH3-64 of the request id; 0 where it names none.
    pub(crate) request: u64,
    pub(crate) action: u8,
}

/// Marks in `requests` what followed.
pub(crate) fn label(
    requests: &mut [Request],
    mut shown: Vec<Shown>,
    actions: &[Labelled],
    schema: &Schema,
    stats: &mut JoinStats,
) {
    shown.sort_by_key(|s| (s.user, s.item, s.time_ms)); // stable: of one time the later in the log is last
    for action in actions {
        let Some(shown) = find(&shown, action) else {
            stats.unjoined_actions += 1;
            continue;
        };
        if !in_time(shown, action, schema) {
            stats.late_actions += 1;
        } else if shown.row == NO_ROW {
            stats.left_out_actions += 1;
        } else {
            let request = &mut requests[shown.row as usize];
            request.candidates[shown.candidate as usize].observed |= 1 << action.action;
            stats.joined_actions += 1;
        }
    }
}

/// By request id; without one the user's latest impression of the item, or the first where all are later (which
/// is then not in time).
fn find<'a>(shown: &'a [Shown], action: &Labelled) -> Option<&'a Shown> {
    let key = (action.user, action.item);
    let start = shown.partition_point(|s| (s.user, s.item) < key);
    let of_item = &shown[start..];
    let of_item = &of_item[..of_item.partition_point(|s| (s.user, s.item) == key)];
    if action.request != 0 {
        return of_item.iter().find(|s| s.request == action.request);
    }
    of_item[..of_item.partition_point(|s| s.time_ms <= action.time_ms)].last().or(of_item.first())
}

fn in_time(shown: &Shown, action: &Labelled, schema: &Schema) -> bool {
    let window = i64::from(schema.actions[usize::from(action.action)].attribution_seconds) * 1000;
    // An action that names its request came after it, even where the client's clock runs behind.
    let earliest = if action.request == 0 { 0 } else { -MAX_FUTURE_MS };
    (earliest..=window).contains(&action.time_ms.saturating_sub(shown.time_ms))
}

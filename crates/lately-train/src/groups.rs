//! What stays together in training: every request alone or, where lists are learned from logs whose requests hold one
//! item each, what one user saw on one day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::dataset::Slice;

/// What a list is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// As evaluation's HIT@3 has it: the request where any holds several candidates, else the user's day.
    #[default]
    Auto,
    /// One request.
    Request,
    /// One user's calendar day in [`TrainConfig::zone`].
    UserDay,
}

/// Which sequence the rows of a list see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListSequence {
    /// Each that of its own request. In a user's day the sequence then tells the later rows how the earlier ones went:
    /// the term learns that instead of taste.
    Own,
    /// All that of the list's first request, its time included: as serving has it, where one page is one sequence,
    /// and as HIT@3 is measured.
    #[default]
    Start,
}

/// Requests that stay together, in order of time within a group.
pub(crate) struct Groups {
    /// Positions in `Dataset::requests`, group after group.
    requests: Vec<u32>,
    /// Where groups begin, and the end.
    offsets: Vec<u32>,
}

impl Groups {
    pub(crate) fn of(slice: &Slice<'_>, config: &TrainConfig) -> Self {
        let kind = match config.list {
            _ if !config.has_lists() => ListKind::Request,
            ListKind::Auto if slice.iter().any(|r| r.candidates.len() > 1) => ListKind::Request,
            ListKind::Auto => ListKind::UserDay,
            kind => kind,
        };
        if kind == ListKind::Request {
            let offsets = (0..=slice.requests.len() as u32).collect();
            return Self { requests: slice.requests.clone(), offsets };
        }
        let mut days = BTreeMap::<(u32, i32), Vec<u32>>::new();
        for (at, request) in slice.requests.iter().zip(slice.iter()) {
            days.entry((request.user, config.zone.day(request.time_ms))).or_default().push(*at);
        }
        let mut groups = Self { requests: Vec::with_capacity(slice.requests.len()), offsets: vec![0] };
        days.values().for_each(|day| groups.push(slice, day, config.list_rows));
        groups
    }

    /// Appends a day, in parts of at most about `limit` rows between requests.
    fn push(&mut self, slice: &Slice<'_>, day: &[u32], limit: usize) {
        let rows = |at: u32| slice.dataset.requests[at as usize].candidates.len();
        let ends: Vec<usize> = cuts(day.iter().map(|at| rows(*at)).sum(), limit).skip(1).collect();
        let (mut done, mut next) = (0, 0);
        for at in day {
            self.requests.push(*at);
            done += rows(*at);
            if ends.get(next).is_some_and(|end| done >= *end) {
                self.offsets.push(self.requests.len() as u32);
                next += ends[next..].iter().take_while(|end| done >= **end).count();
            }
        }
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// A group's positions in `Dataset::requests`.
    pub(crate) fn get(&self, group: u32) -> &[u32] {
        let bounds = &self.offsets[group as usize..group as usize + 2];
        &self.requests[bounds[0] as usize..bounds[1] as usize]
    }
}

/// Cuts n rows into as few parts of at most `limit` rows as possible, of about one size: 0 and every part's end.
pub(crate) fn cuts(n: usize, limit: usize) -> impl Iterator<Item = usize> {
    let parts = n.div_ceil(limit).max(1);
    (0..=parts).map(move |part| n * part / parts)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::dataset::Dataset;
    use crate::dates::Zone;
    use crate::fixtures::*;
    use crate::join::{JoinOptions, join};
    use lately_features::Event;

    /// Two users, an impression an hour for 30 hours, the given items in each.
    fn dataset(items: &[&str]) -> Dataset {
        let mut log = Vec::new();
        for hour in 0..30 {
            for user in ["u", "v"] {
                log.push(Event::Impression(impression(&format!("{user}{hour}"), user, items, 3600 * hour)));
            }
        }
        let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
        join(&schema(), log, JoinOptions::default()).unwrap()
    }

    fn sizes(d: &Dataset, config: &TrainConfig) -> Vec<usize> {
        let groups = Groups::of(&d.all(), config);
        let all: Vec<&[u32]> = (0..groups.len() as u32).map(|g| groups.get(g)).collect();
        let zone = &config.zone;
        for group in &all {
            let first = &d.requests[group[0] as usize];
            let same = |r: &u32| {
                let r = &d.requests[*r as usize];
                r.user == first.user && zone.day(r.time_ms) == zone.day(first.time_ms)
            };
            assert!(group.iter().all(same) && group.is_sorted());
        }
        let mut sorted: Vec<u32> = all.concat();
        sorted.sort_unstable();
        assert_eq!(sorted, d.all().requests, "every request stands in one group");
        all.iter().map(|g| g.len()).collect()
    }

    #[test]
    fn single_items_of_a_user_and_day_make_a_list() {
        let d = dataset(&["a"]);
        let config = TrainConfig { list_weight: 0.5, list_rows: 8, ..TrainConfig::default() };
        assert_eq!(sizes(&d, &TrainConfig { list_weight: 0.0, ..config.clone() }), [1; 60]);
        // T0 is 05:20 UTC: 19 hours of the first day, 11 of the next; in parts of at most 8.
        assert_eq!(sizes(&d, &config), [6, 6, 7, 5, 6, 6, 6, 7, 5, 6]);
        let west = TrainConfig { zone: Zone::named("America/New_York").unwrap(), list_rows: 99, ..config };
        assert_eq!(sizes(&d, &west), [23, 7, 23, 7]);
    }

    #[test]
    fn requests_of_several_items_are_lists_themselves() {
        let d = dataset(&["a", "b", "c"]);
        let config = TrainConfig { list_weight: 0.5, ..TrainConfig::default() };
        assert_eq!(sizes(&d, &config), [1; 60]);
        let days = TrainConfig { list: ListKind::UserDay, list_rows: 30, ..config };
        assert_eq!(sizes(&d, &days), [10, 9, 6, 5, 10, 9, 6, 5]);
    }

    #[test]
    fn cuts_are_even_and_within_the_limit() {
        assert_eq!(cuts(0, 4).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(cuts(4, 4).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(cuts(9, 4).collect::<Vec<_>>(), [0, 3, 6, 9]);
    }
}

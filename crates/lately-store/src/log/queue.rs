//! The bounded queue in front of the log's writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::StoreError;

/// A queue of weighted entries, first in first out.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    limit: usize,
}

struct State<T> {
    entries: VecDeque<(T, usize)>,
    weight: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// Holds entries up to the total weight `limit`; a heavier single one passes when the queue is empty.
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { entries: VecDeque::new(), weight: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry; waits for room at most `wait`.
    pub(crate) fn push(&self, entry: T, weight: usize, wait: Duration) -> Result<(), StoreError> {
        let full = |s: &mut State<T>| !s.closed && s.weight > 0 && s.weight + weight > self.limit;
        let (mut state, timeout) =
            self.drained.wait_timeout_while(self.lock(), wait, full).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(StoreError::Closed);
        }
        if timeout.timed_out() {
            return Err(StoreError::Overloaded { waited_ms: wait.as_millis() as u64 });
        }
        state.entries.push_back((entry, weight));
        state.weight += weight;
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for the first entry, then takes those that follow while `together` joins them to the first and the
    /// total weight stays within `limit`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, limit: usize, together: impl Fn(&T, &T) -> bool) -> Option<Vec<T>> {
        let empty = |s: &mut State<T>| !s.closed && s.entries.is_empty();
        let mut state = self.filled.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        let (first, mut taken) = state.entries.pop_front()?;
        let mut group = vec![first];
        while let Some((entry, weight)) = state.entries.front() {
            if taken + weight > limit || !together(&group[0], entry) {
                break;
            }
            taken += weight;
            group.extend(state.entries.pop_front().map(|(entry, _)| entry));
        }
        state.weight -= taken;
        self.drained.notify_all();
        Some(group)
    }

    /// Refuses what comes; what is in the queue may still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Drops what is in the queue: its senders hear that nobody will answer.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.weight = 0;
        let entries = std::mem::take(&mut state.entries);
        drop(state);
        drop(entries);
    }

    /// Total weight that waits.
    pub(crate) fn weight(&self) -> usize {
        self.lock().weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_full_queue_refuses_after_the_wait_and_takes_again_when_drained() {
        let queue = Arc::new(Queue::new(10));
        queue.push(1, 8, SHORT).unwrap();
        assert!(matches!(queue.push(2, 3, SHORT), Err(StoreError::Overloaded { waited_ms: 20 })));
        queue.push(3, 2, SHORT).unwrap();
        assert_eq!(queue.weight(), 10);
        let waiting = std::thread::spawn({
            let queue = queue.clone();
            move || queue.push(4, 50, Duration::from_secs(5))
        });
        assert_eq!(queue.take(100, |_, _| true), Some(vec![1, 3]));
        waiting.join().unwrap().unwrap(); // heavier than the limit, but alone
        assert_eq!(queue.take(1, |_, _| true), Some(vec![4]));
        assert_eq!(queue.weight(), 0);
    }

    #[test]
    fn a_group_ends_at_its_weight_and_at_what_must_stay_alone() {
        let queue = Queue::new(100);
        for i in [1, 3, 5, 2, 7] {
            queue.push(i, i, SHORT).unwrap();
        }
        let odd = |a: &usize, b: &usize| a % 2 == 1 && b % 2 == 1;
        assert_eq!(queue.take(5, odd), Some(vec![1, 3]));
        assert_eq!(queue.take(50, odd), Some(vec![5]));
        assert_eq!(queue.take(50, odd), Some(vec![2]));
        queue.close();
        assert!(matches!(queue.push(9, 1, SHORT), Err(StoreError::Closed)));
        assert_eq!(queue.take(50, odd), Some(vec![7]));
        assert_eq!(queue.take(50, odd), None);
    }
}

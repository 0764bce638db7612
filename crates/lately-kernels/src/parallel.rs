//! The one place where the model's work is handed to threads.

use std::sync::{Mutex, PoisonError};

use rayon_core::{ThreadPool, ThreadPoolBuilder};

/// Threads that stay, so that a call costs a wake-up and each keeps its packing memory from call to call.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    /// None for one thread: the caller then works itself.
    workers: Option<ThreadPool>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Pool {
    /// A pool of this many threads, at least 1. Where the system refuses new threads the caller does all the work, with
    /// the same results.
    pub fn new(threads: usize) -> Self {
        let build =
            || ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("model-{i}")).build();
        let workers = if threads > 1 { build().ok() } else { None };
        Self { threads: if workers.is_some() { threads } else { 1 }, workers }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` on every item. Which thread takes which item is left open, so what an item yields must not depend on
    /// it. A panic of `work` reaches the caller.
    pub fn each<T: Send>(&self, items: impl ExactSizeIterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        let Some(workers) = self.workers.as_ref().filter(|_| items.len() > 1) else {
            return items.for_each(work);
        };
        let helpers = self.threads.min(items.len());
        let items = Mutex::new(items);
        let run = || {
            loop {
                // Taken in a statement of its own: the lock is free again before the work begins.
                let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                match item {
                    Some(item) => work(item),
                    None => return,
                }
            }
        };
        workers.scope(|scope| (0..helpers).for_each(|_| scope.spawn(|_| run())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in [0, 1, 3, 9] {
            let pool = Pool::new(threads);
            for _ in 0..3 {
                let mut counts = [0u32; 7];
                pool.each(counts.iter_mut().enumerate(), |(i, count)| *count += i as u32 + 1);
                assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
            }
        }
    }
}

//! The one place where the model's work is handed to threads.

use std::sync::{Mutex, PoisonError};

/// Calls `work` on every item, on up to `threads` threads of which the caller is one. Which thread takes which item is
/// left open, so what an item yields must not depend on it.
///
/// Threads are started anew: 10 to 20 us each here, against 1 ms and more for a layer of a batch.
pub fn each<T: Send>(
    threads: usize,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    let helpers = threads.min(items.len()).saturating_sub(1);
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
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(run);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in [0, 1, 3, 9] {
            let mut counts = [0u32; 7];
            each(threads, counts.iter_mut().enumerate(), |(i, count)| *count += i as u32 + 1);
            assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
        }
    }
}

//! How many generations of a slot's model are in memory: an old one retires when the last request lets go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the live generations of a slot.
#[derive(Debug)]
pub(crate) struct Generations {
    alias: String,
    live: Arc<AtomicUsize>,
}

/// One generation; it retires when this is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    alias: String,
    live: Arc<AtomicUsize>,
}

impl Generations {
    pub(crate) fn new(alias: &str) -> Self {
        Self { alias: alias.to_owned(), live: Arc::default() }
    }

    pub(crate) fn begin(&self) -> Live {
        self.live.fetch_add(1, Ordering::Relaxed);
        gauge(&self.alias).increment(1.0);
        Live { alias: self.alias.clone(), live: Arc::clone(&self.live) }
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        gauge(&self.alias).decrement(1.0);
    }
}

fn gauge(alias: &str) -> metrics::Gauge {
    metrics::gauge!("lately_model_generations_live", "alias" => alias.to_owned())
}

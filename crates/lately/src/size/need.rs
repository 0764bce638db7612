//! From bytes of one and demands to what is needed.

use serde::Serialize;

use super::sample::Sample;
use super::speed::Speed;

/// Share of the cores that scoring may take in the mean, so that the peaks of chance do not queue.
const UTILISATION: f64 = 0.7;
const DAY_SECONDS: f64 = 86_400.0;

/// What the product is like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Demand {
    pub(crate) users: f64,
    pub(crate) items: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) candidates: f64,
    pub(crate) actions_per_second: f64,
    /// For how long the log is kept, days.
    pub(crate) retention_days: f64,
    /// Most memory for sequences, bytes: `store.sequence_cache_bytes`.
    pub(crate) cache_bytes: f64,
}

/// What it needs. Bytes and bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Need {
    /// For scoring, at 70 %.
    pub(crate) cores: f64,
    pub(crate) model_memory: f64,
    pub(crate) items_memory: f64,
    pub(crate) users_memory: f64,
    /// Sequences of all users, and what of it the cache may hold.
    pub(crate) sequences_memory: f64,
    pub(crate) cache_memory: f64,
    /// Items, users and sequences, before compression.
    pub(crate) state_disk: f64,
    pub(crate) log_a_day: f64,
    pub(crate) log_disk: f64,
    pub(crate) network_in: f64,
    pub(crate) network_out: f64,
}

impl Need {
    pub(crate) fn of(sample: &Sample, speed: &Speed, demand: &Demand) -> Self {
        let d = demand;
        let each = |n: f64, bytes: usize| n * bytes as f64;
        let cores = d.requests_per_second * d.candidates / speed.candidates_per_second / UTILISATION;
        let sequences_memory = each(d.users, sample.sequence_memory);
        let log_a_day = DAY_SECONDS
            * (each(d.requests_per_second, sample.disk.impression)
                + each(d.actions_per_second, sample.disk.action));
        Self {
            cores,
            model_memory: speed.model_bytes as f64 + each(cores.ceil(), speed.scratch_bytes),
            items_memory: each(d.items, sample.item_memory),
            users_memory: each(d.users, sample.user_memory),
            sequences_memory,
            cache_memory: sequences_memory.min(d.cache_bytes),
            state_disk: each(d.items, sample.disk.item)
                + each(d.users, sample.disk.user + sample.entries * sample.disk.entry),
            log_a_day,
            log_disk: log_a_day * d.retention_days,
            network_in: each(d.requests_per_second, sample.request)
                + each(d.actions_per_second, sample.action_request),
            network_out: each(d.requests_per_second, sample.answer)
                + each(d.actions_per_second, sample.action_answer),
        }
    }

    /// Memory in all.
    pub(crate) fn memory(&self) -> f64 {
        self.model_memory + self.items_memory + self.users_memory + self.cache_memory
    }
}

/// Bytes for people, three digits or so.
pub(crate) fn bytes(n: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::sample::Disk;

    fn sample() -> Sample {
        Sample {
            request: 4_000,
            answer: 30_000,
            action_request: 200,
            action_answer: 70,
            entries: 256,
            sequence_memory: 25_000,
            user_memory: 100,
            item_memory: 300,
            disk: Disk { impression: 10_000, action: 100, entry: 60, user: 50, item: 400 },
        }
    }

    fn demand() -> Demand {
        Demand {
            users: 1e6,
            items: 1e5,
            requests_per_second: 100.0,
            candidates: 256.0,
            actions_per_second: 50.0,
            retention_days: 30.0,
            cache_bytes: 256.0 * 1024.0 * 1024.0,
        }
    }

    #[test]
    fn needs_are_products_of_what_one_takes() {
        let speed =
            Speed { candidates_per_second: 6_400.0, model_bytes: 9_000_000, scratch_bytes: 1_000_000 };
        let need = Need::of(&sample(), &speed, &demand());
        // 25,600 candidates/s are 4 cores' work, and 70 % of 5.7.
        assert!((need.cores - 4.0 / 0.7).abs() < 1e-9, "{need:?}");
        assert_eq!(need.model_memory, 9e6 + 6.0 * 1e6, "six threads have working memory");
        assert_eq!((need.items_memory, need.users_memory), (3e7, 1e8));
        assert_eq!((need.sequences_memory, need.cache_memory), (2.5e10, 256.0 * 1024.0 * 1024.0));
        assert_eq!(need.state_disk, 4e7 + 1e6 * (50.0 + 256.0 * 60.0));
        assert_eq!(need.log_a_day, 86_400.0 * (100.0 * 10_000.0 + 50.0 * 100.0));
        assert_eq!(need.log_disk, 30.0 * need.log_a_day);
        assert_eq!((need.network_in, need.network_out), (410_000.0, 3_003_500.0));
        assert_eq!(need.memory(), 15e6 + 3e7 + 1e8 + 256.0 * 1024.0 * 1024.0);
    }

    #[test]
    fn bytes_are_told_in_binary_units() {
        let told = [0.0, 1_023.0, 1_536.0, 200.0 * 1024.0 * 1024.0, 5e12, 1e18].map(bytes);
        assert_eq!(told, ["0 B", "1023 B", "1.5 KiB", "200 MiB", "4.5 TiB", "909495 TiB"]);
    }
}

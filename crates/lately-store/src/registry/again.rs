//! Changes without a lock: look, decide, swap, and again where somebody else was first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::RegistryError;

/// Times that a change is tried while others are first. Somebody's change went through each time.
const ATTEMPTS: u32 = 60;
/// Longest wait between two attempts; the waits begin at a millisecond and double.
const WAIT: Duration = Duration::from_millis(250);

/// Counts the attempts at a change.
pub(super) struct Turns<'a> {
    name: &'a str,
    lost: u32,
}

impl<'a> Turns<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, lost: 0 }
    }

    /// Waits a little after somebody else was first; a different time for each who waits.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] after too many attempts.
    pub(super) fn next(&mut self) -> Result<(), RegistryError> {
        self.lost += 1;
        if self.lost >= ATTEMPTS {
            return Err(RegistryError::Busy(self.name.to_owned()));
        }
        let most = Duration::from_millis(1 << self.lost.min(8)).min(WAIT);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        std::thread::sleep(most.mul_f64(f64::from(clock % 1_000) / 1_000.0));
        Ok(())
    }
}

/// The system's clock, ms since 1970 UTC; 0 where it is set before that.
pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

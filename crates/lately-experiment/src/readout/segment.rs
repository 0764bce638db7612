//! Who a person was when first exposed: never what the variant made of them.

use serde::{Deserialize, Serialize};

use super::DAY_MS;
use super::design::Settings;

/// Days of history below which nobody can be told core.
const LEAST_HISTORY_DAYS: u32 = 7;

/// What a person was before the first exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// Not seen before, or first seen within the last `new_days`.
    New,
    /// Active on at least `core_days` of the last `window_days`.
    Core,
    /// The rest.
    Casual,
    /// Seen once, then not for `window_days`.
    Resurrected,
}

/// People who are compared on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Everybody.
    All,
    /// Core.
    Core,
    /// Everybody who is not core: casual, new and resurrected.
    NonCore,
    /// New.
    New,
    /// Resurrected.
    Resurrected,
}

impl Group {
    /// All groups, in the order of a report.
    pub const EACH: [Self; 5] = [Self::All, Self::Core, Self::NonCore, Self::New, Self::Resurrected];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Core => "core",
            Self::NonCore => "non-core",
            Self::New => "new",
            Self::Resurrected => "resurrected",
        }
    }

    pub(super) fn holds(self, segment: Segment) -> bool {
        match self {
            Self::All => true,
            Self::Core => segment == Segment::Core,
            Self::NonCore => segment != Segment::Core,
            Self::New => segment == Segment::New,
            Self::Resurrected => segment == Segment::Resurrected,
        }
    }
}

/// Days on which a person was active, the last 64 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ActiveDays {
    /// The newest day, since 1970; it is bit 0.
    day: i64,
    bits: u64,
}

impl ActiveDays {
    /// Marks the day of a time.
    pub(super) fn mark(&mut self, time_ms: i64) {
        let day = time_ms.div_euclid(DAY_MS);
        if day > self.day {
            self.bits = shifted(self.bits, day - self.day);
            self.day = day;
        }
        self.bits |= shifted(1, self.day - day);
    }

    /// Active days among the `window` before the day of a time.
    fn before(self, time_ms: i64, window: u32) -> u32 {
        let since = time_ms.div_euclid(DAY_MS) - self.day;
        let bits = if since >= 0 { shifted(self.bits, since) } else { self.bits >> (-since).min(63) };
        ((bits >> 1) & ((1 << window) - 1)).count_ones()
    }
}

fn shifted(bits: u64, days: i64) -> u64 {
    u32::try_from(days).ok().and_then(|days| bits.checked_shl(days)).unwrap_or(0)
}

/// The segment of somebody first exposed now; `seen_ms` is when first seen, `log_ms` when the log begins. A log that is
/// shorter than the window asks for its part of the core days; one shorter than a week knows no core person.
pub(super) fn segment(
    s: &Settings,
    days: ActiveDays,
    seen_ms: Option<i64>,
    log_ms: i64,
    now_ms: i64,
) -> Segment {
    let history = ((now_ms - log_ms) / DAY_MS).clamp(0, i64::from(s.window_days)) as u32;
    let is_new = |seen_ms| now_ms - seen_ms < i64::from(s.new_days) * DAY_MS && history >= s.new_days;
    if seen_ms.is_none_or(is_new) {
        return Segment::New;
    }
    let active = days.before(now_ms, s.window_days);
    if active == 0 && history == s.window_days {
        return Segment::Resurrected;
    }
    let core_days = (s.core_days * history).div_ceil(s.window_days);
    if history >= LEAST_HISTORY_DAYS && active >= core_days { Segment::Core } else { Segment::Casual }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(active: &[i64], seen: Option<i64>, history: i64) -> Segment {
        let now = 20_000;
        let mut days = ActiveDays::default();
        active.iter().for_each(|ago| days.mark((now - ago) * DAY_MS));
        let seen_ms = seen.map(|ago| (now - ago) * DAY_MS);
        segment(&Settings::default(), days, seen_ms, (now - history) * DAY_MS, now * DAY_MS)
    }

    #[test]
    fn who_a_person_was_follows_from_the_days_before() {
        assert_eq!(of(&[], None, 100), Segment::New);
        assert_eq!(of(&[3, 2], Some(3), 100), Segment::New);
        assert_eq!(of(&[8, 7, 6, 5, 4, 3, 2, 1], Some(90), 100), Segment::Core);
        assert_eq!(of(&[1, 8, 7, 3, 6, 5, 4, 2], Some(90), 100), Segment::Core, "whatever the order");
        assert_eq!(of(&[7, 6, 5, 4, 3, 2, 1, 0], Some(90), 100), Segment::Casual, "today does not count");
        assert_eq!(of(&[29], Some(90), 100), Segment::Resurrected);
        assert_eq!(of(&[80], Some(90), 100), Segment::Resurrected);
        assert_eq!(of(&[28], Some(90), 100), Segment::Casual);
    }

    #[test]
    fn a_short_log_asks_for_less_and_says_less() {
        assert_eq!(of(&[12, 9, 3, 2], Some(13), 14), Segment::Core, "4 of 14 days are 8 of 28");
        assert_eq!(of(&[12, 9, 3], Some(13), 14), Segment::Casual);
        assert_eq!(of(&[3, 2, 1], Some(4), 5), Segment::Casual, "nobody is core, or new, after 5 days");
    }
}

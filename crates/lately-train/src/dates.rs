//! Calendar days in a time zone: the ranges of training and evaluation, and the day of a row.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Why a range of days is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// The zone has no such name.
    #[error("time zone `{0}` is unknown: use a name like UTC or Asia/Shanghai")]
    Zone(String),
    /// The text is not a day.
    #[error("`{0}` is not a day: write it like 2022-04-25")]
    Day(String),
    /// The last day is before the first.
    #[error("the last day {to} is before the first, {from}: exchange them")]
    Order {
        /// First day.
        from: String,
        /// Last day.
        to: String,
    },
}

/// A time zone by its name in the tz database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl Zone {
    /// UTC, the default.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Finds a zone such as `Asia/Shanghai`.
    pub fn named(name: &str) -> Result<Self, DateError> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        TimeZone::get(name).map(Self).map_err(|_| DateError::Zone(name.to_owned()))
    }

    /// The calendar day of a time (ms since 1970 UTC), as a number that grows by 1 a day in a year-month-day order:
    /// equal for two times exactly if they are on the same day.
    pub fn day(&self, time_ms: i64) -> i32 {
        let Ok(time) = Timestamp::from_millisecond(time_ms) else { return i32::MIN };
        let date = self.0.to_datetime(time).date();
        i32::from(date.year()) * 10_000 + i32::from(date.month()) * 100 + i32::from(date.day())
    }

    fn start_ms(&self, day: Date) -> Option<i64> {
        Some(self.0.to_timestamp(day.at(0, 0, 0, 0)).ok()?.as_millisecond())
    }
}

/// A calendar day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// As 2022-04-25.
    pub name: String,
    /// Its times.
    pub range: DateRange,
}

impl Zone {
    /// The calendar days from that of `first_ms` to that of `last_ms`, without a gap.
    pub fn days(&self, first_ms: i64, last_ms: i64) -> Vec<Day> {
        let date = |ms| Timestamp::from_millisecond(ms).ok().map(|t| self.0.to_datetime(t).date());
        let (Some(first), Some(last)) = (date(first_ms), date(last_ms)) else { return Vec::new() };
        let day = |date: Date| {
            let (start_ms, end_ms) = (self.start_ms(date)?, self.start_ms(date.tomorrow().ok()?)?);
            Some(Day { name: date.to_string(), range: DateRange { start_ms, end_ms } })
        };
        first.series(1.day()).take_while(|date| *date <= last).filter_map(day).collect()
    }
}

/// A half-open range of times, ms since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateRange {
    /// First millisecond.
    pub start_ms: i64,
    /// First millisecond that is no longer in.
    pub end_ms: i64,
}

impl DateRange {
    /// All times.
    pub const ALL: Self = Self { start_ms: i64::MIN, end_ms: i64::MAX };

    /// The days `from` to `to`, both included, as calendar days of `zone`; an absent end is open.
    pub fn days(from: Option<&str>, to: Option<&str>, zone: &Zone) -> Result<Self, DateError> {
        let parse = |text: &str| text.parse::<Date>().map_err(|_| DateError::Day(text.to_owned()));
        let start = |day: Date| zone.start_ms(day).ok_or_else(|| DateError::Day(day.to_string()));
        let mut range = Self::ALL;
        if let Some(from) = from {
            range.start_ms = start(parse(from)?)?;
        }
        if let Some(to) = to {
            let next = parse(to)?.checked_add(1.day()).map_err(|_| DateError::Day(to.to_owned()))?;
            range.end_ms = start(next)?;
        }
        match (from, to) {
            (Some(from), Some(to)) if range.end_ms <= range.start_ms => {
                Err(DateError::Order { from: from.to_owned(), to: to.to_owned() })
            }
            _ => Ok(range),
        }
    }

    /// Whether a time is in the range.
    pub fn contains(&self, time_ms: i64) -> bool {
        (self.start_ms..self.end_ms).contains(&time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_zone() {
        let shanghai = Zone::named("Asia/Shanghai").unwrap();
        let range = DateRange::days(Some("2022-04-25"), Some("2022-04-25"), &shanghai).unwrap();
        assert_eq!(range, DateRange { start_ms: 1_650_816_000_000, end_ms: 1_650_902_400_000 });
        assert_eq!(shanghai.day(range.start_ms), 20_220_425);
        assert_eq!(shanghai.day(range.start_ms - 1), 20_220_424);
        assert_eq!(Zone::utc().day(range.start_ms), 20_220_424);
        let days = shanghai.days(range.start_ms + 5, range.end_ms + 86_400_000);
        let names: Vec<_> = days.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["2022-04-25", "2022-04-26", "2022-04-27"]);
        assert_eq!(days[0].range, range);
        // A day of 25 hours, when summer time ends.
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let long = DateRange::days(Some("2023-10-29"), Some("2023-10-29"), &berlin).unwrap();
        assert_eq!(long.end_ms - long.start_ms, 25 * 3_600_000);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let utc = Zone::utc();
        assert!(Zone::named("Mars/Olympus").unwrap_err().to_string().contains("Mars/Olympus"));
        assert!(matches!(DateRange::days(Some("25.4.2022"), None, &utc), Err(DateError::Day(_))));
        assert!(matches!(
            DateRange::days(Some("2022-05-02"), Some("2022-05-01"), &utc),
            Err(DateError::Order { .. })
        ));
        assert_eq!(DateRange::days(None, None, &utc), Ok(DateRange::ALL));
    }
}

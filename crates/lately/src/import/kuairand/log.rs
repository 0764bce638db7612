//! The impressions and the history before them, in a compact form.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::super::table::{Table, cut, flag, number};
use super::super::{ImportError, ImportReport};
use super::features::ItemTable;

/// The official logs run from 8 April to 8 May 2022; a time outside this range is damage.
const TIMES_MS: std::ops::Range<i64> = 1_648_742_400_000..1_654_012_800_000;
/// First day of the imported window, as the official column `date` writes it.
const WINDOW_START_DATE: u32 = 20_220_425;
/// Distance between the actions of a history whose times are not known.
const HISTORY_STEP_MS: i64 = 60_000;
/// Number of surfaces (`tab`).
const TABS: u8 = 15;

/// What a user did with one shown video, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const CLICK: Self = Self(1);
    pub(super) const LONG_VIEW: Self = Self(2);
    pub(super) const SAVE: Self = Self(4);
    pub(super) const HIDE: Self = Self(8);
    pub(super) const LIKE: Self = Self(16);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// One impression of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) time_ms: i64,
    /// Number of the row, over all logs, from 1.
    pub(super) row: u32,
    pub(super) user: u32,
    /// Position in the item table.
    pub(super) item: u32,
    pub(super) flags: Flags,
    pub(super) tab: u8,
}

/// One impression from before the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    pub(super) time_ms: i64,
    /// Position in the item table.
    pub(super) item: u32,
    pub(super) flags: Flags,
}

/// A user's impressions from before the window, oldest first.
#[derive(Debug)]
pub(super) struct History {
    pub(super) user: u32,
    pub(super) past: Vec<Past>,
}

/// Collects the rows of all logs.
#[derive(Default)]
pub(super) struct Logs {
    shown: Vec<Shown>,
    history: BTreeMap<u32, Vec<Past>>,
    /// Hashes of the rows read: 64 bits over some million rows meet by chance once in a million imports.
    seen: HashSet<u64>,
    rows: u32,
}

impl Logs {
    /// Reads a log of impressions; rows before the window become history.
    pub(super) fn read(
        &mut self,
        path: &Path,
        items: &mut ItemTable,
        report: &mut ImportReport,
    ) -> Result<(), ImportError> {
        let mut table = Table::open(path)?;
        let columns = table.columns(COLUMNS)?;
        let date = table.position("date");
        while let Some(record) = table.next()? {
            report.rows += 1;
            self.rows += 1;
            let parsed = record.fields.and_then(|fields| {
                let early = date.map(|at| number::<u32>("date", &fields[at])).transpose()?;
                let row = parse(&columns.map(|c| fields[c].as_str()))?;
                Ok((fields, row, early.is_some_and(|d| d < WINDOW_START_DATE)))
            });
            match parsed {
                Err(reason) => report.bad(&table.name, record.line, reason),
                Ok((fields, ..)) if !self.seen.insert(hash(&fields)) => report.duplicates += 1,
                Ok((_, row, early)) => self.push(row, early, items),
            }
        }
        Ok(())
    }

    fn push(&mut self, row: Row, early: bool, items: &mut ItemTable) {
        let Row { user, video, time_ms, flags, tab } = row;
        let item = items.position(video);
        if early {
            self.history.entry(user).or_default().push(Past { time_ms, item, flags });
        } else {
            self.shown.push(Shown { time_ms, row: self.rows, user, item, flags, tab });
        }
    }

    /// Reads `history.csv`.
    pub(super) fn read_history(
        &mut self,
        path: &Path,
        items: &mut ItemTable,
        report: &mut ImportReport,
    ) -> Result<(), ImportError> {
        let mut table = Table::open(path)?;
        let columns = table.columns(["user_id", "history_len", "last_time_ms", "seq"])?;
        while let Some(record) = table.next()? {
            report.rows += 1;
            let parsed = record.fields.and_then(|f| parse_history(&columns.map(|c| f[c].as_str())));
            match parsed {
                Err(reason) => report.bad(&table.name, record.line, reason),
                Ok((user, _)) if self.history.contains_key(&user) => {
                    report.bad(&table.name, record.line, format!("user_id {user} has a row already"));
                }
                Ok((user, past)) => {
                    let known = past.into_iter().map(|p| Past { item: items.position(p.item), ..p });
                    self.history.insert(user, known.collect());
                }
            }
        }
        Ok(())
    }

    /// Histories by user, each oldest first, and the impressions by time; of equal times in the order of the files.
    pub(super) fn finish(mut self) -> (Vec<History>, Vec<Shown>) {
        self.shown.sort_by_key(|s| s.time_ms);
        let sorted = |(user, mut past): (u32, Vec<Past>)| {
            past.sort_by_key(|p| p.time_ms);
            History { user, past }
        };
        (self.history.into_iter().map(sorted).collect(), self.shown)
    }
}

const COLUMNS: [&str; 14] = [
    "user_id",
    "video_id",
    "time_ms",
    "tab",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "is_profile_enter",
    "play_time_ms",
    "duration_ms",
];

#[derive(Clone, Copy)]
struct Row {
    user: u32,
    video: u32,
    time_ms: i64,
    flags: Flags,
    tab: u8,
}

/// Checks every column, also those that are not used: damage in one casts doubt on the row.
fn parse(fields: &[&str; 14]) -> Result<Row, String> {
    let flag_at = |at: usize| flag(COLUMNS[at], fields[at]);
    let tab: u8 = number("tab", fields[3])?;
    if tab >= TABS {
        return Err(format!("tab is {tab}: expected 0 to {}", TABS - 1));
    }
    let (click, like, hate, long_view) = (flag_at(4)?, flag_at(5)?, flag_at(9)?, flag_at(10)?);
    let (follow, comment, forward) = (flag_at(6)?, flag_at(7)?, flag_at(8)?);
    flag_at(11)?;
    number::<u64>("play_time_ms", fields[12])?;
    number::<u64>("duration_ms", fields[13])?;
    let flags = Flags::default()
        .with(Flags::CLICK, click)
        .with(Flags::LONG_VIEW, long_view)
        .with(Flags::SAVE, like || follow || comment || forward)
        .with(Flags::HIDE, hate)
        .with(Flags::LIKE, like);
    let (user, video) = (number("user_id", fields[0])?, number("video_id", fields[1])?);
    Ok(Row { user, video, time_ms: time("time_ms", fields[2])?, flags, tab })
}

fn time(column: &str, text: &str) -> Result<i64, String> {
    let time: i64 = number(column, text)?;
    if TIMES_MS.contains(&time) {
        Ok(time)
    } else {
        Err(format!("{column} is {time}: not of April or May 2022"))
    }
}

/// A row of `history.csv`; `Past::item` still holds the video's id.
fn parse_history(fields: &[&str; 4]) -> Result<(u32, Vec<Past>), String> {
    let user = number("user_id", fields[0])?;
    let all: usize = number("history_len", fields[1])?;
    let last = time("last_time_ms", fields[2])?;
    let tokens: Vec<&str> = fields[3].split_ascii_whitespace().collect();
    if tokens.len() > all {
        return Err(format!("seq has {} videos, history_len says {all}", tokens.len()));
    }
    let past = tokens.iter().enumerate().map(|(i, token)| {
        let (video, marks) = token.split_once(':').unwrap_or((token, ""));
        let known = matches!((marks, token.contains(':')), ("", false) | ("L" | "V" | "LV", true));
        if !known {
            return Err(format!("seq holds `{}`: expected video[:L][V]", cut(token)));
        }
        let flags = Flags::default()
            .with(Flags::LIKE, marks.contains('L'))
            .with(Flags::SAVE, marks.contains('L'))
            .with(Flags::LONG_VIEW, marks.contains('V'));
        let time_ms = last - (tokens.len() - 1 - i) as i64 * HISTORY_STEP_MS;
        Ok(Past { time_ms, item: number("seq", video)?, flags })
    });
    Ok((user, past.collect::<Result<_, _>>()?))
}

fn hash(fields: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    fields.hash(&mut hasher);
    hasher.finish()
}

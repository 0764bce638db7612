//! Exports of Polis conversations (<https://github.com/compdemocracy/openData>): `votes.csv` and `comments.csv`, with
//! a column `conversation` that keeps several apart. Plain or gzip.
//!
//! Each vote is one shown statement with one outcome: agree is `save`, disagree `hide`, and pass the neutral `pass`.
//! The features of a statement change as the votes come in: it is written again after its votes 1, 2, 4, 8, 16 and
//! each 25th, with the rates *so far*. A statement has no vector until a first share of its conversation's votes is
//! cast (`embed_share`); then vectors are learned from those votes alone and stay. So a row never sees anything
//! that was learned from itself or from later.

mod emit;

use std::collections::HashMap;
use std::path::Path;

use lately_features::Schema;

use super::table::{Table, cut, number, required};
use super::{ImportError, ImportReport};

/// Content of the `[schema]` table but for `surfaces`.
const SCHEMA: &str = include_str!("polis.toml");

/// Polis began in 2012: an earlier time, or one after 2100, is damage.
const TIMES_MS: std::ops::Range<i64> = 1_325_376_000_000..4_102_444_800_000;

/// What to read, and how much damage to bear.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bad rows that are tolerated.
    pub max_bad: u64,
    /// Share of a conversation's votes from which its statements' vectors are learned, 0 to 1.
    pub embed_share: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_bad: super::DEFAULT_MAX_BAD, embed_share: 0.2 }
    }
}

/// Votes that have been read and may be emitted.
pub struct Polis {
    conversations: Vec<String>,
    comments: Vec<Comment>,
    votes: Vec<Vote>,
    embed_share: f64,
    report: ImportReport,
}

#[derive(Debug, Clone, Copy)]
struct Comment {
    /// Position among the conversations.
    conversation: u32,
    id: u32,
    /// When it was written; of a statement that only the votes know, its first vote.
    time_ms: i64,
    /// False where the moderators took it out.
    active: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Disagree,
    Pass,
    Agree,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    time_ms: i64,
    /// Number of the row, from 1.
    row: u32,
    /// Position among the comments.
    comment: u32,
    voter: u32,
    choice: Choice,
}

/// Reads `votes.csv` and `comments.csv` of `dir`; fails where more rows are bad than `options` allow.
pub fn read(dir: &Path, options: Options) -> Result<Polis, ImportError> {
    let mut reader = Reader::default();
    reader.comments(&required(dir, &["comments.csv"])?)?;
    reader.votes(&required(dir, &["votes.csv"])?)?;
    reader.report.check(options.max_bad)?;
    let mut voters: Vec<(u32, u32)> =
        reader.votes.iter().map(|v| (reader.comments[v.comment as usize].conversation, v.voter)).collect();
    voters.sort_unstable();
    voters.dedup();
    let Reader { conversations, comments, mut votes, mut report, .. } = reader;
    votes.sort_by_key(|v| v.time_ms);
    report.users = voters.len() as u64;
    report.items = comments.len() as u64;
    report.impressions = votes.len() as u64;
    Ok(Polis { conversations, comments, votes, embed_share: options.embed_share, report })
}

impl Polis {
    /// What was read.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// Content of the `[schema]` table: the conversations are its surfaces.
    pub fn schema_toml(&self) -> String {
        let names: Vec<String> =
            self.conversations.iter().map(|c| toml::Value::String(c.clone()).to_string()).collect();
        format!("surfaces = [{}]\n\n{SCHEMA}", names.join(", "))
    }

    /// The schema of the events.
    pub fn schema(&self) -> Result<Schema, ImportError> {
        Ok(Schema::from_toml(&self.schema_toml())?)
    }
}

#[derive(Default)]
struct Reader {
    conversations: Vec<String>,
    comments: Vec<Comment>,
    positions: HashMap<(u32, u32), u32>,
    votes: Vec<Vote>,
    report: ImportReport,
}

impl Reader {
    fn comments(&mut self, path: &Path) -> Result<(), ImportError> {
        let mut table = Table::open(path)?;
        let columns = table.columns(["conversation", "timestamp", "comment-id", "moderated"])?;
        while let Some(record) = table.next()? {
            self.report.rows += 1;
            let added = record.fields.and_then(|f| self.comment(columns.map(|c| f[c].as_str())));
            if let Err(reason) = added {
                self.report.bad(&table.name, record.line, reason);
            }
        }
        Ok(())
    }

    fn comment(&mut self, fields: [&str; 4]) -> Result<(), String> {
        let (time_ms, id) = (time(fields[1])?, number("comment-id", fields[2])?);
        let active = number::<i8>("moderated", fields[3])? >= 0;
        let conversation = self.conversation(fields[0])?;
        if self.positions.contains_key(&(conversation, id)) {
            return Err(format!("comment-id {id} of this conversation has a row already"));
        }
        self.push(Comment { conversation, id, time_ms, active });
        Ok(())
    }

    fn push(&mut self, comment: Comment) -> u32 {
        let position = self.comments.len() as u32;
        self.positions.insert((comment.conversation, comment.id), position);
        self.comments.push(comment);
        position
    }

    fn votes(&mut self, path: &Path) -> Result<(), ImportError> {
        let mut table = Table::open(path)?;
        let columns = table.columns(["conversation", "timestamp", "comment-id", "voter-id", "vote"])?;
        let mut seen = std::collections::HashSet::new();
        let mut row = 0;
        while let Some(record) = table.next()? {
            (self.report.rows, row) = (self.report.rows + 1, row + 1);
            let parsed = record.fields.and_then(|f| self.vote(row, columns.map(|c| f[c].as_str())));
            match parsed {
                Err(reason) => self.report.bad(&table.name, record.line, reason),
                Ok(v) if !seen.insert((v.time_ms, v.comment, v.voter, v.choice as u8)) => {
                    self.report.duplicates += 1;
                }
                Ok(vote) => self.votes.push(vote),
            }
        }
        Ok(())
    }

    fn vote(&mut self, row: u32, fields: [&str; 5]) -> Result<Vote, String> {
        let time_ms = time(fields[1])?;
        let id = number("comment-id", fields[2])?;
        let voter = number("voter-id", fields[3])?;
        let choice = match fields[4] {
            "1" => Choice::Agree,
            "0" => Choice::Pass,
            "-1" => Choice::Disagree,
            other => return Err(format!("vote is `{}`: expected -1, 0 or 1", cut(other))),
        };
        let conversation = self.conversation(fields[0])?;
        let comment = match self.positions.get(&(conversation, id)) {
            Some(position) => *position,
            None => self.push(Comment { conversation, id, time_ms, active: true }),
        };
        // A statement can be dated after its first votes: it was there all the same.
        let known = &mut self.comments[comment as usize].time_ms;
        *known = time_ms.min(*known);
        Ok(Vote { time_ms, row, comment, voter, choice })
    }

    fn conversation(&mut self, name: &str) -> Result<u32, String> {
        if let Some(at) = self.conversations.iter().position(|c| c == name) {
            return Ok(at as u32);
        }
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(format!("conversation is `{}`: expected 1 to 100 bytes of text", cut(name)));
        }
        self.conversations.push(name.to_owned());
        Ok(self.conversations.len() as u32 - 1)
    }
}

fn time(text: &str) -> Result<i64, String> {
    let time: i64 = number("timestamp", text)?;
    if TIMES_MS.contains(&time) { Ok(time) } else { Err(format!("timestamp is {time}: not ms since 2012")) }
}

#[cfg(test)]
mod tests;

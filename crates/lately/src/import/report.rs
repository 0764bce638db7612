//! What an import read, and what of it was bad.

use std::fmt;

use super::ImportError;

/// Bad rows kept with their reason; all are counted.
const SHOWN: usize = 20;

/// One row that did not join the import.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BadRow {
    /// Name of the file.
    pub file: String,
    /// Its line, from 1 (of Parquet: its row, from 1).
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad: {} line {}: {}", self.file, self.line, self.reason)
    }
}

/// What an import read and handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Rows read, over all files, bad ones included.
    pub rows: u64,
    /// The first bad rows.
    pub bad: Vec<BadRow>,
    /// All bad rows.
    pub bad_count: u64,
    /// Rows that repeated an earlier one exactly; they were dropped.
    pub duplicates: u64,
    /// Impressions read.
    pub impressions: u64,
    /// Actions handed over, `history` included.
    pub actions: u64,
    /// Actions from before the imported window; they feed sequences and are never training rows.
    pub history: u64,
    /// Items.
    pub items: u64,
    /// Users.
    pub users: u64,
    /// Events handed over.
    pub events: u64,
}

impl ImportReport {
    /// The kept bad rows, one a line, and how many more there were.
    pub fn bad_lines(&self) -> String {
        let mut lines: Vec<String> = self.bad.iter().map(|b| format!("  {b}")).collect();
        let more = self.bad_count - self.bad.len() as u64;
        if more > 0 {
            lines.push(format!("  and {} more", count(more)));
        }
        lines.join("\n")
    }

    pub(super) fn bad(&mut self, file: &str, line: u64, reason: impl Into<String>) {
        self.bad_count += 1;
        if self.bad.len() < SHOWN {
            self.bad.push(BadRow { file: file.to_owned(), line, reason: reason.into() });
        }
    }

    /// Refuses the import if it has more bad rows than `max`.
    pub(super) fn check(&self, max: u64) -> Result<(), ImportError> {
        if self.bad_count <= max {
            return Ok(());
        }
        Err(ImportError::TooManyBad { max, report: Box::new(self.clone()) })
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (impressions, duplicates) = (count(self.impressions), count(self.duplicates));
        writeln!(f, "{impressions} impressions, {} bad, {duplicates} duplicates", count(self.bad_count))?;
        let (actions, history) = (count(self.actions), count(self.history));
        write!(f, "{} users, {} items, ", count(self.users), count(self.items))?;
        write!(f, "{actions} actions ({history} of history), {} events", count(self.events))?;
        if self.bad_count > 0 {
            write!(f, "\n{}", self.bad_lines())?;
        }
        Ok(())
    }
}

/// 1234567 as `1,234,567`.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well_and_keeps_the_first_bad_rows() {
        let mut report = ImportReport { impressions: 193_695, ..ImportReport::default() };
        assert!(report.to_string().starts_with("193,695 impressions, 0 bad, 0 duplicates\n"));
        for line in 1..=25 {
            report.bad("a.csv", line, "`x` is no number");
        }
        assert_eq!((report.bad.len(), report.bad_count), (20, 25));
        assert!(report.to_string().contains("bad: a.csv line 3: `x` is no number"));
        assert!(report.bad_lines().ends_with("and 5 more"));
        assert!(report.check(25).is_ok());
        let refused = report.check(24).unwrap_err().to_string();
        assert!(refused.starts_with("25 bad rows, 24 are allowed"), "{refused}");
        assert!(refused.contains("a.csv line 1:"), "{refused}");
    }

    #[test]
    fn counts_have_separators() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}

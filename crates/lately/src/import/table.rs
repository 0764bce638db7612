//! CSV with a header, gzip or plain by its first bytes, row by row; a damaged row is handed over as such.
//!
//! A stray quotation mark would make an ordinary CSV reader swallow the rows up to the next one. Here a record is
//! first a line; it takes more lines only while a quote is open, and if that gives no record of the header's width,
//! the first line alone is bad and the others are read again, each on its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;

use super::ImportError;

/// Most lines of one record: a text with line breaks.
const MAX_LINES: usize = 200;
/// Longest line, bytes: a file without line breaks is not a table.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Opens a file, unpacking it if it starts with gzip's magic bytes.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, ImportError> {
    let failed = |source| ImportError::Read { file: path.to_owned(), line: 0, source };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    if file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// The first of `names`, plain or with `.gz`, that is in `dir`.
pub(super) fn find(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let candidates = names.iter().flat_map(|name| [dir.join(name), dir.join(format!("{name}.gz"))]);
    candidates.into_iter().find(|path| path.is_file())
}

/// Like [`find`], but the file must be there.
pub(super) fn required(dir: &Path, names: &[&str]) -> Result<PathBuf, ImportError> {
    find(dir, names).ok_or_else(|| ImportError::Missing {
        dir: dir.to_owned(),
        names: names.iter().map(|n| format!("{n}[.gz]")).collect::<Vec<_>>().join(", "),
    })
}

/// Name of a file without its directory.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The lines of a file, counted.
pub(super) struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead>,
    /// Lines read so far.
    line: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        Ok(Self { path: path.to_owned(), input: open(path)?, line: 0 })
    }

    /// One line without its end, and its number from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, ImportError> {
        let mut bytes = Vec::with_capacity(128);
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut bytes);
        let line = self.line;
        read.map_err(|source| ImportError::Read { file: self.path.clone(), line, source })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 == MAX_LINE_BYTES && !bytes.ends_with(b"\n") {
            let reason = format!("line {} is longer than 1 MiB: this is no table", line + 1);
            return Err(ImportError::Format { file: self.path.clone(), reason });
        }
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        self.line += 1;
        Ok(Some((self.line, bytes)))
    }
}

/// A CSV file that is being read.
pub(super) struct Table {
    /// Without the directory.
    pub(super) name: String,
    lines: Lines,
    /// Lines of an undone record, to be read again.
    pending: VecDeque<(u64, Vec<u8>)>,
    header: Vec<String>,
}

/// One record: its line and fields, or what is wrong.
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) fields: Result<Vec<String>, String>,
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let (name, lines) = (file_name(path), Lines::open(path)?);
        let mut table = Self { name, lines, pending: VecDeque::new(), header: Vec::new() };
        let first = table.lines.next()?.map(|(_, bytes)| split(&bytes));
        let Some(Ok(mut header)) = first else {
            return Err(table.format("no header: the first line must name the columns"));
        };
        if let Some(first) = header.first_mut() {
            *first = first.trim_start_matches('\u{feff}').to_owned(); // a byte order mark of some exports
        }
        table.header = header;
        Ok(table)
    }

    /// Position of a column.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h == name)
    }

    /// Positions of columns that must be there.
    pub(super) fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N], ImportError> {
        let missing: Vec<&str> = names.into_iter().filter(|n| self.position(n).is_none()).collect();
        if !missing.is_empty() {
            return Err(self.format(&format!(
                "no column {}: the header has {}",
                missing.join(", "),
                self.header.join(", ")
            )));
        }
        Ok(names.map(|name| self.position(name).unwrap_or_default()))
    }

    /// The next record; empty lines are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Record>, ImportError> {
        let Some((line, first)) = self.next_line()? else { return Ok(None) };
        if first.is_empty() {
            return self.next();
        }
        let mut record = first.clone();
        let mut more: Vec<(u64, Vec<u8>)> = Vec::new();
        while quotes(&record) % 2 == 1 && more.len() < MAX_LINES {
            let Some(next) = self.next_line()? else { break };
            record.push(b'\n');
            record.extend_from_slice(&next.1);
            more.push(next);
        }
        let width = self.header.len();
        let fields = match split(&record) {
            Ok(_) if quotes(&record) % 2 == 1 => Err("a quotation mark is not closed".to_owned()),
            Ok(fields) if fields.len() != width => {
                Err(format!("{} columns: the header has {width}", fields.len()))
            }
            other => other,
        };
        if fields.is_err() {
            for again in more.into_iter().rev() {
                self.pending.push_front(again);
            }
        }
        Ok(Some(Record { line, fields }))
    }

    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, ImportError> {
        match self.pending.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.lines.next(),
        }
    }

    fn format(&self, reason: &str) -> ImportError {
        ImportError::Format { file: self.lines.path.clone(), reason: reason.to_owned() }
    }
}

fn quotes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'"').count()
}

/// Fields of one record. Most have no quotes and need no parser.
fn split(record: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(record).map_err(|e| format!("no UTF-8 at byte {}", e.valid_up_to()))?;
    if !text.contains('"') {
        return Ok(text.split(',').map(str::to_owned).collect());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(record);
    match reader.records().next() {
        Some(Ok(fields)) => Ok(fields.iter().map(str::to_owned).collect()),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("no fields".to_owned()),
    }
}

/// A number of a field, or what is wrong with it.
pub(super) fn number<T: FromStr>(column: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{column} is `{}`: not such a number", cut(text)))
}

/// A number where one is given.
pub(super) fn optional(column: &str, text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let value: f64 = number(column, text)?;
    if value.is_finite() { Ok(Some(value)) } else { Err(format!("{column} is `{}`: not finite", cut(text))) }
}

/// A flag that is 0 or 1.
pub(super) fn flag(column: &str, text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(format!("{column} is `{}`: expected 0 or 1", cut(other))),
    }
}

/// The start of a text, as it may stand in a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Vec<(u64, Result<Vec<String>, String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, bytes).unwrap();
        let mut table = Table::open(&path).unwrap();
        let mut out = Vec::new();
        while let Some(record) = table.next().unwrap() {
            out.push((record.line, record.fields));
        }
        out
    }

    fn row(fields: &[&str]) -> Result<Vec<String>, String> {
        Ok(fields.iter().map(|f| (*f).to_owned()).collect())
    }

    #[test]
    fn a_quoted_line_break_is_one_record_and_lines_are_counted() {
        let rows = read(b"a,b\r\n1,\"x\ny, \"\"z\"\"\"\n\n2,w");
        assert_eq!(rows, [(2, row(&["1", "x\ny, \"z\""])), (5, row(&["2", "w"]))]);
    }

    #[test]
    fn a_stray_quote_costs_its_own_line_only() {
        let rows = read(b"a,b\n\"1,2\n3,4\n5,\"6\n7,8\n");
        let good: Vec<u64> = rows.iter().filter(|r| r.1.is_ok()).map(|r| r.0).collect();
        assert_eq!(good, [3, 5]);
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn damaged_rows_say_why() {
        let rows = read(b"a,b\n1\n1,2,3\n\xff,1\n1,2\n");
        let why: Vec<String> = rows.into_iter().filter_map(|r| r.1.err()).collect();
        assert_eq!(why, ["1 columns: the header has 2", "3 columns: the header has 2", "no UTF-8 at byte 0"]);
    }

    #[test]
    fn gzip_is_known_by_content_and_a_torn_one_is_an_error() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let body: String = (0..2000).map(|i| format!("{i},{}\n", i * 7919 % 1013)).collect();
        gz.write_all(format!("a,b\n{body}").as_bytes()).unwrap();
        let bytes = gz.finish().unwrap();
        assert_eq!(read(&bytes).len(), 2000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let mut table = Table::open(&path).unwrap();
        let end = loop {
            match table.next() {
                Ok(Some(_)) => {}
                other => break other.map(|_| ()),
            }
        };
        assert!(matches!(end, Err(ImportError::Read { line: 1.., .. })));
    }

    #[test]
    fn missing_columns_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, "\u{feff}a,b\n").unwrap();
        let table = Table::open(&path).unwrap();
        assert_eq!(table.columns(["b", "a"]).unwrap(), [1, 0]);
        assert!(
            table.columns(["a", "z"]).unwrap_err().to_string().contains("no column z: the header has a, b")
        );
        let missing = required(dir.path(), &["x.csv"]).unwrap_err().to_string();
        assert!(missing.contains("x.csv[.gz]"), "{missing}");
    }
}

//! safetensors: a matrix, and beside it the ids as a tensor of whole numbers where there is one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::super::ImportError;
use super::Options;
use super::array::{Array, Number};

/// Longest header, bytes, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A file and what is to be said of it.
struct Source<'a> {
    path: &'a Path,
    file: BufReader<File>,
}

/// The matrix `options.vector` and the ids of the tensor `options.id`, in text.
pub(super) fn open(path: &Path, options: &Options) -> Result<(Array, Option<Vec<String>>), ImportError> {
    let failed = |source| ImportError::Read { file: path.to_owned(), line: 0, source };
    let file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let mut source = Source { path, file };
    let (start, entries) = source.header()?;
    let Some(entry) = entries.get(&options.vector) else {
        let mut names: Vec<&str> = entries.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(source.format(format!(
            "no tensor {}: the file has {}",
            options.vector,
            names.join(", ")
        )));
    };
    let number = match entry.dtype.as_str() {
        "F16" => Number::F16,
        "BF16" => Number::Bf16,
        "F32" => Number::F32,
        "F64" => Number::F64,
        other => return Err(source.format(format!("{} is of {other}: save it as F32", options.vector))),
    };
    let [rows, width] = entry.shape[..] else {
        return Err(source.format(format!("{} is no matrix: expected one row an item", options.vector)));
    };
    let ids = match entries.get(&options.id).filter(|_| options.ids.is_none()) {
        Some(ids) => Some(source.numbers(start, ids, rows)?),
        None => None,
    };
    source.seek(start, entry)?;
    Ok((Array::new(path, source.file, number, (rows, width)), ids))
}

impl Source<'_> {
    fn format(&self, reason: String) -> ImportError {
        ImportError::Format { file: self.path.to_owned(), reason }
    }

    fn failed(&self, source: std::io::Error) -> ImportError {
        ImportError::Read { file: self.path.to_owned(), line: 0, source }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ImportError> {
        self.file.read_exact(bytes).map_err(|e| self.failed(e))
    }

    fn seek(&mut self, start: u64, entry: &Entry) -> Result<(), ImportError> {
        let to = SeekFrom::Start(start.saturating_add(entry.data_offsets.0));
        self.file.seek(to).map(drop).map_err(|e| self.failed(e))
    }

    /// Where the data starts, and the tensors by name.
    fn header(&mut self) -> Result<(u64, HashMap<String, Entry>), ImportError> {
        let mut length = [0; 8];
        self.fill(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(self.format(format!("its header has {length} bytes: this is no safetensors file")));
        }
        let mut json = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut json).map_err(|e| self.failed(e))?;
        let parsed = serde_json::from_slice::<HashMap<String, serde_json::Value>>(&json).and_then(|all| {
            let tensors = all.into_iter().filter(|(name, _)| name != "__metadata__");
            tensors.map(|(name, entry)| Ok((name, serde_json::from_value(entry)?))).collect()
        });
        let entries = parsed.map_err(|e| self.format(format!("no safetensors file: {e}")))?;
        Ok((8 + length, entries))
    }

    /// Whole numbers as text, `rows` of them.
    fn numbers(&mut self, start: u64, entry: &Entry, rows: usize) -> Result<Vec<String>, ImportError> {
        let size = match entry.dtype.as_str() {
            "I32" | "U32" => 4,
            "I64" | "U64" => 8,
            other => {
                return Err(self.format(format!("its ids are of {other}: save whole numbers, or give --ids")));
            }
        };
        if entry.shape != [rows] {
            return Err(self.format(format!("ids of the shape {:?} for {rows} rows", entry.shape)));
        }
        self.seek(start, entry)?;
        let mut ids = Vec::new();
        let mut long = [0; 8];
        for _ in 0..rows {
            self.fill(&mut long[..size])?;
            let word = [long[0], long[1], long[2], long[3]];
            ids.push(match entry.dtype.as_str() {
                "I32" => i32::from_le_bytes(word).to_string(),
                "U32" => u32::from_le_bytes(word).to_string(),
                "I64" => i64::from_le_bytes(long).to_string(),
                _ => u64::from_le_bytes(long).to_string(),
            });
        }
        Ok(ids)
    }
}

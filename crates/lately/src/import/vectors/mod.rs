//! Item vectors that were made elsewhere: Parquet or JSON lines, npy with a list of ids, safetensors.
//!
//! Files are read row by row; only the table itself is held. A bad row is named with its file and line (of npy and
//! safetensors: its row, from 1) and never joins the table.

mod array;
mod npy;
mod tensors;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lately_features::{ItemId, Schema};
use lately_train::embed::Table;

use self::array::Array;
use super::generic::rows::{self, Cell, Row};
use super::table::{Lines, cut, file_name};
use super::{ImportError, ImportReport};

/// What to read of a file of vectors, and how much damage to bear.
#[derive(Debug, Clone)]
pub struct Options {
    /// Text file with one id a line, in the order of the rows: for npy, and safetensors without ids.
    pub ids: Option<PathBuf>,
    /// Column of the ids in Parquet and JSON lines; name of the tensor of whole numbers in safetensors.
    pub id: String,
    /// Column of the vectors in Parquet and JSON lines; name of the tensor in safetensors.
    pub vector: String,
    /// Bad rows that are tolerated.
    pub max_bad: u64,
}

impl Default for Options {
    fn default() -> Self {
        let (id, vector) = ("id".to_owned(), "vector".to_owned());
        Self { ids: None, id, vector, max_bad: super::DEFAULT_MAX_BAD }
    }
}

/// Reads a file of vectors for a schema. `report.items` counts those that were taken.
///
/// # Errors
/// [`ImportError`] where the file cannot be read or has another form, where the vectors of an array have another length
/// than the schema's item embedding, and where more rows are bad than allowed.
pub fn read(path: &Path, schema: &Schema, options: &Options) -> Result<(Table, ImportReport), ImportError> {
    let mut sink = Collector::new(path, schema);
    let mut magic = Vec::new();
    let failed = |source| ImportError::Read { file: path.to_owned(), line: 0, source };
    File::open(path).and_then(|f| f.take(6).read_to_end(&mut magic)).map_err(failed)?;
    if magic == b"\x93NUMPY" {
        let ids = ids_beside(path, options)?;
        from_array(npy::open(path)?, ids, &mut sink)?;
    } else if path.extension().is_some_and(|e| e == "safetensors") {
        let (array, within) = tensors::open(path, options)?;
        let ids = match (within, &options.ids) {
            (Some(ids), None) => Box::new(ids.into_iter().map(Ok)),
            _ => ids_beside(path, options)?,
        };
        from_array(array, ids, &mut sink)?;
    } else {
        let columns = [options.id.as_str(), options.vector.as_str()];
        rows::read(path, &columns, &mut |line, row| {
            sink.take(line, row.and_then(|row| parse(row, &columns)))
        })?;
    }
    sink.report.check(options.max_bad)?;
    sink.report.items = sink.table.items.len() as u64;
    Ok((sink.table, sink.report))
}

/// The ids of the rows of an array, in their order.
type Ids = Box<dyn Iterator<Item = Result<String, ImportError>>>;

fn ids_beside(path: &Path, options: &Options) -> Result<Ids, ImportError> {
    let Some(ids) = &options.ids else {
        let reason = "it holds no ids: give a text file with one id a line as --ids".to_owned();
        return Err(ImportError::Format { file: path.to_owned(), reason });
    };
    let mut lines = Lines::open(ids)?;
    let mut next = move || {
        let line = lines.next()?;
        Ok(line.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()))
    };
    Ok(Box::new(std::iter::from_fn(move || next().transpose())))
}

/// Rows of an array with their ids; both must have the same number, and the rows the schema's length.
fn from_array(mut array: Array, mut ids: Ids, sink: &mut Collector) -> Result<(), ImportError> {
    let file = sink.path.clone();
    let format = |reason: String| ImportError::Format { file: file.clone(), reason };
    if array.width != sink.dim {
        return Err(format(sink.wrong_length(array.width)));
    }
    for row in 0..array.rows {
        let Some(id) = ids.next().transpose()? else {
            return Err(format(format!(
                "{} rows and only {row} ids: they belong together one by one",
                array.rows
            )));
        };
        let vector = array.next()?;
        sink.take(row as u64 + 1, Ok((id, vector)));
    }
    if ids.next().transpose()?.is_some() {
        return Err(format(format!("{} rows and more ids: they belong together one by one", array.rows)));
    }
    Ok(())
}

fn parse(row: Row, columns: &[&str; 2]) -> Result<(String, Vec<f32>), String> {
    let mut row = row.into_iter();
    let id = match row.next().flatten() {
        Some(Cell::Text(id)) => id,
        _ => return Err(format!("{} is missing or a list: expected an id", columns[0])),
    };
    let numbers = match row.next().flatten() {
        Some(Cell::List(numbers)) => numbers,
        // Of CSV, which has no lists.
        Some(Cell::Text(text)) => {
            text.trim_matches(['[', ']', ' ']).split(',').map(|n| n.trim().to_owned()).collect()
        }
        None => return Err(format!("{} is missing: expected a list of numbers", columns[1])),
    };
    let number = |text: &String| text.parse().map_err(|_| format!("{} holds `{}`", columns[1], cut(text)));
    Ok((id, numbers.iter().map(number).collect::<Result<_, _>>()?))
}

/// Takes rows into the table and counts the bad ones.
struct Collector {
    path: PathBuf,
    name: String,
    feature: String,
    dim: usize,
    seen: HashSet<ItemId>,
    table: Table,
    report: ImportReport,
}

impl Collector {
    fn new(path: &Path, schema: &Schema) -> Self {
        Self {
            path: path.to_owned(),
            name: file_name(path),
            feature: schema.item_embedding.clone(),
            dim: schema.item_embedding_dim(),
            seen: HashSet::new(),
            table: Table::default(),
            report: ImportReport::default(),
        }
    }

    fn wrong_length(&self, got: usize) -> String {
        format!("the vector has {got} numbers: the schema's `{}` has {}", self.feature, self.dim)
    }

    fn take(&mut self, line: u64, row: Result<(String, Vec<f32>), String>) {
        self.report.rows += 1;
        match row.and_then(|(id, vector)| self.check(&id, &vector).map(|id| (id, vector))) {
            Ok((id, vector)) => {
                self.seen.insert(id.clone());
                self.table.items.push(id);
                self.table.values.extend(vector);
            }
            Err(reason) => self.report.bad(&self.name, line, reason),
        }
    }

    fn check(&self, id: &str, vector: &[f32]) -> Result<ItemId, String> {
        let id = ItemId::new(id).map_err(|e| e.to_string())?;
        if self.seen.contains(&id) {
            return Err(format!("item `{}` has a vector already", cut(id.as_str())));
        }
        if vector.len() != self.dim {
            return Err(self.wrong_length(vector.len()));
        }
        match vector.iter().find(|x| !x.is_finite() || x.abs() > 1e6) {
            Some(x) => Err(format!("the vector holds {x}: expected finite numbers up to 1e6")),
            None => Ok(id),
        }
    }
}

#[cfg(test)]
mod tests;

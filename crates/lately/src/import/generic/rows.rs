//! Rows of CSV, JSON lines or Parquet, by the names of columns; which of them a file is, its first bytes tell.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::super::ImportError;
use super::super::table::{Lines, Table, open};

/// A value of a row; `None` is a missing one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::import) enum Cell {
    Text(String),
    List(Vec<String>),
}

/// The values of the asked columns, in their order.
pub(in crate::import) type Row = Vec<Option<Cell>>;

/// Calls `on_row` with the line (of Parquet: the row, from 1) and the values, or what is wrong with them.
pub(in crate::import) fn read(
    path: &Path,
    columns: &[&str],
    on_row: &mut dyn FnMut(u64, Result<Row, String>),
) -> Result<(), ImportError> {
    let failed = |source| ImportError::Read { file: path.to_owned(), line: 0, source };
    let mut magic = Vec::new();
    File::open(path).and_then(|f| f.take(4).read_to_end(&mut magic)).map_err(failed)?;
    if magic == b"PAR1" {
        return parquet(path, columns, on_row);
    }
    let start = open(path)?.fill_buf().map_err(failed)?.iter().copied().find(|b| !b.is_ascii_whitespace());
    if start == Some(b'{') { json_lines(path, columns, on_row) } else { csv(path, columns, on_row) }
}

fn csv(
    path: &Path,
    columns: &[&str],
    on_row: &mut dyn FnMut(u64, Result<Row, String>),
) -> Result<(), ImportError> {
    let mut table = Table::open(path)?;
    let mut positions = Vec::new();
    for column in columns {
        positions.push(table.columns([column])?[0]);
    }
    while let Some(record) = table.next()? {
        let cell = |text: &String| (!text.is_empty()).then(|| Cell::Text(text.clone()));
        on_row(record.line, record.fields.map(|f| positions.iter().map(|at| cell(&f[*at])).collect()));
    }
    Ok(())
}

fn json_lines(
    path: &Path,
    columns: &[&str],
    on_row: &mut dyn FnMut(u64, Result<Row, String>),
) -> Result<(), ImportError> {
    let mut lines = Lines::open(path)?;
    while let Some((line, bytes)) = lines.next()? {
        if bytes.is_empty() {
            continue;
        }
        let row = match serde_json::from_slice::<Value>(&bytes) {
            Ok(Value::Object(object)) => {
                let cell = |c: &&str| object.get(*c).map_or(Ok(None), |v| json_cell(c, v));
                columns.iter().map(cell).collect()
            }
            Ok(_) => Err("not a JSON object".to_owned()),
            Err(e) => Err(format!("not JSON: {e}")),
        };
        on_row(line, row);
    }
    Ok(())
}

fn json_cell(column: &str, value: &Value) -> Result<Option<Cell>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    };
    let wrong = || format!("{column} holds an object or a nested list: expected a value or a list of values");
    match value {
        Value::Null => Ok(None),
        Value::Array(values) => {
            let list: Option<Vec<String>> = values.iter().map(text).collect();
            list.map(|l| Some(Cell::List(l))).ok_or_else(wrong)
        }
        other => text(other).map(|t| Some(Cell::Text(t))).ok_or_else(wrong),
    }
}

fn parquet(
    path: &Path,
    columns: &[&str],
    on_row: &mut dyn FnMut(u64, Result<Row, String>),
) -> Result<(), ImportError> {
    let format = |reason: String| ImportError::Format { file: path.to_owned(), reason };
    let file =
        File::open(path).map_err(|source| ImportError::Read { file: path.to_owned(), line: 0, source })?;
    let reader = SerializedFileReader::new(file).map_err(|e| format(format!("no Parquet: {e}")))?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields();
    if let Some(missing) = columns.iter().find(|c| !fields.iter().any(|f| f.name() == **c)) {
        let names: Vec<&str> = fields.iter().map(|f| f.name()).collect();
        return Err(format(format!("no column {missing}: the file has {}", names.join(", "))));
    }
    let rows = reader.get_row_iter(None).map_err(|e| format(e.to_string()))?;
    for (i, row) in rows.enumerate() {
        // A damaged page makes every later row unreadable, so this ends the import.
        let row = row.map_err(|e| format(format!("row {}: {e}", i + 1)))?;
        let named: Vec<(&String, &Field)> = row.get_column_iter().collect();
        let cell = |column: &&str| match named.iter().find(|(name, _)| *name == *column) {
            Some((_, field)) => parquet_cell(column, field),
            None => Ok(None),
        };
        on_row(i as u64 + 1, columns.iter().map(cell).collect());
    }
    Ok(())
}

fn parquet_cell(column: &str, field: &Field) -> Result<Option<Cell>, String> {
    match field {
        Field::Null => Ok(None),
        Field::ListInternal(list) => {
            let values: Option<Vec<String>> = list.elements().iter().map(parquet_text).collect();
            let wrong = || format!("{column} is a list of other than texts or numbers");
            values.map(|v| Some(Cell::List(v))).ok_or_else(wrong)
        }
        other => {
            let wrong = || format!("{column} is neither text, number, time nor a list of them");
            parquet_text(other).map(|t| Some(Cell::Text(t))).ok_or_else(wrong)
        }
    }
}

/// A plain value as text; times as milliseconds.
fn parquet_text(field: &Field) -> Option<String> {
    Some(match field {
        Field::Bool(v) => v.to_string(),
        Field::Byte(v) => v.to_string(),
        Field::Short(v) => v.to_string(),
        Field::Int(v) => v.to_string(),
        Field::Long(v) => v.to_string(),
        Field::UByte(v) => v.to_string(),
        Field::UShort(v) => v.to_string(),
        Field::UInt(v) => v.to_string(),
        Field::ULong(v) => v.to_string(),
        Field::Float(v) => v.to_string(),
        Field::Double(v) => v.to_string(),
        Field::Str(v) => v.clone(),
        Field::Bytes(v) => v.as_utf8().ok()?.to_owned(), // text that was written without a logical type
        Field::TimestampMillis(v) => v.to_string(),
        Field::TimestampMicros(v) => v.div_euclid(1000).to_string(),
        _ => return None,
    })
}

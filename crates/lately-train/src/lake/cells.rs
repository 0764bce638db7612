//! One column in memory, as it is written to and read from Parquet: plain, optional, or lists.

use std::ops::Range;

use parquet::column::reader::{ColumnReader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::SerializedColumnWriter;

/// A value of Parquet.
pub(crate) trait Native: Clone {
    type Parquet: DataType<T = Self>;
}

impl Native for bool {
    type Parquet = BoolType;
}
impl Native for i32 {
    type Parquet = Int32Type;
}
impl Native for i64 {
    type Parquet = Int64Type;
}
impl Native for f32 {
    type Parquet = FloatType;
}
impl Native for ByteArray {
    type Parquet = ByteArrayType;
}

/// How many values a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One.
    One,
    /// One or none.
    Maybe,
    /// Any number.
    List,
    /// Any number, or no list.
    MaybeList,
}

/// A column's values, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cells<T> {
    shape: Shape,
    pub(crate) values: Vec<T>,
    /// Where each row ends in `values`; empty for [`Shape::One`].
    ends: Vec<u32>,
    /// Whether a row has a list; empty but for [`Shape::MaybeList`].
    present: Vec<bool>,
}

impl<T: Native> Cells<T> {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, values: Vec::new(), ends: Vec::new(), present: Vec::new() }
    }

    pub(crate) fn push(&mut self, value: T) {
        self.values.push(value);
        if self.shape != Shape::One {
            self.end(true);
        }
    }

    /// Adds a row; none where there is no value or no list.
    pub(crate) fn push_all(&mut self, values: Option<impl IntoIterator<Item = T>>) {
        let present = values.is_some();
        self.values.extend(values.into_iter().flatten());
        self.end(present);
    }

    fn end(&mut self, present: bool) {
        self.ends.push(self.values.len() as u32);
        if self.shape == Shape::MaybeList {
            self.present.push(present);
        }
    }

    fn range(&self, row: usize) -> Range<usize> {
        match self.shape {
            Shape::One => row..row + 1,
            _ => row.checked_sub(1).map_or(0, |before| self.ends[before] as usize)..self.ends[row] as usize,
        }
    }

    /// The values of a row.
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.values[self.range(row)]
    }

    /// As [`Cells::row`], to be changed.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        let range = self.range(row);
        &mut self.values[range]
    }

    /// The values of a row, if it has any value or list.
    pub(crate) fn get(&self, row: usize) -> Option<&[T]> {
        let present = match self.shape {
            Shape::Maybe => !self.range(row).is_empty(),
            Shape::MaybeList => self.present[row],
            Shape::One | Shape::List => true,
        };
        present.then(|| self.row(row))
    }

    /// Adds a row of another column.
    pub(crate) fn push_row(&mut self, other: &Self, row: usize) {
        self.values.extend_from_slice(other.row(row));
        if self.shape != Shape::One {
            self.end(other.get(row).is_some());
        }
    }

    /// Drops values of the last row: `keep` says which stay, or, where it has a multiple of them, which groups of
    /// equal size.
    pub(crate) fn retain_last(&mut self, keep: &[bool]) {
        let Some(last) = self.ends.len().checked_sub(1) else { return };
        let width = self.row(last).len() / keep.len().max(1);
        let start = self.range(last).start;
        let kept = self.row(last).iter().enumerate().filter(|(at, _)| keep[at / width]);
        let kept: Vec<T> = kept.map(|(_, value)| value.clone()).collect();
        self.values.truncate(start);
        self.values.extend(kept);
        self.ends[last] = self.values.len() as u32;
    }

    /// Rows that it has; of a column that was not read none.
    pub(crate) fn len(&self) -> usize {
        if self.shape == Shape::One { self.values.len() } else { self.ends.len() }
    }

    pub(crate) fn write(&self, rows: Range<usize>, mut column: SerializedColumnWriter<'_>) -> Result<()> {
        let start = rows.start.checked_sub(1);
        let values = match self.shape {
            Shape::One => rows.clone(),
            _ => {
                start.map_or(0, |r| self.ends[r] as usize)
                    ..rows.end.checked_sub(1).map_or(0, |r| self.ends[r] as usize)
            }
        };
        let (mut def, mut rep) = (Vec::new(), Vec::new());
        for row in rows {
            match self.shape {
                Shape::One => {}
                Shape::Maybe => def.push(i16::from(self.get(row).is_some())),
                Shape::List => levels(self.row(row).len(), 0, &mut def, &mut rep),
                Shape::MaybeList if self.present[row] => levels(self.row(row).len(), 1, &mut def, &mut rep),
                Shape::MaybeList => {
                    def.push(0);
                    rep.push(0);
                }
            }
        }
        let (def, rep) = ((self.shape != Shape::One).then_some(&def[..]), self.is_list().then_some(&rep[..]));
        column.typed::<T::Parquet>().write_batch(&self.values[values], def, rep)?;
        column.close()
    }

    fn is_list(&self) -> bool {
        matches!(self.shape, Shape::List | Shape::MaybeList)
    }

    /// Reads `rows` rows of a column chunk; its type must have been checked.
    pub(crate) fn read(&mut self, rows: usize, column: ColumnReader) -> Result<()> {
        let mut reader = get_typed_column_reader::<T::Parquet>(column);
        let (mut def, mut rep) = (Vec::new(), Vec::new());
        let before = self.len();
        reader.read_records(rows, Some(&mut def), Some(&mut rep), &mut self.values)?;
        let mut end = self.ends.last().map_or(0, |end| *end);
        let full = i16::from(self.shape == Shape::MaybeList) + 1;
        for at in 0..def.len() {
            let starts = !self.is_list() || rep[at] == 0;
            if starts && at > 0 {
                self.ends.push(end);
            }
            if starts && self.shape == Shape::MaybeList {
                self.present.push(def[at] > 0);
            }
            end += u32::from(def[at] == full);
        }
        if !def.is_empty() {
            self.ends.push(end);
        }
        let complete =
            self.len() == before + rows && (self.shape == Shape::One || end as usize == self.values.len());
        if complete { Ok(()) } else { Err(ParquetError::General("a column ends early".to_owned())) }
    }
}

/// Levels of a list: `empty` is the definition level of one without values.
fn levels(values: usize, empty: i16, def: &mut Vec<i16>, rep: &mut Vec<i16>) {
    let full = if values == 0 { empty } else { empty + 1 };
    def.resize(def.len() + values.max(1), full);
    rep.push(0);
    rep.resize(rep.len() + values.max(1) - 1, 1);
}

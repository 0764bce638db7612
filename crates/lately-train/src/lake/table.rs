//! Tables of columns: their Parquet schema, and how they are written and read. The columns are in `columns.rs`.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, Type};

use super::cells::Shape;

/// Requests (or items) of a row group: its columns are in memory while it is written.
pub(crate) const GROUP_ROWS: usize = 8_192;
/// Compression: level 3 is zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// What a value is, to readers of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Flag,
    Int,
    Long,
    Float,
    /// UTF-8.
    Text,
    /// Ms since 1970 UTC.
    Time,
}

/// How a column is coded before it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Distinct values once, then their numbers.
    Dictionary,
    Plain,
    /// Differences.
    Delta,
    /// First bytes of all values, then second bytes, ...
    Split,
}

/// One column.
pub(crate) struct Def {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    pub(crate) coding: Coding,
}

impl Def {
    fn declare(&self, out: &mut String) {
        let (physical, logical) = match self.kind {
            Kind::Flag => ("BOOLEAN", ""),
            Kind::Int => ("INT32", ""),
            Kind::Long => ("INT64", ""),
            Kind::Float => ("FLOAT", ""),
            Kind::Text => ("BYTE_ARRAY", " (STRING)"),
            Kind::Time => ("INT64", " (TIMESTAMP(MILLIS,true))"),
        };
        let name = self.name;
        let list = |repetition| {
            format!(
                "{repetition} group {name} (LIST) {{ repeated group list {{ REQUIRED {physical} element{logical}; }} }}"
            )
        };
        let declared = match self.shape {
            Shape::One => format!("REQUIRED {physical} {name}{logical};"),
            Shape::Maybe => format!("OPTIONAL {physical} {name}{logical};"),
            Shape::List => list("REQUIRED"),
            Shape::MaybeList => list("OPTIONAL"),
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "{declared}");
    }

    fn path(&self) -> ColumnPath {
        let parts: &[&str] = match self.shape {
            Shape::One | Shape::Maybe => &[self.name],
            Shape::List | Shape::MaybeList => &[self.name, "list", "element"],
        };
        ColumnPath::new(parts.iter().map(|p| (*p).to_owned()).collect())
    }
}

/// The Parquet schema of some columns.
pub(crate) fn schema(name: &str, defs: &[Def]) -> Result<Arc<Type>> {
    let mut text = format!("message {name} {{\n");
    defs.iter().for_each(|def| def.declare(&mut text));
    parse_message_type(&format!("{text}}}")).map(Arc::new)
}

/// Starts a file in memory.
pub(crate) fn writer(name: &str, defs: &[Def]) -> Result<SerializedFileWriter<Vec<u8>>> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false);
    for def in defs {
        let path = def.path();
        properties = match def.coding {
            Coding::Dictionary => properties.set_column_dictionary_enabled(path.clone(), true),
            Coding::Plain => properties.set_column_encoding(path.clone(), Encoding::PLAIN),
            Coding::Delta => properties.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED),
            Coding::Split => properties.set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT),
        };
        // So that readers skip row groups of other times.
        if def.shape == Shape::One && matches!(def.kind, Kind::Time | Kind::Long) {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
        }
    }
    SerializedFileWriter::new(Vec::new(), schema(name, defs)?, Arc::new(properties.build()))
}

/// Opens a file whose columns must be `defs`.
pub(crate) fn reader(name: &str, defs: &[Def], bytes: Vec<u8>) -> Result<SerializedFileReader<Bytes>> {
    let reader = SerializedFileReader::new(Bytes::from(bytes))?;
    let (want, got) = (schema(name, defs)?, reader.metadata().file_metadata().schema_descr());
    let want = parquet::schema::types::SchemaDescriptor::new(want);
    let same = |a: &parquet::schema::types::ColumnDescriptor,
                b: &parquet::schema::types::ColumnDescriptor| {
        a.path() == b.path()
            && a.physical_type() == b.physical_type()
            && a.max_def_level() == b.max_def_level()
            && a.max_rep_level() == b.max_rep_level()
    };
    let fits = want.num_columns() == got.num_columns()
        && want.columns().iter().zip(got.columns()).all(|(a, b)| same(a, b));
    if fits { Ok(reader) } else { Err(ParquetError::General(format!("its columns are not those of {name}"))) }
}

/// A table: a struct of columns that can be appended to, written and read.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $message:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty = $shape:ident $kind:ident $coding:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: Cells<$type>,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: Cells::new(Shape::$shape),)* }
            }
        }

        impl $name {
            /// Its columns, in order.
            pub(crate) const DEFS: &[Def] = &[$(Def {
                name: stringify!($field),
                shape: Shape::$shape,
                kind: Kind::$kind,
                coding: Coding::$coding,
            },)*];

            /// Adds a row of another table, every column of it.
            #[allow(dead_code, reason = "corrections are folded in, never merged")]
            pub(crate) fn push_row(&mut self, other: &Self, row: usize) {
                $(self.$field.push_row(&other.$field, row);)*
            }

            /// The file, of `rows` rows.
            pub(crate) fn to_parquet(&self, rows: usize) -> Result<Vec<u8>> {
                let mut writer = table::writer($message, Self::DEFS)?;
                for start in (0..rows).step_by(GROUP_ROWS) {
                    let range = start..rows.min(start + GROUP_ROWS);
                    let mut group = writer.next_row_group()?;
                    $(if let Some(column) = group.next_column()? {
                        self.$field.write(range.clone(), column)?;
                    })*
                    group.close()?;
                }
                writer.into_inner()
            }

            /// Reads the columns that `wanted` names; the others stay empty.
            pub(crate) fn from_parquet(bytes: Vec<u8>, wanted: fn(&str) -> bool) -> Result<Self> {
                let reader = table::reader($message, Self::DEFS, bytes)?;
                let mut out = Self::default();
                for group in 0..reader.num_row_groups() {
                    let group = reader.get_row_group(group)?;
                    let rows = group.metadata().num_rows() as usize;
                    let mut at = 0;
                    $(if wanted(stringify!($field)) {
                        out.$field.read(rows, group.get_column_reader(at)?)?;
                    }
                    at += 1;)*
                    let _ = at; // of the last column nobody asks
                }
                Ok(out)
            }
        }
    };
}
pub(crate) use table;

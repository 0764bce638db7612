//! The same rows as one record a candidate: the user's part and the tokens again for each, features inline, with the same
//! codec (zstd 3), each column coded as it is smallest: plain, by dictionary, or split by bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lately_features::Schema;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type, Int64Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::{Field, List, Row};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use crate::{Failure, series};

/// A column: its values, and, of a list, how many each row has.
#[derive(Default)]
struct Column {
    numbers: Vec<f64>,
    texts: Vec<String>,
    lengths: Option<Vec<usize>>,
}

/// The parts of which a row is made, and the columns of each.
const PARTS: [(&str, &[&str]); 4] = [
    (
        "ids, times and versions",
        &[
            "offset",
            "request",
            "user",
            "time",
            "surface",
            "core",
            "watermark",
            "model",
            "embedding_version",
            "variant",
            "degraded",
            "excluded",
            "negative_rate",
        ],
    ),
    ("user features", &["user_categorical", "user_numeric", "user_embedding"]),
    ("tokens", &["token_time", "token_action", "token_actions", "token_surface", "token_item"]),
    (
        "candidates",
        &[
            "candidate_item",
            "candidate_position",
            "candidate_score",
            "candidate_propensity",
            "candidate_observed",
            "candidate_heads",
        ],
    ),
];

/// Prints bytes a candidate of both layouts, by part.
pub(crate) fn compare(lake: &Path, schema: &Arc<Schema>, sample: usize) -> Result<(), Failure> {
    let files = files(&lake.join("requests"))?;
    let (mut ours, mut items, mut candidates) = (BTreeMap::new(), 0u64, 0u64);
    for file in &files {
        let reader = SerializedFileReader::new(std::fs::File::open(file)?)?;
        sizes(reader.metadata(), &mut ours);
        candidates += count(reader.metadata(), "candidate_item");
        let sibling = PathBuf::from(file.to_string_lossy().replacen("requests", "items", 1));
        items += std::fs::metadata(sibling)?.len();
    }
    let all = files.iter().map(|f| Ok(std::fs::metadata(f)?.len())).sum::<Result<u64, Failure>>()? + items;
    let per = |bytes: u64, candidates: u64| bytes as f64 / candidates as f64;
    for (part, columns) in PARTS {
        let bytes = columns.iter().filter_map(|c| ours.get(*c)).sum();
        series(&format!("lake, {part}"), "bytes/row", &[per(bytes, candidates)]);
    }
    series("lake, items once a file", "bytes/row", &[per(items, candidates)]);
    series("lake, all", "bytes/row", &[per(all, candidates)]);
    let mut flat = Flat::default();
    for file in &files {
        if flat.requests < sample {
            flat.add(file, sample)?;
        }
    }
    let rows = flat.columns["offset"].numbers.len() as u64;
    let bytes = flat.smallest(rows as usize)?;
    for (part, columns) in PARTS {
        let bytes = columns.iter().filter_map(|c| bytes.get(*c)).sum();
        series(&format!("one record a candidate, {part}"), "bytes/row", &[per(bytes, rows)]);
    }
    for (part, name) in
        [("features of tokens", "token_feature"), ("features of candidates", "candidate_feature")]
    {
        let sum = bytes.iter().filter(|(column, _)| column.starts_with(name)).map(|(_, b)| b).sum();
        series(&format!("one record a candidate, {part}"), "bytes/row", &[per(sum, rows)]);
    }
    let sum = bytes.values().sum();
    series("one record a candidate, all", "bytes/row", &[per(sum, rows)]);
    series("one record a candidate, times as large", "ratio", &[per(sum, rows) / per(all, candidates)]);
    let _ = schema;
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// Compressed bytes by column.
fn sizes(metadata: &ParquetMetaData, out: &mut BTreeMap<String, u64>) {
    for column in metadata.row_groups().iter().flat_map(|g| g.columns()) {
        *out.entry(column.column_path().parts()[0].clone()).or_default() += column.compressed_size() as u64;
    }
}

/// Values of a column; it must have no empty row.
fn count(metadata: &ParquetMetaData, name: &str) -> u64 {
    let columns = metadata.row_groups().iter().flat_map(|g| g.columns());
    columns.filter(|c| c.column_path().parts()[0] == name).map(|c| c.num_values() as u64).sum()
}

#[derive(Default)]
struct Flat {
    requests: usize,
    columns: BTreeMap<String, Column>,
}

impl Flat {
    fn add(&mut self, file: &Path, sample: usize) -> Result<(), Failure> {
        let sibling = PathBuf::from(file.to_string_lossy().replacen("requests", "items", 1));
        let items = SerializedFileReader::new(std::fs::File::open(sibling)?)?;
        let items = items.get_row_iter(None)?.collect::<Result<Vec<Row>, _>>()?;
        let requests = SerializedFileReader::new(std::fs::File::open(file)?)?;
        for row in requests.get_row_iter(None)? {
            if self.requests < sample {
                self.request(&row?, &items)?;
                self.requests += 1;
            }
        }
        Ok(())
    }

    fn request(&mut self, row: &Row, items: &[Row]) -> Result<(), Failure> {
        let fields: BTreeMap<&str, &Field> = row.get_column_iter().map(|(n, f)| (n.as_str(), f)).collect();
        let Field::ListInternal(shown) = fields["candidate_item"] else { return Err("no list".into()) };
        let candidates = shown.elements().len();
        for at in 0..candidates {
            for (name, field) in &fields {
                match (name.strip_prefix("candidate_"), field) {
                    (Some(_), Field::ListInternal(list)) => self.candidate(name, list, at, candidates, items),
                    (None, Field::ListInternal(list)) if *name == "token_item" => self.tokens(list, items),
                    (None, Field::ListInternal(list)) => self.list(name, list.elements()),
                    (_, field) => self.one(name, field),
                }
            }
        }
        Ok(())
    }

    fn column(&mut self, name: &str) -> &mut Column {
        self.columns.entry(name.to_owned()).or_default()
    }

    fn one(&mut self, name: &str, field: &Field) {
        match field {
            Field::Str(text) => self.column(name).texts.push(text.clone()),
            Field::Null => self.column(name).texts.push(String::new()),
            other => self.column(name).numbers.push(number(other)),
        }
    }

    fn list(&mut self, name: &str, values: &[Field]) {
        let column = self.column(name);
        column.numbers.extend(values.iter().map(number));
        column.lengths.get_or_insert_default().push(values.len());
    }

    fn candidate(&mut self, name: &str, list: &List, at: usize, candidates: usize, items: &[Row]) {
        let width = list.elements().len() / candidates;
        let own = &list.elements()[at * width..(at + 1) * width];
        match (name, own) {
            ("candidate_item", [item]) => {
                let row = &items[number(item) as usize];
                self.features("candidate_feature", [row].into_iter());
                let id = row.get_column_iter().next().map(|(_, f)| f.clone());
                self.one(name, &id.unwrap_or(Field::Null));
            }
            (_, [one]) => self.one(name, one),
            _ => self.list(name, own),
        }
    }

    /// Ids would be strings again and again; the place in a table of items is what a careful writer would use.
    fn tokens(&mut self, list: &List, items: &[Row]) {
        self.list("token_item", list.elements());
        let rows: Vec<&Row> = list.elements().iter().map(|item| &items[number(item) as usize]).collect();
        self.features("token_feature", rows.into_iter());
    }

    fn features<'a>(&mut self, prefix: &str, rows: impl Iterator<Item = &'a Row>) {
        let mut all: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        for row in rows {
            for (name, field) in row.get_column_iter().skip(2) {
                let values = all.entry(format!("{prefix}_{name}")).or_default();
                if let Field::ListInternal(list) = field {
                    values.extend(list.elements().iter().cloned());
                }
            }
        }
        all.iter().for_each(|(name, values)| self.list(name, values));
    }

    /// Bytes by column, each in the coding in which it is smallest.
    fn smallest(&self, rows: usize) -> Result<BTreeMap<String, u64>, Failure> {
        let mut best: BTreeMap<String, u64> = BTreeMap::new();
        for coding in [
            None,
            Some(Encoding::PLAIN),
            Some(Encoding::BYTE_STREAM_SPLIT),
            Some(Encoding::DELTA_BINARY_PACKED),
        ] {
            let mut sizes_now = BTreeMap::new();
            sizes(&self.write(rows, coding)?, &mut sizes_now);
            for (column, bytes) in sizes_now {
                best.entry(column).and_modify(|b| *b = bytes.min(*b)).or_insert(bytes);
            }
        }
        Ok(best)
    }

    /// `coding`: none, by dictionary; else of the columns that can have it.
    fn write(&self, rows: usize, coding: Option<Encoding>) -> Result<ParquetMetaData, Failure> {
        let kind = |name: &str, c: &Column| match () {
            () if !c.texts.is_empty() => "BYTE_ARRAY",
            () if name.ends_with("time") || name.ends_with("offset") || name.ends_with("watermark") => {
                "INT64"
            }
            () if c.numbers.iter().all(|x| x.fract() == 0.0 && x.abs() < 2e9) => "INT32",
            () => "FLOAT",
        };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_dictionary_enabled(coding.is_none());
        let mut message = String::from("message flat {\n");
        for (name, column) in &self.columns {
            let kind = kind(name, column);
            let list = column.lengths.is_some();
            let path =
                if list { vec![name.clone(), "list".into(), "element".into()] } else { vec![name.clone()] };
            let fits = match coding {
                Some(Encoding::BYTE_STREAM_SPLIT) => kind == "FLOAT",
                Some(Encoding::DELTA_BINARY_PACKED) => kind.starts_with("INT"),
                _ => true,
            };
            if let Some(coding) = coding.filter(|_| fits) {
                properties = properties.set_column_encoding(ColumnPath::new(path), coding);
            }
            message += &match list {
                true => format!(
                    "REQUIRED group {name} (LIST) {{ repeated group list {{ REQUIRED {kind} element; }} }}\n"
                ),
                false => format!("REQUIRED {kind} {name};\n"),
            };
        }
        let schema = Arc::new(parse_message_type(&(message + "}"))?);
        let mut writer = SerializedFileWriter::new(std::io::sink(), schema, Arc::new(properties.build()))?;
        let mut group = writer.next_row_group()?;
        for (name, column) in &self.columns {
            let (def, rep) = column.levels(rows);
            let (def, rep) = (def.as_deref(), rep.as_deref());
            let Some(mut out) = group.next_column()? else { return Err("a column is missing".into()) };
            let numbers = &column.numbers;
            match kind(name, column) {
                "BYTE_ARRAY" => {
                    let texts: Vec<ByteArray> =
                        column.texts.iter().map(|t| ByteArray::from(t.as_str())).collect();
                    out.typed::<ByteArrayType>().write_batch(&texts, def, rep)?
                }
                "INT64" => {
                    let values: Vec<i64> = numbers.iter().map(|x| *x as i64).collect();
                    out.typed::<Int64Type>().write_batch(&values, def, rep)?
                }
                "INT32" => {
                    let values: Vec<i32> = numbers.iter().map(|x| *x as i32).collect();
                    out.typed::<Int32Type>().write_batch(&values, def, rep)?
                }
                _ => {
                    let values: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
                    out.typed::<FloatType>().write_batch(&values, def, rep)?
                }
            };
            out.close()?;
        }
        group.close()?;
        Ok(writer.close()?)
    }
}

impl Column {
    fn levels(&self, rows: usize) -> (Option<Vec<i16>>, Option<Vec<i16>>) {
        let Some(lengths) = &self.lengths else { return (None, None) };
        let (mut def, mut rep) = (Vec::new(), Vec::new());
        for length in lengths.iter().take(rows) {
            def.resize(def.len() + (*length).max(1), i16::from(*length > 0));
            rep.push(0);
            rep.resize(rep.len() + (*length).max(1) - 1, 1);
        }
        (Some(def), Some(rep))
    }
}

fn number(field: &Field) -> f64 {
    match field {
        Field::Bool(x) => f64::from(u8::from(*x)),
        Field::Int(x) => f64::from(*x),
        Field::Long(x) | Field::TimestampMillis(x) => *x as f64,
        Field::Float(x) => f64::from(*x),
        _ => 0.0,
    }
}

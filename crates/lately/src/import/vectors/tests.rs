use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::*;

fn schema() -> Schema {
    Schema::from_toml(
        r#"
        item_embedding = "vector"
        actions = [{ name = "click", polarity = "positive" }]
        heads = [{ name = "click", actions = ["click"] }]
        item_features = [{ kind = "embedding", name = "vector", dim = 2 }]
        "#,
    )
    .unwrap()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn ids(table: &Table) -> Vec<&str> {
    table.items.iter().map(ItemId::as_str).collect()
}

fn npy(rows: usize, width: usize, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn safetensors(dtype: &str, data: &[u8], ids: &[i64]) -> Vec<u8> {
    let (rows, end) = (ids.len(), data.len());
    let header = serde_json::json!({
        "__metadata__": { "made": "elsewhere" },
        "vector": { "dtype": dtype, "shape": [rows, 2], "data_offsets": [0, end] },
        "id": { "dtype": "I64", "shape": [rows], "data_offsets": [end, end + 8 * rows] },
    });
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes
}

fn parquet(path: &Path) {
    let message = "message m { REQUIRED BYTE_ARRAY id (UTF8);
        REQUIRED GROUP vector (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } } }";
    let file = File::create(path).unwrap();
    let message = Arc::new(parse_message_type(message).unwrap());
    let mut writer = SerializedFileWriter::new(file, message, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let names = ["a", "b", "a"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&names, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (values, levels) = ([0.1f32, -2.5e-8, 3.0, 5.0, 6.0], [0i16, 1, 0, 0, 1]);
    column.typed::<FloatType>().write_batch(&values, Some(&[1; 5]), Some(&levels)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_keeps_its_numbers_and_names_bad_rows() {
    let files = Files::new();
    let path = files.0.path().join("v.parquet");
    parquet(&path);
    let (table, report) = read(&path, &schema(), &Options::default()).unwrap();
    assert_eq!((ids(&table), table.values.as_slice()), (vec!["a"], &[0.1f32, -2.5e-8][..]));
    let why: Vec<(u64, &str)> = report.bad.iter().map(|b| (b.line, b.reason.as_str())).collect();
    assert_eq!(
        why,
        [(2, "the vector has 1 numbers: the schema's `vector` has 2"), (3, "item `a` has a vector already")]
    );
    let strict = read(&path, &schema(), &Options { max_bad: 1, ..Options::default() });
    assert!(matches!(strict, Err(ImportError::TooManyBad { max: 1, .. })));
    let other = Options { vector: "embedding".into(), ..Options::default() };
    let missing = read(&path, &schema(), &other).unwrap_err().to_string();
    assert!(missing.contains("no column embedding: the file has id, vector"), "{missing}");
}

#[test]
fn json_lines_and_csv_are_read_too() {
    let files = Files::new();
    let lines =
        "{\"id\": 7, \"vector\": [1, 2.5]}\n{\"id\": \"b\", \"vector\": \"1,x\"}\n{\"vector\": [1, 2]}\n";
    let (table, report) = read(&files.write("v.jsonl", lines), &schema(), &Options::default()).unwrap();
    assert_eq!((ids(&table), table.values.as_slice()), (vec!["7"], &[1.0, 2.5][..]));
    assert_eq!((report.rows, report.bad_count), (3, 2));
    let csv = files.write("v.csv", "id,vector\nc,\"[0.5, -1e-3]\"\nd,\n");
    let (table, report) = read(&csv, &schema(), &Options::default()).unwrap();
    assert_eq!((ids(&table), table.values.as_slice()), (vec!["c"], &[0.5, -1e-3][..]));
    assert!(
        report.bad[0].line == 3 && report.bad[0].reason.contains("vector is missing"),
        "{:?}",
        report.bad
    );
}

#[test]
fn npy_goes_with_a_list_of_ids() {
    let files = Files::new();
    let path = files.write("v.npy", npy(3, 2, &[1.0, 2.0, f32::NAN, 0.0, 5.0, 6.0]));
    let with = |text: &str| Options { ids: Some(files.write("ids.txt", text)), ..Options::default() };
    let (table, report) = read(&path, &schema(), &with("a\nb\nc\n")).unwrap();
    assert_eq!((ids(&table), table.values.as_slice()), (vec!["a", "c"], &[1.0, 2.0, 5.0, 6.0][..]));
    assert!(report.bad[0].line == 2 && report.bad[0].reason.contains("NaN"), "{:?}", report.bad);
    let refused = |path: &Path, options: &Options| read(path, &schema(), options).unwrap_err().to_string();
    assert!(refused(&path, &with("a\nb\n")).contains("3 rows and only 2 ids"));
    assert!(refused(&path, &with("a\nb\nc\nd\n")).contains("3 rows and more ids"));
    assert!(refused(&path, &Options::default()).contains("--ids"));
    let cut = files.write("cut.npy", &npy(3, 2, &[1.0; 6])[..90]);
    assert!(refused(&cut, &with("a\nb\nc\n")).contains("cannot be read"));
    let wide = files.write("wide.npy", npy(1, 3, &[1.0; 3]));
    assert!(refused(&wide, &with("a\n")).contains("3 numbers: the schema's `vector` has 2"));
}

#[test]
fn safetensors_may_hold_their_ids() {
    let files = Files::new();
    let halves: Vec<u8> = [0x3c00u16, 0xc000, 0x0000, 0x3800].iter().flat_map(|h| h.to_le_bytes()).collect();
    let path = files.write("v.safetensors", safetensors("F16", &halves, &[12, -3]));
    let (table, _) = read(&path, &schema(), &Options::default()).unwrap();
    assert_eq!((ids(&table), table.values.as_slice()), (vec!["12", "-3"], &[1.0, -2.0, 0.0, 0.5][..]));
    let beside = Options { ids: Some(files.write("ids.txt", "x\ny")), ..Options::default() };
    assert_eq!(ids(&read(&path, &schema(), &beside).unwrap().0), ["x", "y"]);
    let other = Options { vector: "w".into(), ..Options::default() };
    let missing = read(&path, &schema(), &other).unwrap_err().to_string();
    assert!(missing.contains("no tensor w: the file has id, vector"), "{missing}");
    let whole = safetensors("F32", &[0; 16], &[1, 2]);
    for cut in 0..whole.len() {
        let path = files.write("cut.safetensors", &whole[..cut]);
        assert!(read(&path, &schema(), &Options::default()).is_err(), "cut at {cut}");
    }
}

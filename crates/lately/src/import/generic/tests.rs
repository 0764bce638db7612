use std::io::Write;
use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home"]
    actions = [
        { name = "seen", polarity = "neutral" },
        { name = "click", polarity = "positive", priority = 1, attribution_seconds = 60 },
        { name = "save", polarity = "positive", priority = 2 },
    ]
    heads = [{ name = "click", actions = ["click"] }]
    user_features = [{ kind = "categorical", name = "country", buckets = 16 }]
    item_features = [
        { kind = "embedding", name = "vector", dim = 2 },
        { kind = "categorical", name = "topic", buckets = 32, max_values = 2 },
        { kind = "numeric", name = "views" },
    ]
"#;

fn import(
    files: &[(&str, &[u8])],
    mapping: &str,
    max_bad: u64,
) -> Result<(Vec<Event>, ImportReport), ImportError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let path = dir.path().join("mapping.toml");
    std::fs::write(&path, mapping).unwrap();
    let tables = read(&path, &Schema::from_toml(SCHEMA).unwrap(), max_bad)?;
    let mut events = Vec::new();
    let report = tables.emit(&mut |chunk| {
        events.extend(chunk);
        Ok(())
    })?;
    Ok((events, report))
}

const SHOWN: &str = "[impressions]\nfile = \"s\"\nuser = \"u\"\nitem = \"i\"\ntime = \"t\"\n";

#[test]
fn rows_of_one_request_are_one_impression_and_flags_become_actions() {
    let csv =
        b"u,i,t,list,place,liked\na,x,1700000000,q1,1,1\na,y,1700000000,q1,0,0\nb,x,1700000005.5,q2,0,true\n";
    let mapping = format!(
        "{SHOWN}time_unit = \"s\"\nrequest = \"list\"\nposition = \"place\"\nflags = {{ liked = \"save\" }}\nalways = [\"seen\"]"
    );
    let (events, report) = import(&[("s", csv)], &mapping, 0).unwrap();
    let Event::Impression(first) = &events[0] else { panic!() };
    assert_eq!(first.items.iter().map(|i| i.item.as_str()).collect::<Vec<_>>(), ["y", "x"]);
    assert_eq!((report.impressions, report.actions, events.len()), (3, 5, 7));
    assert!(matches!(&events[6], Event::Action(a) if a.action == "save" && a.time_ms == 1_700_000_005_500));
}

#[test]
fn actions_of_json_lines_join_the_impression_that_showed_the_item() {
    let csv = b"u,i,t\na,x,1700000000000\na,x,1700000100000\n";
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let line = |t: i64, kind: &str| format!("{{\"u\":\"a\",\"i\":\"x\",\"t\":{t},\"k\":\"{kind}\"}}\n");
    for text in
        [line(1_700_000_110_000, "tap"), line(1_700_000_190_000, "tap"), line(1_700_000_050_000, "save")]
    {
        gz.write_all(text.as_bytes()).unwrap();
    }
    gz.write_all(b"{\"u\":\"a\"\n{\"u\":1,\"i\":\"x\",\"t\":1,\"k\":\"tap\"}\n").unwrap();
    let mapping = format!(
        "{SHOWN}[actions]\nfile = \"a\"\nuser = \"u\"\nitem = \"i\"\ntime = \"t\"\naction = \"k\"\nnames = {{ tap = \"click\" }}"
    );
    let (events, report) = import(&[("s", csv), ("a", &gz.finish().unwrap())], &mapping, 2).unwrap();
    let joined: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Action(a) => Some(format!("{} {:?}", a.action, a.request.as_ref().map(RequestId::as_str))),
            _ => None,
        })
        .collect();
    assert_eq!(joined, ["save Some(\"r2\")", "click Some(\"r3\")", "click None"]);
    let bad: Vec<String> = report.bad.iter().map(ToString::to_string).collect();
    assert!(bad[0].starts_with("bad: a line 4: not JSON"), "{bad:?}");
    assert!(bad[1].starts_with("bad: a line 5: time_ms 1 is before 2000"), "{bad:?}");
}

/// A Parquet file with an id, a text and a number for each row.
fn parquet_file(rows: &[(&str, &str, f64)]) -> Vec<u8> {
    let schema = parse_message_type(
        "message m { required binary id (UTF8); required binary v (UTF8); required double n; }",
    );
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, Arc::new(schema.unwrap()), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |f: fn(&(&str, &str, f64)) -> String| -> Vec<ByteArray> {
        rows.iter().map(|r| ByteArray::from(f(r).into_bytes())).collect()
    };
    for values in [texts(|r| r.0.to_owned()), texts(|r| r.1.to_owned())] {
        let mut column = group.next_column().unwrap().unwrap();
        if let ColumnWriter::ByteArrayColumnWriter(w) = column.untyped() {
            w.write_batch(&values, None, None).unwrap();
        }
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    if let ColumnWriter::DoubleColumnWriter(w) = column.untyped() {
        w.write_batch(&rows.iter().map(|r| r.2).collect::<Vec<_>>(), None, None).unwrap();
    }
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn items_come_from_parquet_and_users_from_csv_before_all_else() {
    let items = parquet_file(&[("x", "[1, -2.5]", 3.0), ("y", "[1]", 4.0)]);
    let mapping = format!(
        "{SHOWN}[items]\nfile = \"i\"\nid = \"id\"\nfeatures = {{ vector = \"v\", views = \"n\" }}\n[users]\nfile = \"u\"\nid = \"id\"\nfeatures = {{ country = \"c\" }}"
    );
    let files: [(&str, &[u8]); 3] =
        [("s", b"u,i,t\na,x,1700000000000\n"), ("i", &items), ("u", b"id,c\na,DE\nb,\n")];
    let (events, report) = import(&files, &mapping, 1).unwrap();
    assert!(matches!(&events[0], Event::Item(i) if i.time_ms == 1_700_000_000_000
        && i.features["vector"] == FeatureValue::Vector(vec![1.0, -2.5])
        && i.features["views"] == FeatureValue::Number(3.0)));
    assert!(matches!(&events[2], Event::User(u) if u.features.is_empty()));
    assert_eq!((report.items, report.users, report.impressions, report.bad_count), (1, 2, 1, 1));
    assert_eq!(
        report.bad[0].to_string(),
        "bad: i line 2: feature `vector` has 1 numbers: the schema declares 2"
    );
}

#[test]
fn bad_rows_repeats_and_wrong_mappings_are_told() {
    let csv = b"u,i,t,l\na,x,1700000000000,q\na,x,1700000000000,q\na,x,1700000000001,q\nb,y,1700000000000,q\n,x,1,w\na,z,soon,w\n";
    let mapping = format!("{SHOWN}request = \"l\"");
    let (_, report) = import(&[("s", csv)], &mapping, 4).unwrap();
    assert_eq!((report.impressions, report.duplicates, report.bad_count), (1, 1, 4));
    let why: Vec<&str> = report.bad.iter().map(|b| b.reason.as_str()).collect();
    assert_eq!(why[0], "request `q` shows `x` twice");
    assert_eq!(why[1], "request `q` is another user's: requests are unique");
    assert_eq!(why[2], "u is missing");
    assert!(why[3].starts_with("time is `soon`: expected ms"), "{why:?}");
    assert!(matches!(import(&[("s", csv)], &mapping, 3), Err(ImportError::TooManyBad { max: 3, .. })));
    let refused = |mapping: &str| import(&[("s", csv)], mapping, 0).unwrap_err().to_string();
    assert!(refused(&format!("{SHOWN}usr = \"u\"")).contains("usr"));
    assert!(refused(&format!("{SHOWN}always = [\"sen\"]")).contains("`sen` is no action of the schema"));
    assert!(refused("").contains("names no file"));
    assert!(
        refused(&SHOWN.replace("\"t\"", "\"when\"")).contains("no column when: the header has u, i, t, l")
    );
}

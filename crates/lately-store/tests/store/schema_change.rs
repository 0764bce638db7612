//! Opening data under another schema.

use super::*;
use lately_store::StoreError;

fn reopen(dir: &Path, from: &str, to: &str) -> Result<Store, StoreError> {
    assert!(SCHEMA.contains(from));
    Store::open(dir, schema(&SCHEMA.replacen(from, to, 1)), StoreLimits::default())
}

const CLICK: &str = r#"{ name = "click", polarity = "positive" },"#;
const SEEN: &str = r#"{ name = "seen", polarity = "neutral", sequence = false },"#;

#[test]
fn action_types_may_be_appended_not_moved_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(vec![action("u", "e", "save", T0)]).unwrap();
    let moved = reopen(dir.path(), CLICK, &format!(r#"{{ name = "first", polarity = "positive" }},{CLICK}"#));
    let Err(StoreError::Vocabulary { position: 0, stored, declared }) = moved else { panic!("{moved:?}") };
    assert_eq!((stored.as_str(), declared.as_str()), ("click", "first"));
    let removed = reopen(dir.path(), SEEN, "");
    assert!(matches!(removed, Err(StoreError::Vocabulary { position: 2, .. })), "{removed:?}");
    let added =
        reopen(dir.path(), SEEN, &format!(r#"{SEEN}{{ name = "hide", polarity = "negative" }},"#)).unwrap();
    added.append(vec![action("u", "e2", "hide", T0 + 1)]).unwrap();
    assert_eq!(added.sequence(&user("u")).unwrap().entries()[0].action, 3);
    drop(added);
    // Now "hide" is part of the data.
    assert!(matches!(reopen(dir.path(), SEEN, SEEN), Err(StoreError::Vocabulary { position: 3, .. })));
}

#[test]
fn what_only_concerns_sequences_is_rebuilt_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let events =
        (0..12).map(|i| action("u", &format!("e{i}"), if i == 11 { "seen" } else { "save" }, T0 + i));
    open(dir.path()).append(events.collect()).unwrap();
    // A fresh read finds 5 entries beyond the cap, the next append removes them; then the cap grows, "seen" joins, and the surfaces change places.
    let store = open(dir.path());
    assert_eq!(store.sequence(&user("u")).unwrap().entries().len(), 6);
    store.append(vec![item_event("i", 1.0, true)]).unwrap();
    drop(store);
    let text = SCHEMA
        .replace("stored = 6", "stored = 8")
        .replace(", sequence = false", "")
        .replace(r#"["home", "related"]"#, r#"["related", "home"]"#);
    let store = Store::open(dir.path(), schema(&text), StoreLimits::default()).unwrap();
    let sequence = store.sequence(&user("u")).unwrap();
    let times: Vec<_> = sequence.entries().iter().map(|e| e.time_ms - T0).collect();
    assert_eq!(times, [11, 10, 9, 8, 7, 6, 5, 4]);
    assert!(sequence.entries().iter().all(|e| e.surface == 1));
    assert_eq!(sequence.entries()[0].action, 2);
}

#[test]
fn stored_features_that_no_longer_fit_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(vec![item_event("i", 3.0, true), user_event("u", "at")]).unwrap();
    let store = reopen(dir.path(), r#"{ kind = "numeric", name = "views" },"#, "").unwrap();
    assert_eq!(store.item(&item("i")).unwrap().numeric.len(), 0);
    assert_eq!(store.item(&item("i")).unwrap().embedding.len(), 2);
    assert_eq!(store.stats().unwrap().unfit, 1);
    assert!(store.user(&user("u")).is_some());
}

#[test]
fn an_event_outside_the_schema_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = store.append(vec![action("u", "e", "save", T0), action("u", "f", "saved", T0)]);
    let Err(StoreError::Refused { index: 1, source }) = refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("saved"));
    assert_eq!((store.next_offset(), store.append(vec![]).unwrap().count), (0, 0));
}

#[test]
fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Store::open(dir.path(), schema(SCHEMA), StoreLimits::default());
    assert!(matches!(second, Err(StoreError::Locked(_))), "{second:?}");
}

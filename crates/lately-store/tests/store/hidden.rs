//! What a user did something negative with is known for good.

use std::collections::BTreeSet;

use super::*;

const HIDE: &str = r#"{ name = "hide", polarity = "negative", sequence = false },"#;

fn with_hide() -> Arc<Schema> {
    schema(&SCHEMA.replacen("actions = [", &format!("actions = [{HIDE}"), 1))
}

fn store(dir: &Path, schema: Arc<Schema>) -> Store {
    Store::open(dir, schema, StoreLimits::default()).unwrap()
}

fn hidden(store: &Store, user: &str) -> BTreeSet<String> {
    let hidden = store.hidden(&self::user(user), store.next_offset()).unwrap();
    hidden.into_iter().map(String::from).collect()
}

fn items(events: impl IntoIterator<Item = &'static str>) -> BTreeSet<String> {
    events.into_iter().map(|e| format!("item of {e}")).collect()
}

#[test]
fn what_was_hidden_outlives_the_sequence_a_restart_and_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let open = || store(dir.path(), with_hide());
    let s = open();
    s.append(vec![action("u", "e", "hide", T0), action("u1", "f", "hide", T0)]).unwrap();
    let first = s.next_offset();
    let mut later: Vec<Event> = (0..20).map(|n| action("u", &format!("s{n}"), "save", T0 + n)).collect();
    later.push(action("u", "e", "hide", T0)); // a repeat
    later.push(action("u", "g", "hide", T0 - 1_000_000));
    s.append(later).unwrap();
    assert_eq!(hidden(&s, "u"), items(["e", "g"]), "though the sequence holds neither");
    assert_eq!(s.hidden(&user("u"), first).unwrap().len(), 1, "a ranking of before knew one");
    assert_eq!(hidden(&s, "u1"), items(["f"]), "`u` is a prefix of `u1`, not the same user");
    assert_eq!(hidden(&s, "nobody"), items([]));
    drop(s);
    let s = open();
    assert_eq!(hidden(&s, "u"), items(["e", "g"]));
    s.rebuild_sequences().unwrap();
    assert_eq!(hidden(&s, "u"), items(["e", "g"]));
    assert_eq!(s.hidden(&user("u"), first).unwrap().len(), 1);
    s.forget(&user("u"), T0).unwrap();
    assert_eq!(
        (hidden(&s, "u"), hidden(&s, "u1")),
        (items([]), items(["f"])),
        "a forgotten user's list is gone"
    );
}

#[test]
fn another_polarity_makes_the_list_again() {
    let dir = tempfile::tempdir().unwrap();
    let seen = |polarity: &str| {
        schema(&SCHEMA.replacen(
            r#""seen", polarity = "neutral""#,
            &format!(r#""seen", polarity = "{polarity}""#),
            1,
        ))
    };
    let s = store(dir.path(), seen("neutral"));
    s.append(vec![action("u", "a", "seen", T0), action("u", "b", "save", T0)]).unwrap();
    assert_eq!(hidden(&s, "u"), items([]));
    drop(s);
    let s = store(dir.path(), seen("negative"));
    assert_eq!(hidden(&s, "u"), items(["a"]));
    assert_eq!(s.sequence(&user("u")).unwrap().entries().len(), 1);
    drop(s);
    assert_eq!(hidden(&store(dir.path(), seen("neutral")), "u"), items([]));
}

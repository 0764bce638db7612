use lately_features::{Event, FeatureValue};

use super::*;

const COMMENTS: &str = "conversation,timestamp,comment-id,author-id,agrees,disagrees,moderated,comment-body
tax,1400000000000,0,1,9,9,1,\"Two
lines, and a \"\"quote\"\"\"
tax,1400000000500,1,1,9,9,-1,plain
";

fn directory(votes: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("comments.csv"), COMMENTS).unwrap();
    let votes = format!("conversation,timestamp,comment-id,voter-id,vote\n{votes}");
    std::fs::write(dir.path().join("votes.csv"), votes).unwrap();
    dir
}

fn emitted(data: Polis) -> (Vec<Event>, ImportReport) {
    let schema = data.schema().unwrap();
    let mut events = Vec::new();
    let embed = |_: &[Vec<u32>], items: usize| vec![0.5; items * crate::import::VECTOR_DIM];
    let report = data
        .emit(&embed, &mut |chunk| {
            for event in &chunk {
                event.validate(&schema, i64::MAX - 1_000_000)?;
            }
            events.extend(chunk);
            Ok(())
        })
        .unwrap();
    (events, report)
}

#[test]
fn a_vote_is_an_impression_with_one_outcome_and_bad_rows_are_named() {
    let dir = directory(
        "tax,1400000001000,0,5,1\ntax,1400000002000,1,5,-1\ntax,1400000003000,0,6,0\ntax,1400000003000,0,6,2\ntax,14,0,6,1\n",
    );
    let (events, report) = emitted(read(dir.path(), Options::default()).unwrap());
    let actions: Vec<String> = events
        .iter()
        .filter_map(|e| match e {
            Event::Action(a) => Some(format!("{} {} {} {}", a.event_id, a.user, a.item, a.action)),
            _ => None,
        })
        .collect();
    assert_eq!(actions, ["p1:save tax/5 tax/0 save", "p2:hide tax/5 tax/1 hide", "p3:pass tax/6 tax/0 pass"]);
    assert_eq!((report.impressions, report.users, report.items, report.bad_count), (3, 2, 2, 2));
    assert_eq!(report.bad[0].to_string(), "bad: votes.csv line 5: vote is `2`: expected -1, 0 or 1");
    assert_eq!(report.bad[1].line, 6);
}

#[test]
fn a_statement_is_known_by_what_came_before() {
    let votes: String = (0..10).map(|i| format!("tax,14000000{i:02}000,0,{i},1\n")).collect();
    let dir = directory(&votes);
    let data = read(dir.path(), Options { embed_share: 0.5, ..Options::default() }).unwrap();
    let (events, _) = emitted(data);
    let mut votes_seen = 0;
    let mut written = Vec::new();
    for event in &events {
        match event {
            Event::Action(_) => votes_seen += 1,
            Event::Item(i) if i.item.as_str() == "tax/0" => {
                assert_eq!(
                    i.features["votes"],
                    FeatureValue::Number(f64::from(votes_seen)),
                    "no vote of the future"
                );
                assert_eq!(i.features.contains_key("vector"), votes_seen >= 5);
                written.push(votes_seen);
            }
            Event::Item(i) => assert!(!i.active && !i.features.contains_key("vector")),
            _ => {}
        }
    }
    assert_eq!(written, [0, 1, 2, 4, 5, 8]);
    assert!(matches!(&events[0], Event::Item(i) if i.item.as_str() == "tax/0"));
}

#[test]
fn the_real_votes_have_no_bad_row() {
    let Some(dir) = crate::import::tests::real_data("polis") else { return };
    let data = read(&dir, Options { max_bad: 0, ..Options::default() }).unwrap();
    assert!(
        data.report().to_string().starts_with("155,764 impressions, 0 bad, 10 duplicates"),
        "{}",
        data.report()
    );
    assert_eq!(data.schema().unwrap().surfaces.len(), 11);
    let (events, report) = emitted(data);
    assert_eq!(report.actions, 155_764);
    assert!(events.len() as u64 == report.events && report.events < 345_000, "{report}");
    println!("{report}");
}

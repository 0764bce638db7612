use lately_features::{Action, Event};

use super::*;

const USERS: &str = "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,register_days_range,onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6,onehot_feat7,onehot_feat8,onehot_feat9,onehot_feat10,onehot_feat11,onehot_feat12,onehot_feat13,onehot_feat14,onehot_feat15,onehot_feat16,onehot_feat17
7,full_active,0,1,1,514,500+,150,\"[100,1k)\",34,\"[30,60)\",799,730+,1,1,29,949,1.0,0,0,14,135,6,3,0,0.0,1.0,,0.0,0.0,0.0
8,low_active,0,1,1,x,500+,150,\"[100,1k)\",34,\"[30,60)\",799,730+,1,1,29,949,1.0,0,0,14,135,6,3,0,0.0,1.0,,0.0,0.0,0.0
";
const VIDEOS: &str = "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,music_type,tag
10,1,NORMAL,2022-04-10,Web,0.0,87433.0,720.0,1280.0,9,9.0,\"39,68\"
11,1,NORMAL,2022-04-11,Web,0.0,,720.0,1280.0,9,,
";
const HISTORY: &str = "user_id,history_len,last_time_ms,seq
7,3,1650615878629,10:LV 11 10:V
9,1,1650615878629,10:X
";
const HEADER: &str = "user_id,video_id,time_ms,tab,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,is_profile_enter,play_time_ms,duration_ms";
const ROWS: &str = "7,11,1650900000000,1,1,0,0,0,1,0,1,0,61802,49866
7,10,1650890000000,0,0,0,0,0,0,1,0,0,0,49866
7,10,1650890000000,0,0,0,0,0,0,1,0,0,0,49866
7,12,1650900000000,14,0,0,0,0,0,0,0,0,0,0
";

fn directory(impressions: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("user_features_pure.csv", USERS),
        ("video_features_basic_pure.csv", VIDEOS),
        ("history.csv", HISTORY),
        ("impressions.csv", impressions),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn ones(_: &[Vec<u32>], items: usize) -> Vec<f32> {
    vec![1.0; items * crate::import::VECTOR_DIM]
}

fn emitted(data: KuaiRand) -> (Vec<Event>, ImportReport) {
    let schema = data.schema().unwrap();
    let mut events = Vec::new();
    let report = data
        .emit(&ones, &mut |chunk| {
            for event in &chunk {
                event.validate(&schema, i64::MAX - 1_000_000)?;
            }
            events.extend(chunk);
            Ok(())
        })
        .unwrap();
    (events, report)
}

fn actions(events: &[Event]) -> Vec<&Action> {
    events.iter().filter_map(|e| if let Event::Action(a) = e { Some(a) } else { None }).collect()
}

#[test]
fn events_come_in_ingest_order_and_fit_the_schema() {
    let dir = directory(&format!("{HEADER}\n{ROWS}"));
    let data = read(dir.path(), Options::default()).unwrap();
    let (events, report) = emitted(data);
    let kinds: String = events
        .iter()
        .map(|e| match e {
            Event::User(_) => 'u',
            Event::Item(_) => 'i',
            Event::Action(_) => 'a',
            Event::Impression(_) => 'S',
            Event::Forget(_) => 'f',
        })
        .collect();
    assert_eq!(kinds, "uiiiaaaSaaSSaaaaa", "of one millisecond all that is shown stands before its actions");
    let of: Vec<String> = actions(&events).iter().map(|a| format!("{} {}", a.event_id, a.action)).collect();
    assert_eq!(of[..3], ["h7:0 save", "h7:1 seen", "h7:2 long_view"]);
    assert_eq!(of[3..5], ["k2:seen seen", "k2:hide hide"]);
    assert_eq!(
        of[5..],
        ["k1:seen seen", "k1:click click", "k1:long_view long_view", "k1:save save", "k4:seen seen"]
    );
    let Event::Impression(first) = &events[7] else { panic!() };
    assert_eq!(
        (first.request.as_str(), first.surface.as_deref(), first.watermark),
        ("k2", Some("tab0"), None)
    );
    let history = &actions(&events)[..3];
    assert_eq!(
        history.iter().map(|a| a.time_ms - 1_650_615_878_629).collect::<Vec<_>>(),
        [-120_000, -60_000, 0]
    );
    assert_eq!((report.impressions, report.duplicates, report.bad_count, report.history), (3, 1, 2, 3));
    assert_eq!((report.users, report.items, report.actions, report.events), (1, 3, 10, 17));
    let why: Vec<String> = report.bad.iter().map(ToString::to_string).collect();
    assert_eq!(why[0], "bad: user_features_pure.csv line 3: follow_user_num is `x`: not such a number");
    assert_eq!(why[1], "bad: history.csv line 3: seq holds `10:X`: expected video[:L][V]");
}

#[test]
fn item_statistics_come_from_the_history_alone() {
    let dir = directory(&format!("{HEADER}\n{ROWS}"));
    let (events, _) = emitted(read(dir.path(), Options::default()).unwrap());
    let of = |i: usize, name: &str| match &events[1 + i] {
        Event::Item(item) => match item.features[name] {
            lately_features::FeatureValue::Number(n) => n,
            _ => panic!(),
        },
        _ => panic!(),
    };
    assert_eq!([0, 1, 2].map(|i| of(i, "history_count")), [2.0, 1.0, 0.0]);
    // 2 long views of 3 in all: (2 + 20 * 2/3) / 22.
    assert!((of(0, "history_long_view") - (2.0 + 40.0 / 3.0) / 22.0).abs() < 1e-12);
    assert!((of(2, "history_like") - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(of(0, "age_days"), 15.0);
}

#[test]
fn every_kind_of_damage_is_named_with_its_line() {
    let good = "7,11,1650900000000,1,1,0,0,0,0,0,1,0,61802,49866";
    let damaged = [
        "7,11,1650900000000,1,1,0,0,0,0,0,1,0,61802",
        "x,11,1650900000000,1,1,0,0,0,0,0,1,0,61802,49866",
        "7,-11,1650900000000,1,1,0,0,0,0,0,1,0,61802,49866",
        "7,11,165090000000,1,1,0,0,0,0,0,1,0,61802,49866",
        "7,11,1650900000000,15,1,0,0,0,0,0,1,0,61802,49866",
        "7,11,1650900000000,1,2,0,0,0,0,0,1,0,61802,49866",
        "7,11,1650900000000,1,1,0,0,0,0,0,1,0,-1,49866",
        "\"7,11,1650900000000,1,1,0,0,0,0,0,1,0,61802,49866",
        ",11,1650900000000,1,1,0,0,0,0,0,1,0,61802,49866",
    ];
    let dir = directory(&format!("{HEADER}\n{}\n{good}\n", damaged.join("\n")));
    let data = read(dir.path(), Options::default()).unwrap();
    let of_log: Vec<&super::super::BadRow> =
        data.report().bad.iter().filter(|b| b.file == "impressions.csv").collect();
    assert_eq!(of_log.iter().map(|b| b.line).collect::<Vec<_>>(), (2..=10).collect::<Vec<u64>>());
    assert_eq!(data.report().impressions, 1);
    let refused = read(dir.path(), Options { max_bad: 3, random: false }).err().unwrap().to_string();
    assert!(refused.contains("11 bad rows, 3 are allowed"), "{refused}");
    assert!(refused.contains("impressions.csv line 5: time_ms is 165090000000"), "{refused}");
}

#[test]
fn the_official_archive_gives_history_by_its_dates() {
    let dir = tempfile::tempdir().unwrap();
    let log = |rows: &str| format!("{HEADER},date,is_rand\n{rows}");
    for (name, text) in [
        ("user_features_pure.csv", USERS.to_owned()),
        ("video_features_basic_pure.csv", VIDEOS.to_owned()),
        ("log_standard_4_08_to_4_21_pure.csv", log("7,10,1650000000000,1,1,0,0,0,0,0,0,0,1,1,20220415,0\n")),
        (
            "log_standard_4_22_to_5_08_pure.csv",
            log(
                "7,11,1650700000000,1,0,0,0,0,0,0,0,0,1,1,20220423,0\n7,11,1650900000000,1,0,0,0,0,0,0,0,0,1,1,20220425,0\n",
            ),
        ),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (events, report) = emitted(read(dir.path(), Options::default()).unwrap());
    assert_eq!((report.history, report.impressions), (2, 1));
    assert_eq!(
        actions(&events).iter().map(|a| a.action.as_str()).collect::<Vec<_>>(),
        ["click", "seen", "seen"]
    );
    let missing = read(dir.path(), Options { random: true, max_bad: 5 }).err().unwrap().to_string();
    assert!(missing.contains("log_random_4_22_to_5_08_pure.csv"), "{missing}");
}

#[test]
fn wrong_vectors_and_a_failing_sink_are_errors() {
    let dir = directory(&format!("{HEADER}\n{ROWS}"));
    let data = || read(dir.path(), Options::default()).unwrap();
    let e = data().emit(&|_, _| vec![0.0; 5], &mut |_| Ok(())).unwrap_err();
    assert!(matches!(e, ImportError::Vectors { items: 3, got: 5 }));
    let e = data().emit(&ones, &mut |_| Err("disk full".into())).unwrap_err();
    assert_eq!(e.to_string(), "writing the events: disk full");
}

#[test]
fn the_real_log_has_no_bad_row() {
    let Some(dir) = crate::import::tests::real_data("kuairand-pure") else { return };
    let data = read(&dir, Options { max_bad: 0, random: false }).unwrap();
    assert!(data.report().to_string().starts_with("193,695 impressions, 0 bad, 0 duplicates"));
    let mut before = i64::MIN;
    let mut counts = [0usize; 2];
    let schema = data.schema().unwrap();
    let report = data
        .emit(&ones, &mut |chunk| {
            for (i, event) in chunk.iter().enumerate() {
                if let Event::Impression(e) = event {
                    assert!(e.time_ms >= before);
                    before = e.time_ms;
                }
                counts[0] += 1;
                if i % 50 == 0 {
                    event.validate(&schema, i64::MAX - 1_000_000)?;
                    counts[1] += 1;
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!((report.users, report.items), (27_285, 7_583));
    assert_eq!(counts[0] as u64, report.events);
    println!("{report}");
}

#[test]
fn small_categories_do_not_share_a_bucket() {
    let schema = Schema::from_toml(SCHEMA).unwrap();
    let values: &[(&str, &[&str])] = &[
        (
            "user_active_degree",
            &[
                "full_active",
                "high_active",
                "middle_active",
                "2_14_day_new",
                "low_active",
                "single_low_active",
                "30day_retention",
                "day_new",
                "UNKNOWN",
            ],
        ),
        (
            "follow_user_num_range",
            &["500+", "(10,50]", "(250,500]", "(50,100]", "(150,250]", "(100,150]", "(0,10]", "0"],
        ),
        ("onehot_feat12", &["0.0", "1.0"]),
        ("onehot_feat0", &["0", "1"]),
        ("is_live_streamer", &["-124", "1"]),
        ("is_video_author", &["0", "1"]),
        ("onehot_feat1", &["0", "1", "2", "3", "4", "5", "6"]),
    ];
    for (name, values) in values {
        let buckets = schema.user_features.iter().find_map(|f| match f {
            lately_features::schema::FeatureKind::Categorical { name: n, buckets, .. } if n == name => {
                Some(*buckets)
            }
            _ => None,
        });
        let used: std::collections::HashSet<u32> =
            values.iter().map(|v| lately_features::schema::bucket(v, buckets.unwrap())).collect();
        assert_eq!(used.len(), values.len(), "{name}");
    }
}

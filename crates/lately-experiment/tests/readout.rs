//! From a log to a report.

use lately_experiment::{
    Design, Experiment, Group, PersonSums, Readout, Report, Segment, Settings, Variant, exposed,
};
use lately_features::event::Forget;
use lately_features::{
    Action, Event, EventId, Impression, ImpressionItem, ItemId, RequestId, Schema, UserId,
};

const SCHEMA: &str = r#"
item_embedding = "vector"
surfaces = ["home", "board"]
[[actions]]
name = "click"
polarity = "positive"
priority = 1
[[actions]]
name = "save"
polarity = "positive"
priority = 3
[[actions]]
name = "hide"
polarity = "negative"
[[heads]]
name = "save"
actions = ["save"]
[[item_features]]
kind = "embedding"
name = "vector"
dim = 2
"#;

const DAY: i64 = 86_400_000;
const START: i64 = 20_000 * DAY;
const SECOND: i64 = 1_000;

type Log = Vec<Event>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn design(surfaces: &[&str], end_ms: Option<i64>) -> Result<Design, Box<dyn std::error::Error>> {
    let variant = |name: &str| Variant { name: name.to_owned(), share: 1.0 };
    let experiment = Experiment {
        name: "feed".to_owned(),
        start_ms: START,
        end_ms,
        variants: vec![variant("off"), variant("on")],
        surfaces: surfaces.iter().map(|s| (*s).to_owned()).collect(),
    };
    Ok(Design::new(experiment, &Schema::from_toml(SCHEMA)?, Settings::default())?)
}

fn shown(
    user: &str,
    time_ms: i64,
    items: u16,
    variant: Option<&str>,
) -> Result<Event, Box<dyn std::error::Error>> {
    let items = (0..items).map(|i| Ok(ImpressionItem::unscored(ItemId::new(format!("i{i}"))?, i)));
    let items = items.collect::<Result<Vec<_>, lately_features::IdError>>()?;
    let request = RequestId::new(format!("{user}-{time_ms}"))?;
    let mut impression =
        Impression::outside(request, UserId::new(user)?, Some("home".to_owned()), time_ms, items);
    impression.variant = variant.map(str::to_owned);
    Ok(Event::Impression(impression))
}

fn did(user: &str, time_ms: i64, action: &str) -> Result<Event, Box<dyn std::error::Error>> {
    Ok(Event::Action(Action {
        event_id: EventId::new(format!("{user}-{time_ms}-{action}"))?,
        user: UserId::new(user)?,
        item: ItemId::new("i0")?,
        action: action.to_owned(),
        time_ms,
        request: None,
        surface: None,
    }))
}

fn read(design: Design, log: &Log) -> Result<Report, Box<dyn std::error::Error>> {
    let mut readout = Readout::new(design)?;
    log.iter().for_each(|event| readout.observe(event));
    Ok(readout.report())
}

/// Two people a variant, with a past, hand-made sums, and one event of each kind that must not count.
fn small() -> Result<Log, Box<dyn std::error::Error>> {
    let mut log = vec![did("z", START - 60 * DAY, "click")?];
    for (at, user) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let variant = if at < 2 { "off" } else { "on" };
        let (n, text) = (at as i64, format!("champion;other=on;feed={variant}"));
        // The past: a click and n saves in the pre-period; a save before it counts nowhere.
        log.push(did(user, START - 20 * DAY, "save")?);
        log.push(did(user, START - 10 * DAY, "click")?);
        for i in 0..n {
            log.push(did(user, START - 10 * DAY + (i + 1) * 10 * SECOND, "save")?);
        }
        // Begun, not exposed yet.
        log.push(did(user, START + SECOND, "save")?);
        let came = START + DAY / 2;
        log.push(shown(user, came, 10, Some(&text))?);
        log.push(did(user, came + 30 * SECOND, "click")?);
        for i in 0..=n {
            log.push(did(user, came + (60 + i) * SECOND, "save")?);
        }
        // An hour later, on another surface and without an exposure: it counts, the hour does not.
        log.push(shown(user, came + 3_600 * SECOND, 5 + at as u16, None)?);
    }
    Ok(log)
}

#[test]
fn an_exposure_is_a_part_of_the_text_of_an_impression() {
    assert_eq!(exposed("champion;feed=on;x=off", "feed"), Some("on"));
    assert_eq!(exposed("feed=a=b", "feed"), Some("a=b"));
    assert_eq!((exposed("champion", "champion"), exposed("feeder=on", "feed")), (None, None));
}

#[test]
fn sums_are_those_made_by_hand() -> Outcome {
    let report = read(design(&[], None)?, &small()?)?;
    let of = |metric: &str| {
        report.comparison(Group::All, metric, "on").map(|c| (c.plain.control, c.plain.variant))
    };
    assert_eq!(of("save_per_user"), Some((1.5, 3.5)), "1 and 2; 3 and 4");
    assert_eq!(of("impressions_per_user"), Some((15.5, 17.5)));
    let near = |of: Option<(f64, f64)>, want: (f64, f64)| {
        of.is_some_and(|(a, b)| (a - want.0).abs() < 1e-12 && (b - want.1).abs() < 1e-12)
    };
    assert!(near(of("save_per_impression"), (3.0 / 31.0, 7.0 / 35.0)), "{:?}", of("save_per_impression"));
    // 30 s to the click, 30 to the first save, then one each.
    assert!(near(of("seconds_per_user"), (60.5, 62.5)), "{:?}", of("seconds_per_user"));
    assert_eq!(of("hide_per_user"), None, "nobody hid anything");
    assert_eq!(report.users.iter().map(|u| u.users).collect::<Vec<_>>(), [2, 2]);
    // The past explains all: saves are those before, and one.
    let saves = report.comparison(Group::All, "save_per_user", "on").ok_or("no saves")?;
    assert!(saves.cuped.is_none() || saves.cuped.as_ref().is_some_and(|c| c.kept < 1e-9), "{saves:?}");
    assert!(report.warnings.iter().any(|w| w.contains("fewer than 100")), "{:?}", report.warnings);
    assert!((report.days - (0.5 + 1.0 / 24.0)).abs() < 1e-9, "{}", report.days);
    Ok(())
}

#[test]
fn who_is_seen_in_two_variants_or_asks_to_be_forgotten_is_not_counted() -> Outcome {
    let mut log = small()?;
    let later = START + 2 * DAY;
    log.push(shown("d", later, 1, Some("feed=off"))?);
    log.push(shown("e", later, 1, Some("feed=on"))?);
    log.push(Event::Forget(Forget { user: UserId::new("a")?, time_ms: later }));
    log.push(shown("f", later, 1, Some("feed=third"))?);
    let report = read(design(&[], None)?, &log)?;
    assert_eq!(report.users.iter().map(|u| u.users).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(report.crossovers, 1);
    assert!(report.warnings.iter().any(|w| w.contains("two variants")), "{:?}", report.warnings);
    assert!(report.warnings.iter().any(|w| w.contains("not declared")), "{:?}", report.warnings);
    assert_eq!(report.series.len(), 2, "two days have ended, at this moment");
    Ok(())
}

#[test]
fn exposures_count_on_the_experiments_surfaces_and_within_its_time() -> Outcome {
    let users = |report: Report| report.users.iter().map(|u| u.users).sum::<u64>();
    assert_eq!(users(read(design(&["home"], None)?, &small()?)?), 4);
    assert_eq!(users(read(design(&["board"], None)?, &small()?)?), 0);
    assert_eq!(users(read(design(&[], Some(START + DAY / 4))?, &small()?)?), 0);
    let ended = read(design(&[], Some(START + DAY / 2 + 45 * SECOND))?, &small()?)?;
    assert!(ended.comparison(Group::All, "save_per_user", "on").is_none(), "saves came after its end");
    assert_eq!(users(ended), 4);
    Ok(())
}

/// A log of many people for ten days, the treated saving more.
fn many(people: u32) -> Result<Log, Box<dyn std::error::Error>> {
    let mut log = vec![did("first", START - 40 * DAY, "click")?];
    for at in 0..people {
        let (user, pace) = (format!("u{at}"), 1 + at % 5);
        let variant = if at.is_multiple_of(2) { "feed=off" } else { "feed=on" };
        for day in -28..10 {
            let now = START + day * DAY + i64::from(at) * SECOND;
            // One in ten comes only from the third day on, and nobody every day.
            if day < 3 && at % 10 > 7 || (day + i64::from(at)) % i64::from(pace) != 0 {
                continue;
            }
            log.push(shown(&user, now, 8, (day >= 0).then_some(variant))?);
            let saves = (i64::from(at * 7) + day * 3).rem_euclid(4) + i64::from(day >= 0 && at % 2 == 1);
            for save in 0..saves {
                log.push(did(&user, now + (save + 1) * SECOND, "save")?);
            }
        }
    }
    log.sort_by_key(Event::time_ms);
    Ok(log)
}

#[test]
fn a_log_gives_groups_days_and_a_table() -> Outcome {
    let report = read(design(&[], None)?, &many(1_000)?)?;
    let [off, on] = [&report.users[0], &report.users[1]].map(|u| u.users);
    assert!(off > 450 && on > 450 && !report.mismatch.suspected, "{:?}", report.users);
    let count =
        |group| report.comparison(group, "save_per_user", "on").map_or(0, |c| c.users[0] + c.users[1]);
    assert_eq!(count(Group::Core) + count(Group::NonCore), count(Group::All));
    assert_eq!(count(Group::New), 200, "two in ten were not there before");
    let saves = report.comparison(Group::All, "save_per_user", "on").ok_or("no saves")?;
    assert!(saves.significant_at_any_look && saves.cuped.is_some(), "{saves:?}");
    assert!(saves.best().lift.is_some_and(|lift| lift.value > 0.2), "{saves:?}");
    assert_eq!(report.series.len(), 10);
    let point = |day: usize| report.series[day].points.iter().find(|p| p.metric == "save_per_user");
    assert!(point(9).is_some_and(|p| p.sequential.is_some_and(|[low, _]| low > 0.0 && low < p.low)));
    assert!(saves.plain.anchor.is_some_and(|anchor| anchor < saves.plain.information / 3.0), "{saves:?}");
    let table = report.to_string();
    assert!(table.contains("core, 95 % intervals") && table.contains("! save_per_user"), "{table}");
    println!("{table}");
    let back: Report = serde_json::from_str(&serde_json::to_string(&report)?)?;
    assert_eq!(back, report);
    Ok(())
}

#[test]
fn a_split_that_loses_people_is_warned_of_first() -> Outcome {
    let mut log = many(1_000)?;
    let lost = |e: &Event| e.user().is_some_and(|u| u.hash64() % 3 == 0);
    let treated = |e: &Event| matches!(e, Event::Impression(i) if i.variant.as_deref() == Some("feed=on"));
    log.retain(|e| !(lost(e) && treated(e)));
    let report = read(design(&[], None)?, &log)?;
    assert!(report.mismatch.suspected && report.warnings[0].contains("not split as planned"), "{report}");
    Ok(())
}

#[test]
fn sums_in_hand_give_the_report_of_the_log() -> Outcome {
    let design = design(&[], None)?;
    // Columns: click, save, hide, impressions, seconds.
    let person = |variant, saves: f64, before: f64| PersonSums {
        variant,
        segment: Segment::Core,
        before: vec![1.0, before, 0.0, 0.0, 10.0 * before],
        during: vec![1.0, saves, 0.0, 14.0 + saves, 59.0 + saves],
    };
    let people = [person(0, 1.0, 0.0), person(0, 2.0, 1.0), person(1, 3.0, 2.0), person(1, 4.0, 3.0)];
    let now_ms = START + DAY / 2 + 3_600 * SECOND;
    let (rows, log) = (Report::of(&design, &people, now_ms, None), read(design.clone(), &small()?)?);
    for metric in ["save_per_user", "impressions_per_user", "save_per_impression", "seconds_per_user"] {
        let plain = |r: &Report| r.comparison(Group::All, metric, "on").map(|c| c.plain);
        assert_eq!(plain(&rows), plain(&log), "{metric}");
    }
    Ok(())
}

#[test]
fn a_later_look_keeps_the_clock_of_the_first() -> Outcome {
    let design = design(&[], None)?;
    let people = |days: f64| -> Vec<PersonSums> {
        let of = |at: usize| PersonSums {
            variant: at % 2,
            segment: Segment::Casual,
            before: vec![0.0; 5],
            during: vec![0.0, days * (at % 7) as f64, 0.0, 10.0 * days, 0.0],
        };
        (0..400).map(of).collect()
    };
    let look = |days: f64, earlier| Report::of(&design, &people(days), START + days as i64 * DAY, earlier);
    let width = |r: &Report| {
        let lift = r.comparison(Group::All, "save_per_user", "on").and_then(|c| c.plain.lift);
        lift.and_then(|l| Some((l.sequential?.high - l.sequential?.low) / l.standard_error))
    };
    let first = look(1.0, None);
    let (second, alone) = (look(4.0, Some(&first)), look(4.0, None));
    assert!(width(&second) < width(&alone) && width(&alone) == width(&first), "{:?}", width(&second));
    assert_eq!(width(&look(4.0, Some(&look(2.0, Some(&first))))), width(&second));
    Ok(())
}

#[test]
fn a_log_with_nothing_in_it_stands_at_the_start() -> Outcome {
    let report = read(design(&[], None)?, &Log::new())?;
    assert_eq!((report.now_ms, report.days, report.series.len()), (START, 0.0, 0));
    assert!(report.users.iter().all(|u| u.users == 0) && report.comparisons.is_empty(), "{report}");
    Ok(())
}

#[test]
fn a_design_that_cannot_be_says_why() -> Outcome {
    let good = design(&[], None)?;
    let refused = |change: fn(&mut Design)| {
        let mut design = good.clone();
        change(&mut design);
        design.check().map_err(|e| e.to_string()).err().unwrap_or_default()
    };
    assert!(refused(|d| d.experiment.variants.truncate(1)).contains("2 to 64"));
    assert!(refused(|d| d.experiment.variants[1].share = 0.0).contains("more than 0"));
    assert!(refused(|d| d.experiment.variants[1].name = "off".to_owned()).contains("twice"));
    assert!(refused(|d| d.metrics[0].of = "likes".to_owned()).contains("no column"));
    assert!(refused(|d| d.settings.window_days = 64).contains("63"));
    assert!(refused(|d| d.settings.alpha = 1.0).contains("between 0 and 1"));
    assert!(refused(|d| d.settings.core_days = 29).contains("1 to window_days"));
    assert!(refused(|d| d.settings.wanted_lift = f64::INFINITY).contains("more than 0"));
    assert!(refused(|d| d.settings.min_users = 1).contains("at least 2 people"));
    assert!(refused(|d| d.settings.max_users = 0).contains("at least 1 person"));
    Ok(())
}

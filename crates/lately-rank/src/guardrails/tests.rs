//! What the guardrails make of a log.

use lately_features::{EventId, ImpressionItem, ItemId, RequestId};

use super::*;
use crate::ranker::tests::schema;
use crate::value_model::ValueModelConfig;

const MATURITY_MS: i64 = 60_000;

fn guardrails(config: &GuardrailConfig) -> Guardrails {
    let schema = schema();
    Guardrails::new(config, &schema, &ValueModel::new(&ValueModelConfig::default(), &schema).unwrap())
}

fn ranking(n: usize, time_ms: i64, variant: Option<&str>) -> Impression {
    let item = |i: usize| ImpressionItem {
        heads: vec![0.2, 0.1, 0.01],
        ..ImpressionItem::unscored(ItemId::new(format!("i{i}")).unwrap(), i as u16)
    };
    Impression {
        model: Some("m".into()),
        variant: variant.map(str::to_owned),
        ..Impression::outside(
            RequestId::new(format!("r{n}")).unwrap(),
            UserId::new(format!("u{n}")).unwrap(),
            None,
            time_ms,
            (0..30).map(item).collect(),
        )
    }
}

fn save(n: usize, item: &str) -> Event {
    let mut save = crate::ranker::tests::action(&format!("u{n}"), item, "save", 0);
    if let Event::Action(action) = &mut save {
        action.request = Some(RequestId::new(format!("r{n}")).unwrap());
        action.event_id = EventId::new(format!("{n}/{item}")).unwrap();
    }
    save
}

fn reading(comparison: &Comparison, guardrail: &str, head: &str) -> Reading {
    let of = |r: &&Reading| r.guardrail == guardrail && r.head.as_deref() == Some(head);
    comparison.readings.iter().find(of).unwrap().clone()
}

#[test]
fn actions_count_for_the_version_that_ranked_once_they_were_waited_for() {
    let guardrails = guardrails(&GuardrailConfig::default());
    for n in 0..100 {
        let arm = Some(if n % 2 == 0 { "champion" } else { "challenger" });
        // One item in twenty that are watched is saved: of the challenger, and the places after the twentieth do not count.
        let saved = if n % 2 == 0 { "i25" } else { "i3" };
        if n % 3 == 0 {
            guardrails.observe(&save(n, saved)); // before the ranking is logged
        }
        guardrails.observe(&Event::Impression(ranking(n, 1_000, arm)));
        guardrails.observe(&save(n, saved));
    }
    let early = guardrails.canary("m", "m", 1_000 + MATURITY_MS - 1);
    assert_eq!((early.rankings, early.reference_rankings), (50, 50));
    assert!(
        early.readings.iter().all(|r| r.guardrail == "score"),
        "nothing is known yet of actions: {early:?}"
    );
    let known = guardrails.canary("m", "m", 1_000 + MATURITY_MS);
    let saves = reading(&known, "positive", "save");
    assert!((saves.value - 0.05).abs() < 1e-9 && saves.reference == 0.0, "{saves:?}");
    assert!((reading(&known, "calibration", "save").value - 0.5).abs() < 1e-6);
    let score = reading(&known, "score", "save");
    assert!(score.value.abs() < 1e-9 && score.evidence == 0.0, "{score:?}");
}

#[test]
fn what_was_degraded_or_not_ranked_by_a_model_is_not_counted() {
    let guardrails = guardrails(&GuardrailConfig::default());
    for n in 0..100 {
        let mut degraded = ranking(n, 1_000, None);
        degraded.degraded = vec!["stale_sequence".into()];
        guardrails.observe(&Event::Impression(degraded));
        guardrails.observe(&Event::Impression(Impression { model: None, ..ranking(n + 100, 1_000, None) }));
        guardrails.observe(&save(n, "i3"));
    }
    let nothing = guardrails.watched("m", "m", 1_000 + MATURITY_MS);
    assert_eq!((nothing.rankings, nothing.readings.len()), (0, 0));
    assert!(lock(&guardrails.state).open.close(i64::MAX).is_none());
}

#[test]
fn a_watch_begins_with_nothing_and_a_canary_with_its_own() {
    let guardrails = guardrails(&GuardrailConfig::default());
    let show = |from: usize, time_ms, arm| {
        (from..from + 10).for_each(|n| guardrails.observe(&Event::Impression(ranking(n, time_ms, arm))));
    };
    let rankings = || guardrails.watched("m", "m", 5_000).rankings;
    show(0, 1_000, None);
    assert_eq!(rankings(), 10);
    guardrails.begin_watch("m", 2_000);
    assert_eq!(rankings(), 0);
    show(10, 1_500, None); // logged late
    show(20, 2_500, None);
    show(30, 3_000, Some("champion"));
    show(40, 3_000, Some("challenger"));
    assert_eq!(rankings(), 20, "without those of the challenger's arm");
    assert_eq!(guardrails.canary("m", "m", 5_000).rankings, 10);
    guardrails.begin_canary("m", "m", 4_000);
    assert_eq!((rankings(), guardrails.canary("m", "m", 5_000).rankings), (10, 0));
}

#[test]
fn failures_are_counted_and_nothing_is_where_it_is_switched_off() {
    let side = Side { version: "m".into(), variant: None };
    let run = |enabled| {
        let guardrails = guardrails(&GuardrailConfig { enabled, ..GuardrailConfig::default() });
        for n in 0..400 {
            let outcome = if n % 2 == 0 { Outcome::Failed } else { Outcome::Late };
            guardrails.asked(&side, &UserId::new(format!("u{n}")).unwrap(), 1_000, outcome);
            guardrails.observe(&Event::Impression(ranking(n, 1_000, None)));
        }
        guardrails.watched("m", "other", 1_000)
    };
    let found = run(true);
    assert_eq!(found.breach().map(|r| (r.guardrail, r.value)), Some(("errors", 0.5)));
    assert_eq!(run(false), Comparison::default());
}

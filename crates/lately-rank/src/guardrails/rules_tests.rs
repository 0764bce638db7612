use super::*;
use crate::guardrails::sums::GROUPS;

fn rules() -> Rules {
    let heads = vec![("save".to_owned(), 1.0), ("hide".to_owned(), -2.0), ("seen".to_owned(), 0.0)];
    Rules { config: GuardrailConfig::default(), heads }
}

/// 40 rankings of 10 items a group: all predicted at `p`, with so many actions a group.
fn sums(p: f32, saves: f64, hides: f64) -> Sums {
    let mut sums = Sums::new(3);
    for group in 0..GROUPS {
        sums.add(group, Column::Asked, 40.0);
        sums.add(group, Column::Rankings, 40.0);
        sums.add(group, Column::Matured, 400.0);
        (0..400).for_each(|i| sums.shown(group, &[p + 0.0001 * (i % 20) as f32, 0.02, 0.5]));
        // Groups are not all alike.
        let apart = if group % 2 == 0 { 0.9 } else { 1.1 };
        for (head, (p, actions)) in
            [(f64::from(p), saves), (0.02, hides), (0.5, 200.0)].into_iter().enumerate()
        {
            sums.add(group, Column::Predicted(head), 400.0 * p);
            sums.add(group, Column::Observed(head), actions * apart);
        }
    }
    sums
}

fn reading(new: &Sums, old: &Sums, guardrail: &str, head: &str) -> Reading {
    let all = rules().compare(new, old, true).readings;
    all.into_iter().find(|r| r.guardrail == guardrail && r.head.as_deref().unwrap_or("") == head).unwrap()
}

#[test]
fn what_is_alike_breaches_nothing() {
    let sums = sums(0.1, 40.0, 8.0);
    let comparison = rules().compare(&sums, &sums, true);
    assert_eq!((comparison.rankings, comparison.reference_rankings), (2_560, 2_560));
    assert_eq!(comparison.breach(), None);
    let names: Vec<_> = comparison.readings.iter().map(|r| (r.guardrail, r.head.as_deref())).collect();
    let (save, hide, seen) = (Some("save"), Some("hide"), Some("seen"));
    assert_eq!(
        names,
        [
            ("errors", None),
            ("deadline", None),
            ("score", save),
            ("calibration", save),
            ("positive", save),
            ("score", hide),
            ("calibration", hide),
            ("negative", hide),
            ("score", seen),
            ("calibration", seen),
        ]
    );
    assert_eq!(rules().tests(), 2 + 5 + 5 + 4);
}

#[test]
fn each_breach_is_told_with_its_number_and_its_bound() {
    let old = sums(0.1, 40.0, 8.0);
    let mut failing = sums(0.1, 40.0, 8.0);
    (0..GROUPS).for_each(|g| failing.add(g, Column::Failed, 4.0));
    let read = reading(&failing, &old, "errors", "");
    assert!(read.evidence > 1.0 && (read.value, read.bound) == (0.1, 0.01), "{read:?}");

    let shifted = reading(&sums(0.4, 40.0, 8.0), &old, "score", "save");
    assert!(shifted.evidence > 1.0 && shifted.value > 1.5 && shifted.bound == 1.5, "{shifted:?}");
    let down = reading(&sums(0.01, 40.0, 8.0), &old, "score", "save");
    assert!(down.evidence > 1.0 && down.value < -1.5 && down.bound == -1.5, "{down:?}");

    let hidden = reading(&sums(0.1, 40.0, 24.0), &old, "negative", "hide");
    assert!(hidden.evidence > 1.0 && (hidden.value - 0.06).abs() < 1e-9, "{hidden:?}");
    assert!((hidden.reference - 0.02).abs() < 1e-9 && (hidden.bound - 0.03).abs() < 1e-9);
    assert_eq!(reading(&sums(0.1, 40.0, 2.0), &old, "negative", "hide").evidence, 0.0, "fewer are welcome");

    let unloved = reading(&sums(0.1, 4.0, 8.0), &old, "positive", "save");
    assert!(unloved.evidence > 1.0 && (unloved.bound - 0.05).abs() < 1e-9, "{unloved:?}");
    assert_eq!(reading(&sums(0.1, 90.0, 8.0), &old, "positive", "save").evidence, 0.0, "so are more");
}

#[test]
fn calibration_may_get_better_but_not_worse() {
    let right = sums(0.1, 40.0, 8.0);
    let (over, under) = (sums(0.2, 40.0, 8.0), sums(0.05, 40.0, 8.0)); // saves are half, and twice, what is said
    for (wrong, bound) in [(&over, 1.0 / 1.5), (&under, 1.5)] {
        let worse = reading(wrong, &right, "calibration", "save");
        assert!(worse.evidence > 1.0 && (worse.bound - bound).abs() < 1e-3, "{worse:?}");
        assert_eq!(reading(&right, wrong, "calibration", "save").evidence, 0.0, "better");
    }
    assert_eq!(
        reading(&under, &over, "calibration", "save").evidence,
        0.0,
        "as wrong as before, the other way"
    );
    let never = reading(&sums(0.1, 0.0, 8.0), &right, "calibration", "save");
    assert!(never.evidence > 1.0 && never.value == 0.0, "{never:?}");
}

#[test]
fn before_there_is_enough_nothing_is_said() {
    let old = sums(0.1, 40.0, 8.0);
    let mut few = Sums::new(3);
    for group in 0..GROUPS {
        few.add(group, Column::Asked, 1.5);
        few.add(group, Column::Failed, 1.5);
        few.add(group, Column::Rankings, 1.5);
        (0..15).for_each(|_| few.shown(group, &[0.9, 0.9, 0.9]));
    }
    assert_eq!(rules().compare(&few, &old, true).breach(), None, "96 rankings");
    few.add(0, Column::Asked, 8.0);
    assert_eq!(rules().compare(&few, &old, true).breach().map(|r| r.guardrail), Some("errors"));
    // Of another version from which nothing is known failures are told all the same.
    let alone = rules().compare(&few, &Sums::new(3), true);
    assert_eq!(alone.breach().map(|r| r.guardrail), Some("errors"));
    assert_eq!(alone.readings.len(), 1);
}

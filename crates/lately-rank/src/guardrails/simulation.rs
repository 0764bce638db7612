//! Watches of invented people, some of whom come often: how often the rules are wrong, and how soon they are right.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::GuardrailConfig;
use super::rules::{Comparison, Rules};
use super::sums::{Column, GROUPS, Sums};

/// Rankings of the new version between two looks, and of the other one.
const RANKINGS: [usize; 2] = [20, 60];
/// Looks of a watch.
const LOOKS: usize = 300;
/// Watches.
const WATCHES: usize = 40;
/// Items of a page.
const ITEMS: usize = 6;
/// Mean logits of the heads click, save and hide.
const LOGITS: [f64; 3] = [-1.5, -3.0, -4.0];

/// What is wrong with the new version; nothing by default.
#[derive(Clone, Copy)]
struct Fault {
    /// Share of the rankings on which it fails.
    errors: f64,
    /// Added to what it predicts, as a logit.
    shift: f64,
    /// How many times more often items are hidden.
    hides: f64,
    /// How many times as often they are clicked.
    clicks: f64,
}

const SOUND: Fault = Fault { errors: 0.0, shift: 0.0, hides: 1.0, clicks: 1.0 };

struct Person {
    group: usize,
    taste: f64,
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

/// A few come all the time, and each has a taste that all their rankings share.
fn people(random: &mut ChaCha8Rng) -> Vec<Person> {
    let person = |_| Person { group: random.random_range(0..GROUPS), taste: 0.5 * normal(random) };
    (0..300).map(person).collect()
}

fn rank(sums: &mut Sums, people: &[Person], fault: Fault, random: &mut ChaCha8Rng) {
    let at = random.random::<f64>().powi(2) * people.len() as f64;
    let Person { group, taste } = people[at as usize];
    sums.add(group, Column::Asked, 1.0);
    if random.random::<f64>() < fault.errors {
        sums.add(group, Column::Failed, 1.0);
        return;
    }
    sums.add(group, Column::Rankings, 1.0);
    for _ in 0..ITEMS {
        let quality = normal(random) + taste;
        let logits = LOGITS.map(|mean| mean + quality + fault.shift);
        let says = logits.map(|x| (1.0 / (1.0 + (-x).exp())) as f32);
        sums.shown(group, &says);
        sums.add(group, Column::Matured, 1.0);
        for (head, mean) in LOGITS.into_iter().enumerate() {
            let truth = 1.0 / (1.0 + (-(mean + quality)).exp()) * [fault.clicks, 1.0, fault.hides][head];
            sums.add(group, Column::Predicted(head), f64::from(says[head]));
            sums.add(group, Column::Observed(head), f64::from(u8::from(random.random::<f64>() < truth)));
        }
    }
}

fn rules(alpha: f64) -> Rules {
    let heads =
        [("click", 0.3), ("save", 1.0), ("hide", -2.0)].map(|(name, weight)| (name.to_owned(), weight));
    Rules { config: GuardrailConfig { alpha, ..GuardrailConfig::default() }, heads: heads.into() }
}

/// Looks until something is found: after how many rankings of the new version, and what.
fn watch(rules: &Rules, fault: Fault, seed: u64) -> Option<(u64, Comparison)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut new, mut old) = (Sums::new(3), Sums::new(3));
    let [of_new, of_old] = [people(&mut random), people(&mut random)];
    (0..LOOKS).find_map(|_| {
        (0..RANKINGS[0]).for_each(|_| rank(&mut new, &of_new, fault, &mut random));
        (0..RANKINGS[1]).for_each(|_| rank(&mut old, &of_old, SOUND, &mut random));
        let comparison = rules.compare(&new, &old, true);
        comparison.breach().is_some().then(|| (new.total(Column::Asked) as u64, comparison))
    })
}

/// Watches in which there was an alarm.
fn alarms(rules: &Rules, fault: Fault) -> usize {
    (0..WATCHES).filter(|seed| watch(rules, fault, *seed as u64).is_some()).count()
}

#[test]
fn an_equally_good_version_is_taken_back_no_oftener_than_alpha() {
    assert_eq!(alarms(&rules(0.01), SOUND), 0);
}

#[test]
fn a_version_on_the_very_bound_is_taken_back_no_oftener_than_alpha() {
    // The widest that alpha can be, so that too many would be seen: 300 looks at 11 numbers a watch.
    let mut rules = rules(0.2);
    rules.config.calibration = 2.0; // half the clicks are on the bound of two guardrails
    let on_the_bound =
        [Fault { errors: 0.01, ..SOUND }, Fault { hides: 1.5, ..SOUND }, Fault { clicks: 0.5, ..SOUND }];
    for fault in on_the_bound {
        let alarms = alarms(&rules, fault);
        assert!(alarms <= WATCHES / 5, "{alarms}");
    }
}

/// What must be found, by one of these guardrails, in nine watches of ten within so many rankings.
#[test]
fn what_is_wrong_is_found_soon() {
    let rules = rules(0.01);
    let faults: [(&[&str], Fault, u64); 5] = [
        (&["errors"], Fault { errors: 1.0, ..SOUND }, 200),
        (&["errors"], Fault { errors: 0.05, ..SOUND }, 2_000),
        (&["score"], Fault { shift: 3.5, ..SOUND }, 600),
        (&["negative", "calibration"], Fault { hides: 3.0, ..SOUND }, 2_000),
        (&["positive", "calibration"], Fault { clicks: 0.2, ..SOUND }, 600),
    ];
    for (guardrails, fault, within) in faults {
        let found = |seed: &u64| {
            watch(&rules, fault, *seed).is_some_and(|(rankings, found)| {
                found.breach().is_some_and(|r| guardrails.contains(&r.guardrail)) && rankings <= within
            })
        };
        let soon = (0..20).filter(found).count();
        assert!(soon >= 18, "{guardrails:?} within {within}: {soon} of 20");
    }
}

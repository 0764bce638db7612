use std::collections::HashMap;

use lately_experiment::{Design, Experiment, Readout, Settings, Variant};
use lately_rank::SelectConfig;

use super::first::FirstModels;
use super::lift::Measure;
use super::person::{Column, Inhabitant};
use super::recipe::Recipe;
use super::suite::learners;
use super::town::{DAY_MS, EXPERIMENT, START_MS, Town};

fn small() -> Recipe {
    Recipe { people: 60, twins: 20, items: 240, past_days: 2, days: 2, candidates: 40, ..Recipe::default() }
}

fn town(people: usize, seed: u64) -> Town {
    Town::found(&small(), people, seed, SelectConfig::default()).unwrap()
}

/// All that was counted of a town.
fn counted(people: &[Inhabitant]) -> Vec<(Option<String>, Vec<[f64; 7]>)> {
    people.iter().map(|p| (p.variant.clone(), p.days.clone())).collect()
}

#[test]
fn a_town_is_its_seed_and_its_policy() {
    let [control, transact, ..] = learners(&small()).unwrap();
    let live = |seed, first: &FirstModels| {
        town(20, seed).live(std::slice::from_ref(&transact), first, &|_| ()).unwrap()
    };
    let models = FirstModels::default();
    let (first, again, other) = (live(3, &models), live(3, &FirstModels::default()), live(4, &models));
    assert_eq!(counted(&first), counted(&live(3, &models)), "with the first day's model kept");
    assert_eq!(counted(&first), counted(&again), "to the last action, whatever the threads do");
    assert_ne!(counted(&first), counted(&other));
    let twin = town(20, 3).live(std::slice::from_ref(&control), &FirstModels::default(), &|_| ()).unwrap();
    let who = |people: &[Inhabitant]| people.iter().map(|p| p.user.clone()).collect::<Vec<_>>();
    assert_eq!(who(&first), who(&twin));
    assert_ne!(counted(&first), counted(&twin), "another model shows other pages");
    let visits = |people: &[Inhabitant]| people.iter().map(|p| p.on(0, Column::Visits)).sum::<f64>();
    assert!(visits(&first) > 5.0 && visits(&first) == visits(&twin), "on the first day the same visits");
}

/// The counts of a split town are those that a user's readout makes from the town's log.
#[test]
fn a_users_readout_of_the_log_finds_the_same() {
    let [control, transact, ..] = learners(&small()).unwrap();
    let town = town(60, 5);
    let (store, schema) = (town.store.clone(), town.schema.clone());
    let people = town.live(&[control, transact], &FirstModels::default(), &|_| ()).unwrap();
    let mut of_variant: HashMap<&str, [f64; 3]> = HashMap::new();
    for person in people.iter().filter(|p| p.variant.is_some()) {
        let sums = of_variant.entry(person.variant.as_deref().unwrap()).or_default();
        let during = person.during(&(0..2));
        let all = [1.0, during[Column::Saves as usize], during[Column::Items as usize]];
        sums.iter_mut().zip(all).for_each(|(sum, n)| *sum += n);
    }
    let variants = ["control", "transact"].map(|v| Variant { name: v.to_owned(), share: 1.0 });
    let experiment = Experiment {
        name: EXPERIMENT.to_owned(),
        start_ms: START_MS,
        end_ms: None,
        variants: variants.to_vec(),
        surfaces: Vec::new(),
    };
    let mut readout = Readout::new(Design::new(experiment, &schema, Settings::default()).unwrap()).unwrap();
    let mut events = store.read(0, usize::MAX).unwrap();
    // A page is logged by a thread of its own, so perhaps after what followed it; the readout wants the order of time.
    events.sort_by_key(|(offset, event)| (event.time_ms(), *offset));
    events.iter().for_each(|(_, event)| readout.observe(event));
    let report = readout.report();
    assert_eq!(of_variant.len(), 2);
    for users in &report.users {
        assert_eq!(users.users as f64, of_variant[users.variant.as_str()][0], "{}", users.variant);
    }
    let saves = report.comparison(lately_experiment::Group::All, "save_per_user", "transact").unwrap();
    let mean = |variant: &str| of_variant[variant][1] / of_variant[variant][0];
    assert!((saves.plain.control - mean("control")).abs() < 1e-6, "{saves:?}");
    assert!((saves.plain.variant - mean("transact")).abs() < 1e-6, "{saves:?}");
    let per_item =
        report.comparison(lately_experiment::Group::All, "save_per_impression", "transact").unwrap();
    let [_, saved, items] = of_variant["control"];
    assert!((per_item.plain.control - saved / items).abs() < 1e-6);
}

#[test]
fn only_those_who_were_there_have_a_past_and_the_new_come_late() {
    let town = town(400, 1);
    let of = |arrival| town.people.iter().filter(move |p| p.segment == arrival);
    use lately_experiment::Segment::{Casual, Core, New, Resurrected};
    assert!([Casual, Core, New, Resurrected].into_iter().all(|s| of(s).count() > 10));
    let pages = |p: &Inhabitant| p.before[Column::Pages as usize];
    assert!(of(New).all(|p| pages(p) == 0.0) && of(Core).filter(|p| pages(p) > 0.0).count() > 50);
    assert!(of(New).any(|p| p.arrives > 1.0) && of(Core).all(|p| p.arrives == 0.0));
    assert!(town.midnight() == START_MS && START_MS % DAY_MS == 0);
}

#[test]
fn measures_have_names_and_recipes_are_checked() {
    assert_eq!(Measure::per(Column::Topics, Column::Pages).name(), "topics a page");
    assert_eq!(Measure::each(Column::Saves).name(), "saves a person");
    let refused = |recipe: Recipe| recipe.check().unwrap_err().to_string();
    assert!(refused(Recipe { seeds: Vec::new(), ..small() }).contains("no seed"));
    assert!(refused(Recipe { candidates: 5, ..small() }).contains("24 to 2,000"));
    assert!(refused(Recipe { days: 1, ..small() }).contains("2 to 90"));
    small().check().unwrap();
    let retrained: Vec<u32> = (1..=14).filter(|day| Recipe::retrains_after(*day)).collect();
    assert_eq!(retrained, [3, 7, 10, 14], "twice a week");
}

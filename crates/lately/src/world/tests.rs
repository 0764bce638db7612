use std::collections::HashMap;

use lately_features::FeatureValue;
use rand::RngExt;

use super::*;

const END: i64 = 1_700_000_000_000;

fn world(seed: u64) -> World {
    World::new(WorldConfig { seed, ..WorldConfig::default() }).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_world_and_log() {
    let small = |seed| {
        World::new(WorldConfig { users: 40, items: 100, topics: 8, seed, ..WorldConfig::default() }).unwrap()
    };
    let all = |w: &World| [w.items(END), w.users(END), w.bootstrap(2, END).unwrap()];
    assert_eq!(all(&small(5)), all(&small(5)));
    assert_ne!(all(&small(5)), all(&small(6)));
    let act = |w: &World| {
        let mut session = w.visit(&w.user_ids()[3], END).unwrap();
        (session.react(&w.item_ids()[..20]).unwrap(), session.wants_more())
    };
    assert_eq!(act(&small(5)), act(&small(5)));
}

#[test]
fn events_fit_the_schema_and_stand_in_the_order_of_time() {
    let (world, schema) = (world(1), schema().unwrap());
    let log = world.bootstrap(2, END).unwrap();
    let start = END - 2 * 86_400_000;
    for event in world.items(start).iter().chain(&world.users(start)).chain(&log) {
        event.validate(&schema, END).unwrap();
        assert!((start..END).contains(&event.time_ms()));
    }
    assert!(log.windows(2).all(|w| w[0].time_ms() <= w[1].time_ms()));
    let mut shown = std::collections::HashSet::new();
    for event in &log {
        match event {
            Event::Impression(i) => shown.extend(i.items.iter().map(|x| (i.request.clone(), x.item.clone()))),
            Event::Action(a) => assert!(shown.contains(&(a.request.clone().unwrap(), a.item.clone()))),
            _ => panic!("only impressions and actions are logged"),
        }
    }
    assert!(world.item_ids().iter().any(|i| i.as_str() == "astronomy-017"));
}

#[test]
fn people_act_at_plausible_rates() {
    let log = world(1).bootstrap(3, END).unwrap();
    let mut counts: HashMap<&str, f64> = HashMap::new();
    for event in &log {
        if let Event::Action(a) = event {
            *counts.entry(a.action.as_str()).or_default() += 1.0;
        }
    }
    let rate = |name: &str| counts[name] / counts["seen"];
    println!(
        "{} events, {counts:?}: {:.3} {:.3} {:.3}",
        log.len(),
        rate("click"),
        rate("save"),
        rate("hide")
    );
    assert!((0.05..0.30).contains(&rate("click")));
    assert!((0.01..0.08).contains(&rate("save")));
    assert!((0.003..0.04).contains(&rate("hide")));
    assert!(counts["seen"] > 20_000.0, "enough for a first model");
}

/// Expected saves among the first three of 30 random candidates, by four orders: the oracle's, nearness to what the
/// person lately acted on, followed topics, and popularity.
fn saves_at_3(world: &World) -> [f64; 4] {
    let vectors: HashMap<ItemId, (Vec<f32>, String)> = world
        .items(END)
        .into_iter()
        .filter_map(|e| match e {
            Event::Item(i) => match (&i.features["vector"], &i.features["topic"]) {
                (FeatureValue::Vector(v), FeatureValue::Text(t)) => Some((i.item, (v.clone(), t.clone()))),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let mut saves: HashMap<ItemId, f64> = HashMap::new();
    for event in world.bootstrap(3, END).unwrap() {
        if let Event::Action(a) = event
            && a.action == "save"
        {
            *saves.entry(a.item).or_default() += 1.0;
        }
    }
    let (ids, users) = (world.item_ids(), world.users(END));
    let mut rng = stream(9, 9, 9);
    let mut pick =
        |n: usize| -> Vec<ItemId> { (0..n).map(|_| ids[rng.random_range(0..ids.len())].clone()).collect() };
    let mut totals = [0.0; 4];
    for (n, user) in users.iter().enumerate() {
        let Event::User(user) = user else { continue };
        let FeatureValue::Texts(followed) = &user.features["followed_topics"] else { panic!() };
        let mut session = world.visit(&user.user, END + n as i64 * 1_000_003).unwrap();
        let mut recent = vec![0.0f32; 32];
        for _ in 0..4 {
            for outcome in session.react(&pick(12)).unwrap() {
                let weight = match outcome.action {
                    "click" => 1.0,
                    "save" => 2.0,
                    _ => continue,
                };
                for (r, v) in recent.iter_mut().zip(&vectors[&outcome.item].0) {
                    *r = 0.9 * *r + weight * v;
                }
            }
        }
        let candidates = pick(30);
        let truth = |i: &ItemId| session.chances(i).unwrap().save;
        let scorers: [&dyn Fn(&ItemId) -> f64; 4] = [
            &truth,
            &|i| vectors[i].0.iter().zip(&recent).map(|(a, b)| f64::from(a * b)).sum(),
            &|i| f64::from(u8::from(followed.contains(&vectors[i].1))),
            &|i| saves.get(i).copied().unwrap_or(0.0),
        ];
        for (total, score) in totals.iter_mut().zip(scorers) {
            let mut order = candidates.clone();
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            *total += order[..3].iter().map(truth).sum::<f64>();
        }
    }
    totals.map(|t| t / users.len() as f64)
}

#[test]
fn what_a_person_did_lately_tells_more_than_popularity_and_tastes() {
    for seed in [1, 2] {
        let [oracle, recent, followed, popular] = saves_at_3(&world(seed));
        println!(
            "seed {seed}: oracle {oracle:.3}, recent {recent:.3}, followed {followed:.3}, popular {popular:.3}"
        );
        assert!(oracle > 1.1 * recent, "there is something to learn beyond the mean");
        assert!(recent > 1.3 * followed, "tastes alone do not tell what is wanted now");
        assert!(recent > 1.5 * popular, "popularity is left far behind");
    }
}

#[test]
fn core_users_come_often_and_strangers_are_refused() {
    let world = world(1);
    let ids = world.user_ids();
    assert!(world.visits_per_day(&ids[0]).unwrap() > 2.0 * world.visits_per_day(&ids[399]).unwrap());
    let stranger = UserId::new("nobody").unwrap();
    assert_eq!(world.visit(&stranger, END).err(), Some(WorldError::UnknownUser(stranger)));
    let item = ItemId::new("nothing").unwrap();
    let mut session = world.visit(&ids[0], END).unwrap();
    assert_eq!(session.react(std::slice::from_ref(&item)).err(), Some(WorldError::UnknownItem(item)));
}

#[test]
fn repeats_of_a_topic_tire() {
    let world = world(1);
    let one: Vec<ItemId> =
        world.item_ids().into_iter().filter(|i| i.as_str().starts_with("yoga")).take(12).collect();
    let mut tired = 0;
    for user in world.user_ids() {
        let mut session = world.visit(&user, END).unwrap();
        let before = session.chances(&one[11]).unwrap();
        let outcomes = session.react(&one[..11]).unwrap();
        let after = session.chances(&one[11]).unwrap();
        // Only where nothing was clicked, as a click pulls the want to the topic, and the want did not move on.
        let still = outcomes.len() > 8 && outcomes.iter().all(|o| o.action == "seen");
        if still && after.click < before.click && after.hide > before.hide {
            tired += 1;
        } else if still {
            tired -= 5;
        }
    }
    assert!(tired > 20, "{tired}: nearly all who looked at nine of a kind are tired of it");
}

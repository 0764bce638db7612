//! The promises of the statistics, proven on worlds without and with an effect. Seeds are fixed; each bound says what
//! chance allows.

mod crowd;
mod peer;
mod watched;

use crate::crowd::Crowd;
use crate::watched::Watched;
use lately_experiment::statistics::{Looked, benjamini_hochberg, cuped, estimate, holm, mismatch};
use lately_experiment::{Observation, Plan, Sums};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ONCE: Looked = Looked { alpha: 0.05, start: None, first: None };

/// A share of so many seeds.
fn share(seeds: u64, hit: impl Fn(&mut ChaCha8Rng) -> bool) -> f64 {
    let hits = (0..seeds).filter(|seed| hit(&mut ChaCha8Rng::seed_from_u64(*seed))).count();
    hits as f64 / seeds as f64
}

/// Both variants of a crowd's people, of the saves per person and per impression.
fn split(crowd: &Crowd, people: usize, random: &mut ChaCha8Rng) -> [[Sums; 2]; 2] {
    let mut sums = [[Sums::default(); 2]; 2];
    for _ in 0..people {
        let variant = usize::from(random.random::<bool>());
        let (mean, ratio) = crowd.person(variant == 1, random);
        sums[0][variant].add(&mean);
        sums[1][variant].add(&ratio);
    }
    sums
}

#[test]
fn a_thousand_tests_without_an_effect_find_one_in_twenty() {
    for (name, metric, past) in
        [("mean", 0, false), ("ratio", 1, false), ("mean with CUPED", 0, true), ("ratio with CUPED", 1, true)]
    {
        let found = share(1_000, |random| {
            let [control, variant] = split(&Crowd::SKEWED, 500, random)[metric];
            let of = if past {
                cuped(&control, &variant, &ONCE).map(|c| c.0)
            } else {
                estimate(&control, &variant, &ONCE)
            };
            of.is_some_and(|of| of.difference.p < 0.05)
        });
        println!("A/A at a fixed horizon, {name}: {:.1} % found", 100.0 * found);
        assert!((found - 0.05).abs() <= 0.015, "{name}: {found}");
    }
}

/// What is ever found in a thousand experiments without an effect, looked at every hour of two weeks: by the sequential
/// interval, by the fixed one, by the fixed one at the end.
fn looked_at_every_hour(crowd: &Crowd, past: bool) -> [f64; 3] {
    let watched: Vec<Watched> =
        (0..1_000).map(|seed| Watched::of(crowd, past, &mut ChaCha8Rng::seed_from_u64(seed))).collect();
    let share = |hit: fn(&Watched) -> bool| watched.iter().filter(|w| hit(w)).count() as f64 / 1_000.0;
    [share(|w| w.ever_sequential), share(|w| w.ever_fixed), share(|w| w.last_fixed)]
}

#[test]
fn whoever_looks_every_hour_of_two_weeks_is_wrong_one_time_in_twenty_at_most() {
    for past in [false, true] {
        let [sequential, fixed, last] = looked_at_every_hour(&Crowd::SKEWED, past);
        println!("hourly looks, CUPED {past}: sequential {sequential}, fixed {fixed}, at the end {last}");
        assert!(sequential <= 0.065, "{sequential}");
        assert!(fixed >= 0.15, "the fixed interval is known not to survive this: {fixed}");
        assert!((last - 0.05).abs() <= 0.015, "{last}");
    }
}

#[test]
fn it_holds_where_nothing_is_won_by_people_differing() {
    // All alike and there from the start: each hour is independent, as the Brownian motion of the theory is.
    let [sequential, fixed, _] = looked_at_every_hour(&Crowd::ALIKE, false);
    println!("hourly looks, people alike: sequential {sequential}, fixed {fixed}");
    assert!(sequential <= 0.065 && fixed >= 0.25, "{sequential} {fixed}");
    assert!(sequential >= 0.005, "so conservative that it finds nothing: {sequential}");
}

#[test]
fn an_effect_is_found_by_whoever_looks_every_hour() {
    let found = share(200, |random| Watched::of(&Crowd::SKEWED.with(1.0), false, random).ever_sequential);
    let with_past = share(200, |random| Watched::of(&Crowd::SKEWED.with(1.0), true, random).ever_sequential);
    println!("twice the saves under hourly looks: found in {found}, with CUPED in {with_past}");
    assert!(found >= 0.7 && with_past > found, "{found} {with_past}");
}

#[test]
fn a_planted_effect_is_found_with_the_planned_power() {
    let crowd = Crowd::SKEWED.with(0.2);
    let mut random = ChaCha8Rng::seed_from_u64(99);
    // The effect is a factor, so the treated vary more: the plan has the variance of both.
    let [both, _] = split(&crowd, 200_000, &mut random);
    let of = estimate(&both[0], &both[1], &ONCE).unwrap();
    let (_, kept) = cuped(&both[0], &both[1], &ONCE).unwrap();
    let n = both[0].people() * both[1].people() / (both[0].people() + both[1].people());
    let plain = Plan {
        mean: of.control,
        variance: of.difference.standard_error.powi(2) * n,
        kept: 1.0,
        alpha: 0.05,
        power: 0.8,
        shares: (0.5, 0.5),
        sequential: false,
    };
    for (plan, past) in [(plain, false), (Plan { kept, ..plain }, true)] {
        let people = plan.users_for(0.2) as usize;
        let (mut lifts, mut covered, mut found) = (0.0, 0.0, 0.0);
        for seed in 0..1_000 {
            let [[control, variant], _] = split(&crowd, people, &mut ChaCha8Rng::seed_from_u64(seed));
            let of = if past {
                cuped(&control, &variant, &ONCE).unwrap().0
            } else {
                estimate(&control, &variant, &ONCE).unwrap()
            };
            let lift = of.lift.unwrap();
            lifts += lift.value / 1_000.0;
            covered += f64::from(u8::from(lift.low <= 0.2 && 0.2 <= lift.high)) / 1_000.0;
            found += f64::from(u8::from(of.difference.p < 0.05 && of.difference.value > 0.0)) / 1_000.0;
        }
        println!("CUPED {past}: {people} people, mean lift {lifts:.3}, covered {covered}, found {found}");
        assert!((found - 0.8).abs() <= 0.04, "{found}");
        assert!((lifts - 0.2).abs() <= 0.01 && (covered - 0.95).abs() <= 0.015, "{lifts} {covered}");
    }
}

#[test]
fn cuped_narrows_by_what_the_past_explains() {
    for (metric, name) in [(0, "mean"), (1, "ratio")] {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let [control, variant] = split(&Crowd::SKEWED, 40_000, &mut random)[metric];
        let plain = estimate(&control, &variant, &ONCE).unwrap().difference;
        let (with_past, kept) = cuped(&control, &variant, &ONCE).unwrap();
        let narrowed = with_past.difference.standard_error / plain.standard_error;
        println!("CUPED, {name}: interval x {narrowed:.4}, sqrt(1 - rho^2) {:.4}", kept.sqrt());
        assert!((narrowed - kept.sqrt()).abs() < 0.01, "{narrowed} {kept}");
        assert!(kept < [0.75, 1.0][metric], "{name}: the past explains something: {kept}");
    }
    // By construction: a normal outcome that shares rho = 0.8 with its past.
    let (rho, mut sums, mut random) = (0.8_f64, [Sums::default(); 2], ChaCha8Rng::seed_from_u64(12));
    for _ in 0..40_000 {
        let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let (before, rest) = (normal(), normal());
        let during = 5.0 + rho * before + (1.0 - rho * rho).sqrt() * rest;
        sums[usize::from(random.random::<bool>())].add(&Observation::mean(during, before));
    }
    let kept = cuped(&sums[0], &sums[1], &ONCE).unwrap().1;
    assert!((kept - 0.36).abs() < 0.01, "1 - 0.8^2 of the variance is left: {kept}");
}

#[test]
fn a_ratios_interval_covers_the_truth_where_one_by_impressions_does_not() {
    let truth = Crowd::SKEWED.saves_per_impression();
    let (mut covered, mut naive) = (0.0, 0.0);
    for seed in 0..1_000 {
        let [_, [sums, _]] = split(&Crowd::SKEWED, 1_000, &mut ChaCha8Rng::seed_from_u64(seed));
        let (ratio, reach) = (sums.ratio(), 1.96 * sums.ratio_variance().sqrt());
        covered += f64::from(u8::from((ratio - truth).abs() <= reach)) / 1_000.0;
        let impressions = sums.people() * Crowd::SKEWED.impressions();
        let as_if = 1.96 * (ratio * (1.0 - ratio) / impressions).sqrt();
        naive += f64::from(u8::from((ratio - truth).abs() <= as_if)) / 1_000.0;
    }
    println!("a ratio's interval covers in {covered}, one by impressions in {naive}");
    assert!((covered - 0.95).abs() <= 0.02, "{covered}");
    assert!(naive < 0.85, "{naive}");
}

#[test]
fn a_broken_split_trips_and_a_fair_one_does_not() {
    let trips = |fair: bool| {
        share(1_000, |random| {
            let mut users = [0; 2];
            for _ in 0..10_000 {
                let variant = usize::from(random.random::<bool>());
                // Broken: 1 in 10 of the treated is lost on the way.
                users[variant] += u64::from(fair || variant == 0 || random.random::<f64>() < 0.9);
            }
            mismatch(&users, &[0.5, 0.5], 0.001).suspected
        })
    };
    let (fair, broken) = (trips(true), trips(false));
    println!("split suspected: fair {fair}, broken {broken}");
    assert!(fair <= 0.005 && broken >= 0.95, "{fair} {broken}");
}

#[test]
fn many_comparisons_share_one_chance_to_be_wrong() {
    let family = |random: &mut ChaCha8Rng| -> Vec<f64> { (0..20).map(|_| random.random()).collect() };
    let any = |p: &[f64]| p.iter().any(|p| *p < 0.05);
    let (raw, holms, bh) = (
        share(2_000, |r| any(&family(r))),
        share(2_000, |r| any(&holm(&family(r)))),
        share(2_000, |r| any(&benjamini_hochberg(&family(r)))),
    );
    println!("20 comparisons without an effect, any found: raw {raw}, Holm {holms}, BH {bh}");
    assert!(raw > 0.5 && holms <= 0.065 && bh <= 0.065, "{raw} {holms} {bh}");
}

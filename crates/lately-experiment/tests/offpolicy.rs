//! Off-policy estimates cover the true value of a known policy, and say so where they cannot.

use lately_experiment::{
    Evaluation, Exploration, Logged, OffPolicyError, OffPolicySettings, Predicted, off_policy,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PLACES: usize = 5;
/// What each place keeps of an item's appeal.
const SEEN: [f64; PLACES] = [1.0, 0.7, 0.5, 0.35, 0.25];
const USERS: u64 = 400;

/// A log of one world: a page of five items with appeals of its own, ordered by a poor score, and a target that orders by
/// a better one. Beside it what the target's order earns on these pages, and their places.
fn world(seed: u64, exploration: Exploration, bias: f64) -> (Vec<Logged>, f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut rows, mut truth, mut places) = (Vec::new(), 0.0, 0.0);
    for user in 0..USERS {
        let fond = random.random_range(0.3..1.0);
        for _ in 0..random.random_range(1..12) {
            let appeal: Vec<f64> = (0..PLACES).map(|_| fond * random.random::<f64>()).collect();
            let mut sorted = |noise: f64| {
                let score: Vec<f64> = appeal.iter().map(|a| a + noise * random.random::<f64>()).collect();
                let mut order: Vec<usize> = (0..PLACES).collect();
                order.sort_by(|a, b| score[*b].total_cmp(&score[*a]));
                order
            };
            let (own, target) = (sorted(3.0), sorted(0.3));
            let mut shown = own.clone();
            if random.random::<f64>() < exploration.share {
                shown.shuffle(&mut random);
            }
            for place in 0..PLACES {
                let earns = |item: usize| SEEN[place] * appeal[item];
                truth += earns(target[place]);
                places += 1.0;
                let item = shown[place];
                rows.push(Logged {
                    user,
                    propensity: exploration.propensity(place, own[place] == item),
                    target: f64::from(u8::from(target[place] == item)),
                    reward: f64::from(u8::from(random.random::<f64>() < earns(item))),
                    model: Some(Predicted {
                        shown: earns(item) * 0.8 + bias,
                        expected: earns(target[place]) * 0.8 + bias,
                    }),
                });
            }
        }
    }
    (rows, truth, places)
}

/// Shares of 200 runs in which IPS, SNIPS and doubly robust cover the true value (of the pages of all runs together), and
/// their mean widths.
fn covered(exploration: Exploration) -> Result<([f64; 3], [f64; 3]), OffPolicyError> {
    let runs: Vec<_> = (0..200).map(|seed| world(seed, exploration, 0.05)).collect();
    let truth = runs.iter().map(|r| r.1).sum::<f64>() / runs.iter().map(|r| r.2).sum::<f64>();
    let (mut hits, mut widths) = ([0.0; 3], [0.0; 3]);
    for (rows, _, _) in &runs {
        let of = off_policy(rows, &OffPolicySettings::default())?;
        for (at, value) in [Some(of.ips), of.snips, of.doubly_robust].into_iter().flatten().enumerate() {
            hits[at] += f64::from(u8::from(value.low <= truth && truth <= value.high)) / 200.0;
            widths[at] += (value.high - value.low) / 200.0;
        }
    }
    Ok((hits, widths))
}

#[test]
fn estimates_cover_the_true_value_of_a_known_policy() {
    for share in [0.1, 0.5, 1.0] {
        let (hits, widths) = covered(Exploration { share, places: PLACES }).unwrap();
        println!("share {share}: IPS, SNIPS, DR cover {hits:?}, widths {widths:?}");
        assert!(hits.iter().all(|hit| *hit >= 0.9), "{share}: {hits:?}");
        assert!(widths[2] < widths[0], "a model that is about right narrows: {widths:?}");
    }
}

fn evaluated(rows: &[Logged], max_weight: Option<f64>) -> Result<Evaluation, OffPolicyError> {
    off_policy(rows, &OffPolicySettings { max_weight, ..OffPolicySettings::default() })
}

#[test]
fn what_the_log_cannot_tell_is_warned_of() {
    let wide = Exploration { share: 0.5, places: PLACES };
    let (rows, _, _) = world(1, wide, 0.0);
    let whole = evaluated(&rows, None).unwrap();
    assert_eq!(whole.warnings, Vec::<String>::new());
    let warns = |of: &Evaluation, what: &str| of.warnings.iter().any(|w| w.contains(what));

    let few = evaluated(&rows[..300], None).unwrap();
    assert!(warns(&few, "effective rows"), "{few:?}");

    let clipped = evaluated(&rows, Some(2.0)).unwrap();
    assert!(clipped.overlap.clipped_share > 0.1 && warns(&clipped, "clipping took"), "{clipped:?}");
    let undone = clipped.ips.value + clipped.overlap.clipped_reward;
    assert!(
        clipped.ips.value < undone && (undone - whole.ips.value).abs() < 1e-12,
        "the bias is what was clipped"
    );

    // A log of certain places has not seen what the target would do differently.
    let (certain, _, _) = world(1, Exploration { share: 0.0, places: PLACES }, 0.0);
    let unseen = evaluated(&certain, None).unwrap();
    assert!(unseen.overlap.unsupported > 0.3 && warns(&unseen, "could not be in the log"), "{unseen:?}");

    // One list in a thousand shuffled: the few that were weigh a thousandfold.
    let (narrow, _, _) = world(1, Exploration { share: 0.001, places: PLACES }, 0.0);
    let heavy: Vec<Logged> = narrow
        .iter()
        .enumerate()
        .map(|(i, r)| match i % 400 {
            0 => Logged { propensity: 0.0002, target: 1.0, ..*r },
            _ => Logged { target: 0.9, ..*r },
        })
        .collect();
    assert!(warns(&evaluated(&heavy, None).unwrap(), "few rows decide"));
}

#[test]
fn rows_that_cannot_be_are_refused() {
    let row = Logged { user: 1, propensity: 0.5, target: 0.5, reward: 1.0, model: None };
    let of = |row: Logged| off_policy(&[row, Logged { user: 2, ..row }], &OffPolicySettings::default());
    assert!(of(row).is_ok() && of(row).unwrap().doubly_robust.is_none());
    assert!(of(Logged { propensity: 0.0, ..row }).unwrap_err().to_string().contains("row 0"));
    assert!(of(Logged { target: 1.1, ..row }).is_err() && of(Logged { reward: f64::NAN, ..row }).is_err());
    assert!(off_policy(&[row], &OffPolicySettings::default()).is_err());
    let never = Logged { target: 0.0, ..row };
    assert!(evaluated(&[never, Logged { user: 2, ..never }], None).unwrap().snips.is_none());
}

//! The same rows, told by the Python packages `gbstats` and `confseq` where `LATELY_PYTHON` names a Python that has them.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};

use lately_experiment::statistics::{Looked, boundary, cuped, estimate};
use lately_experiment::{Effect, Sums};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::crowd::Crowd;

/// What the packages say; `None` where there are none.
fn told(python: &str, rows: &Value) -> Result<Option<Value>, Box<dyn Error>> {
    let mut child = Command::new(python)
        .args(["-c", include_str!("peer.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(rows.to_string().as_bytes())?;
    let answer: Value = serde_json::from_slice(&child.wait_with_output()?.stdout)?;
    if let Some(missing) = answer.get("missing") {
        println!("skipped: {missing}: pip install gbstats confseq and set LATELY_PYTHON to that Python");
        return Ok(None);
    }
    Ok(Some(answer))
}

fn same(name: &str, ours: &Effect, theirs: &Value) {
    for (at, number) in [ours.value, ours.low, ours.high, ours.p].into_iter().enumerate() {
        let their = theirs[at].as_f64().unwrap_or(f64::NAN);
        let scale = if at == 3 { 1.0 } else { ours.standard_error };
        assert!((number - their).abs() < 1e-6 * scale, "{name}, {at}: {number} and {their}");
    }
}

#[test]
fn estimates_and_boundaries_are_those_of_gbstats_and_confseq() -> Result<(), Box<dyn Error>> {
    let Ok(python) = std::env::var("LATELY_PYTHON") else {
        println!("skipped: LATELY_PYTHON is not set");
        return Ok(());
    };
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let (mut means, mut ratios, mut arms) = ([Sums::default(); 2], [Sums::default(); 2], [vec![], vec![]]);
    for person in 0..900 {
        // Unequal arms, so that Welch's degrees of freedom matter.
        let arm = usize::from(person % 3 == 0);
        let (mean, ratio) = Crowd::SKEWED.with(0.3).person(arm == 1, &mut random);
        means[arm].add(&mean);
        ratios[arm].add(&ratio);
        arms[arm].push(json!([mean.of, ratio.per, mean.of_before]));
    }
    let variances = [10.0, 100.0, 1_000.0, 50_000.0];
    let rows = json!({"arms": arms, "alpha": 0.05, "best_at": 1_000.0, "variances": variances});
    let Some(told) = told(&python, &rows)? else { return Ok(()) };
    let once = Looked { alpha: 0.05, start: None, first: None };
    let mean = estimate(&means[0], &means[1], &once).ok_or("no estimate")?;
    let ratio = estimate(&ratios[0], &ratios[1], &once).ok_or("no estimate")?;
    let (taken, _) = cuped(&means[0], &means[1], &once).ok_or("no estimate")?;
    same("mean", &mean.difference, &told["mean"]);
    same("ratio", &ratio.difference, &told["ratio"]);
    same("cuped", &taken.difference, &told["cuped"]);
    for (name, of) in [("mean_lift", mean.lift), ("ratio_lift", ratio.lift)] {
        same(name, &of.ok_or("no lift")?, &told[name]);
    }
    for at in 0..variances.len() {
        let number = |of: &str| told[of][at].as_f64().unwrap_or(f64::NAN);
        let ours = boundary(number("clocks"), 0.05);
        assert!((ours - number("boundaries")).abs() < 1e-9, "{ours} {told}");
    }
    println!("gbstats and confseq say the same");
    Ok(())
}

//! Training's part of the table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::curve::{Curves, apart};
use super::timings::{Report, Spread, Timing};
use crate::Failure;
use crate::results::{number, numbers, part};

/// What the rate should be of PyTorch's compiled form.
const GOAL: f64 = 3.0;

/// What `scripts/gpu_check_torch_training.py` writes.
#[derive(Debug, Deserialize)]
struct Peer {
    torch: String,
    /// Of its first loss and gradient's length in f32 from the CPU's.
    error_loss: f64,
    error_norm: f64,
    /// Of its first gradient by autocast from its own in f32, as a share of the length.
    #[serde(deserialize_with = "number")]
    gradient_bf16: f64,
    /// In bfloat16 by autocast; empty where it was not run.
    #[serde(deserialize_with = "numbers")]
    curve: Vec<f64>,
    forms: Vec<Form>,
    /// Forms that could not be measured, and why.
    missing: BTreeMap<String, String>,
}

/// One way in which PyTorch makes a step.
#[derive(Debug, Deserialize)]
struct Form {
    name: String,
    rows: usize,
    #[serde(flatten)]
    step: Spread,
}

/// Writes the lines of training. `peak`: TFLOP/s of bf16 products that this card was measured to make.
pub(crate) fn render(all: &Value, peak: Option<f64>, text: &mut String) -> Result<(), Failure> {
    writeln!(text)?;
    let ours: Option<Report> = part(all, "training_timings", text)?;
    let peer: Option<Peer> = part(all, "torch_training", text)?;
    let curves: Option<Curves> = part(&all["training"], "curves", text)?;
    if curves.is_none() && ours.is_none() && peer.is_none() && all["training"].is_null() {
        writeln!(text, "TRAINING WAS NOT CHECKED")?;
        return Ok(());
    }
    losses(curves.as_ref(), peer.as_ref(), text)?;
    let timings = ours.as_ref().map_or(&[][..], |r| &r.timings);
    let forms = peer.as_ref().map_or(&[][..], |p| &p.forms);
    writeln!(
        text,
        "{:<32} {:>10} {:>6} {:>9} {:>9} {:>9} {:>13} {:>12}",
        "training steps", "rows", "a req.", "p10 ms", "p50 ms", "p90 ms", "rows/s", "of bf16 peak"
    )?;
    for t in timings {
        for (what, spread) in [("staged", &t.staged), ("end to end", &t.end_to_end)] {
            let what = format!("ours, {}, {what}", t.precision);
            line(text, &what, t.rows, Some(t.candidates), spread, Some(t.multiply_adds), peak)?;
        }
    }
    for form in forms {
        // Its rows are all for themselves: the least work is that of ours in requests of one row.
        let work = timings.iter().filter(|t| t.rows == form.rows).map(|t| t.multiply_adds).max();
        line(text, &format!("PyTorch {}", form.name), form.rows, None, &form.step, work, peak)?;
    }
    timings.iter().filter(|t| t.precision == "bf16").try_for_each(|t| ratios(t, forms, text))?;
    for missing in ours.iter().flat_map(|r| &r.missing) {
        writeln!(text, "NOT MEASURED: ours, {missing}")?;
    }
    if ours.is_none() {
        writeln!(text, "OUR TRAINING STEPS WERE NOT MEASURED")?;
    }
    for (form, why) in peer.iter().flat_map(|p| &p.missing) {
        writeln!(text, "NOT MEASURED: PyTorch {form}: {}", why.lines().next().unwrap_or_default())?;
    }
    if peer.is_none() {
        writeln!(text, "PYTORCH'S TRAINING STEPS WERE NOT MEASURED")?;
    }
    parts(timings, text)
}

fn losses(curves: Option<&Curves>, peer: Option<&Peer>, text: &mut String) -> Result<(), Failure> {
    if let Some(p) = peer {
        writeln!(
            text,
            "PyTorch {}: its first loss in f32 differs by {:.1e} from the CPU's, its gradient's length by {:.1e}; \
             by autocast to bf16 its gradient is {:.1e} of its length off",
            p.torch, p.error_loss, p.error_norm, p.gradient_bf16
        )?;
    }
    let Some(c) = curves else { return Ok(writeln!(text, "LOSS CURVES WERE NOT COMPARED")?) };
    let ends =
        |x: &[f64]| format!("{:.4} to {:.4}", x.first().unwrap_or(&f64::NAN), x.last().unwrap_or(&f64::NAN));
    writeln!(
        text,
        "loss of {} steps of {} rows, apart from the CPU's in f32 ({}) at most, bound {:.1e}:",
        c.cpu.len(),
        c.rows,
        ends(&c.cpu),
        c.bound
    )?;
    let mut one = |what: &str, run: &[f64]| -> Result<(), Failure> {
        let found = apart(run, &c.cpu);
        let word = if found <= c.bound { "equal" } else { "NOT EQUAL" };
        Ok(writeln!(text, "  {what:<30} {found:.1e}  {word} ({})", ends(run))?)
    };
    one("ours, bf16", &c.bf16)?;
    one("ours, f32", &c.f32)?;
    if let Some(p) = peer.filter(|p| !p.curve.is_empty()) {
        one("PyTorch, bf16 autocast", &p.curve)?;
    }
    Ok(writeln!(text, "  {:<30} {}", "ours, bf16, dropout 0.1", ends(&c.with_dropout))?)
}

fn line(
    text: &mut String,
    what: &str,
    rows: usize,
    candidates: Option<usize>,
    spread: &Spread,
    multiply_adds: Option<usize>,
    peak: Option<f64>,
) -> Result<(), Failure> {
    let rate = spread.per_second(rows);
    let share = multiply_adds.zip(peak).map(|(work, peak)| 2.0 * work as f64 * rate / peak / 1e10);
    let share = share.map_or("-".to_owned(), |x| format!("{x:.2} %"));
    let candidates = candidates.map_or("-".to_owned(), |n| n.to_string());
    let Spread { p10_ms, p50_ms, p90_ms, .. } = spread;
    Ok(writeln!(
        text,
        "{what:<32} {rows:>10} {candidates:>6} {p10_ms:>9.3} {p50_ms:>9.3} {p90_ms:>9.3} {rate:>13.0} {share:>12}"
    )?)
}

/// Ours against the fastest compiled form and the fastest of all, of as many rows.
fn ratios(t: &Timing, forms: &[Form], text: &mut String) -> Result<(), Failure> {
    let fastest = |compiled: bool| {
        let of_size =
            forms.iter().filter(|f| f.rows == t.rows && (!compiled || f.name.starts_with("compile")));
        of_size.min_by(|a, b| a.step.p50_ms.total_cmp(&b.step.p50_ms))
    };
    let (compiled, any) = (fastest(true), fastest(false));
    // Said once where the fastest of all is compiled.
    let any = any.filter(|any| compiled.is_none_or(|c| c.name != any.name));
    for (form, goal) in [(compiled, format!(" (goal {GOAL})")), (any, String::new())] {
        let Some(form) = form else { continue };
        let times = |spread: &Spread| form.step.p50_ms / spread.p50_ms;
        writeln!(
            text,
            "ours of {} rows, {} a request, is {:.2} times PyTorch {} staged, {:.2} times end to end{goal}",
            t.rows,
            t.candidates,
            times(&t.staged),
            form.name,
            times(&t.end_to_end)
        )?;
    }
    Ok(())
}

/// What the card's events say.
fn parts(timings: &[Timing], text: &mut String) -> Result<(), Failure> {
    for t in timings {
        let Some(p) = &t.parts else { continue };
        writeln!(
            text,
            "by events, {}, {} rows, {} a request: copy in {:.3} ms, forward {:.3}, backward {:.3}, optimiser {:.3}, copy out \
             {:.3}",
            t.precision,
            t.rows,
            t.candidates,
            p.copy_in_ms,
            p.forward_ms,
            p.backward_ms,
            p.optimiser_ms,
            p.copy_out_ms
        )?;
        let all: f64 = p.kernels.iter().map(|k| k.ms).sum();
        for k in &p.kernels {
            let (share, each) = (100.0 * k.ms / all.max(f64::MIN_POSITIVE), k.ms * 1e3 / k.launches);
            writeln!(
                text,
                "  {:<30} {:>9.3} ms {share:>6.1} % {:>7.1} launches of {each:.1} us",
                k.name, k.ms, k.launches
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn training_s_part_has_ratios_curves_kernels_and_what_is_missing() {
        let spread = |ms: f64| json!({"p10_ms": ms, "p50_ms": ms, "p90_ms": ms, "steps": 9});
        let form = |name: &str, ms: f64| json!({"name": name, "rows": 2000, "p10_ms": ms, "p50_ms": ms, "p90_ms": ms, "steps": 9});
        let parts = json!({
            "copy_in_ms": 0.5, "forward_ms": 1.0, "backward_ms": 2.0, "optimiser_ms": 0.25, "copy_out_ms": 0.125,
            "kernels": [{"name": "adam", "ms": 3.0, "launches": 1.0}, {"name": "place", "ms": 1.0, "launches": 10.0}]
        });
        let timing = json!({
            "precision": "bf16", "rows": 2000, "candidates": 10, "tokens": 100, "staged": spread(2.0),
            "end_to_end": spread(4.0), "staging_ms": 1.0, "multiply_adds": 20_000_000, "parts": parts
        });
        let all = json!({
            "training": {"curves": {
                "rows": 256, "cpu": vec![1.0; 60], "bf16": vec![1.001; 60], "f32": vec![None::<f64>; 60],
                "with_dropout": vec![1.0, 0.5], "bound": 0.01
            }},
            "training_timings": {"device": "a card", "timings": [timing], "missing": ["f32: lost"]},
            "torch_training": {
                "torch": "2.9", "error_loss": 1e-6, "error_norm": 1e-5, "gradient_bf16": 0.05, "curve": vec![1.002; 60],
                "forms": [form("eager", 9.0), form("compile", 8.0), form("eager, one graph", 6.0)],
                "missing": {"compile, graphs": "no compiler\nat all"}
            }
        });
        let mut text = String::new();
        render(&all, Some(800.0), &mut text).unwrap();
        // 2 x 2e7 x 1e6 = 40 TFLOP/s of 800.
        let staged = text.lines().find(|l| l.starts_with("ours, bf16, staged")).unwrap();
        assert!(staged.ends_with("1000000       5.00 %"), "{text}");
        assert!(
            text.contains(
                "10 a request, is 4.00 times PyTorch compile staged, 2.00 times end to end (goal 3)"
            ),
            "{text}"
        );
        assert!(
            text.contains("is 3.00 times PyTorch eager, one graph staged, 1.50 times end to end\n"),
            "{text}"
        );
        assert!(text.contains("ours, bf16                     1.0e-3  equal (1.0010 to 1.0010)"), "{text}");
        assert!(text.contains("ours, f32                      inf  NOT EQUAL"), "{text}");
        assert!(text.contains("PyTorch, bf16 autocast         2.0e-3  equal"), "{text}");
        assert!(text.contains("forward 1.000, backward 2.000, optimiser 0.250"), "{text}");
        assert!(text.contains("75.0 %     1.0 launches of 3000.0 us"), "{text}");
        for missing in
            ["NOT MEASURED: ours, f32: lost", "NOT MEASURED: PyTorch compile, graphs: no compiler\n"]
        {
            assert!(text.contains(missing), "{text}");
        }
        let mut nothing = String::new();
        render(&json!({}), None, &mut nothing).unwrap();
        assert_eq!(nothing, "\nTRAINING WAS NOT CHECKED\n");
    }
}

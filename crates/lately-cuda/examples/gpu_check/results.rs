//! One table of all that was measured in a run, with shares of the ceilings that were measured in it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::Failure;
use crate::{timings, training};

/// What `scripts/gpu_check_torch.py` writes.
#[derive(Debug, Deserialize)]
struct Peer {
    torch: String,
    /// Of its logits in f32 from ours in f32, as a share of the largest.
    error_f32: f64,
    forms: Vec<Form>,
    /// Forms that could not be measured, and why.
    missing: BTreeMap<String, String>,
}

/// One way in which PyTorch runs the module.
#[derive(Debug, Deserialize)]
struct Form {
    name: String,
    candidates: usize,
    /// Inputs on the host, logits back there, ms.
    p50_ms: f64,
    p99_ms: f64,
    /// Of the module alone, by events on the card, ms.
    device_ms: f64,
}

/// A line of the table.
struct Line {
    what: String,
    candidates: usize,
    tokens: usize,
    /// NaN where it was not measured so.
    p50_ms: f64,
    p99_ms: f64,
    /// Candidates a second.
    rate: f64,
    multiply_adds: usize,
}

/// Reads a folder's results, prints the table and keeps both beside them.
pub(crate) fn table(folder: &Path) -> Result<(), Failure> {
    let names =
        ["correctness", "training", "sanitizer", "timings", "training_timings", "torch", "torch_training"];
    let mut all = serde_json::Map::new();
    for name in names {
        let path = folder.join(format!("{name}.json"));
        let value = if path.is_file() { read(&path) } else { Value::Null };
        all.insert(name.to_owned(), value);
    }
    let text = render(&Value::Object(all.clone()))?;
    print!("{text}");
    std::fs::write(folder.join("results.txt"), &text)?;
    let whole = json!({ "format": 1, "results": all });
    Ok(std::fs::write(folder.join("results.json"), serde_json::to_string_pretty(&whole)? + "\n")?)
}

/// A file's value, or why it has none: a step that was ended while it wrote must not hide what the others found.
fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
    text.and_then(|t| serde_json::from_str(&t).map_err(|e| e.to_string())).unwrap_or_else(Value::String)
}

/// A step's results; where they cannot be read the text says so.
pub(crate) fn part<T: DeserializeOwned>(
    all: &Value,
    name: &str,
    text: &mut String,
) -> Result<Option<T>, Failure> {
    match serde_json::from_value(all[name].clone()) {
        Ok(part) => Ok(part),
        Err(error) => {
            let why = all[name].as_str().map_or(error.to_string(), str::to_owned);
            writeln!(text, "{name}.json CANNOT BE READ: {why}")?;
            Ok(None)
        }
    }
}

fn render(all: &Value) -> Result<String, Failure> {
    let mut text = String::new();
    let ours: Option<timings::Report> = part(all, "timings", &mut text)?;
    let peer: Option<Peer> = part(all, "torch", &mut text)?;
    for (what, name) in [("scoring", "correctness"), ("training", "training")] {
        compared(what, &all[name], &mut text)?;
    }
    match all["sanitizer"].as_object() {
        Some(tools) => tools.iter().try_for_each(|(tool, said)| writeln!(text, "{tool}: {said}"))?,
        None => writeln!(text, "COMPUTE-SANITIZER DID NOT RUN")?,
    }
    let ceilings = ["torch", "torch_training"].into_iter().find_map(|name| {
        let number = |what: &str| all[name][what].as_f64();
        number("copy_gb_s").zip(number("bf16_tflop_s"))
    });
    match ceilings {
        Some((copies, products)) => {
            writeln!(text, "ceilings: copies {copies:.0} GB/s, bf16 products {products:.0} TFLOP/s")?;
        }
        None => writeln!(text, "THE CARD'S CEILINGS WERE NOT MEASURED")?,
    }
    let peak = ceilings.map(|(_, products)| products);
    match &peer {
        Some(p) => writeln!(
            text,
            "PyTorch {}: its f32 logits differ by {:.1e} from the CPU's",
            p.torch, p.error_f32
        )?,
        None => writeln!(text, "PYTORCH'S SCORING WAS NOT MEASURED")?,
    }
    let lines = lines(ours.as_ref(), peer.as_ref());
    let head = ["", "candidates", "tokens", "p50 ms", "p99 ms", "candidates/s", "of bf16 peak"];
    writeln!(
        text,
        "{:<36} {:>10} {:>6} {:>9} {:>9} {:>13} {:>12}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6]
    )?;
    for l in &lines {
        let flop = 2.0 * l.multiply_adds as f64 * l.rate;
        let share = peak.map_or("-".to_owned(), |peak| format!("{:.2} %", flop / peak / 1e10));
        writeln!(
            text,
            "{:<36} {:>10} {:>6} {:>9} {:>9} {:>13.0} {share:>12}",
            l.what,
            l.candidates,
            l.tokens,
            ms(l.p50_ms),
            ms(l.p99_ms),
            l.rate
        )?;
    }
    for t in ours.iter().flat_map(|r| &r.timings) {
        let Some(on) = &t.on_card else { continue };
        writeln!(
            text,
            "by events, {} candidates of {} tokens, {}: copy in {:.3} ms, kernels {:.3}, copy out {:.3}",
            t.candidates, t.tokens, t.name, on.copy_in_ms, on.kernels_ms, on.copy_out_ms
        )?;
    }
    for (form, why) in peer.iter().flat_map(|p| &p.missing) {
        writeln!(text, "NOT MEASURED: PyTorch {form}: {}", why.lines().next().unwrap_or_default())?;
    }
    training::table::render(all, peak, &mut text)?;
    Ok(text)
}

/// How many cases of a comparison agree.
fn compared(what: &str, report: &Value, text: &mut String) -> Result<(), Failure> {
    let Some(device) = report["device"].as_str() else {
        return Ok(writeln!(text, "{} WAS NOT COMPARED", what.to_uppercase())?);
    };
    let cases = report["cases"].as_array().map_or(&[][..], Vec::as_slice);
    let with = |outcome: &str| cases.iter().filter(|c| c["outcome"] == outcome).count();
    let (ok, unsupported) = (with("agrees"), with("unsupported"));
    let wrong = cases.len() - ok - unsupported;
    writeln!(
        text,
        "{what} on {device}: {ok} cases agree with the CPU, {wrong} DO NOT, {unsupported} have no kernels"
    )?;
    Ok(())
}

/// A number of a file, where JSON has none for what is no number.
pub(crate) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The same of a list.
pub(crate) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let list = Vec::<Option<f64>>::deserialize(from)?;
    Ok(list.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}

fn ms(time: f64) -> String {
    if time.is_nan() { "-".to_owned() } else { format!("{time:.3}") }
}

/// Ours, then PyTorch's; all by the products that are left after folding and sharing, so that shares are of the same work.
fn lines(ours: Option<&timings::Report>, peer: Option<&Peer>) -> Vec<Line> {
    let ours: &[timings::Timing] = ours.map_or(&[], |r| &r.timings);
    let line = |what: String, t: &timings::Timing, rate| Line {
        what,
        candidates: t.candidates,
        tokens: t.tokens,
        p50_ms: t.p50_ms,
        p99_ms: t.p99_ms,
        rate,
        multiply_adds: t.multiply_adds,
    };
    let mut lines = Vec::new();
    for t in ours {
        lines.push(line(format!("ours, {}", t.name), t, t.candidates_per_second));
        let (new, rate) = (t.new_items_p50_ms, t.candidates as f64 / t.new_items_p50_ms * 1e3);
        let line_of_new = line(format!("ours, {}, new items", t.name), t, rate);
        lines.push(Line { p50_ms: new, p99_ms: f64::NAN, ..line_of_new });
        let together = line(format!("ours, {}, 4 threads", t.name), t, t.candidates_per_second_together);
        lines.push(Line { p50_ms: f64::NAN, p99_ms: f64::NAN, ..together });
    }
    for form in peer.map_or(&[][..], |p| &p.forms) {
        // The case that both score.
        let Some(t) = ours.iter().find(|t| t.name == "paper, compatible" && t.candidates == form.candidates)
        else {
            continue;
        };
        let rate = |ms: f64| form.candidates as f64 / ms * 1e3;
        let (p50_ms, p99_ms) = (form.p50_ms, form.p99_ms);
        let what = format!("PyTorch {}", form.name);
        lines.push(Line { p50_ms, p99_ms, ..line(what, t, rate(p50_ms)) });
        let what = format!("PyTorch {}, card alone", form.name);
        lines.push(Line { p50_ms: form.device_ms, p99_ms: f64::NAN, ..line(what, t, rate(form.device_ms)) });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_shares_of_the_measured_peak_and_says_what_is_missing() {
        let timing = json!({
            "name": "paper, compatible", "candidates": 500, "tokens": 100, "p50_ms": 1.0, "p99_ms": 2.0, "new_items_p50_ms": 1.25,
            "candidates_per_second": 500_000.0, "candidates_per_second_together": 1_000_000.0,
            "multiply_adds": 4_000_000, "requests": 9,
            "on_card": {"copy_in_ms": 0.25, "kernels_ms": 0.5, "copy_out_ms": 0.125}
        });
        let form =
            json!({"name": "eager", "candidates": 500, "p50_ms": 4.0, "p99_ms": 5.0, "device_ms": 2.0});
        let all = json!({
            "correctness": {"device": "a card", "cases": [{"outcome": "agrees"}, {"outcome": "failed"}]},
            "sanitizer": {"memcheck": "0 errors"},
            "timings": {"device": "a card", "timings": [timing]},
            "torch": {"torch": "2.9", "copy_gb_s": 4_000.0, "bf16_tflop_s": 800.0, "error_f32": 1e-6, "forms": [form],
                      "missing": {"compile, 500": "no compiler\nat all"}}
        });
        let text = render(&all).unwrap();
        assert!(text.contains("1 cases agree with the CPU, 1 DO NOT, 0 have no kernels"), "{text}");
        // 2 x 4e6 x 5e5 = 4 TFLOP/s of 800.
        let line = text.lines().find(|l| l.starts_with("ours, paper, compatible  ")).unwrap();
        assert!(line.ends_with("500000       0.50 %"), "{line}");
        let new = text.lines().find(|l| l.starts_with("ours, paper, compatible, new items ")).unwrap();
        assert!(new.contains("1.250") && new.contains("400000"), "{new}");
        let eager = text.lines().find(|l| l.starts_with("PyTorch eager ")).unwrap();
        assert!(eager.contains("4.000") && eager.contains("125000") && eager.contains("0.12 %"), "{eager}");
        assert!(text.contains("PyTorch eager, card alone") && !text.contains("NaN"), "{text}");
        assert!(text.contains("NOT MEASURED: PyTorch compile, 500: no compiler\n"), "{text}");
        assert!(text.contains("compatible: copy in 0.250 ms, kernels 0.500, copy out 0.125\n"), "{text}");
        let broken = render(&json!({"timings": "a file's end is missing", "torch": {"torch": 1}})).unwrap();
        assert!(broken.contains("timings.json CANNOT BE READ: a file's end is missing\n"), "{broken}");
        assert!(broken.contains("torch.json CANNOT BE READ: invalid type"), "{broken}");
        let nothing = render(&json!({})).unwrap();
        for missing in ["SCORING WAS NOT COMPARED", "COMPUTE-SANITIZER DID NOT RUN", "WERE NOT MEASURED"] {
            assert!(nothing.contains(missing), "{nothing}");
        }
    }
}

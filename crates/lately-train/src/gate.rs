//! The gate: whether a challenger may take the champion's place, and if not, which number failed by how much.

use serde::{Deserialize, Serialize};

use lately_model::Model;

use crate::eval::{EvalReport, Group};

/// Bounds of the gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// A head's AUC may be below the champion's by this much. Default 0.005: about twice the spread between seeds of
    /// one model on 100 k rows.
    pub auc_margin: f64,
    /// A head's log loss may exceed the champion's by this share of it. Default 0.01.
    pub log_loss_margin: f64,
    /// Lowest mean prediction over observed rate. Default 0.8.
    pub calibration_low: f64,
    /// Highest mean prediction over observed rate. Default 1.25.
    pub calibration_high: f64,
    /// A head with fewer positives in the held-out rows is not judged on AUC and calibration: its numbers are noise.
    /// Default 100.
    pub min_positives: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            auc_margin: 0.005,
            log_loss_margin: 0.01,
            calibration_low: 0.8,
            calibration_high: 1.25,
            min_positives: 100,
        }
    }
}

/// One number that failed.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// A weight is NaN or infinite.
    #[error("parameter `{parameter}` holds a value that is not finite")]
    NotFinite {
        /// Its name.
        parameter: String,
    },
    /// AUC fell.
    #[error("{head}: AUC {challenger:.4} is below the champion's {champion:.4} by more than {margin}")]
    Auc {
        /// Head.
        head: String,
        /// Challenger's value.
        challenger: f64,
        /// Champion's value.
        champion: f64,
        /// Allowed difference.
        margin: f64,
    },
    /// Log loss rose.
    #[error(
        "{head}: log loss {challenger:.5} exceeds the champion's {champion:.5} by more than {margin} of it"
    )]
    LogLoss {
        /// Head.
        head: String,
        /// Challenger's value.
        challenger: f64,
        /// Champion's value.
        champion: f64,
        /// Allowed share.
        margin: f64,
    },
    /// Predictions are off as a whole.
    #[error("{head}: predicted over observed is {value:.3}, outside {low} to {high}")]
    Calibration {
        /// Head.
        head: String,
        /// Mean prediction over observed rate.
        value: f64,
        /// Lowest allowed.
        low: f64,
        /// Highest allowed.
        high: f64,
    },
    /// Nothing was judged.
    #[error("no head has {min_positives} positives in the held-out rows: hold out more days")]
    NothingJudged {
        /// The bound.
        min_positives: usize,
    },
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// All that failed; empty: the challenger passes.
    pub failures: Vec<Failure>,
    /// Heads that had too few positives to be judged.
    pub not_judged: Vec<String>,
}

impl Verdict {
    /// Whether the challenger may be promoted.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Judges a challenger by a report in which it is the first scorer and the champion, if there is one, the second,
/// on the newest rows that neither was trained on.
pub fn judge(challenger: &Model, report: &EvalReport, config: &GateConfig) -> Verdict {
    let mut verdict = Verdict { failures: Vec::new(), not_judged: Vec::new() };
    for parameter in challenger.parameters().iter().filter(|p| p.data.iter().any(|x| !x.is_finite())) {
        verdict.failures.push(Failure::NotFinite { parameter: parameter.name.clone() });
    }
    for head in &report.heads {
        judge_head(&mut verdict, report, &head.head, config);
    }
    if verdict.not_judged.len() == report.heads.len() {
        verdict.failures.push(Failure::NothingJudged { min_positives: config.min_positives });
    }
    verdict
}

fn judge_head(verdict: &mut Verdict, report: &EvalReport, head: &str, config: &GateConfig) {
    let Some(group) = report.group(head, Group::All) else { return };
    let Some(own) = group.scorers.first().map(|s| &s.metrics) else { return };
    let head = head.to_owned();
    let few = group.positives < config.min_positives;
    if few {
        verdict.not_judged.push(head.clone());
    }
    if let Some(value) = own.calibration.value
        && !few
        && !(config.calibration_low..=config.calibration_high).contains(&value)
    {
        let (low, high) = (config.calibration_low, config.calibration_high);
        verdict.failures.push(Failure::Calibration { head: head.clone(), value, low, high });
    }
    let Some(other) = group.scorers.get(1).map(|s| &s.metrics) else { return };
    if let (Some(challenger), Some(champion)) = (own.log_loss.value, other.log_loss.value)
        && challenger > champion * (1.0 + config.log_loss_margin)
    {
        let margin = config.log_loss_margin;
        verdict.failures.push(Failure::LogLoss { head: head.clone(), challenger, champion, margin });
    }
    if let (Some(challenger), Some(champion)) = (own.auc.value, other.auc.value)
        && !few
        && challenger < champion - config.auc_margin
    {
        let margin = config.auc_margin;
        verdict.failures.push(Failure::Auc { head, challenger, champion, margin });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::chunks::Chunks;
    use crate::dates::Zone;
    use crate::eval::{EvalOptions, evaluate};
    use crate::fixtures::*;
    use crate::join::{JoinOptions, join};
    use crate::scores::Scores;
    use lately_features::Event;
    use lately_model::ModelConfig;

    /// 60 requests of two items, of which the first is clicked; scorers give it a logit, the other the opposite.
    fn verdict(logits: &[f32], config: &GateConfig, broken: bool) -> Verdict {
        let mut log = Vec::new();
        for u in 0..60 {
            let name = format!("u{u}");
            log.push(Event::Impression(impression(&name, &name, &["a", "b"], u)));
            log.push(action(&name, "a", "click", u + 1, &name));
        }
        let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
        let d = join(&schema(), log, JoinOptions::default()).unwrap();
        let slice = d.all();
        let scorer = |logit: &f32| Scores {
            name: logit.to_string(),
            rows: (0..120).flat_map(|row| [if row % 2 == 0 { *logit } else { -logit }, -5.0, -5.0]).collect(),
            in_chunk: None,
            in_user: None,
            logits: true,
        };
        let scorers: Vec<_> = logits.iter().map(scorer).collect();
        let options = EvalOptions { resamples: 2, ..EvalOptions::default() };
        let report = evaluate(&slice, &Chunks::of(&slice, &Zone::utc(), 4), &scorers, &options).unwrap();
        let model_config = ModelConfig { cross_width: 8, hidden: vec![8], ..ModelConfig::default() };
        let mut model = Model::new(model_config, &d.schema, 1).unwrap();
        if broken {
            model.parameters_mut().for_each(|(_, data)| data[0] = f32::NAN);
        }
        judge(&model, &report, config)
    }

    fn config() -> GateConfig {
        GateConfig { min_positives: 50, ..GateConfig::default() }
    }

    #[test]
    fn an_equal_or_better_challenger_passes_and_a_first_one_needs_no_champion() {
        for logits in [&[2.0][..], &[2.0, 2.0], &[2.0, 1.0]] {
            let verdict = verdict(logits, &config(), false);
            assert!(verdict.passed(), "{verdict:?}");
            assert_eq!(verdict.not_judged, ["save", "hide"]);
        }
    }

    #[test]
    fn a_failure_says_which_number_and_by_how_much() {
        let words = |v: Verdict| v.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let worse = words(verdict(&[-1.0, 1.0], &config(), false));
        assert!(worse.contains("click: AUC 0.0000 is below the champion's 1.0000"), "{worse}");
        assert!(worse.contains("click: log loss 1.31326 exceeds"), "{worse}");
        assert!(words(verdict(&[1.0], &config(), true)).contains("not finite"));
        assert!(words(verdict(&[1.0], &GateConfig::default(), false)).contains("hold out more days"));
        let strict = GateConfig { calibration_low: 1.01, ..config() };
        assert!(words(verdict(&[1.0], &strict, false)).contains("predicted over observed is 1.000"));
    }
}

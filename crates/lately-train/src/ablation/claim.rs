//! What a paper says of a configuration, and whether a measurement agrees.

use serde::{Deserialize, Serialize};

use crate::eval::Estimate;

/// A paper's lift of HIT@3 over its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Claim {
    /// In percent.
    Lift(f64),
    /// No significant one.
    None(NotSignificant),
}

/// The words `n.s.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotSignificant {
    /// Not significant.
    #[serde(rename = "n.s.")]
    Yes,
}

/// Whether the sign of a measured lift is the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval excludes zero and the sign is the paper's; or it holds zero and so does the paper's.
    Agrees,
    /// The interval excludes zero on the other side; or the paper found nothing.
    Disagrees,
    /// The interval holds zero, or the rows are too few for one: this data does not tell.
    NotProven,
}

impl Verdict {
    /// Words for tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Disagrees => "DISAGREES",
            Self::NotProven => "not proven",
        }
    }
}

impl Claim {
    /// Words for tables.
    pub fn words(self) -> String {
        match self {
            Self::Lift(percent) => format!("{percent:+.2} %"),
            Self::None(_) => "n.s.".to_owned(),
        }
    }

    /// Compares signs.
    pub fn judge(self, lift: &Estimate) -> Verdict {
        match (self, sign(lift)) {
            (_, None) | (Self::Lift(_), Some(0)) => Verdict::NotProven,
            (Self::Lift(percent), Some(sign)) if (percent > 0.0) == (sign > 0) => Verdict::Agrees,
            (Self::None(_), Some(0)) => Verdict::Agrees,
            _ => Verdict::Disagrees,
        }
    }
}

/// Which side of zero the whole interval is on, 0 where it holds zero; `None` without an interval.
pub(crate) fn sign(estimate: &Estimate) -> Option<i32> {
    let (low, high) = (estimate.low?, estimate.high?);
    Some(i32::from(low > 0.0) - i32::from(high < 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(low: f64, high: f64) -> Estimate {
        Estimate { value: Some((low + high) / 2.0), low: Some(low), high: Some(high) }
    }

    #[test]
    fn a_sign_is_proven_only_where_the_interval_excludes_zero() {
        let (up, down, nothing) = (Claim::Lift(9.4), Claim::Lift(-14.86), Claim::None(NotSignificant::Yes));
        let wanted = [
            (estimate(0.1, 2.0), [Verdict::Agrees, Verdict::Disagrees, Verdict::Disagrees]),
            (estimate(-2.0, -0.1), [Verdict::Disagrees, Verdict::Agrees, Verdict::Disagrees]),
            (estimate(-0.1, 2.0), [Verdict::NotProven, Verdict::NotProven, Verdict::Agrees]),
            (estimate(0.0, 2.0), [Verdict::NotProven, Verdict::NotProven, Verdict::Agrees]),
        ];
        for (lift, verdicts) in wanted {
            assert_eq!([up, down, nothing].map(|c| c.judge(&lift)), verdicts, "{lift:?}");
        }
        let unknown = Estimate { value: Some(1.0), low: None, high: None };
        assert_eq!([up, nothing].map(|c| c.judge(&unknown)), [Verdict::NotProven; 2]);
    }

    #[test]
    fn claims_are_numbers_or_not_significant() {
        let read = |text: &str| serde_json::from_str::<Claim>(text);
        assert_eq!(read("-1.5").unwrap(), Claim::Lift(-1.5));
        assert_eq!(read("\"n.s.\"").unwrap().words(), "n.s.");
        assert!(read("\"about 3\"").is_err());
    }
}

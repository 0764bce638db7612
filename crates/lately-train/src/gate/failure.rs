//! What failed, in words: which number, its bound, and so by how much.

use serde::Serialize;

/// One number that failed.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// Features that are no numbers.
    #[error(
        "{rows} of the new rows have a feature that is not finite; none may: look at where {first} comes from"
    )]
    NotFiniteRows {
        /// How many rows.
        rows: usize,
        /// The item of the first one.
        first: String,
    },
    /// One user has too much to say.
    #[error("one user has {:.1} % of the new rows, at most {:.1} % may be: exclude it (a bot?), or wait for more rows", 100.0 * .share, 100.0 * .bound)]
    UserShare {
        /// The share.
        share: f64,
        /// Largest allowed.
        bound: f64,
    },
    /// A feature came or went.
    #[error(
        "{column}: {:.1} % of the new rows have it, {:.1} % had before: at most {:.1} points may lie between",
        100.0 * .now, 100.0 * .before, 100.0 * .margin
    )]
    Coverage {
        /// The feature, as in the model's profile.
        column: String,
        /// Share of the new rows.
        now: f64,
        /// Share before.
        before: f64,
        /// Largest difference.
        margin: f64,
    },
    /// Labels are much more frequent or rarer than before.
    #[error(
        "{head}: its rate in the new rows is {now:.5}, before {before:.5}: a factor of at most {factor} may lie between"
    )]
    Rate {
        /// Head.
        head: String,
        /// In the new rows.
        now: f64,
        /// Before.
        before: f64,
        /// Largest factor.
        factor: f64,
    },
    /// The champion no longer knows the rows.
    #[error(
        "{head}: the champion's AUC on the new rows is {now:.4}, it was {before:.4} when it was judged: it may fall by \
         {margin}; look for labels that are wrong"
    )]
    ChampionAuc {
        /// Head.
        head: String,
        /// On the new rows.
        now: f64,
        /// When it was judged.
        before: f64,
        /// Largest fall.
        margin: f64,
    },
    /// A weight is NaN or infinite.
    #[error("parameter `{parameter}` holds a value that is not finite")]
    NotFinite {
        /// Its name.
        parameter: String,
    },
    /// AUC fell.
    #[error(
        "{head}: AUC {challenger:.4} is below the champion's {champion:.4} by {:.4} (at most {margin} may be, where it is \
         proven {tolerance})", .champion - .challenger
    )]
    Auc {
        /// Head.
        head: String,
        /// Challenger's value.
        challenger: f64,
        /// Champion's value.
        champion: f64,
        /// Allowed difference.
        margin: f64,
        /// Allowed difference where it is proven.
        tolerance: f64,
    },
    /// Log loss rose.
    #[error(
        "{head}: log loss {challenger:.5} exceeds the champion's {champion:.5} by {:.4} of it (at most {margin} may be, where \
         it is proven {tolerance})", .challenger / .champion - 1.0
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
        /// Allowed share where it is proven.
        tolerance: f64,
    },
    /// Predictions are off as a whole.
    #[error(
        "{head}, {segment}: predicted over observed is {value:.3} [{from:.3}, {to:.3}], outside {low} to {high}"
    )]
    Calibration {
        /// Head.
        head: String,
        /// Rows that it is off on.
        segment: &'static str,
        /// Mean prediction over observed rate.
        value: f64,
        /// Lower end of its interval.
        from: f64,
        /// Upper end.
        to: f64,
        /// Lowest allowed.
        low: f64,
        /// Highest allowed.
        high: f64,
    },
    /// Scores are distributed otherwise.
    #[error(
        "{head}: the probabilities moved away from the champion's by a PSI of {psi:.3}, at most {bound} may be"
    )]
    ScoreShift {
        /// Head.
        head: String,
        /// Population stability index.
        psi: f64,
        /// Largest allowed.
        bound: f64,
    },
    /// A logit is out of the range in which serving is exact.
    #[error(
        "{head}: a logit of {value:.1}, at most {bound} may be: lower the learning rate or look for extreme features"
    )]
    Logit {
        /// Head.
        head: String,
        /// The largest, without sign.
        value: f64,
        /// Largest allowed.
        bound: f64,
    },
    /// The model tells nothing apart.
    #[error(
        "{head}: its logits spread by {value:.2e}, at least {bound:.0e} must be: it says the same of everything"
    )]
    Spread {
        /// Head.
        head: String,
        /// Standard deviation of its logits.
        value: f64,
        /// Smallest allowed.
        bound: f64,
    },
    /// It is too slow.
    #[error("a candidate takes {challenger:.2} us, the champion {champion:.2}: at most {bound:.2} may be")]
    Latency {
        /// us a candidate.
        challenger: f64,
        /// The champion's; 0 where there is none.
        champion: f64,
        /// Largest allowed, us.
        bound: f64,
    },
    /// Golden rows are not as they were recorded.
    #[error(
        "the golden rows ({rows}) score otherwise than recorded, by up to {error:.1e} of a probability: train again"
    )]
    Golden {
        /// Recorded rows.
        rows: usize,
        /// Largest difference of a probability.
        error: f64,
    },
    /// Nothing was judged.
    #[error("no head has {min_positives} positives in the held-out rows: hold out more days")]
    NothingJudged {
        /// The bound.
        min_positives: usize,
    },
}

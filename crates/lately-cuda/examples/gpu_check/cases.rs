//! What was compared, one case after another, and what came of each.

use std::fmt;

use serde::Serialize;

use crate::Failure;

/// All cases; `A` says how near two results are.
#[derive(Debug, Serialize)]
pub(crate) struct Report<A> {
    pub(crate) device: String,
    pub(crate) cases: Vec<Case<A>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Case<A> {
    pub(crate) name: String,
    pub(crate) rows: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome<A>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "is")]
pub(crate) enum Outcome<A> {
    Agrees(A),
    Differs(A),
    Failed(String),
    /// There are no kernels for the model.
    Unsupported(String),
}

impl<A: fmt::Display> Report<A> {
    pub(crate) fn new(device: String) -> Self {
        Self { device, cases: Vec::new() }
    }

    /// Prints a case, and keeps it.
    pub(crate) fn add(&mut self, case: Case<A>) {
        println!("  {case}");
        self.cases.push(case);
    }

    /// # Errors
    /// Where a case failed or differs, or none was compared at all.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let count = |f: fn(&Outcome<A>) -> bool| self.cases.iter().filter(|c| f(&c.outcome)).count();
        let wrong = count(|o| matches!(o, Outcome::Differs(_) | Outcome::Failed(_)));
        if wrong > 0 {
            return Err(format!("{wrong} of {} cases do not agree", self.cases.len()).into());
        }
        match count(|o| matches!(o, Outcome::Agrees(_))) {
            0 => Err("no case was compared".into()),
            _ => Ok(()),
        }
    }
}

impl<A> Outcome<A> {
    pub(crate) fn of(agrees: bool, how: A) -> Self {
        if agrees { Self::Agrees(how) } else { Self::Differs(how) }
    }
}

impl<A: fmt::Display> fmt::Display for Case<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, found) = match &self.outcome {
            Outcome::Agrees(a) => ("ok", a.to_string()),
            Outcome::Differs(a) => ("DIFFERS", a.to_string()),
            Outcome::Failed(why) => ("FAILED", why.clone()),
            Outcome::Unsupported(why) => ("unsupported", why.clone()),
        };
        write!(f, "{:<40} {:>5} rows  {word:<11} {found}", self.name, self.rows)
    }
}

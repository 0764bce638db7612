//! Variants that a request forces on itself, to try an experiment out.

use std::collections::BTreeMap;

use crate::ask::bad;
use crate::error::ApiError;

/// `experiment:variant`, several joined by commas, as a query has them.
pub(super) fn from_query(text: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
    let parts = text.into_iter().flat_map(|t| t.split(','));
    let pair = |part: &str| match part.split_once(':') {
        Some((experiment, variant)) => Ok((experiment.to_owned(), variant.to_owned())),
        None => Err(bad(format!("variants: `{part}` is not like experiment:variant"))),
    };
    parts.map(pair).collect()
}

/// By name, as replies have them.
pub(super) fn named(exposures: &[lately_rank::Exposure]) -> BTreeMap<String, String> {
    exposures.iter().map(|e| (e.experiment.clone(), e.variant.clone())).collect()
}

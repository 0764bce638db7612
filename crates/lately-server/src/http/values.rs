//! Feature values in JSON.

use std::collections::BTreeMap;

use lately_features::FeatureValue;
use lately_features::event::FeatureValues;
use serde::Deserialize;
use utoipa::ToSchema;

/// The value of a feature: a text or texts for a categorical one, a number, or numbers for an embedding.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum WireValue {
    /// One categorical value.
    Text(String),
    /// A number.
    Number(f64),
    /// Categorical values.
    Texts(Vec<String>),
    /// An embedding.
    Vector(Vec<f32>),
}

/// Features by name; one that is not named is missing.
pub(crate) type WireFeatures = BTreeMap<String, WireValue>;

pub(crate) fn features(wire: WireFeatures) -> FeatureValues {
    let value = |value| match value {
        WireValue::Text(text) => FeatureValue::Text(text),
        WireValue::Number(number) => FeatureValue::Number(number),
        WireValue::Texts(texts) => FeatureValue::Texts(texts),
        WireValue::Vector(vector) => FeatureValue::Vector(vector),
    };
    wire.into_iter().map(|(name, v)| (name, value(v))).collect()
}

//! A table of item vectors as bytes: one safetensors file with its manifest. Whatever the bytes, reading never panics.

use std::collections::HashMap;

use lately_features::schema::FeatureKind;
use lately_features::vectors::{ColdItems, VectorsError};
use lately_features::{ItemId, ItemVectors, Schema};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

/// Written by this version; newer ones are refused.
pub const FORMAT: u32 = 1;
/// Key of the manifest in the file's metadata.
const MANIFEST: &str = "lately.embedding";

/// Item vectors before they have a version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Items with a vector, each once.
    pub items: Vec<ItemId>,
    /// items x d, d the schema's item embedding.
    pub values: Vec<f32>,
    /// How the others get one.
    pub cold: Option<ColdItems>,
}

/// Where the vectors come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingManifest {
    /// Version of the file format.
    pub format: u32,
    /// `ppmi`, `item2vec`, `residual`, or `import`.
    pub method: String,
    /// Settings of the method, or the imported file.
    pub settings: serde_json::Value,
    /// Length of a vector.
    pub dim: usize,
    /// Items with a vector of their own.
    pub items: usize,
    /// Whether other items get one from their features.
    pub cold: bool,
    /// First and last time of the actions that they were learned from, ms since 1970 UTC; absent for imported ones.
    #[serde(default)]
    pub data_range_ms: Option<(i64, i64)>,
    /// The features that vectors of cold items are predicted from.
    pub inputs: Vec<String>,
}

impl EmbeddingManifest {
    /// Of a table under a schema.
    pub fn new(
        table: &Table,
        schema: &Schema,
        method: &str,
        settings: serde_json::Value,
        data_range_ms: Option<(i64, i64)>,
    ) -> Self {
        Self {
            format: FORMAT,
            method: method.to_owned(),
            settings,
            dim: schema.item_embedding_dim(),
            items: table.items.len(),
            cold: table.cold.is_some(),
            data_range_ms,
            inputs: inputs(schema),
        }
    }
}

/// What of the item features a prediction depends on.
fn inputs(schema: &Schema) -> Vec<String> {
    let input = |kind: &FeatureKind| match kind {
        FeatureKind::Categorical { name, buckets, max_values, .. } => {
            Some(format!("{name}: {buckets} buckets, {max_values} values"))
        }
        FeatureKind::Numeric { name, log } => Some(format!("{name}: number, log {log}")),
        FeatureKind::Embedding { .. } => None,
    };
    schema.item_features.iter().filter_map(input).collect()
}

/// Why bytes are no table.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not a whole safetensors file.
    #[error("item vectors: {0}: the file is damaged or no safetensors file; make them again")]
    File(#[from] safetensors::SafeTensorError),
    /// The manifest is absent or unreadable.
    #[error("item vectors: manifest: {0}: the file was not written by Lately or is damaged")]
    Manifest(String),
    /// Written by a newer version.
    #[error("item vectors: format {0} is newer than {FORMAT}: update this program")]
    Format(u64),
    /// A tensor is absent, of another type or shape, or not finite.
    #[error(
        "item vectors: tensor `{0}` is absent, of another shape or not finite: the file is damaged; make them again"
    )]
    Tensor(&'static str),
    /// They do not belong to this schema.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
}

/// The table as a safetensors file; the same table and manifest always give the same bytes.
///
/// # Errors
/// Where the manifest cannot be written as JSON.
pub fn to_bytes(table: &Table, manifest: &EmbeddingManifest) -> Result<Vec<u8>, ArtifactError> {
    let json = serde_json::to_string(manifest).map_err(|e| ArtifactError::Manifest(e.to_string()))?;
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for item in &table.items {
        ids.extend(item.as_str().as_bytes());
        ends.extend((ids.len() as u64).to_le_bytes());
    }
    let (n, d) = (table.items.len(), manifest.dim);
    let mut tensors = vec![
        ("ids", Dtype::U8, vec![ids.len()], ids),
        ("id_ends", Dtype::U64, vec![n], ends),
        ("vectors", Dtype::F32, vec![n, d], floats(&table.values)),
    ];
    if let Some(cold) = &table.cold {
        let (values, numeric) = (cold.values.len(), cold.scale.len());
        let pairs = cold.values.iter().flat_map(|(f, b)| [f.to_le_bytes(), b.to_le_bytes()]);
        let scale: Vec<f32> = cold.scale.iter().flat_map(|(mean, std)| [*mean, *std]).collect();
        tensors.extend([
            ("cold.bias", Dtype::F32, vec![d], floats(&cold.bias)),
            ("cold.values", Dtype::U32, vec![values, 2], pairs.flatten().collect()),
            ("cold.categorical", Dtype::F32, vec![values, d], floats(&cold.categorical)),
            ("cold.scale", Dtype::F32, vec![numeric, 2], floats(&scale)),
            ("cold.numeric", Dtype::F32, vec![numeric, d], floats(&cold.numeric)),
        ]);
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in &tensors {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes)?));
    }
    Ok(safetensors::serialize(views, Some(HashMap::from([(MANIFEST.to_owned(), json)])))?)
}

/// Reads a table for a schema; `version` is what models will name.
///
/// # Errors
/// Any [`ArtifactError`].
pub fn from_bytes(
    bytes: &[u8],
    version: &str,
    schema: &Schema,
) -> Result<(ItemVectors, EmbeddingManifest), ArtifactError> {
    let file = SafeTensors::deserialize(bytes)?;
    let manifest = manifest(bytes)?;
    let (want, got) = (schema.item_embedding_dim(), manifest.dim);
    if want != got {
        let feature = schema.item_embedding.clone();
        return Err(VectorsError::Dim { feature, want, got }.into());
    }
    if manifest.cold && manifest.inputs != inputs(schema) {
        return Err(VectorsError::OtherFeatures.into());
    }
    let values = numbers(&file, "vectors", got)?;
    let cold = if manifest.cold { Some(cold(&file, got)?) } else { None };
    Ok((ItemVectors::new(schema, version, ids(&file)?, values, cold)?, manifest))
}

fn manifest(bytes: &[u8]) -> Result<EmbeddingManifest, ArtifactError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let json = header.metadata().as_ref().and_then(|m| m.get(MANIFEST));
    let json = json.ok_or_else(|| ArtifactError::Manifest(format!("no `{MANIFEST}` in the metadata")))?;
    let wrong = |e: serde_json::Error| ArtifactError::Manifest(e.to_string());
    let value: serde_json::Value = serde_json::from_str(json).map_err(wrong)?;
    // A newer format may have other keys: say so instead of naming the first unknown one.
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > u64::from(FORMAT) => Err(ArtifactError::Format(format)),
        _ => serde_json::from_value(value).map_err(wrong),
    }
}

fn ids(file: &SafeTensors<'_>) -> Result<Vec<ItemId>, ArtifactError> {
    let texts = tensor(file, "ids", Dtype::U8, None)?;
    let (ends, _) = tensor(file, "id_ends", Dtype::U64, None)?.as_chunks();
    let mut start = 0;
    let mut ids = Vec::with_capacity(ends.len());
    for end in ends.iter().map(|b| u64::from_le_bytes(*b) as usize) {
        let text = texts.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok());
        ids.push(text.and_then(|t| ItemId::new(t).ok()).ok_or(ArtifactError::Tensor("ids"))?);
        start = end;
    }
    Ok(ids)
}

fn cold(file: &SafeTensors<'_>, dim: usize) -> Result<ColdItems, ArtifactError> {
    let (words, _) = tensor(file, "cold.values", Dtype::U32, Some(2))?.as_chunks();
    let words: Vec<u32> = words.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let cold = ColdItems {
        bias: numbers(file, "cold.bias", dim)?,
        values: words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        categorical: numbers(file, "cold.categorical", dim)?,
        scale: numbers(file, "cold.scale", 2)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        numeric: numbers(file, "cold.numeric", dim)?,
    };
    let parts = [&cold.bias, &cold.categorical, &cold.numeric];
    if parts.iter().any(|part| part.iter().any(|x| !x.is_finite())) {
        return Err(ArtifactError::Tensor("cold"));
    }
    Ok(cold)
}

/// The bytes of a tensor; `width` is the length of its last dimension.
fn tensor<'a>(
    file: &SafeTensors<'a>,
    name: &'static str,
    dtype: Dtype,
    width: Option<usize>,
) -> Result<&'a [u8], ArtifactError> {
    let tensor = file.tensor(name).map_err(|_| ArtifactError::Tensor(name))?;
    if tensor.dtype() != dtype || width.is_some_and(|w| tensor.shape().last() != Some(&w)) {
        return Err(ArtifactError::Tensor(name));
    }
    Ok(tensor.data())
}

fn numbers(file: &SafeTensors<'_>, name: &'static str, width: usize) -> Result<Vec<f32>, ArtifactError> {
    let (numbers, _) = tensor(file, name, Dtype::F32, Some(width))?.as_chunks();
    Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use lately_features::Features;

    use super::*;
    use crate::fixtures::schema;
    use crate::random::Random;

    fn table() -> Table {
        Table {
            items: ["a", "größer"].map(|t| ItemId::new(t).unwrap()).to_vec(),
            values: (0..8).map(|n| n as f32).collect(),
            cold: Some(ColdItems {
                bias: vec![0.5; 4],
                values: vec![],
                categorical: vec![],
                scale: vec![(1.0, 2.0)],
                numeric: vec![1.0, 2.0, 3.0, 4.0],
            }),
        }
    }

    fn bytes() -> Vec<u8> {
        let settings = serde_json::json!({ "seed": 1 });
        let manifest = EmbeddingManifest::new(&table(), &schema(), "ppmi", settings, Some((1, 2)));
        to_bytes(&table(), &manifest).unwrap()
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
        let (vectors, manifest) = from_bytes(&bytes(), "v", &schema()).unwrap();
        assert_eq!(bytes(), bytes());
        assert_eq!((manifest.items, manifest.dim, manifest.data_range_ms), (2, 4, Some((1, 2))));
        let Table { items, values, cold } = table();
        assert_eq!(vectors, ItemVectors::new(&schema(), "v", items, values, cold).unwrap());
        let mut features = Features::encode(&schema().item_features, &Default::default()).unwrap();
        vectors.put(&ItemId::new("größer").unwrap(), &mut features);
        assert_eq!(*features.embedding, [4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn another_schema_is_refused_with_words() {
        let other = |change: &dyn Fn(&mut FeatureKind)| {
            let mut schema = (*schema()).clone();
            schema.item_features.iter_mut().for_each(change);
            from_bytes(&bytes(), "v", &schema).unwrap_err().to_string()
        };
        let longer = other(&|f| {
            if let FeatureKind::Embedding { dim, .. } = f {
                *dim = 8;
            }
        });
        assert!(longer.contains("of 4 numbers: the schema's `vector` has 8"), "{longer}");
        let logarithm = other(&|f| {
            if let FeatureKind::Numeric { log, .. } = f {
                *log = true;
            }
        });
        assert!(logarithm.contains("other item features"), "{logarithm}");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let (whole, mut random) = (bytes(), Random::of(1, &[]));
        for cut in 0..whole.len() {
            assert!(from_bytes(&whole[..cut], "v", &schema()).is_err(), "cut at {cut}");
        }
        for _ in 0..2_000 {
            let mut flipped = whole.clone();
            let at = random.below(flipped.len());
            flipped[at] ^= 1 << random.below(8);
            let _ = from_bytes(&flipped, "v", &schema());
        }
    }
}

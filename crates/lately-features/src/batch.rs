//! The flat arrays that the model takes: requests once, their candidates many, sequences ragged.

use serde::{Deserialize, Serialize};

use crate::schema::{FeatureKind, Schema};

/// Where the features of one side (user or item) stand in a [`Columns`] row.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Categorical features in order.
    pub categorical: Vec<CategoricalSlots>,
    /// Categorical slots a row, over all features.
    pub categorical_width: usize,
    /// Numeric features a row.
    pub numeric_width: usize,
    /// Numbers of embedding features a row.
    pub embedding_width: usize,
}

/// The slots of one categorical feature.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoricalSlots {
    /// Feature name.
    pub name: String,
    /// First slot in the row.
    pub start: usize,
    /// Number of slots; empty ones hold 0.
    pub slots: usize,
    /// Rows of its table.
    pub buckets: usize,
    /// Width of its trained embedding.
    pub dim: usize,
}

impl Layout {
    /// Layout of a list of declared features.
    pub fn of(kinds: &[FeatureKind]) -> Self {
        let mut layout =
            Self { categorical: Vec::new(), categorical_width: 0, numeric_width: 0, embedding_width: 0 };
        for kind in kinds {
            match kind {
                FeatureKind::Categorical { name, buckets, dim, max_values, .. } => {
                    layout.categorical.push(CategoricalSlots {
                        name: name.clone(),
                        start: layout.categorical_width,
                        slots: usize::from(*max_values),
                        buckets: *buckets as usize,
                        dim: usize::from(*dim),
                    });
                    layout.categorical_width += usize::from(*max_values);
                }
                FeatureKind::Numeric { .. } => layout.numeric_width += 1,
                FeatureKind::Embedding { dim, .. } => layout.embedding_width += usize::from(*dim),
            }
        }
        layout
    }

    /// Where the item embedding of the sequence starts in an embedding row, and its length.
    pub fn item_embedding(schema: &Schema) -> (usize, usize) {
        let mut start = 0;
        for kind in &schema.item_features {
            if let FeatureKind::Embedding { name, dim } = kind {
                if *name == schema.item_embedding {
                    return (start, usize::from(*dim));
                }
                start += usize::from(*dim);
            }
        }
        (0, 0)
    }
}

/// Feature columns of one side, row-major.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// rows x `categorical_width` hash buckets; 0 is an empty slot.
    pub categorical: Vec<u32>,
    /// rows x `numeric_width`; NaN where missing.
    pub numeric: Vec<f32>,
    /// rows x `embedding_width`; zeros where missing.
    pub embedding: Vec<f32>,
}

/// One batch: R requests, N rows (candidates) and T tokens in all.
///
/// A request's user part and tokens stand here once, however many candidates it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureBatch {
    /// R + 1 offsets: request r has the rows `row_offsets[r]..row_offsets[r + 1]`.
    pub row_offsets: Vec<u32>,
    /// R + 1 offsets: request r has the tokens `token_offsets[r]..token_offsets[r + 1]`, newest first.
    pub token_offsets: Vec<u32>,
    /// R rows of user features.
    pub user: Columns,
    /// R surfaces of the requests, 0 where none was named.
    pub surface: Vec<u16>,
    /// T positions of action types in the schema.
    pub token_action: Vec<u8>,
    /// T sets of all the action types that a token stands for, see [`crate::action_bit`].
    pub token_actions: Vec<u64>,
    /// T surfaces of the actions, 0 where none was named.
    pub token_surface: Vec<u16>,
    /// T ages at the request, ms; negative for an action that is dated later than the request.
    pub token_age_ms: Vec<i64>,
    /// T x d item embeddings, d the schema's item embedding.
    pub token_item: Vec<f32>,
    /// N rows of item features.
    pub item: Columns,
    /// N x d embeddings of the candidates, the same d.
    pub candidate: Vec<f32>,
    /// N x H labels, 0 or 1; empty where nothing is known (serving).
    pub label: Vec<f32>,
}

impl Default for FeatureBatch {
    fn default() -> Self {
        Self {
            row_offsets: vec![0],
            token_offsets: vec![0],
            user: Columns::default(),
            surface: Vec::new(),
            token_action: Vec::new(),
            token_actions: Vec::new(),
            token_surface: Vec::new(),
            token_age_ms: Vec::new(),
            token_item: Vec::new(),
            item: Columns::default(),
            candidate: Vec::new(),
            label: Vec::new(),
        }
    }
}

impl FeatureBatch {
    /// Number of requests.
    pub fn requests(&self) -> usize {
        self.row_offsets.len() - 1
    }
    /// Number of rows (candidates).
    pub fn rows(&self) -> usize {
        self.row_offsets.last().map_or(0, |n| *n as usize)
    }
    /// Number of tokens over all requests.
    pub fn tokens(&self) -> usize {
        self.token_offsets.last().map_or(0, |n| *n as usize)
    }
    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.row_offsets.truncate(1);
        self.token_offsets.truncate(1);
        for c in [&mut self.user, &mut self.item] {
            c.categorical.clear();
            c.numeric.clear();
            c.embedding.clear();
        }
        self.surface.clear();
        self.token_action.clear();
        self.token_actions.clear();
        self.token_surface.clear();
        self.token_age_ms.clear();
        self.token_item.clear();
        self.candidate.clear();
        self.label.clear();
    }
}

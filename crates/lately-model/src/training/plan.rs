//! Which parameter does what, for a device that learns.

use std::ops::Range;

use crate::config::Encoder;
use crate::rate;
use crate::{AcceleratorError, Model};

/// A trained tensor: an outputs x inputs linear map, a table of rows, or a vector (columns 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterPlan {
    /// First dimension.
    pub rows: usize,
    /// Second one; 1 for a vector.
    pub columns: usize,
    /// Whether it has two dimensions.
    pub matrix: bool,
    /// Whether it is a hashed embedding table: rows that a step's batch did not name do not move.
    pub table: bool,
}

/// A table whose rows, averaged over slots, are a block of the top's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableIds {
    /// The table's number among the parameters.
    pub table: usize,
    /// First column of the block.
    pub offset: usize,
    /// Indices a row.
    pub slots: usize,
}

/// A table whose rows are added up to the action part of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTable {
    /// The table's number among the parameters.
    pub table: usize,
    /// Indices a token.
    pub slots: usize,
}

/// A post-norm layer's weights by their numbers among the parameters; each bias follows its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerIds {
    /// 3d x d: queries, keys and values.
    pub in_proj: usize,
    /// d x d.
    pub out_proj: usize,
    /// d to the feed-forward width.
    pub linear1: usize,
    /// Back.
    pub linear2: usize,
    /// Gamma; beta follows.
    pub norm1: usize,
    /// Gamma; beta follows.
    pub norm2: usize,
}

/// A transformer over tokens [action ; item] or [action ; item ; candidate].
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderIds {
    /// Width of a request's token.
    pub token: usize,
    /// Width d of an encoder token: `token`, then the candidate's part.
    pub width: usize,
    /// Width of the action part, which comes first.
    pub action: usize,
    /// Width of an item's embedding.
    pub item: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Most tokens of a segment.
    pub length: usize,
    /// Tables of the action part.
    pub tables: Vec<TokenTable>,
    /// At least one.
    pub layers: Vec<LayerIds>,
    /// The linear map of the maximum over tokens, whose result comes first in the output.
    pub pool: Option<usize>,
    /// First encoded tokens that are given on.
    pub first_k: usize,
    /// Width of the output.
    pub output: usize,
}

/// The rate tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateIds {
    /// Inputs to the hidden layer.
    pub hidden: usize,
    /// Hidden layer to logits.
    pub head: usize,
    /// Width of the summary of the sequence, which comes first in its inputs.
    pub summary: usize,
    /// Columns of the top's inputs that follow it.
    pub user: Range<usize>,
}

/// The whole network by the numbers of its parameters. It computes what `network.rs` computes.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingPlan {
    /// All of them.
    pub parameters: Vec<ParameterPlan>,
    /// The user sequence; none where the model has none.
    pub encoder: Option<EncoderIds>,
    /// Width of the top's inputs: the encoder's output first.
    pub inputs: usize,
    /// Trained columns of the top's inputs, in the order of [`Stretch::tables`](super::Stretch::tables).
    pub tables: Vec<TableIds>,
    /// From the inputs to the cross layers' width.
    pub project: Option<usize>,
    /// `x = x0 * (W x + b) + x`.
    pub cross: Vec<usize>,
    /// Hidden layers, each with a ReLU and dropout.
    pub mlp: Vec<usize>,
    /// The heads.
    pub head: usize,
    /// What is added to the logits but not to those of the list term.
    pub rate: Option<RateIds>,
    /// Number of heads.
    pub heads: usize,
    /// Share of dropped activations.
    pub dropout: f32,
}

impl TrainingPlan {
    /// Of a model.
    ///
    /// # Errors
    /// [`AcceleratorError::Unsupported`] of encoders that are no transformer, and of the compatibility mode.
    pub fn of(model: &Model) -> Result<Self, AcceleratorError> {
        let network = &model.network;
        let (plan, config) = (&network.plan, &network.config);
        let refused = |what: &str| Err(AcceleratorError::Unsupported(what.to_owned()));
        if config.compatibility {
            return refused("training in the compatibility mode");
        }
        let encoder = match config.encoder {
            Encoder::None => None,
            Encoder::Transact | Encoder::Bst if !plan.encoder.layers.is_empty() => Some(encoder(model)),
            _ => return refused("training this encoder (only transact, bst and none)"),
        };
        let parameters = network.parameters.iter().map(|p| ParameterPlan {
            rows: p.shape.first().copied().unwrap_or(0),
            columns: p.shape.get(1).copied().unwrap_or(1),
            matrix: p.shape.len() == 2,
            table: p.table,
        });
        // In the order in which they are staged.
        let of_side = |side: &crate::plan::Side| {
            let table =
                |t: &crate::plan::Table| TableIds { table: t.id, offset: t.offset, slots: t.slots.slots };
            side.tables.iter().map(table).collect::<Vec<_>>()
        };
        let mut tables = of_side(&plan.user);
        tables.extend(plan.surface.map(|(table, offset)| TableIds { table, offset, slots: 1 }));
        tables.extend(of_side(&plan.item));
        Ok(Self {
            parameters: parameters.collect(),
            encoder,
            inputs: plan.inputs,
            tables,
            project: plan.project,
            cross: plan.cross.clone(),
            mlp: plan.mlp.clone(),
            head: plan.head,
            rate: plan.rate.as_ref().map(|r| RateIds {
                hidden: r.hidden,
                head: r.head,
                summary: rate::summary_width(plan.actions),
                user: r.user.clone(),
            }),
            heads: plan.heads,
            dropout: config.dropout,
        })
    }

    /// Width of the encoder's output.
    pub fn output(&self) -> usize {
        self.encoder.as_ref().map_or(0, |e| e.output)
    }
}

fn encoder(model: &Model) -> EncoderIds {
    let (plan, config) = (&model.network.plan, &model.network.config);
    let e = &plan.encoder;
    let mut tables = vec![TokenTable { table: e.action_table, slots: e.slots }];
    let more = e.surface_table.into_iter().chain(e.age_table.map(|(id, _)| id));
    tables.extend(more.map(|table| TokenTable { table, slots: 1 }));
    EncoderIds {
        token: e.token,
        width: e.width,
        action: config.action_dim,
        item: plan.item_dim,
        heads: config.attention_heads,
        ffn: config.ffn,
        length: model.length + usize::from(e.appended),
        tables,
        layers: e.layers.iter().map(LayerIds::of).collect(),
        pool: e.pool,
        first_k: e.first_k,
        output: e.output,
    }
}

impl LayerIds {
    fn of(ids: &crate::plan::LayerIds) -> Self {
        let crate::plan::LayerIds { in_proj, out_proj, linear1, linear2, norm1, norm2 } = *ids;
        Self { in_proj, out_proj, linear1, linear2, norm1, norm2 }
    }
}

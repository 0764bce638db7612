//! What can be chosen about the model. The default is TransAct v1.1 with full-rank DCN v2.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// How the user sequence enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// Not at all.
    None,
    /// The mean over tokens of [action embedding ; item embedding].
    Mean,
    /// Target attention: a sum over tokens of [action embedding ; item embedding], weighted by a small network that
    /// sees token and candidate.
    Din,
    /// Behaviour Sequence Transformer: the candidate is a token among the items, without action types.
    Bst,
    /// A post-norm transformer over the tokens.
    #[default]
    Transact,
}

impl Encoder {
    /// All names, as configuration files and command lines spell them.
    pub const NAMES: &str = "none, mean, din, bst or transact";
}

/// Which actions become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SequenceActions {
    /// All that feed the sequence.
    #[default]
    All,
    /// Those whose polarity in the schema is positive.
    Positive,
}

/// How the candidate meets the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// The candidate's embedding stands in every token: d = action + 2 x item.
    #[default]
    Concat,
    /// The candidate is one more token, the first, with a trained vector in place of an action: d = action + item.
    Append,
    /// The encoder does not see the candidate: d = action + item; it runs once a request.
    None,
}

/// How matrices are multiplied; weights and everything else are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In f32.
    #[default]
    F32,
    /// Factors as bfloat16 numbers, one each or two, sums in f32; see [`lately_kernels::bf16`].
    Bf16,
}

/// What `transact` gives on of its encoded tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outputs {
    /// The first K, and the maximum over all through a linear map.
    FirstKMax,
    /// The first K.
    FirstK,
    /// The maximum over all through a linear map.
    Max,
    /// All.
    All,
}

/// Configuration of the model. Unknown keys are refused, missing ones take the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// How the user sequence enters. Default `transact`.
    pub encoder: Encoder,
    /// Which actions become tokens, of the affinity too. Without effect in compatibility mode. Default `all`.
    pub sequence_actions: SequenceActions,
    /// Whether tokens carry their action type; without, a token is its item alone. `bst` never carries it, the
    /// compatibility mode always. Default true.
    pub action_types: bool,
    /// Whether a token carries all types of actions on its item in its request, their embeddings averaged, instead of
    /// the one of highest priority; at most 64 action types. Without effect in compatibility mode or without action
    /// types. Default false.
    pub multi_action: bool,
    /// Whether an embedding of the surface on which it happened is added to the token's action part. Off in
    /// compatibility mode. Default false.
    pub token_surface: bool,
    /// Buckets of the token's age whose embedding is added to its action part: even steps of the logarithm from 1 s
    /// to a year; 0 for none. Off in compatibility mode. Default 0.
    pub age_buckets: usize,
    /// Transformer layers of `transact`, 1 to 32. Default 2.
    pub layers: usize,
    /// Transformer layers of `bst`, 1 to 32. Default 1, as in its paper.
    pub bst_layers: usize,
    /// Attention heads; they divide the width of a token. Default 1.
    pub attention_heads: usize,
    /// Width of the transformer's feed-forward layer. Default 32.
    pub ffn: usize,
    /// First K encoded tokens that are given on; 0 for all. Default 1. The paper's 10 gave less on 92 thousand rows of
    /// KuaiRand (validation AUC of clicks .751 against .758), more on 119 thousand of Polis.
    pub first_k: usize,
    /// Whether `transact` gives on the maximum over tokens, through a linear map. Default true.
    pub max_pool: bool,
    /// What `transact` gives on; where it is absent, `first_k` and `max_pool` say it, as they did before there was
    /// this key. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
    /// Width of the hidden layer that weighs a token for `din`. Default 36.
    pub din_hidden: usize,
    /// How the candidate meets the tokens of `transact`. Default `concat`.
    pub fusion: Fusion,
    /// Width of the action type's embedding. Default 32.
    pub action_dim: usize,
    /// Whether the cross layers also see how near the candidate is to the tokens of each action type: 4 numbers a
    /// type, see `affinity.rs`. Ours, not the paper's; without effect where `encoder` is `none`, and off in
    /// compatibility mode. Default true.
    pub affinity: bool,
    /// Hidden width of the rate tower, which models how much a user acts at all beside what orders a list, see `rate.rs`;
    /// 0 for none. Ours, not the paper's; off in compatibility mode. Default 0.
    pub rate_hidden: usize,
    /// Share of dropped activations in training, 0 to below 1. Default 0.1.
    pub dropout: f32,
    /// DCN v2 cross layers, 0 to 16. Default 2.
    pub cross_layers: usize,
    /// Width of the cross layers: the inputs are first mapped to it linearly; 0 for none of this. Default 0.
    pub cross_width: usize,
    /// Widths of the MLP's hidden layers. Default 512, 256.
    pub hidden: Vec<usize>,
    /// Exactly the official module's semantics, to import its weights: action 0 is padding and masked, actions later
    /// than the request are masked, position 0 is never masked, max-pool runs over every position, and the cross
    /// layers see the encoder's output and raw numeric features only. Default false.
    pub compatibility: bool,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            encoder: Encoder::Transact,
            sequence_actions: SequenceActions::All,
            action_types: true,
            multi_action: false,
            token_surface: false,
            age_buckets: 0,
            layers: 2,
            bst_layers: 1,
            attention_heads: 1,
            ffn: 32,
            first_k: 1,
            max_pool: true,
            outputs: None,
            din_hidden: 36,
            fusion: Fusion::Concat,
            action_dim: 32,
            affinity: true,
            rate_hidden: 0,
            dropout: 0.1,
            cross_layers: 2,
            cross_width: 0,
            hidden: vec![512, 256],
            compatibility: false,
        }
    }
}

impl ModelConfig {
    /// The TransAct paper's own geometry where the default is another: the first 10 encoded tokens are given on.
    pub fn paper() -> Self {
        Self { first_k: 10, ..Self::default() }
    }

    /// Checks ranges; `item` is the width of the schema's item embedding.
    pub(crate) fn validate(&self, item: usize) -> Result<(), ModelError> {
        check("layers", self.layers, 1, 32)?;
        check("age_buckets", self.age_buckets, 0, 256)?;
        check("bst_layers", self.bst_layers, 1, 32)?;
        check("ffn", self.ffn, 1, 16_384)?;
        check("first_k", self.first_k, 0, 1_024)?;
        if self.first_k == 0 && matches!(self.outputs, Some(Outputs::FirstK | Outputs::FirstKMax)) {
            let range = "at least 1 with these `outputs`; for all tokens set outputs to all";
            return Err(refused("first_k", &0, range.into()));
        }
        check("action_dim", self.action_dim, 1, 1_024)?;
        check("rate_hidden", self.rate_hidden, 0, 16_384)?;
        check("cross_layers", self.cross_layers, 0, 16)?;
        check("cross_width", self.cross_width, 0, 65_536)?;
        check("hidden", self.hidden.len(), 0, 16)?;
        for width in &self.hidden {
            check("hidden", *width, 1, 65_536)?;
        }
        check("din_hidden", self.din_hidden, 1, 16_384)?;
        if self.compatibility && matches!(self.encoder, Encoder::Din | Encoder::Bst) {
            let range = "transact in compatibility mode: the official module knows no other";
            return Err(refused("encoder", &format!("{:?}", self.encoder).to_lowercase(), range.into()));
        }
        if self.compatibility && self.fusion == Fusion::Append {
            let range = "concat or none in compatibility mode: the official module knows no other";
            return Err(refused("fusion", &"append", range.into()));
        }
        let width = self.token_width(item);
        check("attention_heads", self.attention_heads, 1, width)?;
        if !width.is_multiple_of(self.attention_heads) {
            let range = format!("a divisor of the token's width {width}");
            return Err(refused("attention_heads", &self.attention_heads, range));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(refused("dropout", &self.dropout, "from 0 to below 1".into()));
        }
        Ok(())
    }

    /// First tokens that are given on, of a sequence of at most `length`.
    pub(crate) fn first_tokens(&self, length: usize) -> usize {
        if self.first_k == 0 { length } else { self.first_k }
    }

    /// (first tokens that `transact` gives on, whether also the maximum).
    pub(crate) fn compression(&self, length: usize) -> (usize, bool) {
        match self.outputs {
            None => (self.first_tokens(length), self.max_pool),
            Some(Outputs::FirstKMax) => (self.first_tokens(length), true),
            Some(Outputs::FirstK) => (self.first_tokens(length), false),
            Some(Outputs::Max) => (0, true),
            Some(Outputs::All) => (length, false),
        }
    }

    /// Width of a token as the encoder sees it.
    pub(crate) fn token_width(&self, item: usize) -> usize {
        let concat = self.encoder != Encoder::Bst && self.fusion == Fusion::Concat;
        self.action_dim + item * if concat { 2 } else { 1 }
    }
}

pub(crate) fn refused(key: &'static str, value: &impl ToString, range: String) -> ModelError {
    ModelError::Config { key, value: value.to_string(), range }
}

fn check(key: &'static str, value: usize, low: usize, high: usize) -> Result<(), ModelError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(refused(key, &value, format!("{low} to {high}")))
}

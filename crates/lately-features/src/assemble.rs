//! **The** function that turns a request into what the model sees. Serving, replay and training call this one, so
//! that there are no two code paths for a feature.

use std::sync::Arc;

use crate::batch::{Columns, FeatureBatch, Layout};
use crate::entity::Features;
use crate::id::ItemId;
use crate::schema::Schema;
use crate::sequence::UserSequence;

/// One token of the user sequence: one item in one request, with the strongest action on it.
#[derive(Debug, Clone)]
pub struct Token {
    /// Position of the action type in the schema.
    pub action: u8,
    /// All types of the actions that it stands for, see [`action_bit`].
    pub actions: u64,
    /// Surface plus 1; 0 where none was named.
    pub surface: u16,
    /// Time of the newest action that it stands for, ms since 1970 UTC.
    pub time_ms: i64,
    /// Features of the item; `None` where the item is unknown.
    pub item: Option<Arc<Features>>,
}

/// The bit of an action type in a set of them; the types from the 65th on have none.
pub fn action_bit(action: u8) -> u64 {
    1u64.checked_shl(action.into()).unwrap_or(0)
}

/// When and where a request is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    /// Server's clock at the request, ms since 1970 UTC.
    pub time_ms: i64,
    /// Surface plus 1; 0 where none was named.
    pub surface: u16,
    /// All log records with an offset below this are known; see `Impression::watermark`.
    pub watermark: u64,
}

/// What a batch's arrays look like for a schema. Make it once.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembler {
    user: Layout,
    item: Layout,
    /// Start and length of the item embedding within an item's embedding features.
    embedding: (usize, usize),
    /// Tokens at most.
    length: usize,
    /// For each action type: whether it feeds the sequence, and its priority.
    actions: Vec<(bool, u8)>,
}

impl Assembler {
    /// For a valid schema.
    pub fn new(schema: &Schema) -> Self {
        Self {
            user: Layout::of(&schema.user_features),
            item: Layout::of(&schema.item_features),
            embedding: Layout::item_embedding(schema),
            length: usize::from(schema.sequence.length),
            actions: schema.actions.iter().map(|a| (a.sequence, a.priority)).collect(),
        }
    }

    /// The embedding that stands for an item in the sequence and as candidate, length d.
    pub fn item_embedding<'a>(&self, item: &'a Features) -> &'a [f32] {
        &item.embedding[self.embedding.0..self.embedding.0 + self.embedding.1]
    }
}

/// The tokens that were known at `watermark`, newest first, at most the schema's `sequence.length`.
///
/// Actions on one item in one request make one token, at the place and time of the newest of them, with the type of
/// the highest priority (of equals the newest). Actions without a request each make a token.
pub fn tokens(
    assembler: &Assembler,
    sequence: &UserSequence,
    watermark: u64,
    mut item: impl FnMut(&ItemId) -> Option<Arc<Features>>,
) -> Vec<Token> {
    let mut groups: Vec<((u64, &ItemId), usize)> = Vec::new(); // requests' items and their tokens
    let mut out: Vec<Token> = Vec::with_capacity(assembler.length.min(sequence.entries().len()));
    for entry in sequence.entries() {
        let Some(&(feeds, priority)) = assembler.actions.get(usize::from(entry.action)) else { continue };
        if !feeds || entry.offset >= watermark {
            continue;
        }
        let group = (entry.request, &entry.item);
        if entry.request != 0
            && let Some((_, at)) = groups.iter().rev().find(|(g, _)| *g == group)
        {
            let Some(token) = out.get_mut(*at) else { continue };
            token.actions |= action_bit(entry.action);
            if priority > assembler.actions[usize::from(token.action)].1 {
                token.action = entry.action;
            }
            continue;
        }
        if out.len() == assembler.length {
            // Older entries may still belong to a token that is in; entries of one request stand close together,
            // so look no further than as many again.
            if groups.len() >= 2 * assembler.length {
                break;
            }
            groups.push((group, usize::MAX));
            continue;
        }
        groups.push((group, out.len()));
        out.push(Token {
            action: entry.action,
            actions: action_bit(entry.action),
            surface: entry.surface,
            time_ms: entry.time_ms,
            item: item(&entry.item),
        });
    }
    out
}

/// Appends one request with its candidates to a batch. A candidate without features, or a user without, is all
/// missing; it is scored all the same.
pub fn assemble<'a>(
    batch: &mut FeatureBatch,
    assembler: &Assembler,
    context: &RequestContext,
    user: Option<&Features>,
    tokens: &[Token],
    candidates: impl IntoIterator<Item = Option<&'a Features>>,
) {
    push(&mut batch.user, &assembler.user, user);
    batch.surface.push(context.surface);
    let d = assembler.embedding.1;
    for token in tokens {
        batch.token_action.push(token.action);
        batch.token_actions.push(token.actions);
        batch.token_surface.push(token.surface);
        batch.token_age_ms.push(context.time_ms.saturating_sub(token.time_ms));
        embed(&mut batch.token_item, assembler, d, token.item.as_deref());
    }
    batch.token_offsets.push((batch.tokens() + tokens.len()) as u32);
    let mut rows = batch.rows() as u32;
    for candidate in candidates {
        push(&mut batch.item, &assembler.item, candidate);
        embed(&mut batch.candidate, assembler, d, candidate);
        rows += 1;
    }
    batch.row_offsets.push(rows);
}

fn embed(out: &mut Vec<f32>, assembler: &Assembler, d: usize, item: Option<&Features>) {
    match item {
        Some(item) => out.extend_from_slice(assembler.item_embedding(item)),
        None => out.resize(out.len() + d, 0.0),
    }
}

fn push(columns: &mut Columns, layout: &Layout, features: Option<&Features>) {
    match features {
        Some(f) => {
            columns.categorical.extend_from_slice(&f.categorical);
            columns.numeric.extend_from_slice(&f.numeric);
            columns.embedding.extend_from_slice(&f.embedding);
        }
        None => {
            columns.categorical.resize(columns.categorical.len() + layout.categorical_width, 0);
            columns.numeric.resize(columns.numeric.len() + layout.numeric_width, f32::NAN);
            columns.embedding.resize(columns.embedding.len() + layout.embedding_width, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FeatureValue, FeatureValues};
    use crate::schema::tests::SMALL;
    use crate::sequence::SequenceEntry;

    fn entry(offset: u64, request: u64, action: u8, item: &str) -> SequenceEntry {
        let item = ItemId::new(item).unwrap();
        SequenceEntry {
            time_ms: offset as i64 * 10,
            offset,
            event: offset,
            request,
            action,
            surface: 1,
            item,
        }
    }

    fn assembler() -> Assembler {
        Assembler::new(&Schema::from_toml(SMALL).unwrap())
    }

    fn actions(entries: Vec<SequenceEntry>, watermark: u64) -> Vec<u8> {
        let sequence = UserSequence::from_entries(entries, 8);
        tokens(&assembler(), &sequence, watermark, |_| None).iter().map(|t| t.action).collect()
    }

    #[test]
    fn several_actions_on_one_item_in_one_request_make_one_token() {
        let all = vec![entry(0, 7, 0, "a"), entry(1, 7, 0, "b"), entry(2, 7, 2, "a"), entry(3, 7, 1, "a")];
        assert_eq!(actions(all.clone(), 99), [2, 0], "save outranks click and seen");
        assert_eq!(actions(all, 2), [0, 0], "the save is not yet known at watermark 2");
        assert_eq!(
            actions(vec![entry(0, 0, 0, "a"), entry(1, 0, 1, "a")], 99),
            [1, 0],
            "no request, no group"
        );
        assert_eq!(actions(vec![entry(0, 0, 4, "a")], 99), [] as [u8; 0], "share does not feed the sequence");
    }

    #[test]
    fn a_token_knows_all_its_actions() {
        let all = vec![entry(0, 7, 0, "a"), entry(1, 7, 0, "b"), entry(2, 7, 2, "a"), entry(3, 7, 1, "a")];
        let sequence = UserSequence::from_entries(all, 8);
        let sets = |watermark| {
            tokens(&assembler(), &sequence, watermark, |_| None).iter().map(|t| t.actions).collect::<Vec<_>>()
        };
        assert_eq!(sets(99), [0b111, 0b1]);
        assert_eq!(sets(3), [0b101, 0b1], "the click is not yet known at watermark 3");
        assert_eq!((action_bit(63), action_bit(64)), (1 << 63, 0));
    }

    #[test]
    fn the_sequence_is_cut_after_grouping() {
        let mut all: Vec<_> = (0..4).map(|i| entry(i + 4, i + 1, 0, "x")).collect();
        all.push(entry(0, 4, 3, "x")); // an older hide on the newest shown item
        assert_eq!(actions(all, 99), [3, 0, 0, 0]);
    }

    #[test]
    fn a_batch_holds_the_user_once_and_unknown_candidates_as_missing() {
        let schema = Schema::from_toml(SMALL).unwrap();
        let values = FeatureValues::from([("vector".into(), FeatureValue::Vector(vec![3.0, 4.0]))]);
        let item = Arc::new(Features::encode(&schema.item_features, &values).unwrap());
        let token = Token { action: 2, actions: 0b101, surface: 1, time_ms: 900, item: Some(item.clone()) };
        let context = RequestContext { time_ms: 1000, surface: 2, watermark: 1 };
        let mut batch = FeatureBatch::default();
        for _ in 0..2 {
            assemble(
                &mut batch,
                &assembler(),
                &context,
                None,
                std::slice::from_ref(&token),
                [Some(&*item), None],
            );
        }
        assert_eq!((batch.requests(), batch.rows(), batch.tokens()), (2, 4, 2));
        assert_eq!(batch.row_offsets, [0, 2, 4]);
        assert_eq!(batch.token_item, [3.0, 4.0, 3.0, 4.0]);
        assert_eq!(batch.candidate[..4], [3.0, 4.0, 0.0, 0.0]);
        assert_eq!(batch.token_age_ms, [100, 100]);
        assert_eq!(batch.token_actions, [0b101, 0b101]);
        assert_eq!(batch.user.categorical, [0, 0]);
        assert!(batch.item.numeric.iter().all(|x| x.is_nan()));
        batch.clear();
        assert_eq!(batch, FeatureBatch::default());
    }
}

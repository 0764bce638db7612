//! A file's content: requests, and the items that they name, each version once.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::{Features, ItemId};
use parquet::data_type::ByteArray;

use super::columns::{Items, Requests};
use super::row::Row;
use crate::known::{Known, Version};

/// Requests and their items.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) requests: Requests,
    pub(crate) items: Items,
    /// Rows of `items` by item and offset of its version, as other pages' are added.
    numbers: HashMap<(Vec<u8>, Option<i64>), i32>,
    /// The same by number of the item, as rows of the stream are added.
    of_stream: HashMap<(u32, Option<u64>), i32>,
}

impl Page {
    /// The content of a file.
    pub(crate) fn of(requests: Requests, items: Items) -> Self {
        Self { requests, items, ..Self::default() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.requests.offset.len()
    }

    pub(crate) fn candidates(&self) -> usize {
        self.requests.candidate_item.values.len()
    }

    /// Adds a request with what was observed on its candidates.
    pub(crate) fn push(&mut self, row: &Row<Arc<Version>>, marks: &[(u16, u64)], known: &Known) {
        for version in row.tokens.iter().map(|t| &t.item).chain(row.candidates.iter().map(|c| &c.item)) {
            self.number(version, known);
        }
        let number = |version: &Arc<Version>| self.of_stream[&(version.of, version.offset)];
        let text = |text: &str| ByteArray::from(text);
        let r = &mut self.requests;
        r.offset.push(row.offset as i64);
        r.request.push(text(row.request.as_str()));
        r.user.push(text(known.users.list[row.user as usize].as_str()));
        r.time.push(row.time_ms);
        r.surface.push(i32::from(row.surface));
        r.core.push(row.core);
        r.watermark.push(row.watermark as i64);
        r.model.push_all(row.model.as_deref().map(|t| [text(t)]));
        r.embedding_version.push_all(row.embedding_version.as_deref().map(|t| [text(t)]));
        r.variant.push_all(row.variant.as_deref().map(|t| [text(t)]));
        r.degraded.push_all(Some(row.degraded.iter().map(|t| text(t))));
        r.excluded.push_all(row.excluded.map(|e| [text(e.name())]));
        r.negative_rate.push(1.0);
        let features = row.features.as_deref();
        r.user_categorical.push_all(features.map(|f| f.categorical.iter().map(|b| *b as i32)));
        r.user_numeric.push_all(features.map(|f| f.numeric.iter().copied()));
        r.user_embedding.push_all(features.map(|f| f.embedding.iter().copied()));
        r.token_time.push_all(Some(row.tokens.iter().map(|t| t.time_ms)));
        r.token_action.push_all(Some(row.tokens.iter().map(|t| i32::from(t.action))));
        r.token_actions.push_all(Some(row.tokens.iter().map(|t| t.actions as i64)));
        r.token_surface.push_all(Some(row.tokens.iter().map(|t| i32::from(t.surface))));
        r.token_item.push_all(Some(row.tokens.iter().map(|t| number(&t.item))));
        r.candidate_item.push_all(Some(row.candidates.iter().map(|c| number(&c.item))));
        r.candidate_position.push_all(Some(row.candidates.iter().map(|c| i32::from(c.position))));
        r.candidate_score.push_all(Some(row.candidates.iter().map(|c| c.score)));
        let known_propensities = !row.propensities.is_empty();
        r.candidate_propensity.push_all(known_propensities.then(|| row.propensities.iter().copied()));
        r.candidate_observed.push_all(Some(row.candidates.iter().map(|_| 0)));
        let observed = r.candidate_observed.row_mut(r.offset.len() - 1);
        marks.iter().for_each(|(candidate, bits)| observed[usize::from(*candidate)] = *bits as i64);
        r.candidate_heads.push_all(Some(row.heads.iter().copied()));
    }

    fn number(&mut self, version: &Version, known: &Known) {
        let next = self.items.item.len() as i32;
        let number = *self.of_stream.entry((version.of, version.offset)).or_insert(next);
        if number == next {
            let item = known.items.list[version.of as usize].as_str();
            push_item(&mut self.items, item, version.offset, version.features.as_deref());
        }
    }

    /// Adds a request of another page; `numbers`: of the other's items those that are here, negative where not yet.
    pub(crate) fn push_row(&mut self, other: &Self, row: usize, numbers: &mut Vec<i32>) {
        numbers.resize(other.items.item.len(), -1);
        let tokens = self.requests.token_item.values.len();
        let candidates = self.requests.candidate_item.values.len();
        self.requests.push_row(&other.requests, row);
        let (items, known) = (&mut self.items, &mut self.numbers);
        let named = self.requests.token_item.values[tokens..].iter_mut();
        for item in named.chain(&mut self.requests.candidate_item.values[candidates..]) {
            let number = &mut numbers[*item as usize];
            if *number < 0 {
                *number = adopt(items, known, &other.items, *item as usize);
            }
            *item = *number;
        }
    }
}

impl Page {
    /// As [`Page::push_row`], with those candidates alone that `keep` names, a share `rate` of the negatives.
    pub(crate) fn push_thinned(
        &mut self,
        other: &Self,
        row: usize,
        numbers: &mut Vec<i32>,
        keep: &[bool],
        rate: f32,
    ) {
        self.push_row(other, row, numbers);
        let r = &mut self.requests;
        r.negative_rate.row_mut(r.offset.len() - 1)[0] = rate;
        r.candidate_item.retain_last(keep);
        r.candidate_position.retain_last(keep);
        r.candidate_score.retain_last(keep);
        r.candidate_propensity.retain_last(keep);
        r.candidate_observed.retain_last(keep);
        r.candidate_heads.retain_last(keep);
    }
}

/// The row of an item of another page, which is added where it is not there yet.
fn adopt(
    items: &mut Items,
    known: &mut HashMap<(Vec<u8>, Option<i64>), i32>,
    other: &Items,
    row: usize,
) -> i32 {
    let key = (other.item.row(row)[0].data().to_vec(), other.offset.row(row).first().copied());
    *known.entry(key).or_insert_with(|| {
        items.push_row(other, row);
        items.item.len() as i32 - 1
    })
}

fn push_item(items: &mut Items, item: &str, offset: Option<u64>, features: Option<&Features>) {
    items.item.push(ByteArray::from(item));
    items.offset.push_all(offset.map(|o| [o as i64]));
    items.categorical.push_all(features.map(|f| f.categorical.iter().map(|b| *b as i32)));
    items.numeric.push_all(features.map(|f| f.numeric.iter().copied()));
    items.embedding.push_all(features.map(|f| f.embedding.iter().copied()));
}

/// The features of a row of items; `None` where nothing was known.
pub(crate) fn item_features(items: &Items, row: usize) -> Option<Features> {
    Some(Features {
        categorical: items.categorical.get(row)?.iter().map(|b| *b as u32).collect(),
        numeric: items.numeric.get(row)?.into(),
        embedding: items.embedding.get(row)?.into(),
    })
}

/// A text of a file that must be UTF-8.
pub(crate) fn text(bytes: &ByteArray) -> Result<&str, parquet::errors::ParquetError> {
    bytes.as_utf8()
}

/// An item's id.
pub(crate) fn item_id(bytes: &ByteArray) -> Result<ItemId, parquet::errors::ParquetError> {
    ItemId::new(text(bytes)?).map_err(|e| parquet::errors::ParquetError::General(e.to_string()))
}

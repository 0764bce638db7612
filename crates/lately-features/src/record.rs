//! How events stand in the log: what [`crate::codec`] writes and reads of an [`Event`].
//!
//! postcard numbers the forms by their order, so a form that changes keeps its number and its old layout for reading, and
//! the new layout is appended. A log of any age is one stream to its readers.

use serde::{Deserialize, Serialize, Serializer};

use crate::event::{Action, Event, Forget, Impression, ImpressionItem, Item, User};
use crate::id::{RequestId, UserId};

/// All forms that were ever written.
#[derive(Deserialize)]
pub(crate) enum Record {
    Action(Action),
    /// Until version 0.1: without variant, embedding version and propensities.
    ImpressionV1(ImpressionV1),
    Item(Item),
    User(User),
    Forget(Forget),
    Impression(Impression),
}

/// The forms that are written, by their number in [`Record`].
#[derive(Serialize)]
enum Written<'a> {
    Action(&'a Action),
    #[expect(dead_code, reason = "keeps the number of a form that is read only")]
    ImpressionV1(()),
    Item(&'a Item),
    User(&'a User),
    Forget(&'a Forget),
    Impression(&'a Impression),
}

#[derive(Deserialize)]
pub(crate) struct ImpressionV1 {
    request: RequestId,
    user: UserId,
    surface: Option<String>,
    time_ms: i64,
    watermark: Option<u64>,
    items: Vec<ImpressionItem>,
    model: Option<String>,
    degraded: Vec<String>,
}

impl From<ImpressionV1> for Impression {
    fn from(old: ImpressionV1) -> Self {
        let ImpressionV1 { request, user, surface, time_ms, watermark, items, model, degraded } = old;
        Self { watermark, model, degraded, ..Self::outside(request, user, surface, time_ms, items) }
    }
}

impl From<Record> for Event {
    fn from(record: Record) -> Self {
        match record {
            Record::Action(e) => Self::Action(e),
            Record::ImpressionV1(e) => Self::Impression(e.into()),
            Record::Impression(e) => Self::Impression(e),
            Record::Item(e) => Self::Item(e),
            Record::User(e) => Self::User(e),
            Record::Forget(e) => Self::Forget(e),
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Action(e) => Written::Action(e),
            Self::Impression(e) => Written::Impression(e),
            Self::Item(e) => Written::Item(e),
            Self::User(e) => Written::User(e),
            Self::Forget(e) => Written::Forget(e),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{CodecError, decode, encode};
    use crate::id::ItemId;

    fn impression() -> Impression {
        let item =
            ImpressionItem { heads: vec![0.5], ..ImpressionItem::unscored(ItemId::new("i").unwrap(), 3) };
        let (request, user) = (RequestId::new("r").unwrap(), UserId::new("u").unwrap());
        let outside = Impression::outside(request, user, Some("home".into()), 1_700_000_000_000, vec![item]);
        Impression { watermark: Some(7), model: Some("m".into()), degraded: vec!["x".into()], ..outside }
    }

    /// An impression as the first form wrote it.
    const FIRST: &[u8] = &[
        1, 1, 1, b'r', 1, b'u', 1, 4, b'h', b'o', b'm', b'e', 128, 160, 171, 254, 249, 98, 1, 7, 1, 1, b'i',
        3, 1, 0, 0, 0, 63, 0, 0, 0, 0, 1, 1, b'm', 1, 1, b'x',
    ];

    #[test]
    fn the_first_form_of_an_impression_is_read() {
        assert_eq!(decode::<Event>(FIRST).unwrap(), Event::Impression(impression()));
    }

    #[test]
    fn the_present_form_is_read_as_it_was_written_and_is_another() {
        let (variant, embedding_version) = (Some("challenger".into()), Some("v".into()));
        let new = Impression { variant, embedding_version, propensities: vec![0.25], ..impression() };
        let bytes = encode(&Event::Impression(new.clone())).unwrap();
        assert_eq!(bytes[1], 5);
        assert_eq!(decode::<Event>(&bytes).unwrap(), Event::Impression(new));
        for cut in 1..bytes.len() {
            assert!(matches!(decode::<Event>(&bytes[..cut]), Err(CodecError::Damaged(_))), "cut at {cut}");
        }
    }
}

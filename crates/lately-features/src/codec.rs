//! Bytes on disk: one version byte, then postcard (<https://postcard.jamesmunns.com/wire-format>).
//!
//! A reader refuses a version that it does not know; old versions stay readable, each with a fixture.

use serde::{Serialize, de::DeserializeOwned};

/// Version that [`encode`] writes.
pub const VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes.
    #[error("a record is empty")]
    Empty,
    /// Written by a newer version.
    #[error("a record has version {0}, this build reads up to {VERSION}: use a newer build")]
    Version(u8),
    /// Not the expected structure.
    #[error("a record is damaged: {0}")]
    Damaged(String),
}

/// Writes a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(value, vec![VERSION]).map_err(|e| CodecError::Damaged(e.to_string()))
}

/// Reads a value; trailing bytes are refused.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version(*version));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok((_, more)) => Err(CodecError::Damaged(format!("{} bytes follow its end", more.len()))),
        Err(e) => Err(CodecError::Damaged(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Action, Event};
    use crate::id::{EventId, ItemId, UserId};

    fn action() -> Event {
        Event::Action(Action {
            event_id: EventId::new("e1").unwrap(),
            user: UserId::new("u").unwrap(),
            item: ItemId::new("i").unwrap(),
            action: "save".into(),
            time_ms: 1_700_000_000_000,
            request: None,
            surface: Some("home".into()),
        })
    }

    /// The bytes of version 1: if this fails, the format changed and needs a new version.
    const FIXTURE: &[u8] = &[
        1, 0, 2, b'e', b'1', 1, b'u', 1, b'i', 4, b's', b'a', b'v', b'e', 128, 160, 171, 254, 249, 98, 0, 1,
        4, b'h', b'o', b'm', b'e',
    ];

    #[test]
    fn version_1_reads_and_writes_its_fixture() {
        assert_eq!(encode(&action()).unwrap(), FIXTURE);
        assert_eq!(decode::<Event>(FIXTURE).unwrap(), action());
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        assert_eq!(decode::<Event>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<Event>(&[9, 0]), Err(CodecError::Version(9)));
        for cut in 1..FIXTURE.len() {
            assert!(decode::<Event>(&FIXTURE[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = FIXTURE.to_vec();
        longer.push(0);
        assert!(matches!(decode::<Event>(&longer), Err(CodecError::Damaged(_))));
    }
}

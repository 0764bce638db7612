//! A packed request.

use lately_features::{IdError, ItemId, RequestId, UserId};

use super::bytes::{Reader, fit};
use super::{PackedError, VERSION};

const BEGINS: &str = "LYRQ";
const HIDDEN: u8 = 1;
const SHOWN: u8 = 2;
const SPACING: u8 = 4;

/// What to rank, and for whom; the fields mean what they do in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub user: UserId,
    /// What; at most 65,535 fit, the server takes fewer.
    pub candidates: Vec<ItemId>,
    /// A surface of the schema, at most 255 bytes.
    pub surface: Option<String>,
    /// The ranking's id.
    pub request: Option<RequestId>,
    /// Only the first so many, 0: all.
    pub limit: u16,
    /// Time for the ranking, ms, 0: the server's.
    pub deadline_ms: u32,
    /// Drop items with a negative action of the user.
    pub hidden: bool,
    /// Drop items that were shown a short while ago.
    pub shown: bool,
    /// Space items of one topic.
    pub spacing: bool,
}

impl Request {
    /// A plain request.
    pub fn new(user: UserId, candidates: Vec<ItemId>) -> Self {
        Self {
            user,
            candidates,
            surface: None,
            request: None,
            limit: 0,
            deadline_ms: 0,
            hidden: false,
            shown: false,
            spacing: false,
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`PackedError::TooLarge`] where the form has no room for it.
    pub fn encode(&self) -> Result<Vec<u8>, PackedError> {
        let surface = self.surface.as_deref().unwrap_or_default();
        let request = self.request.as_ref().map_or("", RequestId::as_str);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let mut bytes = BEGINS.as_bytes().to_vec();
        bytes.push(VERSION);
        bytes.push(flag(self.hidden, HIDDEN) | flag(self.shown, SHOWN) | flag(self.spacing, SPACING));
        bytes.extend(self.limit.to_le_bytes());
        bytes.extend(self.deadline_ms.to_le_bytes());
        bytes.push(fit("bytes of the user", self.user.as_str().len())?);
        bytes.push(fit("bytes of the surface", surface.len())?);
        bytes.push(fit("bytes of the request", request.len())?);
        bytes.push(0);
        bytes.extend(fit::<u16>("candidates", self.candidates.len())?.to_le_bytes());
        bytes.extend([0, 0]);
        for text in [self.user.as_str(), surface, request] {
            bytes.extend(text.as_bytes());
        }
        for item in &self.candidates {
            bytes.push(fit("bytes of a candidate", item.as_str().len())?);
        }
        for item in &self.candidates {
            bytes.extend(item.as_str().as_bytes());
        }
        Ok(bytes)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// [`PackedError`] at the first thing that is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackedError> {
        let mut reader = Reader::open(bytes, "request", BEGINS)?;
        let header = "the header";
        let flags = reader.u8(header)?;
        if flags & !(HIDDEN | SHOWN | SPACING) != 0 {
            return Err(PackedError::Flags(flags));
        }
        let limit = reader.u16(header)?;
        let deadline_ms = reader.u32(header)?;
        let lengths = [reader.u8(header)?, reader.u8(header)?, reader.u8(header)?];
        reader.zero(1)?;
        let count = reader.u16(header)?;
        reader.zero(2)?;
        let user = reader.text(lengths[0], "user")?.unwrap_or_default();
        let surface = reader.text(lengths[1], "surface")?;
        let request = reader.text(lengths[2], "request")?;
        let lengths = reader.take(count.into(), "the candidates' lengths")?;
        let candidates = reader.texts(lengths, "candidates")?;
        reader.end()?;
        let candidate = |(place, text)| id("candidates", Some(place), ItemId::new(text));
        Ok(Self {
            user: id("user", None, UserId::new(user))?,
            candidates: candidates.into_iter().enumerate().map(candidate).collect::<Result<_, _>>()?,
            surface: surface.map(str::to_owned),
            request: request.map(|text| id("request", None, RequestId::new(text))).transpose()?,
            limit,
            deadline_ms,
            hidden: flags & HIDDEN != 0,
            shown: flags & SHOWN != 0,
            spacing: flags & SPACING != 0,
        })
    }
}

fn id<T>(what: &'static str, place: Option<usize>, id: Result<T, IdError>) -> Result<T, PackedError> {
    id.map_err(|source| PackedError::Id { what, place, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            surface: Some("home".to_owned()),
            request: Some(RequestId::new("r1").unwrap()),
            limit: 7,
            deadline_ms: 50,
            shown: true,
            ..Request::new(
                UserId::new("ü").unwrap(),
                vec![ItemId::new("a").unwrap(), ItemId::new("bc").unwrap()],
            )
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let mut want = b"LYRQ\x01\x02\x07\x00\x32\x00\x00\x00\x02\x04\x02\x00\x02\x00\x00\x00".to_vec();
        want.extend("ühomer1\x01\x02abc".as_bytes());
        assert_eq!(request().encode().unwrap(), want);
    }

    #[test]
    fn every_damage_has_its_error() {
        let good = request().encode().unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Request::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, b'X'), PackedError::Magic { what: "request", begins: "LYRQ" });
        assert_eq!(with(4, 2), PackedError::Version(2));
        assert_eq!(with(5, 8), PackedError::Flags(8));
        assert_eq!((with(15, 1), with(18, 1)), (PackedError::Reserved, PackedError::Reserved));
        assert_eq!(with(20, 0xff), PackedError::Text { what: "user", place: None });
        assert_eq!(with(12, 1), PackedError::Text { what: "user", place: None }, "half a letter");
        let control = PackedError::Id { what: "candidates", place: Some(1), source: IdError::Control(10) };
        assert_eq!(with(good.len() - 1, b'\n'), control);
        assert_eq!(with(16, 1), PackedError::Long(3), "a candidate less");
        assert_eq!(with(16, 9), PackedError::Short { what: "the candidates' lengths", missing: 4 });
        for cut in 0..good.len() {
            let error = Request::decode(&good[..cut]).unwrap_err();
            let named = matches!(error, PackedError::Short { .. } | PackedError::Magic { .. });
            assert!(named, "{cut}: {error}");
        }
        let long = [&good[..], b"xx"].concat();
        assert_eq!(Request::decode(&long), Err(PackedError::Long(2)));
        let none = Request { surface: Some("x".repeat(256)), ..request() };
        assert_eq!(
            none.encode(),
            Err(PackedError::TooLarge { what: "bytes of the surface", got: 256, most: 255 })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            user in "[^\\p{Cc}]{1,32}",
            items in prop::collection::vec("[^\\p{Cc}]{1,32}", 0..50),
            surface in prop::option::of(".{1,60}"),
            request in prop::option::of("[a-z]{1,128}"),
            limit: u16, deadline_ms: u32, hidden: bool, shown: bool, spacing: bool,
        ) {
            let ask = Request {
                user: UserId::new(user).unwrap(),
                candidates: items.into_iter().map(|i| ItemId::new(i).unwrap()).collect(),
                surface,
                request: request.map(|r| RequestId::new(r).unwrap()),
                limit, deadline_ms, hidden, shown, spacing,
            };
            prop_assert_eq!(Request::decode(&ask.encode().unwrap()), Ok(ask));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let framed = [b"LYRQ\x01\x00", &bytes[..]].concat();
            prop_assert!(Request::decode(&bytes).is_err());
            if let Ok(ask) = Request::decode(&framed) {
                prop_assert_eq!(ask.encode().unwrap(), framed);
            }
        }
    }
}

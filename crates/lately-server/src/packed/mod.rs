//! The packed binary form of `POST /v1/rank`: a [`Request`] and its [`Answer`] without JSON.
//!
//! All numbers are little-endian. Texts are UTF-8; their lengths stand together in front of their bytes. A reader
//! refuses other versions, flags that it does not know, reserved bytes that are not 0, and bytes that are left over: so
//! that each of them can get a meaning later. Memory is bounded by the bytes that are read.
//!
//! # Request
//! | bytes | what |
//! | --- | --- |
//! | 4 | `LYRQ` |
//! | 1 | version, 1 |
//! | 1 | flags: 1 drop hidden, 2 drop shown, 4 spacing |
//! | 2 | limit; 0: all |
//! | 4 | deadline_ms; 0: the server's |
//! | 1, 1, 1 | lengths of user, surface and request; 0: no surface, a new request |
//! | 1 | reserved, 0 |
//! | 2 | n, number of candidates |
//! | 2 | reserved, 0 |
//! | user, surface, request | texts |
//! | n | lengths of the candidates |
//! | candidates | texts |
//!
//! # Answer
//! | bytes | what |
//! | --- | --- |
//! | 4 | `LYRA` |
//! | 1 | version, 1 |
//! | 1 | number of degraded rungs |
//! | 2 | number of candidates of the request |
//! | 2 | n, number of ranked items |
//! | 2 | h, number of heads; 0 where no model scored |
//! | 1, 1, 1, 1 | lengths of request, model version (0: no model ranked), schema hash, embedding version |
//! | 8 | watermark |
//! | 8 | generation of the model; 0: no model ranked |
//! | h | lengths of the heads' names |
//! | rungs | lengths of the rungs' names |
//! | request, model version, schema hash, embedding version, heads, rungs | texts |
//! | 2 n | u16: place of the candidate in the request, from 0, best first |
//! | 4 n | f32: score |
//! | 4 n h | f32: probabilities, item by item |
//!
//! Candidates that are not among the items were dropped by a rule, repeated, or beyond the limit.

mod answer;
mod bytes;
mod request;

use lately_features::IdError;

pub use answer::{Answer, Ranked};
pub use request::Request;

/// `Content-Type` and `Accept` of the packed form.
pub const MEDIA_TYPE: &str = "application/vnd.lately.rank";

/// The version that is written and read.
pub const VERSION: u8 = 1;

/// What is wrong with packed bytes, or with what is to be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// Something else altogether.
    #[error("the bytes begin with none of a packed {what}: send {begins}")]
    Magic {
        /// What was to be read.
        what: &'static str,
        /// How it begins.
        begins: &'static str,
    },
    /// Of another version.
    #[error("packed form of version {0}: send version {VERSION}")]
    Version(u8),
    /// Flags without a meaning.
    #[error("flags {0:#010b}: 1, 2 and 4 have a meaning; leave the others 0")]
    Flags(u8),
    /// Bytes for later use are in use.
    #[error("a reserved byte is not 0")]
    Reserved,
    /// Cut.
    #[error("the bytes end within {what}: {missing} more are needed")]
    Short {
        /// Where.
        what: &'static str,
        /// How many are missing.
        missing: usize,
    },
    /// Longer than its lengths say.
    #[error("{0} bytes are left over: correct the lengths")]
    Long(usize),
    /// No text.
    #[error("{} is not UTF-8", named(what, *place))]
    Text {
        /// Field.
        what: &'static str,
        /// Place in a list, from 0.
        place: Option<usize>,
    },
    /// No id.
    #[error("{}: {source}", named(what, *place))]
    Id {
        /// Field.
        what: &'static str,
        /// Place in a list, from 0.
        place: Option<usize>,
        /// Why.
        source: IdError,
    },
    /// A number that is none.
    #[error("a score or probability is not finite")]
    NotFinite,
    /// A ranking of other candidates, or of one of them twice.
    #[error("item {0} is no candidate of the request, or stands twice")]
    Place(u16),
    /// A model's version without its generation, or the other way round, or probabilities without a model.
    #[error("version, generation and heads of the model do not belong together")]
    Model,
    /// More than the form has room for.
    #[error("{what}: {got}, and the packed form has room for {most}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much it is.
        got: usize,
        /// How much it may be.
        most: usize,
    },
}

fn named(what: &str, place: Option<usize>) -> String {
    place.map_or_else(|| what.to_owned(), |place| format!("{what}[{place}]"))
}

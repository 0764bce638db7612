//! Ids of users, items, requests and events: 1 to 128 bytes of UTF-8 without control characters.
//!
//! They are opaque: never parsed, never joined to a path, never a metric label.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Longest id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no characters.
    #[error("an id is empty: send 1 to {MAX_ID_BYTES} bytes of UTF-8")]
    Empty,
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("an id has {0} bytes: the limit is {MAX_ID_BYTES}; send a hash of it if it must be longer")]
    TooLong(usize),
    /// The text holds a control character, which would break logs and keys.
    #[error("an id holds the control character U+{0:04X}: remove it")]
    Control(u32),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(IdError::Control(c as u32)),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a text; see [`IdError`].
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                check(text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }
            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// XXH3 of the bytes: stable across machines and versions.
            pub fn hash64(&self) -> u64 {
                xxh3_64(self.0.as_bytes())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id!(
    /// A person (or device) whose feed is ranked.
    UserId
);
id!(
    /// A thing that can be shown.
    ItemId
);
id!(
    /// One ranking; actions that name it are joined to what it showed.
    RequestId
);
id!(
    /// The client's id of an event; the same id sent again counts once.
    EventId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_and_say_what_to_do() {
        assert!(UserId::new("u-1 ü").is_ok());
        assert_eq!(UserId::new(""), Err(IdError::Empty));
        assert_eq!(ItemId::new("x".repeat(129)), Err(IdError::TooLong(129)));
        assert!(ItemId::new("x".repeat(128)).is_ok());
        assert_eq!(ItemId::new("a\nb"), Err(IdError::Control(10)));
        assert!(serde_json::from_str::<ItemId>("\"\"").unwrap_err().to_string().contains("empty"));
    }
}

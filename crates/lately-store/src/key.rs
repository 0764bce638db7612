//! Keys of the keyspaces, as the table in the crate's documentation gives them.

use fjall::UserKey;
use lately_features::id::MAX_ID_BYTES;
use lately_features::{ItemId, UserId};

/// Kinds of records that the index finds by user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Action = 1,
    Impression = 2,
    User = 3,
}

/// A key in the making, on the stack: there are three of them for each action.
struct Buffer {
    bytes: [u8; MAX_ID_BYTES + 1 + 16],
    length: usize,
}

impl Buffer {
    fn of(user: &UserId) -> Self {
        let mut buffer = Self { bytes: [0; _], length: 0 };
        buffer.push(user.as_str().as_bytes());
        buffer.push(&[0]);
        buffer
    }

    fn push(&mut self, part: &[u8]) {
        // An id is never longer than its limit, which its type guards.
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    fn key(&self) -> UserKey {
        self.bytes[..self.length].into()
    }
}

/// Start of all keys of one user.
pub(crate) fn user(user: &UserId) -> UserKey {
    Buffer::of(user).key()
}

/// A sequence entry: newest first in byte order.
pub(crate) fn sequence(user: &UserId, time_ms: i64, offset: u64) -> UserKey {
    let mut buffer = Buffer::of(user);
    // Flipping the sign bit orders i64 as u64; the complement turns ascending into descending.
    let time = !(time_ms.cast_unsigned() ^ (1 << 63));
    buffer.push(&time.to_be_bytes());
    buffer.push(&(!offset).to_be_bytes());
    buffer.key()
}

/// An item that a user is not to be shown.
pub(crate) fn hidden(user: &UserId, item: &ItemId) -> UserKey {
    [user.as_str().as_bytes(), &[0], item.as_str().as_bytes()].concat().into()
}

/// The item in a key that [`hidden`] made for a user; `None` where it is none.
pub(crate) fn hidden_item(user: &UserId, key: &[u8]) -> Option<ItemId> {
    let item = key.get(user.as_str().len() + 1..)?;
    ItemId::new(std::str::from_utf8(item).ok()?).ok()
}

/// A record of a user by its own id.
pub(crate) fn index(user: &UserId, kind: Kind, id: u64) -> UserKey {
    let mut buffer = Buffer::of(user);
    buffer.push(&[kind as u8]);
    buffer.push(&id.to_be_bytes());
    buffer.key()
}

/// The offset in a key of the log or a value of the index.
pub(crate) fn offset(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_keys_sort_newest_first_within_a_user() {
        let u = UserId::new("u").unwrap();
        let times = [i64::MAX, 1, 0, -1, i64::MIN];
        let keys: Vec<_> = times.iter().flat_map(|t| [9, 0].map(|o| sequence(&u, *t, o))).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|w| w[0] != w[1]));
        let item = ItemId::new("i").unwrap();
        assert_eq!(hidden_item(&u, &hidden(&u, &item)), Some(item));
        assert_eq!(hidden_item(&u, b"u"), None);
        // "u" is a prefix of "u1", its keys are not.
        assert!(!sequence(&UserId::new("u1").unwrap(), 0, 0).starts_with(&user(&u)));
    }
}

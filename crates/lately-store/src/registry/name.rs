//! Names in the registry, checked before they meet a path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RegistryError;

/// Longest name of an alias, bytes.
pub const MAX_ALIAS_BYTES: usize = 64;

/// A version: the BLAKE3 hash of the artifact's bytes, 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(Arc<str>);

impl Version {
    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().as_str().into())
    }
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Version {
    type Err = RegistryError;
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            return Ok(Self(text.into()));
        }
        Err(RegistryError::Version(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Version {
    type Error = RegistryError;
    fn try_from(text: String) -> Result<Self, RegistryError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0.as_ref().to_owned()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether a text may name an alias: it becomes a file name, on any system.
pub(super) fn check_alias(alias: &str) -> Result<(), RegistryError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let begins = alias.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if begins && alias.len() <= MAX_ALIAS_BYTES && alias.bytes().all(allowed) {
        return Ok(());
    }
    Err(RegistryError::Alias(alias.chars().take(80).collect()))
}

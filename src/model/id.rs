//! Identifiers. Clients choose most of them, so they are opaque text with a bounded length.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest identifier accepted, in bytes.
const ID_BYTES_MAX: usize = 256;

/// An opaque identifier of one kind of object. Cloning shares the text.
///
/// Path parameters are never required to have a UUID form (contract 1.2); all that is asked is
/// that they are not empty, at most 256 bytes, and free of control characters.
pub struct Id<Kind>(Arc<str>, PhantomData<fn() -> Kind>);

/// Marks the identifier of a task.
#[derive(Debug)]
pub enum TaskKind {}
/// Marks the identifier of a node.
#[derive(Debug)]
pub enum NodeKind {}

/// Names a task: chosen by the client, or derived from its request id.
pub type TaskId = Id<TaskKind>;
/// Names a node: always chosen by the node itself.
pub type NodeId = Id<NodeKind>;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than 256 bytes.
    #[error("an id is at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The text holds a control character.
    #[error("an id must not hold control characters")]
    Control,
}

impl<Kind> Id<Kind> {
    /// Checks `text` and makes it an identifier.
    ///
    /// # Errors
    /// [`IdError`] when the text is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > ID_BYTES_MAX {
            return Err(IdError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(IdError::Control);
        }
        Ok(Self::trusted(text))
    }

    /// Takes a text that is known to be an identifier: from our own store, or from a constant.
    #[must_use]
    pub fn trusted(text: &str) -> Self {
        Self(Arc::from(text), PhantomData)
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<Kind> Clone for Id<Kind> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<Kind> PartialEq for Id<Kind> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<Kind> Eq for Id<Kind> {}

impl<Kind> PartialOrd for Id<Kind> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<Kind> Ord for Id<Kind> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<Kind> std::hash::Hash for Id<Kind> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<Kind> Borrow<str> for Id<Kind> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<Kind> fmt::Display for Id<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<Kind> fmt::Debug for Id<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl<Kind> Serialize for Id<Kind> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, Kind> Deserialize<'de> for Id<Kind> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextOf(PhantomData))
    }
}

/// Makes an identifier of a text without a copy in between: batches of heartbeats hold many.
struct TextOf<Kind>(PhantomData<fn() -> Kind>);

impl<Kind> Visitor<'_> for TextOf<Kind> {
    type Value = Id<Kind>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an identifier")
    }

    fn visit_str<E>(self, text: &str) -> Result<Id<Kind>, E> {
        Ok(Id::trusted(text))
    }
}

/// Names one mutating request across retries and failovers: 128 bits, either random (minted by
/// the receiving member) or the digest of the client's `Idempotency-Key`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl RequestId {
    /// The id that stands for a client's own key. The same text gives the same id on any member.
    #[must_use]
    pub fn from_key(key: &str) -> Self {
        // A minted id travels back to clients as 32 hex digits; taking such a text back as the
        // number itself lets them ask for its outcome.
        if key.len() == 32
            && let Ok(number) = u128::from_str_radix(key, 16)
        {
            return Self(number);
        }
        Self(xxhash_rust::xxh3::xxh3_128(key.as_bytes()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_text() {
        assert_eq!(TaskId::parse("").unwrap_err(), IdError::Empty);
        assert_eq!(TaskId::parse(&"x".repeat(257)).unwrap_err(), IdError::TooLong(257));
        assert_eq!(TaskId::parse("a\nb").unwrap_err(), IdError::Control);
        assert_eq!(TaskId::parse("käse/42 ok").unwrap().as_str(), "käse/42 ok");
    }

    #[test]
    fn a_minted_request_id_survives_its_text_form() {
        let id = RequestId(0x1234);
        assert_eq!(RequestId::from_key(&id.to_string()), id);
        assert_eq!(RequestId::from_key("order-7"), RequestId::from_key("order-7"));
        assert_ne!(RequestId::from_key("order-7"), RequestId::from_key("order-8"));
    }
}

//! Opaque JSON carried for clients: task inputs, results, metadata.

use serde::{Deserialize, Serialize};

/// Text of JSON that the control plane stores but never reads. Small ones stay in the row that
/// owns them; larger ones live in the durable home alone and are read on demand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing was given.
    #[default]
    Absent,
    /// Kept in the row.
    Inline(String),
    /// Kept in the blob table, in chunks, under the owner's key.
    Stored {
        /// Length of the text in bytes.
        len: u32,
        /// Sum of the digests of its rows: what deleting it takes off the state digest.
        digest: u64,
    },
}

impl Payload {
    /// Takes JSON text; an empty text is no payload.
    #[must_use]
    pub fn inline(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Absent } else { Self::Inline(text) }
    }

    /// Length of the text in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Inline(text) => text.len(),
            Self::Stored { len, .. } => *len as usize,
        }
    }

    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

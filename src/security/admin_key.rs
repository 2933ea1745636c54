//! The key that callers of the doors of administrators show.

use std::fmt;

use sha2::{Digest, Sha256};

/// The shortest key that is taken: shorter ones can be guessed.
pub const ADMIN_KEY_MIN: usize = 16;

/// A key, as its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminKey([u8; 32]);

impl AdminKey {
    /// `None` when `text` is too short.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() >= ADMIN_KEY_MIN).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Whether `offered` is this key. Takes the same time whatever is offered: hashes are
    /// compared, all of their bytes always.
    #[must_use]
    pub fn admits(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        let differing = self.0.iter().zip(offered).fold(0, |sum, (one, other)| sum | (one ^ other));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_admitted() {
        let key = AdminKey::new("sixteen letters!").unwrap();
        assert!(key.admits(b"sixteen letters!"));
        for wrong in ["", "sixteen letters", "sixteen letters!!", "Sixteen letters!"] {
            assert!(!key.admits(wrong.as_bytes()), "{wrong}");
        }
        assert!(AdminKey::new("fifteen letters").is_none());
        assert_eq!(format!("{key:?}"), "AdminKey");
    }
}

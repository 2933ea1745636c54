//! Random secrets, and the hashes that stand for them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::clock;

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// What generated API keys begin with (contract 1.4).
const KEY_PREFIX: &str = "web4ai_";
/// Characters of a generated key that lists show (contract 2.3).
const SHOWN_CHARS: usize = 20;

pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&clock::random().to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// 32 random bytes as text that is safe in URLs.
#[must_use]
pub fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// A fresh API key.
#[must_use]
pub fn random_api_key() -> String {
    format!("{KEY_PREFIX}{}", random_secret())
}

/// A fresh name for a token or a session.
#[must_use]
pub fn random_id() -> String {
    hex(&random_bytes::<16>())
}

pub(super) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

pub(super) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64 lower-case hex digits.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8)).collect();
    bytes?.try_into().ok()
}

/// The part of a key that may be shown: enough to tell keys apart, never most of a short one.
pub(super) fn shown_part(key: &str) -> String {
    let chars = key.chars().count();
    let shown = if chars >= 2 * SHOWN_CHARS { SHOWN_CHARS } else { chars / 4 };
    key.chars().take(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_4_generated_keys() {
        let key = random_api_key();
        let (prefix, rest) = key.split_at(KEY_PREFIX.len());
        assert_eq!(prefix, "web4ai_");
        assert_eq!(URL_SAFE_NO_PAD.decode(rest).unwrap().len(), 32);
        assert_ne!(key, random_api_key());
        assert_eq!(shown_part(&key).len(), 20);
        assert_eq!(shown_part("twelve chars"), "twe");
    }

    #[test]
    fn hashes_survive_their_text_form() {
        let one = hash("k");
        assert_eq!(parse_hash(&hex(&one)), Some(one));
        let upper = hex(&one).to_uppercase();
        for wrong in ["", "zz", &hex(&one)[1..], &upper] {
            assert_eq!(parse_hash(wrong), None, "{wrong}");
        }
    }
}

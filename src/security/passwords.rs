//! Passwords as they are kept: PBKDF2 with HMAC-SHA-256, a salt each, and the number of rounds
//! beside it, so that the number can grow while old ones stay good.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hmac::Mac as _;
use ring::pbkdf2;

use super::secrets::random_bytes;

/// Rounds for new passwords. OWASP's advice for this function; tests have no time for it.
const ROUNDS: u32 = if cfg!(test) { 1_000 } else { 600_000 };
/// Rounds of a stored password at most: they are spent at every login.
const ROUNDS_MAX: u32 = 5_000_000;
/// The longest password, in bytes.
pub const PASSWORD_MAX: usize = 1024;
const SCHEME: &str = "pbkdf2-sha256";

/// What is stored for `password`. Takes a good part of a second.
#[must_use]
pub fn hash_password(password: &str) -> String {
    let salt = random_bytes::<16>();
    let hash = derive(password, &salt, ROUNDS);
    format!("{SCHEME}${ROUNDS}${}${}", BASE64.encode(salt), BASE64.encode(hash))
}

/// Whether `stored` is something that [`hash_password`] gave.
#[must_use]
pub fn is_password_hash(stored: &str) -> bool {
    parse(stored).is_some()
}

/// Whether `password` is the one of `stored`. Without a stored one it takes as long and is not,
/// so that the time does not tell which users there are.
#[must_use]
pub fn verify_password(password: &str, stored: Option<&str>) -> bool {
    let Some((rounds, salt, hash)) = stored.and_then(parse) else {
        derive(password, &[0; 16], ROUNDS);
        return false;
    };
    // Comparing MACs of both under a fresh key takes the same time whatever differs.
    let key = random_bytes::<32>();
    let mac = |data: &[u8]| super::secrets::hmac(&key).chain_update(data);
    let expected = mac(&hash).finalize().into_bytes();
    mac(&derive(password, &salt, rounds)).verify(&expected).is_ok()
}

fn derive(password: &str, salt: &[u8], rounds: u32) -> [u8; 32] {
    let mut hash = [0; 32];
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut hash);
    hash
}

fn parse(stored: &str) -> Option<(u32, Vec<u8>, Vec<u8>)> {
    let mut parts = stored.split('$');
    let (scheme, rounds) = (parts.next()?, parts.next()?.parse().ok()?);
    let (salt, hash) = (BASE64.decode(parts.next()?).ok()?, BASE64.decode(parts.next()?).ok()?);
    let is_sound = scheme == SCHEME
        && (1..=ROUNDS_MAX).contains(&rounds)
        && salt.len() >= 8
        && hash.len() == 32
        && parts.next().is_none();
    is_sound.then_some((rounds, salt, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_accepted() {
        let stored = hash_password("correct horse");
        assert!(verify_password("correct horse", Some(&stored)));
        assert!(!verify_password("correct horsE", Some(&stored)));
        assert!(!verify_password("", Some(&stored)));
        assert!(!verify_password("correct horse", None));
        assert!(!verify_password("correct horse", Some("correct horse")));
        assert_ne!(stored, hash_password("correct horse"), "every password has its own salt");
        assert!(is_password_hash(&stored) && !stored.contains("horse"));
        for broken in ["", "pbkdf2-sha256$0$AAAAAAAAAAAAAA$AA", "md5$1$x$y", "a$b$c$d$e"] {
            assert!(!is_password_hash(broken), "{broken}");
        }
    }

    #[test]
    fn the_function_is_the_one_of_the_standard() {
        // RFC 7914, section 11: PBKDF2-HMAC-SHA256, "passwd", "salt", 1 round, first 32 bytes.
        let expected = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
        let given: String =
            derive("passwd", b"salt", 1).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(given, expected);
    }
}

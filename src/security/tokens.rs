//! Tokens of logins: JSON Web Tokens, HMAC with SHA-256, with the claims of both families that
//! have logins (contract 1.4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use super::secrets::{hmac, random_id};

/// The longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 4096;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// To use the API.
    Access,
    /// To get another access token.
    Refresh,
}

/// What a token says. Both families' names of the same thing are written and the first is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whose it is.
    pub user_id: String,
    /// The same.
    pub sub: String,
    /// The name used to log in.
    pub username: String,
    /// The role at the time of the login, for people; what counts is the user's present one.
    pub role: String,
    /// What it is good for.
    pub token_type: TokenKind,
    /// The same.
    pub r#type: TokenKind,
    /// When it was made, in seconds since the epoch.
    pub iat: u64,
    /// When it ends, in seconds since the epoch.
    pub exp: u64,
    /// Names this token.
    pub jti: String,
    /// Names the login that it came from: a logout ends all tokens of it.
    pub sid: String,
    /// When the last token of the login ends.
    pub sid_exp: u64,
}

/// A login that was just made or goes on.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose.
    pub user_id: String,
    /// The name used to log in.
    pub username: String,
    /// The role, as a word.
    pub role: &'static str,
    /// Names the login.
    pub session_id: String,
    /// When its last token ends, in seconds since the epoch.
    pub ends_s: u64,
}

impl Session {
    /// A token of this login.
    #[must_use]
    pub fn token(&self, secret: &[u8], kind: TokenKind, now_s: u64, lives_s: u64) -> String {
        let claims = Claims {
            user_id: self.user_id.clone(),
            sub: self.user_id.clone(),
            username: self.username.clone(),
            role: self.role.to_owned(),
            token_type: kind,
            r#type: kind,
            iat: now_s,
            // No token outlives its login: a logout is only remembered that long.
            exp: now_s.saturating_add(lives_s).min(self.ends_s),
            jti: random_id(),
            sid: self.session_id.clone(),
            sid_exp: self.ends_s,
        };
        sign(secret, &claims)
    }
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not a token of ours.
    Invalid,
    /// It was one.
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
}

fn sign(secret: &[u8], claims: &Claims) -> String {
    let header = Header { alg: "HS256".to_owned(), typ: "JWT".to_owned() };
    let signed = format!("{}.{}", encoded(&header), encoded(claims));
    let mac = hmac(secret).chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", BASE64.encode(mac))
}

fn encoded(part: &impl Serialize) -> String {
    BASE64.encode(serde_json::to_vec(part).expect("claims are plain data"))
}

/// Whether `text` looks like a token rather than like a key.
pub(super) fn looks_like_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Reads a token that `secret` signed and that has not ended.
///
/// # Errors
/// [`TokenError`]. Only `HS256` is taken, whatever the token asks for.
pub fn verify(secret: &[u8], text: &str, now_s: u64) -> Result<Claims, TokenError> {
    let invalid = TokenError::Invalid;
    if text.len() > TOKEN_MAX {
        return Err(invalid);
    }
    let (signed, mac) = text.rsplit_once('.').ok_or(invalid)?;
    let (header, claims) = signed.split_once('.').ok_or(invalid)?;
    let decoded = |part: &str| BASE64.decode(part).map_err(|_| invalid);
    let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| invalid)?;
    if header.alg != "HS256" {
        return Err(invalid);
    }
    let checked = hmac(secret).chain_update(signed).verify_slice(&decoded(mac)?);
    checked.map_err(|_| invalid)?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).map_err(|_| invalid)?;
    if claims.exp <= now_s { Err(TokenError::Expired) } else { Ok(claims) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            user_id: "u-1".to_owned(),
            username: "ada".to_owned(),
            role: "operator",
            session_id: random_id(),
            ends_s: 10_000,
        }
    }

    #[test]
    fn contract_1_4_tokens_carry_both_claim_sets() {
        let token = session().token(b"secret", TokenKind::Access, 1000, 60);
        let middle = BASE64.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&middle).unwrap();
        for (name, value) in [
            ("user_id", "u-1".into()),
            ("sub", "u-1".into()),
            ("username", "ada".into()),
            ("role", "operator".into()),
            ("token_type", "access".into()),
            ("type", "access".into()),
            ("iat", 1000.into()),
            ("exp", serde_json::Value::from(1060)),
        ] {
            assert_eq!(claims[name], value, "{name}");
        }
        assert!(claims["jti"].is_string());
        assert!(looks_like_token(&token) && !looks_like_token("web4ai_x"));
    }

    #[test]
    fn only_what_the_secret_signed_is_taken_and_only_for_its_time() {
        let token = session().token(b"secret", TokenKind::Access, 1000, 60);
        assert_eq!(verify(b"secret", &token, 1059).unwrap().sid_exp, 10_000);
        assert_eq!(verify(b"secret", &token, 1060), Err(TokenError::Expired));
        assert_eq!(verify(b"other", &token, 1000), Err(TokenError::Invalid));
        let (signed, mac) = token.rsplit_once('.').unwrap();
        let claims = signed.split_once('.').unwrap().1;
        let none = BASE64.encode(br#"{"alg":"none","typ":"JWT"}"#);
        for forged in [
            format!("{none}.{claims}.{mac}"),
            format!("{none}.{claims}."),
            format!("{signed}."),
            format!("{signed}.{}", &mac[1..]),
            signed.to_owned(),
            "a.b.c".to_owned(),
            String::new(),
            "eyJ".repeat(2000),
        ] {
            assert_eq!(verify(b"secret", &forged, 1000), Err(TokenError::Invalid), "{forged}");
        }
        // A login that ends sooner takes its tokens with it.
        let late = session().token(b"secret", TokenKind::Refresh, 9_990, 60);
        assert_eq!(verify(b"secret", &late, 10_000), Err(TokenError::Expired));
    }

    #[test]
    fn the_signature_is_the_one_of_the_standard() {
        // RFC 7515, appendix A.1: another implementation's token under its key.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let mac = hmac(&BASE64.decode(key).unwrap()).chain_update(signed).finalize().into_bytes();
        assert_eq!(BASE64.encode(mac), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }
}

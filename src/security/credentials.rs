//! What callers show (contract 1.4), and how they are refused.

use std::time::Duration;

/// The cookie that holds an access token.
pub const ACCESS_COOKIE: &str = "orion_access_token";
/// The cookie that holds a refresh token.
pub const REFRESH_COOKIE: &str = "orion_refresh_token";

/// The values of the headers that may name a caller: of HTTP, of a WebSocket's upgrade, or of gRPC
/// metadata under the same names in lower case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// `X-API-Key`.
    pub api_key: Option<&'a str>,
    /// `Authorization`: `Bearer <key or token>` or `ApiKey <key>`.
    pub authorization: Option<&'a str>,
    /// `Cookie`, as a whole.
    pub cookies: Option<&'a str>,
    /// A key or token from the query, where that is allowed: browsers cannot set headers of a
    /// WebSocket.
    pub query: Option<&'a str>,
    /// The cookies came with a page that may not use them: they count for nothing.
    pub cookies_are_foreign: bool,
    /// The key of administrators was shown too, and is the right one.
    pub is_admin: bool,
}

impl<'a> Credentials<'a> {
    pub(super) fn token_of_cookie(&self) -> Option<&'a str> {
        self.cookies.and_then(|cookies| cookie(cookies, ACCESS_COOKIE))
    }

    /// Everything shown, in the order in which it counts.
    pub(super) fn shown(&self) -> impl Iterator<Item = &'a str> {
        let authorization = self.authorization.and_then(bearer);
        let token = self.token_of_cookie().filter(|_| !self.cookies_are_foreign);
        let all = [self.api_key.map(str::trim), authorization, token, self.query];
        all.into_iter().flatten().filter(|shown| !shown.is_empty())
    }
}

/// What follows the scheme.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, shown) = authorization.trim().split_once(' ')?;
    let known = ["bearer", "apikey"];
    known.iter().any(|word| scheme.eq_ignore_ascii_case(word)).then(|| shown.trim())
}

/// One cookie of a `Cookie` header.
#[must_use]
pub fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(its, _)| *its == name).map(|(_, value)| value.trim_matches('"'))
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    #[error("Authentication required")]
    Missing,
    /// No such key.
    #[error("Invalid API key")]
    InvalidKey,
    /// Not a token of ours, or of a login that was ended.
    #[error("Invalid token")]
    InvalidToken,
    /// A token of ours, of a user who is gone or not known here yet.
    #[error("Invalid token")]
    UnknownUser,
    /// It was good once.
    #[error("Credentials have expired")]
    Expired,
    /// The role does not have the permission.
    #[error("Insufficient permissions")]
    Forbidden,
    /// `security.allowed_ips` does not have the address.
    #[error("Address not allowed")]
    Address,
    /// Cookies of a page of another origin, with a request that changes something.
    #[error("Cookies are not taken from this origin")]
    Origin,
    /// Too many requests.
    #[error("Rate limit exceeded")]
    TooMany {
        /// Until the next one is taken.
        wait: Duration,
    },
}

impl Refusal {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Missing
            | Self::InvalidKey
            | Self::InvalidToken
            | Self::UnknownUser
            | Self::Expired => 401,
            Self::Forbidden | Self::Address | Self::Origin => 403,
            Self::TooMany { .. } => 429,
        }
    }

    /// The stable code that programs match on.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing
            | Self::InvalidKey
            | Self::InvalidToken
            | Self::UnknownUser
            | Self::Expired => "AUTHENTICATION_FAILED",
            Self::Forbidden => "INSUFFICIENT_PERMISSIONS",
            Self::Address => "ADDRESS_NOT_ALLOWED",
            Self::Origin => "ORIGIN_NOT_ALLOWED",
            Self::TooMany { .. } => "RATE_LIMITED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_4_where_credentials_stand() {
        let shown = |credentials: Credentials<'static>| credentials.shown().collect::<Vec<_>>();
        let none = Credentials::default();
        assert_eq!(shown(Credentials { api_key: Some(" k "), ..none }), ["k"]);
        for authorization in ["Bearer k", "bearer  k", "ApiKey k", "APIKEY k"] {
            let credentials = Credentials { authorization: Some(authorization), ..none };
            assert_eq!(shown(credentials), ["k"], "{authorization}");
        }
        for authorization in ["Basic k", "k", "Bearer", "Bearer "] {
            let credentials = Credentials { authorization: Some(authorization), ..none };
            assert!(shown(credentials).is_empty(), "{authorization}");
        }
        let cookies = Some("a=b; orion_access_token=\"t\"; x_orion_access_token=no");
        assert_eq!(shown(Credentials { cookies, ..none }), ["t"]);
        let all = Credentials {
            api_key: Some("1"),
            authorization: Some("Bearer 2"),
            cookies: Some("orion_access_token=3"),
            query: Some("4"),
            ..none
        };
        assert_eq!(shown(all), ["1", "2", "3", "4"]);
        assert_eq!(shown(Credentials { cookies_are_foreign: true, ..all }), ["1", "2", "4"]);
    }
}

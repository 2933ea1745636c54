//! What one revision of the configuration says about who may come in (contract 1.4 to 1.6).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::keys::{ApiKey, User};
use super::limits::{Limits, Who};
use super::roles::{Permission, Role};
use super::secrets::{Hash, hash};
use super::standing::{Registration, Standing};
use super::tokens::{self, Claims, TokenKind};
use super::{Cors, Credentials, Refusal};
use crate::model::{Networks, TimeMs};

/// How long an access token is good when nobody says (contract C7).
const ACCESS_S: u64 = 1800;
/// How long a login can be kept up with its refresh token (contract 1.4, family N).
const REFRESH_S: u64 = 7 * 24 * 3600;
/// Lifetimes are bounded: a logout must be remembered as long.
const LIFETIME_MAX_S: u64 = 366 * 24 * 3600;

/// Who asks, once it is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// For the record.
    pub user_id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// How it is known.
    pub proof: Proof,
}

/// How somebody is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By the key of administrators, which this member was given when it started.
    AdminKey,
    /// By an API key.
    Key(Hash),
    /// By a token of a login.
    Session {
        /// Names the login.
        session_id: String,
        /// The name used.
        username: String,
        /// When the token ends, in seconds since the epoch.
        ends_s: u64,
        /// When the last token of the login ends.
        session_ends_s: u64,
    },
}

impl Principal {
    /// Whose requests are counted together.
    #[must_use]
    pub fn who(&self) -> Who {
        match &self.proof {
            Proof::Key(hash) => Who::Key(*hash),
            Proof::AdminKey | Proof::Session { .. } => Who::User(self.user_id.to_string()),
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Access {
    required: bool,
    keys: HashMap<Hash, ApiKey>,
    users: HashMap<String, User>,
    secret: Option<Vec<u8>>,
    access_s: u64,
    refresh_s: u64,
    /// `None` when all addresses are allowed.
    networks: Option<Networks>,
    /// `None` when rates are not limited.
    limits: Option<Limits>,
    registration: Registration,
    /// Which pages of other origins may use the API.
    pub cors: Cors,
    /// Refusals and writes are noted.
    pub audit: bool,
}

impl Access {
    /// What `document`, the whole configuration, says.
    ///
    /// # Errors
    /// The first value that cannot be used. [`Self::read`] goes on without it.
    pub fn check(document: &Value) -> Result<Self, String> {
        let mut faults = Vec::new();
        let access = Self::of(document, &mut faults);
        match faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(access),
        }
    }

    /// As [`Self::check`], for a document that is in force already: what cannot be used is
    /// reported and left out, so that it opens nothing.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        let mut faults = Vec::new();
        let access = Self::of(document, &mut faults);
        for fault in faults {
            tracing::warn!(fault, "a value of the configuration is not used");
        }
        access
    }

    fn of(document: &Value, faults: &mut Vec<String>) -> Self {
        let at = |pointer: &str| document.pointer(pointer).filter(|value| !value.is_null());
        let flag = |pointer: &str, default: bool| match at(pointer) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| format!("{pointer} is true or false")),
        };
        let mut take = |read: Result<bool, String>, otherwise: bool| match read {
            Ok(value) => value,
            Err(fault) => {
                faults.push(fault.replacen('/', "", 1).replace('/', "."));
                otherwise
            }
        };
        // What cannot be read locks rather than opens.
        let required = take(flag("/security/api_key_required", false), true)
            | take(flag("/orchestrator/security_enabled", false), true);
        let limiting = take(flag("/security/rate_limiting", false), false);
        let audit = take(flag("/security/audit_logging", true), true);
        let cors_enabled = take(flag("/security/cors_enabled", true), true);
        let keys = entries(at("/security/api_keys"), "api_keys", ApiKey::read, faults);
        let users = entries(at("/security/users"), "users", User::read, faults);
        let (access_s, refresh_s) = lifetimes(document, faults);
        let registration = Registration::read(at("/security/registration"), faults);
        Self {
            required,
            keys: keys.into_iter().map(|key| (key.hash, key)).collect(),
            users: users.into_iter().collect(),
            secret: secret(document),
            access_s,
            refresh_s,
            networks: networks(at("/security/allowed_ips"), faults),
            limits: limiting.then(|| limits(document, faults)),
            registration,
            cors: Cors::read(cors_enabled, at("/security/cors_origins"), faults),
            audit,
        }
    }

    /// Whether credentials are asked for at all.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether every request may pass unseen.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.required
            && self.networks.is_none()
            && self.limits.is_none()
            && self.cors == Cors::default()
    }

    /// Whether credentials are asked for and nobody has any that allow to change that.
    #[must_use]
    pub fn is_locked(&self, now_ms: TimeMs) -> bool {
        let key = |key: &ApiKey| key.role == Role::Admin && !has_ended(key, now_ms);
        self.required
            && !self.keys.values().any(key)
            && !self.users.values().any(|user| user.role == Role::Admin)
    }

    /// Whether requests from `address` are served. One that is not known is not on any list.
    #[must_use]
    pub fn admits_address(&self, address: Option<IpAddr>) -> bool {
        let networks = self.networks.as_ref();
        networks.is_none_or(|networks| address.is_some_and(|address| networks.contains(address)))
    }

    /// All keys, the newest first.
    #[must_use]
    pub fn keys(&self) -> Vec<&ApiKey> {
        let mut keys: Vec<_> = self.keys.values().collect();
        keys.sort_by_key(|key| (std::cmp::Reverse(key.created_at_ms), key.hash));
        keys
    }

    /// The counters of keys are those of the revision before.
    pub(super) fn adopt_usage(&mut self, before: &Self) {
        for (hash, key) in &mut self.keys {
            if let Some(known) = before.keys.get(hash) {
                key.usage = Arc::clone(&known.usage);
            }
        }
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, username: &str) -> Option<&User> {
        self.users.get(username)
    }

    /// Who may register, and as what.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// What tokens are signed with; `None` before the first login.
    #[must_use]
    pub fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }

    /// How long an access token is good, in seconds.
    #[must_use]
    pub fn access_s(&self) -> u64 {
        self.access_s
    }

    /// How long a login can be kept up, in seconds.
    #[must_use]
    pub fn refresh_s(&self) -> u64 {
        self.refresh_s
    }

    /// The limits for a caller.
    #[must_use]
    pub fn limits(&self, principal: Option<&Principal>) -> Limits {
        let Some(limits) = self.limits else { return Limits::default() };
        let own = principal.and_then(|principal| match &principal.proof {
            Proof::Key(hash) => self.keys.get(hash)?.per_minute,
            Proof::AdminKey | Proof::Session { .. } => None,
        });
        Limits { per_minute: own.or(limits.per_minute), ..limits }
    }

    /// Who shows these credentials. The first that is good counts; `standing` tells of a login, by its
    /// id and its user's, how it stands.
    ///
    /// # Errors
    /// [`Refusal::Missing`], or why the last one is no good.
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now_ms: TimeMs,
        standing: impl Fn(&str, &str) -> Standing,
    ) -> Result<Principal, Refusal> {
        if credentials.is_admin {
            let (user_id, role) = ("administrator".into(), Role::Admin);
            return Ok(Principal { user_id, role, proof: Proof::AdminKey });
        }
        let is_foreign = credentials.cookies_are_foreign && credentials.token_of_cookie().is_some();
        let mut refusal = if is_foreign { Refusal::Origin } else { Refusal::Missing };
        for shown in credentials.shown() {
            match self.known(shown, now_ms, &standing) {
                Ok(principal) => return Ok(principal),
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    fn known(
        &self,
        shown: &str,
        now_ms: TimeMs,
        standing: impl Fn(&str, &str) -> Standing,
    ) -> Result<Principal, Refusal> {
        if tokens::looks_like_token(shown) {
            return self.login(shown, TokenKind::Access, now_ms, standing).map(|(_, known)| known);
        }
        let key = self.keys.get(&hash(shown)).ok_or(Refusal::InvalidKey)?;
        if has_ended(key, now_ms) {
            return Err(Refusal::Expired);
        }
        key.usage.note(now_ms);
        let user_id = Arc::clone(&key.user_id);
        Ok(Principal { user_id, role: key.role, proof: Proof::Key(key.hash) })
    }

    /// Reads a token that is good for `kind`, whether its login goes on or not.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`] or [`Refusal::Expired`].
    pub fn claims(&self, token: &str, kind: TokenKind, now_ms: TimeMs) -> Result<Claims, Refusal> {
        let secret = self.secret.as_ref().ok_or(Refusal::InvalidToken)?;
        let claims = tokens::verify(secret, token, now_ms / 1000).map_err(|error| match error {
            tokens::TokenError::Invalid => Refusal::InvalidToken,
            tokens::TokenError::Expired => Refusal::Expired,
        })?;
        if claims.token_type == kind { Ok(claims) } else { Err(Refusal::InvalidToken) }
    }

    /// As [`Self::claims`], of a login that goes on, with its user as of today.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`] or [`Refusal::Expired`]; [`Refusal::UnknownUser`] of an account that
    /// another member may know already.
    pub fn login(
        &self,
        token: &str,
        kind: TokenKind,
        now_ms: TimeMs,
        standing: impl Fn(&str, &str) -> Standing,
    ) -> Result<(Claims, Principal), Refusal> {
        let claims = self.claims(token, kind, now_ms)?;
        let standing = standing(&claims.sid, &claims.user_id);
        let role = self.role_now(&claims.username, &claims.user_id, &standing);
        let is_unknown = standing.account.is_none() && !standing.is_revoked;
        let refusal = if is_unknown { Refusal::UnknownUser } else { Refusal::InvalidToken };
        let role = role.ok_or(refusal)?;
        let proof = Proof::Session {
            session_id: claims.sid.clone(),
            username: claims.username.clone(),
            ends_s: claims.exp,
            session_ends_s: claims.sid_exp,
        };
        let user_id = claims.user_id.as_str().into();
        Ok((claims, Principal { user_id, role, proof }))
    }

    /// The role of whoever logged in, as of today; `None` when the login counts no more. A name
    /// alone is not enough: it may be somebody else's by now.
    fn role_now(&self, username: &str, user_id: &str, standing: &Standing) -> Option<Role> {
        if standing.is_revoked {
            return None;
        }
        match &standing.account {
            Some(account) => account.is_active.then(|| self.registration.role_of(&account.role)),
            None => {
                let user = self.users.get(username).filter(|user| *user.user_id == *user_id);
                user.map(|user| user.role)
            }
        }
    }

    /// Whether somebody who was let in a while ago would be let in now, to do the same.
    #[must_use]
    pub fn still_admits(
        &self,
        principal: &Principal,
        permission: Permission,
        now_ms: TimeMs,
        standing: impl Fn(&str, &str) -> Standing,
    ) -> bool {
        let role = match &principal.proof {
            Proof::AdminKey => Some(Role::Admin),
            Proof::Key(hash) => {
                let key = self.keys.get(hash).filter(|key| !has_ended(key, now_ms));
                key.map(|key| key.role)
            }
            Proof::Session { session_id, username, ends_s, .. } => {
                let standing = standing(session_id, &principal.user_id);
                let role = self.role_now(username, &principal.user_id, &standing);
                role.filter(|_| *ends_s > now_ms / 1000)
            }
        };
        role.is_some_and(|role| role.may(permission))
    }
}

fn has_ended(key: &ApiKey, now_ms: TimeMs) -> bool {
    key.expires_at_ms.is_some_and(|at| at <= now_ms)
}

fn entries<T>(
    list: Option<&Value>,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
    faults: &mut Vec<String>,
) -> Vec<T> {
    let Some(list) = list else { return Vec::new() };
    let Some(list) = list.as_array() else {
        faults.push(format!("security.{name} must be a list"));
        return Vec::new();
    };
    let mut out = Vec::with_capacity(list.len());
    for (place, entry) in list.iter().enumerate() {
        match read(entry) {
            Some(entry) => out.push(entry),
            None => faults.push(format!("security.{name}[{place}] cannot be used")),
        }
    }
    out
}

fn secret(document: &Value) -> Option<Vec<u8>> {
    // One document names it in one way, the code in the other (contract 2.14).
    let found = ["/security/jwt_secret", "/security/secret_key"];
    let mut found = found.iter().filter_map(|pointer| document.pointer(pointer)?.as_str());
    found.find(|text| !text.is_empty()).map(|text| text.as_bytes().to_vec())
}

fn lifetimes(document: &Value, faults: &mut Vec<String>) -> (u64, u64) {
    let mut seconds = |name: &str, unit_s: f64| {
        let value = document.get("security")?.get(name).filter(|value| !value.is_null())?;
        let seconds = value.as_f64().map(|number| number * unit_s);
        let fitting = seconds.filter(|seconds| (1.0..=LIFETIME_MAX_S as f64).contains(seconds));
        if fitting.is_none() {
            faults.push(format!("security.{name} must be a time from 1 s to 366 days"));
        }
        fitting.map(|seconds| seconds as u64)
    };
    let (expiry, hours) = (seconds("token_expiry", 1.0), seconds("jwt_expiration_hours", 3600.0));
    let access_s = expiry.or(hours).unwrap_or(ACCESS_S);
    (access_s, REFRESH_S.max(access_s))
}

fn networks(list: Option<&Value>, faults: &mut Vec<String>) -> Option<Networks> {
    let list = list?;
    let Some(list) = list.as_array() else {
        faults.push("security.allowed_ips must be a list of addresses".to_owned());
        return Some(Networks::default());
    };
    if list.is_empty() {
        return None;
    }
    let mut good = Vec::new();
    for text in list.iter().map(|text| text.as_str().unwrap_or_default()) {
        match Networks::parse(std::iter::once(text)) {
            Ok(_) => good.push(text),
            Err(fault) => faults.push(format!("security.allowed_ips: {fault}")),
        }
    }
    Some(Networks::parse(good.into_iter()).unwrap_or_default())
}

/// Only what an operator set is a limit: built-in ones would throttle clients that were never
/// throttled (contract 1.5).
fn limits(document: &Value, faults: &mut Vec<String>) -> Limits {
    let mut limit = |name: &str| {
        let value = document.get("security")?.get(name).filter(|value| !value.is_null())?;
        if !value.is_u64() {
            faults.push(format!("security.{name} must be a whole number"));
        }
        value.as_u64()
    };
    Limits {
        per_minute: limit("max_requests_per_minute"),
        per_hour: limit("max_requests_per_hour"),
    }
}

//! API keys and users as they stand in the replicated configuration: as hashes, never in clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::passwords::{PASSWORD_MAX, is_password_hash};
use super::roles::Role;
use super::seal::MASK;
use super::secrets::{Hash, hash, hex, parse_hash, shown_part};
use super::times::{iso, parse_time};
use crate::model::TimeMs;

/// The user behind keys that name none (contract 1.4).
const SYSTEM: &str = "system";

/// How often a key was used on this member since it started.
#[derive(Debug, Default)]
pub struct Usage {
    count: AtomicU64,
    last_ms: AtomicU64,
}

impl Usage {
    pub(super) fn note(&self, now_ms: TimeMs) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// How many requests showed the key.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When the newest of them came; 0 for never.
    #[must_use]
    pub fn last_ms(&self) -> TimeMs {
        self.last_ms.load(Ordering::Relaxed)
    }
}

/// One key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub(super) hash: Hash,
    /// Its beginning, for people.
    pub prefix: String,
    /// Who shows it.
    pub user_id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// What it is for.
    pub name: String,
    /// When it was made; 0 when nobody said.
    pub created_at_ms: TimeMs,
    /// When it ends.
    pub expires_at_ms: Option<TimeMs>,
    /// Its own rate limit.
    pub per_minute: Option<u64>,
    /// How often it was used here.
    pub usage: Arc<Usage>,
}

impl ApiKey {
    /// The hash as hex digits: the name of the key that is always unique.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.hash)
    }

    /// Reads an entry of `security.api_keys`. Clear ones are taken too: a member may meet a
    /// configuration that was written before keys were sealed.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let clear = entry.as_str().or_else(|| text("key")).filter(|key| !key.is_empty());
        let hash = match clear {
            Some(key) => hash(key),
            None => parse_hash(text("hash")?)?,
        };
        let default_role = if entry.is_string() { Role::Admin } else { Role::Client };
        let role = match text("role") {
            None => default_role,
            Some(word) => Role::parse(word)?,
        };
        let expires_at_ms = match entry.get("expires_at") {
            None | Some(Value::Null) => None,
            Some(value) => Some(parse_time(value)?),
        };
        Some(Self {
            hash,
            prefix: clear.map(shown_part).or_else(|| text("prefix").map(str::to_owned))?,
            user_id: text("user_id").unwrap_or(SYSTEM).into(),
            role,
            name: text("name").unwrap_or_default().to_owned(),
            created_at_ms: entry.get("created_at").and_then(parse_time).unwrap_or(0),
            expires_at_ms,
            per_minute: entry.get("rate_limit_per_minute").and_then(Value::as_u64),
            usage: Arc::default(),
        })
    }

    /// The entry to store for a fresh key.
    #[must_use]
    pub fn stored(key: &str, fields: Value, now_ms: TimeMs) -> Value {
        let mut fields = match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.retain(|_, value| !value.is_null());
        fields.insert("key".to_owned(), key.into());
        seal_object(&mut fields, now_ms);
        Value::Object(fields)
    }
}

fn seal_object(fields: &mut Map<String, Value>, now_ms: TimeMs) {
    if let Some(Value::String(key)) = fields.remove("key") {
        fields.insert("hash".to_owned(), hex(&hash(&key)).into());
        fields.insert("prefix".to_owned(), shown_part(&key).into());
    }
    for (name, default) in [
        ("user_id", json!(SYSTEM)),
        ("role", json!(Role::Client.as_str())),
        ("name", json!("")),
        ("created_at", json!(iso(now_ms))),
    ] {
        fields.entry(name).or_insert(default);
    }
}

/// An entry of `security.api_keys` as it is stored, from one of the forms of contract 1.4, a stored
/// one, or a masked one that `stored` has.
pub(super) fn seal_key(entry: Value, stored: &[Value], now_ms: TimeMs) -> Result<Value, String> {
    let mut fields = match entry {
        Value::String(key) if !key.is_empty() && key != MASK => {
            Map::from_iter([("key".to_owned(), key.into()), ("role".to_owned(), "admin".into())])
        }
        Value::Object(fields) => fields,
        _ => return Err("must be a key, or an object with a key".to_owned()),
    };
    fields.retain(|_, value| !value.is_null());
    if is_masked(&fields, "hash") {
        let known = find_stored(&fields, &["prefix", "name", "created_at"], stored)?;
        fields.insert("hash".to_owned(), known["hash"].clone());
    }
    match fields.get("key") {
        None => {}
        Some(Value::String(key)) if !key.is_empty() && key != MASK => {}
        Some(_) => return Err("key must be a text that is not empty".to_owned()),
    }
    seal_object(&mut fields, now_ms);
    check_texts(&fields, &["user_id", "name", "prefix"])?;
    check_role(&fields)?;
    if let Some(limit) = fields.get("rate_limit_per_minute")
        && !limit.is_u64()
    {
        return Err("rate_limit_per_minute must be a whole number".to_owned());
    }
    if fields.get("expires_at").is_some_and(|value| parse_time(value).is_none()) {
        return Err("expires_at must be a time: ISO-8601, or seconds since 1970".to_owned());
    }
    let sealed = Value::Object(fields);
    if ApiKey::read(&sealed).is_none() {
        return Err("has no key".to_owned());
    }
    Ok(sealed)
}

/// One user who may log in.
#[derive(Debug, Clone)]
pub struct User {
    /// Stands in tokens and in the record.
    pub user_id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// For [`super::verify_password`].
    pub password_hash: String,
}

impl User {
    /// Reads an entry of `security.users`: the name, and the rest.
    pub(super) fn read(entry: &Value) -> Option<(String, Self)> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let username = text("username").filter(|name| !name.is_empty())?;
        let role = text("role").map_or(Some(Role::Client), Role::parse)?;
        let password_hash = text("password_hash").filter(|stored| is_password_hash(stored))?;
        let user_id = text("user_id").unwrap_or(username).into();
        let user = Self { user_id, role, password_hash: password_hash.to_owned() };
        Some((username.to_owned(), user))
    }
}

/// An entry of `security.users` as it is stored.
pub(super) fn seal_user(
    entry: Value,
    stored: &[Value],
    hash_password: fn(&str) -> String,
) -> Result<Value, String> {
    let Value::Object(mut fields) = entry else {
        return Err("must be an object with a username and a password".to_owned());
    };
    fields.retain(|_, value| !value.is_null());
    check_texts(&fields, &["username", "user_id"])?;
    check_role(&fields)?;
    let name = fields.get("username").and_then(Value::as_str).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err("username must be a text that is not empty".to_owned());
    }
    match fields.remove("password") {
        None if is_masked(&fields, "password_hash") => {
            let known = find_stored(&fields, &["username"], stored)?;
            fields.insert("password_hash".to_owned(), known["password_hash"].clone());
        }
        None => {}
        Some(Value::String(password))
            if !password.is_empty() && password != MASK && password.len() <= PASSWORD_MAX =>
        {
            fields.insert("password_hash".to_owned(), hash_password(&password).into());
        }
        Some(_) => return Err(format!("password must be a text of 1 to {PASSWORD_MAX} bytes")),
    }
    fields.entry("role").or_insert_with(|| Role::Client.as_str().into());
    fields.entry("user_id").or_insert_with(|| name.into());
    let sealed = Value::Object(fields);
    if User::read(&sealed).is_none() {
        return Err("has no password".to_owned());
    }
    Ok(sealed)
}

fn is_masked(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_str) == Some(MASK)
}

/// The one stored entry that has the same values of `names`.
fn find_stored(
    fields: &Map<String, Value>,
    names: &[&str],
    stored: &[Value],
) -> Result<Value, String> {
    let is_it = |entry: &&Value| names.iter().all(|name| entry.get(*name) == fields.get(*name));
    let mut found = stored.iter().filter(is_it);
    let names = names.join(", ");
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(format!("is masked, and no stored entry has its {names}")),
        (Some(_), Some(_)) => Err(format!("is masked, and several stored ones have its {names}")),
    }
}

fn check_texts(fields: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match names.iter().find(|name| fields.get(**name).is_some_and(|value| !value.is_string())) {
        Some(name) => Err(format!("{name} must be a text")),
        None => Ok(()),
    }
}

fn check_role(fields: &Map<String, Value>) -> Result<(), String> {
    let role = fields.get("role");
    if role.is_none_or(|role| role.as_str().and_then(Role::parse).is_some()) {
        return Ok(());
    }
    let words = Role::ALL.map(Role::as_str).join(", ");
    Err(format!("role must be one of {words}"))
}

//! The replicated orchestrator configuration (contract 2.3, 2.12, C16). What is secret in it goes
//! in and never comes out; keys and passwords are hashed before they are proposed.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use super::app::{Written, key_reused};
use super::auth::Address;
use super::body::RequestBody;
use super::error::ApiError;
use super::object::Object;
use super::params::{Params, Path};
use super::reply;
use super::ticket::{Caller, Ticket};
use crate::clock;
use crate::cluster::ReadStamp;
use crate::outward;
use crate::security::{Access, MASK, seal};
use crate::state::{Command, Config, Outcome, Policy, unread};

/// The deepest path that is taken; the state has the same bound.
const PATH_KEYS_MAX: usize = 32;

#[derive(Serialize)]
struct ConfigReply {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    config: Value,
    revision: u64,
    /// Of a change: keys in it that nothing acts on, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<Warning>>,
}

#[derive(Serialize)]
struct Warning {
    key: &'static str,
    message: String,
}

/// What there is to say to whoever makes a change: nobody shall believe that it has an effect that it
/// does not have.
fn warnings(change: &Change) -> Vec<Warning> {
    let keys: Vec<&str> = change.path.split('.').filter(|key| !key.is_empty()).collect();
    if keys.len() > PATH_KEYS_MAX {
        // It is refused; until then nothing so deep is made of it.
        return Vec::new();
    }
    let patch = keys.iter().rev().fold(change.value.clone(), |inner, key| json!({ *key: inner }));
    let said = |(key, what)| Warning { key, message: format!("{key} has no effect: {what}") };
    unread(&patch).into_iter().map(said).collect()
}

/// Whether the value under `key` must not be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let whole =
        ["api_key", "api_keys", "token", "webhook_url", "credentials", "private_key", "webhook"];
    let part = ["password", "secret", "access_key", "passphrase"];
    whole.contains(&key.as_str())
        || key.ends_with("_token")
        || part.iter().any(|part| key.contains(part))
}

/// What tells one key or user from another, and no more.
const SHOWN: [&str; 8] = [
    "prefix",
    "username",
    "user_id",
    "role",
    "name",
    "created_at",
    "expires_at",
    "rate_limit_per_minute",
];

/// Replaces what is secret, keeping whether it is set.
fn mask(value: &mut Value, secret: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let inherited = secret && !SHOWN.contains(&key.as_str());
                mask(value, inherited || is_secret(key));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| mask(value, secret)),
        Value::String(text) if secret && !text.is_empty() => *text = MASK.to_owned(),
        Value::Number(_) if secret => *value = Value::from(MASK),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn is_masked(value: &Value) -> bool {
    match value {
        Value::String(text) => text == MASK,
        Value::Array(list) => list.iter().any(is_masked),
        Value::Object(map) => map.values().any(is_masked),
        Value::Number(_) | Value::Bool(_) | Value::Null => false,
    }
}

/// Takes masks out of a patch: a client that edits what it got must not overwrite secrets with
/// stars. A list with a mask in it is left as it is stored, whole.
fn unmask(patch: &mut Value) {
    if let Value::Object(map) = patch {
        map.retain(|_, value| match value {
            Value::Object(_) => {
                unmask(value);
                true
            }
            other => !is_masked(other),
        });
    }
}

fn shown(app: &App, stamp: &mut ReadStamp, message: Option<&'static str>) -> ConfigReply {
    let (mut config, revision) = app.show(stamp, |state| {
        let config = state.config();
        (config.document(), config.revision)
    });
    mask(&mut config, false);
    ConfigReply { success: true, message, config, revision, warnings: None }
}

fn with_revision(mut response: Response, revision: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `GET /api/v1/config`.
pub(super) async fn get(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let config = shown(&app, &mut stamp, None);
    let revision = config.revision;
    Ok(with_revision(reply::read(&stamp, reply::encode(&config)), revision))
}

/// The revision the client expects, from `If-Match`.
fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = tag.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.trim_matches('"').parse().map(Some).map_err(|_| {
        ApiError::bad_request("INVALID_HEADER", "If-Match must be the ETag of an answer")
    })
}

/// `PUT /api/v1/config`: merges a part of the document, deeply.
pub(super) async fn put(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    address: Address,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    if Object::parse(&body)?.is_empty() {
        return Err(ApiError::bad_request("INVALID_CONFIG", "No configuration provided"));
    }
    let value: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("INVALID_BODY", error.to_string()))?;
    let expected_revision = expected_revision(&headers)?;
    let change = Change { path: String::new(), value, expected_revision };
    changed(&app, ticket, &caller, address, change).await
}

/// `PUT /api/v1/config/{key.path}`: sets one value. The path may be cut by dots or slashes.
pub(super) async fn put_key(
    State(app): State<App>,
    Path(path): Path<String>,
    ticket: Ticket,
    caller: Caller,
    address: Address,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    if !object.has("value") {
        return Err(ApiError::bad_request("INVALID_CONFIG", "No configuration provided"));
    }
    let value = object.raw("value").map_or("null", |value| value.get());
    let value: Value = serde_json::from_str(value)
        .map_err(|error| ApiError::bad_request("INVALID_BODY", error.to_string()))?;
    let expected_revision = expected_revision(&headers)?;
    let change = Change { path: path.replace('/', "."), value, expected_revision };
    changed(&app, ticket, &caller, address, change).await
}

async fn changed(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    address: Address,
    change: Change,
) -> Result<Response, ApiError> {
    let warnings = warnings(&change);
    let index = change_document(app, ticket, caller, address, change).await?;
    let mut stamp = app.caught_up(ticket, index).await?;
    let shown = shown(app, &mut stamp, Some("Configuration updated"));
    let config = ConfigReply { warnings: Some(warnings), ..shown };
    let revision = config.revision;
    Ok(with_revision(reply::written(ticket, index, &config), revision))
}

/// A change as it comes in: secrets in clear or masked.
pub(super) struct Change {
    /// Keys with dots between; empty for the whole document.
    pub(super) path: String,
    /// Merged in there.
    pub(super) value: Value,
    /// The revision it is meant for.
    pub(super) expected_revision: Option<u64>,
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("INVALID_CONFIG", text)
}

/// Seals a change, sees that it locks nobody out, and commits it. Gives the index of the commit.
///
/// # Errors
/// What is wrong with the change, or why it was not committed.
pub(super) async fn change_document(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    address: Address,
    change: Change,
) -> Result<u64, ApiError> {
    // Against the document that this very request has made, the change may be none, or none that
    // is allowed.
    if let Some(recorded) = app.recorded(ticket) {
        return patched(ticket, &recorded?);
    }
    let config = app.cluster().view().read(|state| state.config().clone());
    let check = app.options().check_config;
    let (change, config) = tokio::task::spawn_blocking(move || {
        prepared(change, &config, check).map(|change| (change, config))
    })
    .await
    .map_err(|_| ApiError::unavailable("MEMBER_STOPPED", "this member stops", 1))??;
    let patch = change.value.to_string();
    let (after, policy) = config.patched(&change.path, &patch)?;
    check_access(app, address, &change, (&config, &after))?;
    check_hosts(&policy)?;
    check_mail_password(&change, (&config, &after))?;
    let Change { path, expected_revision, .. } = change;
    let command = Command::PatchConfig { path, value: patch, expected_revision };
    patched(ticket, &app.write(ticket, caller, command).await?)
}

fn patched(ticket: Ticket, written: &Written) -> Result<u64, ApiError> {
    match written.outcome {
        Outcome::ConfigPatched { .. } => Ok(written.index),
        _ => Err(key_reused(ticket.request_id)),
    }
}

/// The change as it is proposed: keys and passwords as hashes, what is masked left out.
fn prepared(
    change: Change,
    config: &Config,
    check: fn(&Value) -> Result<(), String>,
) -> Result<Change, ApiError> {
    let Change { path, value, mut expected_revision } = change;
    let keys: Vec<&str> = path.split('.').filter(|key| !key.is_empty()).collect();
    if keys.len() > PATH_KEYS_MAX {
        return Err(invalid(format!("the path has more than {PATH_KEYS_MAX} keys")));
    }
    let mut patch = keys.iter().rev().fold(value, |inner, key| json!({ *key: inner }));
    check(&patch).map_err(invalid)?;
    let looked_up = seal(&mut patch, &config.document(), clock::now_ms()).map_err(invalid)?;
    if looked_up && expected_revision.is_none() {
        // What was looked up is only good for the document it was looked up in.
        expected_revision = Some(config.revision);
    }
    let found = keys.iter().try_fold(&mut patch, |value, key| value.get_mut(*key));
    // A list that is as it was shown is no change.
    let Some(value) = found.map(Value::take) else {
        return Ok(Change { path: String::new(), value: json!({}), expected_revision });
    };
    let mut value = value;
    unmask(&mut value);
    if !keys.is_empty() && is_masked(&value) {
        return Err(invalid("the value is what stands for a secret in answers"));
    }
    Ok(Change { path, value, expected_revision })
}

/// Refuses webhooks and a mail server that the list of allowed hosts would keep from ever being called.
fn check_hosts(policy: &Policy) -> Result<(), ApiError> {
    let webhooks = [
        ("alerts.webhook.url", &policy.alert_webhook),
        ("alerts.slack.webhook_url", &policy.alert_slack),
        ("auto_scaling.webhook_url", &policy.scaling_webhook),
    ];
    for (key, url) in webhooks {
        if let Some(Err(error)) = url.as_ref().map(|url| outward::target(url, &policy.reach.hosts))
        {
            return Err(ApiError::bad_request("HOST_NOT_ALLOWED", format!("{key}: {error}")));
        }
    }
    let server = policy.alert_email.as_ref().map(|channel| channel.server.as_str());
    if let Some(Err(error)) = server.map(|host| outward::check_host(host, &policy.reach.hosts)) {
        let text = format!("alerts.email.smtp_server: {error}");
        return Err(ApiError::bad_request("HOST_NOT_ALLOWED", text));
    }
    Ok(())
}

/// Where the password of `alerts.email` goes.
const MAIL_SERVER_KEYS: [&str; 3] = ["smtp_server", "smtp_port", "encryption"];

/// Refuses to let a stored password go to another mail server, or there on another way: whoever may
/// change the configuration would read what is never shown. Compares before and after.
fn check_mail_password(
    change: &Change,
    (before, after): (&Config, &Config),
) -> Result<(), ApiError> {
    let (before, after) = (before.document(), after.document());
    let email = |document: &Value, key: &str| document["alerts"]["email"][key].clone();
    let has = email(&before, "password").as_str().is_some_and(|password| !password.is_empty());
    let leads = |document: &Value| MAIL_SERVER_KEYS.map(|key| email(document, key));
    if !has || email(&before, "password") != email(&after, "password") {
        return Ok(());
    }
    let keys: Vec<&str> = change.path.split('.').filter(|key| !key.is_empty()).collect();
    let patch = keys.iter().rev().fold(change.value.clone(), |inner, key| json!({ *key: inner }));
    if leads(&before) == leads(&after) || email(&patch, "password").is_string() {
        return Ok(());
    }
    let text = "alerts.email.password must be given anew with another smtp_server, smtp_port or \
                encryption: it would go there";
    Err(invalid(text))
}

/// Refuses what makes no sense for who may come in, and what would lock everybody out, or the
/// caller. Compares before and after.
fn check_access(
    app: &App,
    Address(address): Address,
    change: &Change,
    (before, after): (&Config, &Config),
) -> Result<(), ApiError> {
    let is_whole = change.path.is_empty();
    let concerns = |name: &str| match is_whole {
        true => change.value.get(name).is_some(),
        false => change.path.trim_start_matches('.').split('.').next() == Some(name),
    };
    if !concerns("security") && !concerns("orchestrator") {
        return Ok(());
    }
    let (before, after) = (Access::read(&before.document()), Access::check(&after.document()));
    let (after, now) = (after.map_err(invalid)?, clock::now_ms());
    let has_other_way = app.options().admin_key.is_some();
    if after.is_locked(now) && !before.is_locked(now) && !has_other_way {
        let text = "nobody could administer this cluster any more: give an admin a key first, \
                    in security.api_keys or security.users";
        return Err(invalid(text));
    }
    if !after.admits_address(address) && before.admits_address(address) {
        return Err(invalid("security.allowed_ips would keep your own address out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_2_3_secrets_are_masked_wherever_they_stand() {
        let mut config = json!({
            "security": {
                "api_key_required": true, "api_keys": ["k1", {"key": "k2", "name": "n"}],
                "jwt_secret": "s", "token_expiry": 3600, "secret_key": ""
            },
            "storage": {"redis": {"password": 7, "host": "h"}},
            "alerts": {"slack": {"webhook_url": "https://x", "channel": "c"},
                "webhook": {"enabled": true, "url": "https://x"}},
            "orchestrator": {"ssl_key": "/etc/key.pem"}
        });
        mask(&mut config, false);
        let expected = json!({
            "security": {
                "api_key_required": true, "api_keys": [MASK, {"key": MASK, "name": "n"}],
                "jwt_secret": MASK, "token_expiry": 3600, "secret_key": ""
            },
            "storage": {"redis": {"password": MASK, "host": "h"}},
            "alerts": {"slack": {"webhook_url": MASK, "channel": "c"},
                "webhook": {"enabled": true, "url": MASK}},
            "orchestrator": {"ssl_key": "/etc/key.pem"}
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn a_document_sent_back_keeps_its_secrets() {
        let mut patch = json!({
            "security": {"jwt_secret": MASK, "api_keys": [MASK, "new"], "audit_logging": false},
            "network": {"max_nodes": 7}
        });
        unmask(&mut patch);
        let expected = json!({"security": {"audit_logging": false}, "network": {"max_nodes": 7}});
        assert_eq!(patch, expected);
    }

    #[test]
    fn if_match_names_a_revision() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
            expected_revision(&headers)
        };
        assert_eq!(with("\"7\"").unwrap(), Some(7));
        assert_eq!(with("*").unwrap(), None);
        assert!(with("x").is_err());
        assert_eq!(expected_revision(&HeaderMap::new()).unwrap(), None);
    }
}

//! API keys (contract 2.3): listed by their beginnings, made and shown once, taken away.
//!
//! Keys stand in the replicated configuration as hashes. How often a key was used is counted by
//! each member for itself, in memory.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::Address;
use crate::api::App;
use crate::api::app::key_reused;
use crate::api::body::RequestBody;
use crate::api::config_doc::{Change, change_document};
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery};
use crate::api::listed::{PageView, cut};
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::{iso, iso_or_null};
use crate::clock;
use crate::cluster::Consistency;
use crate::model::TimeMs;
use crate::security::{Access, ApiKey, Role, random_api_key};

/// Tries to change the list while others change the configuration.
const TRIES: usize = 8;
/// The longest life of a key that ends.
const DAYS_MAX: f64 = 36_500.0;
const DAY_MS: f64 = 86_400_000.0;
/// Digits of a hash that name a key, at least.
const HASH_DIGITS_MIN: usize = 8;
const LIST: &str = "/security/api_keys";

#[derive(Serialize)]
struct KeyList {
    success: bool,
    api_keys: Vec<KeyView>,
    /// All that match.
    total: usize,
    #[serde(flatten)]
    page: Option<PageView>,
}

const KEYS: ListKind = ListKind {
    name: "api-keys",
    sorts: &["created_at", "name"],
    descending: true,
    filters: &["role", "user_id"],
    own: &[],
};

#[derive(Serialize)]
struct KeyView {
    api_key: String,
    /// What `DELETE` takes.
    hash: String,
    prefix: String,
    name: String,
    role: &'static str,
    user_id: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    rate_limit_per_minute: Option<u64>,
    last_used: Option<String>,
    usage_count: u64,
}

fn view(key: &ApiKey) -> KeyView {
    KeyView {
        api_key: format!("{}...", key.prefix),
        hash: key.id(),
        prefix: key.prefix.clone(),
        name: key.name.clone(),
        role: key.role.as_str(),
        user_id: key.user_id.to_string(),
        created_at: iso_or_null(key.created_at_ms),
        expires_at: key.expires_at_ms.and_then(iso_or_null),
        rate_limit_per_minute: key.per_minute,
        last_used: iso_or_null(key.usage.last_ms()),
        usage_count: key.usage.count(),
    }
}

/// `GET /api/v1/auth/api-keys`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let query = match KEYS.asked(&params) {
        true => Some(ListQuery::parse(&KEYS, &params)?.in_cluster(app.cluster().cluster_id())),
        false => None,
    };
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let access = app.show(&mut stamp, |state| app.guard().whole(state));
    let wanted = |key: &&ApiKey| {
        said("role").is_none_or(|role| key.role.as_str() == role)
            && said("user_id").is_none_or(|user_id| *key.user_id == *user_id)
            && query.as_ref().is_none_or(|query| query.window.holds(key.created_at_ms))
    };
    let place = |key: &ApiKey| match query.as_ref().map(|query| query.sort) {
        Some("name") => (0, format!("{}\n{}", key.name, key.id())),
        _ => (key.created_at_ms, key.id()),
    };
    let found = access.keys().into_iter().filter(wanted);
    let mut rows: Vec<_> = found.map(|key| (place(key), key)).collect();
    let total = rows.len();
    let page = query.as_ref().map(|query| cut(query, &mut rows)).transpose()?;
    let api_keys = rows.into_iter().map(|(_, key)| view(key)).collect();
    Ok(reply::read(&stamp, reply::encode(&KeyList { success: true, api_keys, total, page })))
}

#[derive(Serialize)]
struct Created<'a> {
    success: bool,
    api_key: &'a str,
    message: &'static str,
    key: KeyView,
}

/// The stored form of a new key, from `{role="client", name="", expires_days?, user_id?,
/// rate_limit_per_minute?}`.
fn new_entry(object: &Object<'_>, key: &str, now: TimeMs) -> Result<Value, ApiError> {
    let role = object.text("role")?.map_or(Some(Role::Client), |word| Role::parse(&word));
    let words = "admin, operator, node, client or readonly";
    let role = role.ok_or_else(|| FieldError::new("role", words))?;
    let expires_at = match object.number("expires_days")? {
        None => None,
        Some(days) if days > 0.0 && days <= DAYS_MAX => {
            Some(iso(now.saturating_add((days * DAY_MS) as TimeMs)))
        }
        Some(_) => return Err(FieldError::new("expires_days", "above 0, at most 36500").into()),
    };
    let fields = json!({
        "role": role.as_str(),
        "name": object.text("name")?.unwrap_or_default(),
        "user_id": object.text("user_id")?,
        "expires_at": expires_at,
        "rate_limit_per_minute": object.count("rate_limit_per_minute")?,
    });
    Ok(ApiKey::stored(key, fields, now))
}

/// `POST /api/v1/auth/api-keys`: makes a key. This answer is the only place where it ever stands.
pub(in crate::api) async fn create(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    address: Address,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let key = random_api_key();
    let entry = new_entry(&object, &key, clock::now_ms())?;
    let hash = entry["hash"].as_str().unwrap_or_default().to_owned();
    let edit = |list: &mut Vec<Value>, _: &Access| {
        list.push(entry.clone());
        Ok(())
    };
    let index = change_list(&app, ticket, &caller, address, edit).await?;
    app.caught_up(ticket, index).await?;
    let access = app.whole_access();
    let made = access.keys().into_iter().find(|key| key.id() == hash).map(view);
    // The request was answered before, with another key.
    let Some(made) = made else { return Err(key_reused(ticket.request_id)) };
    let message = "API key created. It is shown only now: keep it.";
    let created = Created { success: true, api_key: &key, message, key: made };
    Ok(reply::written(ticket, index, &created))
}

#[derive(Serialize)]
struct Deleted {
    success: bool,
    message: String,
}

/// `DELETE /api/v1/auth/api-keys/{key}`: by hash, the hash's first digits, or the beginning that
/// lists show.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    ticket: Ticket,
    caller: Caller,
    address: Address,
) -> Result<Response, ApiError> {
    let name = name.trim().trim_end_matches('.').to_owned();
    let edit = |list: &mut Vec<Value>, access: &Access| {
        let id = find(access, &name)?;
        list.retain(|entry| entry["hash"] != id);
        Ok(())
    };
    let index = change_list(&app, ticket, &caller, address, edit).await?;
    app.caught_up(ticket, index).await?;
    let message = format!("API key {name} deleted");
    Ok(reply::written(ticket, index, &Deleted { success: true, message }))
}

fn find(access: &Access, name: &str) -> Result<String, ApiError> {
    let is_named = |key: &&ApiKey| {
        let by_hash = name.len() >= HASH_DIGITS_MIN && key.id().starts_with(name);
        by_hash || (!name.is_empty() && key.prefix == name)
    };
    let keys = access.keys();
    let mut found = keys.into_iter().filter(is_named);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.id()),
        (None, _) => Err(ApiError::not_found("API_KEY_NOT_FOUND", "API key not found")),
        (Some(_), Some(_)) => {
            let text = "several API keys begin so; name one by its hash";
            Err(ApiError::conflict("API_KEY_AMBIGUOUS", text))
        }
    }
}

/// Changes the list of keys as it stands, again when somebody else was faster.
async fn change_list(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    address: Address,
    edit: impl Fn(&mut Vec<Value>, &Access) -> Result<(), ApiError>,
) -> Result<u64, ApiError> {
    let mut attempt = 0;
    loop {
        app.barrier(Consistency::Linearizable).await?;
        let (access, document, revision) = app.cluster().view().read(|state| {
            let config = state.config();
            (app.guard().whole(state), config.document(), config.revision)
        });
        let mut list = match document.pointer(LIST) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        // A key may be gone because this request has been here before: then that is answered.
        let turn = ticket.nth(attempt);
        if app.recorded(turn).is_none() {
            edit(&mut list, &access)?;
        }
        let change = Change {
            path: "security.api_keys".to_owned(),
            value: Value::Array(list),
            expected_revision: Some(revision),
        };
        match change_document(app, turn, caller, address, change).await {
            Err(error) if error.code() == "REVISION_MISMATCH" && attempt + 1 < TRIES => {
                attempt += 1;
            }
            done => return done,
        }
    }
}

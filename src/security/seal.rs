//! What is done to a change of the configuration before it is proposed: keys and passwords become
//! hashes, so that neither the log nor a backup ever holds them in clear.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Access;
use super::keys::{seal_key, seal_user};
use super::passwords::hash_password;
use crate::model::TimeMs;

/// Stands for a secret in answers. Sent back to us it means "as it was".
pub const MASK: &str = "********";
/// Stands for the hash of any password while a document is only looked at.
const SOME_PASSWORD: &str =
    "pbkdf2-sha256$1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Entries of one list at most.
const ENTRIES_MAX: usize = 1000;
/// Clear passwords in one change at most: each takes a good part of a second.
const PASSWORDS_MAX: usize = 20;

/// Seals `security.api_keys` and `security.users` in `patch`, a part of the whole document.
/// `current` is the document that it will be merged into: entries that come back masked are looked
/// up there. Gives whether that was needed, in which case the change holds for that document only.
/// Takes long when there are clear passwords.
///
/// # Errors
/// What is wrong with which entry, without its secrets.
pub fn seal(patch: &mut Value, current: &Value, now_ms: TimeMs) -> Result<bool, String> {
    seal_with(patch, current, now_ms, hash_password)
}

/// Whether a whole document, with its secrets in clear, says who may come in so that it can be
/// used. Quick, whatever passwords there are.
///
/// # Errors
/// What is wrong with which key, without its secrets.
pub fn check(document: &Value) -> Result<(), String> {
    let mut document = document.clone();
    seal_with(&mut document, &Value::Null, 0, |_| SOME_PASSWORD.to_owned())?;
    Access::check(&document).map(|_| ())
}

fn seal_with(
    patch: &mut Value,
    current: &Value,
    now_ms: TimeMs,
    hash_password: fn(&str) -> String,
) -> Result<bool, String> {
    let security = match patch.get_mut("security") {
        None | Some(Value::Null) => return Ok(false),
        Some(Value::Object(security)) => security,
        Some(_) => return Err("security must be a section".to_owned()),
    };
    let mut looked_up = false;
    for name in ["api_keys", "users"] {
        let list = match security.get_mut(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list,
            Some(_) => return Err(format!("security.{name} must be a list")),
        };
        let stored = match current.pointer(&format!("/security/{name}")) {
            Some(Value::Array(stored)) => stored.as_slice(),
            _ => &[],
        };
        // The list as it was shown: nothing is to be done.
        if list.iter().eq(stored.iter().map(shown).collect::<Vec<_>>().iter()) {
            security.remove(name);
            continue;
        }
        looked_up |= list.iter().any(has_mask);
        check_size(name, list)?;
        for (place, entry) in list.iter_mut().enumerate() {
            let given = entry.take();
            let sealed = match name {
                "api_keys" => seal_key(given, stored, now_ms),
                _ => seal_user(given, stored, hash_password),
            };
            *entry = sealed.map_err(|what| format!("security.{name}[{place}] {what}"))?;
        }
        check_unique(name, list)?;
    }
    Ok(looked_up)
}

/// An entry as answers show it.
fn shown(entry: &Value) -> Value {
    let mut entry = entry.clone();
    for name in ["hash", "password_hash"] {
        if let Some(value) = entry.get_mut(name) {
            *value = MASK.into();
        }
    }
    entry
}

fn has_mask(entry: &Value) -> bool {
    match entry {
        Value::Object(fields) => fields.values().any(has_mask),
        other => other.as_str() == Some(MASK),
    }
}

fn check_size(name: &str, list: &[Value]) -> Result<(), String> {
    if list.len() > ENTRIES_MAX {
        return Err(format!("security.{name} holds at most {ENTRIES_MAX} entries"));
    }
    let clear = list.iter().filter(|entry| entry.get("password").is_some()).count();
    if clear > PASSWORDS_MAX {
        return Err(format!("at most {PASSWORDS_MAX} passwords are set in one change"));
    }
    Ok(())
}

fn check_unique(name: &str, list: &[Value]) -> Result<(), String> {
    let key = if name == "api_keys" { "hash" } else { "username" };
    let mut seen = BTreeSet::new();
    let names = list.iter().filter_map(|entry| entry.get(key).and_then(Value::as_str));
    for (place, text) in names.enumerate() {
        if !seen.insert(text) {
            return Err(format!("security.{name}[{place}] is there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::secrets::{hash, hex};
    use super::super::verify_password;
    use super::*;

    const NOW: TimeMs = 1_700_000_000_000;

    fn sealed(patch: Value, current: &Value) -> (Value, bool) {
        let mut patch = patch;
        let looked_up = seal(&mut patch, current, NOW).unwrap();
        (patch, looked_up)
    }

    #[test]
    fn contract_1_4_both_forms_of_keys_become_hashes() {
        let keys = json!(["k1", {"key": "k2", "name": "ci", "rate_limit_per_minute": 5}]);
        let (patch, looked_up) = sealed(json!({"security": {"api_keys": keys}}), &json!({}));
        let at = "2023-11-14T22:13:20.000Z";
        let expected = json!([
            {"hash": hex(&hash("k1")), "prefix": "", "role": "admin", "user_id": "system",
             "name": "", "created_at": at},
            {"hash": hex(&hash("k2")), "prefix": "", "role": "client", "user_id": "system",
             "name": "ci", "created_at": at, "rate_limit_per_minute": 5}
        ]);
        assert_eq!(patch["security"]["api_keys"], expected);
        assert!(!looked_up && !patch.to_string().contains("k1"));
    }

    #[test]
    fn passwords_become_hashes() {
        let users = json!([{"username": "ada", "password": "pw", "role": "operator"}]);
        let (patch, _) = sealed(json!({"security": {"users": users}}), &json!({}));
        let user = &patch["security"]["users"][0];
        assert_eq!((&user["user_id"], user.get("password")), (&json!("ada"), None));
        assert!(verify_password("pw", user["password_hash"].as_str()));
    }

    #[test]
    fn masked_entries_are_those_that_are_stored() {
        let lists = json!({"security": {
            "api_keys": ["a key long enough to show a part", {"key": "another key, also long"}],
            "users": [{"username": "ada", "password": "pw"}]
        }});
        let (stored, _) = sealed(lists, &json!({}));
        let mut masked = stored.clone();
        for entry in masked["security"]["api_keys"].as_array_mut().unwrap() {
            entry["hash"] = json!(MASK);
        }
        masked["security"]["users"][0]["password_hash"] = json!(MASK);
        // All of it, as it was shown: nothing is to be done.
        assert_eq!(sealed(masked.clone(), &stored), (json!({"security": {}}), false));
        // One key less, a user's role changed: only good for what was shown.
        masked["security"]["api_keys"].as_array_mut().unwrap().remove(0);
        masked["security"]["users"][0]["role"] = json!("admin");
        let (patch, looked_up) = sealed(masked.clone(), &stored);
        assert!(looked_up);
        let (now, before) = (&patch["security"], &stored["security"]);
        assert_eq!(now["api_keys"], json!([before["api_keys"][1]]));
        assert_eq!(now["users"][0]["password_hash"], before["users"][0]["password_hash"]);
        assert_eq!(now["users"][0]["role"], "admin");
        assert!(seal(&mut masked, &json!({}), NOW).unwrap_err().contains("no stored entry"));
    }

    #[test]
    fn nonsense_is_refused_without_its_secrets() {
        for (security, part) in [
            (json!({"api_keys": {"0": "hidden"}}), "must be a list"),
            (json!({"api_keys": ["hidden", "hidden"]}), "twice"),
            (json!({"api_keys": [{"name": "hidden"}]}), "has no key"),
            (json!({"api_keys": [{"key": ""}]}), "not empty"),
            (json!({"api_keys": [7]}), "must be a key"),
            (json!({"api_keys": [MASK]}), "must be a key"),
            (json!({"api_keys": [{"key": "hidden", "role": "root"}]}), "role must be one of admin"),
            (json!({"api_keys": [{"key": "hidden", "expires_at": "soon"}]}), "expires_at"),
            (json!({"api_keys": [{"key": "hidden", "rate_limit_per_minute": -1}]}), "whole number"),
            (json!({"users": [{"username": "ada"}]}), "has no password"),
            (json!({"users": [{"password": "hidden"}]}), "username"),
            (json!({"users": ["hidden"]}), "must be an object"),
            (json!({"users": [{"username": "ada", "password": 7}]}), "password must be"),
            (json!("hidden"), "must be a section"),
        ] {
            let mut patch = json!({"security": security});
            assert_eq!(check(&patch), seal(&mut patch.clone(), &json!({}), NOW).map(|_| ()));
            let error = seal(&mut patch, &json!({}), NOW).unwrap_err();
            assert!(error.contains(part) && !error.contains("hidden"), "{error}");
        }
    }
}

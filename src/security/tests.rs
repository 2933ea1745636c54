//! Who is let in by a configuration, and as whom.

use serde_json::{Value, json};

use super::*;
use crate::model::TimeMs;

const NOW: TimeMs = 1_700_000_000_000;

#[expect(clippy::needless_pass_by_value, reason = "as the tests write it")]
fn access(security: Value) -> Access {
    let mut document = json!({"security": security});
    seal(&mut document, &json!({}), NOW).unwrap();
    Access::check(&document).unwrap()
}

fn by_key(access: &Access, key: &str) -> Result<(String, Role), Refusal> {
    let credentials = Credentials { api_key: Some(key), ..Credentials::default() };
    let principal = access.authenticate(&credentials, NOW, |_, _| Standing::default())?;
    Ok((principal.user_id.to_string(), principal.role))
}

#[test]
fn contract_1_4_off_by_default_and_on_by_either_switch() {
    let document = crate::state::default_document();
    let access = Access::check(&document).unwrap();
    assert!(access.is_plain() && !access.is_required() && !access.is_locked(NOW));
    for document in [
        json!({"security": {"api_key_required": true}}),
        json!({"orchestrator": {"security_enabled": true}}),
    ] {
        let access = Access::check(&document).unwrap();
        assert!(access.is_required() && !access.is_plain() && access.is_locked(NOW), "{document}");
    }
}

#[test]
fn contract_1_4_keys_have_roles_users_and_ends() {
    let access = access(json!({"api_key_required": true, "api_keys": [
        "root", {"key": "ci"}, {"key": "n", "role": "node", "user_id": "rack-7"},
        {"key": "old", "role": "admin", "expires_at": "2023-11-14T22:13:20Z"},
        {"key": "young", "expires_at": 1_700_000_001}
    ]}));
    assert_eq!(by_key(&access, "root"), Ok(("system".to_owned(), Role::Admin)));
    assert_eq!(by_key(&access, "ci"), Ok(("system".to_owned(), Role::Client)));
    assert_eq!(by_key(&access, "n"), Ok(("rack-7".to_owned(), Role::Node)));
    assert_eq!(by_key(&access, "young").unwrap().1, Role::Client);
    assert_eq!(by_key(&access, "old"), Err(Refusal::Expired));
    assert_eq!(by_key(&access, "nobody"), Err(Refusal::InvalidKey));
    assert_eq!(by_key(&access, " "), Err(Refusal::Missing));
    assert!(!access.is_locked(NOW));
    let used: Vec<_> =
        access.keys().iter().map(|key| (key.name.clone(), key.usage.count())).collect();
    assert_eq!(used.iter().map(|(_, count)| count).sum::<u64>(), 4);
}

#[test]
fn any_good_credential_is_enough() {
    let access = access(json!({"api_key_required": true, "api_keys": ["root"]}));
    let credentials = Credentials {
        api_key: Some("wrong"),
        authorization: Some("Bearer root"),
        ..Credentials::default()
    };
    assert!(access.authenticate(&credentials, NOW, |_, _| Standing::default()).is_ok());
    let credentials = Credentials { is_admin: true, ..Credentials::default() };
    let admin = access.authenticate(&credentials, NOW, |_, _| Standing::default()).unwrap();
    assert_eq!((admin.role, admin.proof), (Role::Admin, Proof::AdminKey));
}

#[test]
fn a_login_is_good_until_it_ends_is_ended_or_its_user_is_gone() {
    let with = |users: Value| access(json!({"jwt_secret": "s3cret", "users": users}));
    let present = with(json!([{"username": "ada", "password": "pw", "role": "operator"}]));
    let now_s = NOW / 1000;
    let session = Session {
        user_id: "ada".to_owned(),
        username: "ada".to_owned(),
        role: "operator",
        session_id: random_id(),
        ends_s: now_s + 100,
    };
    let token = session.token(b"s3cret", TokenKind::Access, now_s, 60);
    let refresh = session.token(b"s3cret", TokenKind::Refresh, now_s, 100);
    let ask = |access: &Access, token: &str, at: TimeMs, revoked: bool| {
        let bearer = format!("Bearer {token}");
        let credentials = Credentials { authorization: Some(&bearer), ..Credentials::default() };
        let standing = |id: &str, _: &str| Standing {
            is_revoked: revoked && id == session.session_id,
            account: None,
        };
        access.authenticate(&credentials, at, standing)
    };
    let principal = ask(&present, &token, NOW, false).unwrap();
    assert_eq!(principal.role, Role::Operator);
    assert_eq!(ask(&present, &token, NOW + 60_000, false), Err(Refusal::Expired));
    assert_eq!(ask(&present, &token, NOW, true), Err(Refusal::InvalidToken));
    assert_eq!(ask(&present, &refresh, NOW, false), Err(Refusal::InvalidToken));
    // The role of today counts, not the one in the token.
    let demoted = with(json!([{"username": "ada", "password": "pw", "role": "readonly"}]));
    assert_eq!(ask(&demoted, &token, NOW, false).unwrap().role, Role::Readonly);
    assert_eq!(ask(&with(json!([])), &token, NOW, false), Err(Refusal::UnknownUser));
    let revoked = || Standing { is_revoked: true, account: None };
    let status = Permission(Area::Metrics, Action::Read);
    let control = Permission(Area::Orchestrator, Action::Control);
    assert!(present.still_admits(&principal, control, NOW, |_, _| Standing::default()));
    assert!(!present.still_admits(&principal, control, NOW, |_, _| revoked()));
    assert!(!present.still_admits(&principal, control, NOW + 60_000, |_, _| Standing::default()));
    assert!(!demoted.still_admits(&principal, control, NOW, |_, _| Standing::default()));
    assert!(demoted.still_admits(&principal, status, NOW, |_, _| Standing::default()));
}

#[test]
fn contract_1_5_only_limits_that_an_operator_sets_count() {
    let limits = |security: Value| access(security).limits(None);
    assert_eq!(limits(json!({"rate_limiting": true})), Limits::default());
    assert_eq!(limits(json!({"max_requests_per_minute": 5})), Limits::default());
    let set = json!({"rate_limiting": true, "max_requests_per_minute": 5, "api_keys": [
        {"key": "fast", "rate_limit_per_minute": 500}
    ]});
    let access = access(set);
    assert_eq!(access.limits(None), Limits { per_minute: Some(5), per_hour: None });
    let credentials = Credentials { api_key: Some("fast"), ..Credentials::default() };
    let fast = access.authenticate(&credentials, NOW, |_, _| Standing::default()).unwrap();
    assert_eq!(access.limits(Some(&fast)).per_minute, Some(500));
}

#[test]
fn contract_c7_lifetimes() {
    let lives =
        |security: Value| (access(security.clone()).access_s(), access(security).refresh_s());
    let week = 7 * 24 * 3600;
    assert_eq!(lives(json!({})), (1800, week));
    assert_eq!(lives(json!({"token_expiry": 3600})), (3600, week));
    assert_eq!(lives(json!({"jwt_expiration_hours": 24})), (24 * 3600, week));
    assert_eq!(lives(json!({"token_expiry": 60, "jwt_expiration_hours": 24})), (60, week));
    assert_eq!(lives(json!({"jwt_expiration_hours": 24 * 30})).1, 30 * 24 * 3600);
}

#[test]
fn contract_2_12_allowed_ips_open_nothing_by_mistake() {
    let address = |text: &str| Some(text.parse().unwrap());
    let access = access(json!({"allowed_ips": ["10.0.0.0/8"]}));
    assert!(
        access.admits_address(address("10.1.1.1")) && !access.admits_address(address("1.1.1.1"))
    );
    assert!(!access.admits_address(None), "an address that is not known is on no list");
    let broken = json!({"security": {"allowed_ips": ["x"]}});
    assert!(Access::check(&broken).is_err());
    assert!(!Access::read(&broken).admits_address(address("10.1.1.1")));
    let none = json!({"security": {"allowed_ips": []}});
    assert!(Access::read(&none).admits_address(None));
}

#[test]
fn what_cannot_be_read_is_named_and_locks_rather_than_opens() {
    for (security, part) in [
        (json!({"api_key_required": "yes"}), "security.api_key_required"),
        (json!({"token_expiry": 0}), "security.token_expiry"),
        (json!({"rate_limiting": true, "max_requests_per_hour": -1}), "max_requests_per_hour"),
        (json!({"cors_origins": 7}), "security.cors_origins"),
        (json!({"api_keys": [{}]}), "security.api_keys[0]"),
    ] {
        let document = json!({"security": security});
        let fault = Access::check(&document).unwrap_err();
        assert!(fault.contains(part), "{fault}");
    }
    assert!(Access::read(&json!({"security": {"api_key_required": "yes"}})).is_required());
}

#[test]
fn the_guard_looks_once_per_revision_and_keeps_the_counters() {
    use crate::model::RequestId;
    use crate::state::{Command, Envelope, LogEntry, State, encode_entry};
    let (guard, mut state) = (Guard::default(), State::default());
    assert!(guard.access(&state).is_none() && guard.known().is_none());
    assert!(!guard.whole(&state).is_required());
    let mut index = 0;
    let mut patch = |state: &mut State, security: Value| {
        index += 1;
        let mut document = json!({"security": security});
        seal(&mut document, &json!({}), NOW).unwrap();
        let (path, value) = (String::new(), document.to_string());
        let command = Command::PatchConfig { path, value, expected_revision: None };
        let request_id = RequestId(u128::from(index));
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = LogEntry { at_ms: 1, envelopes: vec![envelope] };
        state.apply(index, &encode_entry(&entry)).unwrap();
    };
    patch(&mut state, json!({"api_key_required": true, "api_keys": ["root"]}));
    let access = guard.access(&state).unwrap();
    assert!(std::sync::Arc::ptr_eq(&access, &guard.access(&state).unwrap()));
    assert!(std::sync::Arc::ptr_eq(&access, &guard.known().unwrap()));
    by_key(&access, "root").unwrap();
    patch(&mut state, json!({"audit_logging": false}));
    let newer = guard.access(&state).unwrap();
    assert_eq!((newer.keys()[0].usage.count(), newer.audit), (1, false));
    patch(&mut state, json!({"api_key_required": false}));
    assert!(guard.access(&state).is_none());
    assert!(!guard.whole(&state).is_required());
}

#[test]
fn a_name_that_changed_hands_opens_nothing_to_who_had_it() {
    let access = access(json!({"jwt_secret": "s3cret", "registration": {"role": "readonly"},
        "users": [{"username": "ada", "password": "pw", "role": "admin"}]}));
    let token = |user_id: &str| {
        let session = Session {
            user_id: user_id.to_owned(),
            username: "ada".to_owned(),
            role: "client",
            session_id: random_id(),
            ends_s: NOW / 1000 + 100,
        };
        session.token(b"s3cret", TokenKind::Access, NOW / 1000, 60)
    };
    let role = |user_id: &str, account: Option<(&str, bool)>| {
        let account =
            account.map(|(role, is_active)| AccountStanding { role: role.to_owned(), is_active });
        let standing = |_: &str, _: &str| Standing { is_revoked: false, account: account.clone() };
        let known = access.login(&token(user_id), TokenKind::Access, NOW, standing);
        known.map(|(_, principal)| principal.role)
    };
    assert_eq!(role("ada", None), Ok(Role::Admin));
    // The account `ada` is gone, or was there before the user of the configuration.
    assert_eq!(role("uuid-1", None), Err(Refusal::UnknownUser));
    assert_eq!(role("uuid-1", Some(("", true))), Ok(Role::Readonly));
    assert_eq!(role("uuid-1", Some(("operator", true))), Ok(Role::Operator));
    assert_eq!(role("uuid-1", Some(("operator", false))), Err(Refusal::InvalidToken));
}

//! What the replicated state says of a login beside its token, and what accounts may do (contract 3.6).

use serde_json::Value;

use super::roles::Role;
use crate::state::State;

/// How a login stands now. A token proves who had it; whether it still counts stands in the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// It was ended.
    pub is_revoked: bool,
    /// The account that logged in; `None` of users of the configuration.
    pub account: Option<AccountStanding>,
}

/// What counts of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStanding {
    /// The word of the role that it was given; empty when nobody gave it one.
    pub role: String,
    /// Its tokens are good.
    pub is_active: bool,
}

impl Standing {
    /// How the login `session_id` of `user_id` stands in `state`.
    #[must_use]
    pub fn of(state: &State, session_id: &str, user_id: &str) -> Self {
        let account = state.account(user_id).map(|account| AccountStanding {
            role: account.role.clone(),
            is_active: account.is_active,
        });
        Self { is_revoked: state.is_revoked(session_id), account }
    }
}

/// What the configuration says of those who register themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Anybody may, also when credentials are asked for.
    pub is_open: bool,
    /// What they may do, before and after an administrator gives them another role.
    pub role: Role,
}

impl Default for Registration {
    /// Nobody may, and who did while everything was open is a guest.
    fn default() -> Self {
        Self { is_open: false, role: Role::Guest }
    }
}

impl Registration {
    /// Reads `security.registration`. What cannot be used opens nothing.
    pub(super) fn read(section: Option<&Value>, faults: &mut Vec<String>) -> Self {
        let mut registration = Self::default();
        let at = |name: &str| section?.get(name).filter(|value| !value.is_null());
        match at("enabled").map(Value::as_bool) {
            None => {}
            Some(Some(is_open)) => registration.is_open = is_open,
            Some(None) => {
                faults.push("security.registration.enabled is true or false".to_owned());
            }
        }
        match at("role").map(|word| word.as_str().and_then(Role::parse)) {
            None => {}
            // Whoever comes would administer the cluster.
            Some(None | Some(Role::Admin)) => {
                let words = "operator, node, client, readonly or guest";
                faults.push(format!("security.registration.role must be {words}"));
            }
            Some(Some(role)) => registration.role = role,
        }
        registration
    }

    /// The role of an account that was given `word`.
    #[must_use]
    pub fn role_of(self, word: &str) -> Role {
        if word.is_empty() { self.role } else { Role::parse(word).unwrap_or(Role::Guest) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nobody_gets_a_role_that_no_operator_granted() {
        let read = |section: Value| {
            let mut faults = Vec::new();
            (Registration::read(Some(&section), &mut faults), faults.len())
        };
        let closed = Registration::default();
        assert_eq!((closed.is_open, closed.role), (false, Role::Guest));
        assert_eq!(read(json!({})), (closed, 0));
        let open = Registration { is_open: true, role: Role::Guest };
        assert_eq!(read(json!({"enabled": true})), (open, 0));
        let client = Registration { is_open: true, role: Role::Client };
        assert_eq!(read(json!({"enabled": true, "role": "client"})), (client, 0));
        for role in [json!("admin"), json!("root"), json!(7)] {
            assert_eq!(read(json!({"enabled": true, "role": role})), (open, 1), "{role}");
        }
        assert_eq!(read(json!({"enabled": "yes", "role": null})), (closed, 1));
        assert_eq!(
            (client.role_of(""), client.role_of("operator")),
            (Role::Client, Role::Operator)
        );
        assert_eq!(client.role_of("what a newer version knows"), Role::Guest);
    }
}

//! People who may log in: users of the configuration, and accounts. One name means the former first.

use serde::Serialize;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::wire_time::iso_or_null;
use crate::cluster::Consistency;
use crate::model::{Account, TimeMs};
use crate::security::{Access, Role};

/// Family N's view of a user (contract 3.6). What is not kept is null.
#[derive(Debug, Serialize)]
pub(super) struct UserView {
    id: String,
    email: Option<String>,
    username: String,
    full_name: Option<String>,
    role: &'static str,
    is_active: bool,
    /// Nobody proves that an address is theirs: only an operator's word counts.
    is_verified: bool,
    created_at: Option<String>,
    last_login: Option<String>,
}

impl UserView {
    pub(super) fn of_account(access: &Access, account: &Account) -> Self {
        Self {
            id: account.user_id.clone(),
            email: Some(account.email.clone()),
            username: account.username.clone(),
            full_name: Some(account.full_name.clone()).filter(|name| !name.is_empty()),
            role: access.registration().role_of(&account.role).as_str(),
            is_active: account.is_active,
            is_verified: false,
            created_at: iso_or_null(account.created_at_ms),
            last_login: iso_or_null(account.last_login_ms),
        }
    }

    /// Of somebody whom only the configuration knows.
    pub(super) fn of_config(user_id: &str, username: &str, role: Role) -> Self {
        Self {
            id: user_id.to_owned(),
            email: Some(username.to_owned()).filter(|name| name.contains('@')),
            username: username.to_owned(),
            full_name: None,
            role: role.as_str(),
            is_active: true,
            is_verified: true,
            created_at: None,
            last_login: None,
        }
    }

    pub(super) fn logged_in_at(self, at: TimeMs) -> Self {
        Self { last_login: iso_or_null(at), ..self }
    }
}

/// Somebody who wants to log in.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) user_id: String,
    pub(super) username: String,
    pub(super) role: Role,
    pub(super) password_hash: String,
    pub(super) is_active: bool,
    pub(super) is_account: bool,
    pub(super) view: UserView,
}

/// Who has this name or address. Another member may know of an account that is not known here yet,
/// so that nobody is unknown before that was asked for.
pub(super) async fn find(
    app: &App,
    access: &Access,
    name: &str,
) -> Result<Option<Candidate>, ApiError> {
    if let Some(user) = access.user(name) {
        return Ok(Some(Candidate {
            user_id: user.user_id.to_string(),
            username: name.to_owned(),
            role: user.role,
            password_hash: user.password_hash.clone(),
            is_active: true,
            is_account: false,
            view: UserView::of_config(&user.user_id, name, user.role),
        }));
    }
    let look = || {
        app.cluster().view().read(|state| {
            state.account_named(name).map(|account| Candidate {
                user_id: account.user_id.clone(),
                username: account.username.clone(),
                role: access.registration().role_of(&account.role),
                password_hash: account.password_hash.clone(),
                is_active: account.is_active,
                is_account: true,
                view: UserView::of_account(access, account),
            })
        })
    };
    match look() {
        Some(candidate) => Ok(Some(candidate)),
        None => {
            app.barrier(Consistency::Linearizable).await?;
            Ok(look())
        }
    }
}

//! Accounts: people who registered themselves, or were registered by an administrator (contract 3.6).

use serde::{Deserialize, Serialize};

use super::TimeMs;

/// One account. Users of the configuration (`security.users`) are none of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// A UUID, derived from the request that made it: nobody gets it again, whatever name they take.
    pub user_id: String,
    /// Unique among accounts, whatever the case of its letters.
    pub username: String,
    /// Alike.
    pub email: String,
    /// May be empty.
    pub full_name: String,
    /// The password, hashed by the door.
    pub password_hash: String,
    /// The word of the role that an administrator gave it. Empty: none did, and the configuration says
    /// what those may do who registered themselves.
    pub role: String,
    /// It may log in, and its tokens are good.
    pub is_active: bool,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When it was last changed by somebody; logins are no change.
    pub updated_at_ms: TimeMs,
    /// When it last logged in; 0 for never.
    pub last_login_ms: TimeMs,
}

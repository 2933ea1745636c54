//! Who may do what.
//!
//! Three kinds of secrets: the key of administrators, which is local to a member; API keys and the
//! passwords of users, which stand in the replicated configuration as hashes; and the tokens that a
//! login gives. A secret is kept as its hash, is compared in constant time, and is never printed.
//!
//! Doors of every kind (HTTP, WebSocket, gRPC) ask in the same way: collect [`Credentials`], give
//! them to [`Access::authenticate`], ask the [`Role`] of the [`Principal`] for a [`Permission`].
//! Members trust each other: what one forwards was checked at its door.

mod access;
mod admin_key;
mod cors;
mod credentials;
mod guard;
mod keys;
mod limits;
mod passwords;
mod roles;
mod seal;
mod secrets;
mod standing;
mod times;
mod tokens;

#[cfg(test)]
mod tests;

pub use access::{Access, Principal, Proof};
pub use admin_key::{ADMIN_KEY_MIN, AdminKey};
pub use cors::{Cors, CorsAnswer};
pub use credentials::{ACCESS_COOKIE, Credentials, REFRESH_COOKIE, Refusal, cookie};
pub use guard::Guard;
pub use keys::{ApiKey, Usage, User};
pub use limits::{Limiter, Limits, Verdict, Who};
pub use passwords::{PASSWORD_MAX, hash_password, is_password_hash, verify_password};
pub use roles::{Action, Area, Permission, Role};
pub use seal::{MASK, check, seal};
pub use secrets::{random_api_key, random_id, random_secret};
pub use standing::{AccountStanding, Registration, Standing};
pub use times::parse_iso;
pub use tokens::{Claims, Session, TokenError, TokenKind, verify};

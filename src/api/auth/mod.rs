//! Who may come through which door (contract 1.4, 1.5), and the doors of logins and keys (2.3).
//!
//! `needs` is the table of all doors with what each asks for; `check` asks it of one request, of
//! whatever kind; `login`, `sessions`, `accounts` and `keys` are doors themselves. What is checked is in `crate::security`.

pub(super) mod accounts;
mod check;
pub(super) mod keys;
pub(super) mod login;
mod needs;
mod passwords;
pub(super) mod sessions;
mod users;

pub(super) use check::{Address, Asked, is_foreign, query_credential, write_verdict};
pub use check::{Pass, Peer};
pub use needs::Need;
pub(super) use needs::{Needs, UNMATCHED};
#[cfg(test)]
pub(super) use needs::{doors, listed};

//! Accounts (contract 3.6): made, changed and taken out, unique by name and by address of mail.
//!
//! Passwords come hashed, and who may register or change what was asked at the door. What is decided
//! here is what two doors could decide differently: whether a name is free, and whether there is room.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::Txn;
use super::orchestrators::derive_uuid;
use super::rows::{Rows, Table, TableRow};
use super::{Fatal, Outcome, Rejection, Reply, State, TableId};
use crate::model::{Account, MAIL_ADDRESS_MAX};

/// Accounts there may be.
pub const ACCOUNTS_MAX: usize = 10_000;
/// The longest name of an account, in bytes.
pub const USERNAME_MAX: usize = 64;
/// The longest address of mail (RFC 5321), in bytes.
pub const EMAIL_MAX: usize = MAIL_ADDRESS_MAX;
/// The longest name of a person, in bytes.
pub const FULL_NAME_MAX: usize = 200;
/// The longest hash of a password and the longest word of a role, in bytes.
const HASH_MAX: usize = 256;
const ROLE_MAX: usize = 16;

/// What can be asked of accounts. Stored in the log: variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountCommand {
    /// Makes one.
    Register(Box<NewAccount>),
    /// It logged in.
    NoteLogin {
        /// Who.
        user_id: String,
    },
    /// Changes what an administrator decides.
    Change {
        /// Who.
        user_id: String,
        /// The word of a role; empty takes the given one back.
        role: Option<String>,
        /// Whether it may log in.
        is_active: Option<bool>,
    },
    /// Takes it out, with all its logins.
    Remove {
        /// Who.
        user_id: String,
    },
}

/// An account to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAccount {
    /// 1 to [`USERNAME_MAX`] letters, digits, `.`, `_` and `-`.
    pub username: String,
    /// At most [`EMAIL_MAX`] bytes.
    pub email: String,
    /// At most [`FULL_NAME_MAX`] bytes.
    pub full_name: String,
    /// Of the password.
    pub password_hash: String,
    /// The word of a role; empty when nobody gave one.
    pub role: String,
}

impl TableRow for Account {
    type Key = String;
    const TABLE: TableId = TableId::Accounts;

    fn write_key(&self, key: &String, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<String> {
        (stored == self.user_id.as_bytes()).then(|| self.user_id.clone())
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    table: Table<Account>,
    /// Ids by name and by address, in small letters. Addresses have an `@` and names have none.
    names: BTreeMap<String, String>,
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Accounts {
    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.table.load(key, value, hash)?;
        let user_id = String::from_utf8_lossy(key).into_owned();
        if let Some(account) = self.table.get(&user_id) {
            let names = [folded(&account.username), folded(&account.email)];
            self.names.extend(names.map(|name| (name, user_id.clone())));
        }
        Ok(())
    }

    fn put(&mut self, rows: &mut Rows, account: Account) {
        let user_id = account.user_id.clone();
        self.names.insert(folded(&account.username), user_id.clone());
        self.names.insert(folded(&account.email), user_id.clone());
        self.table.put(rows, user_id, account);
    }

    fn remove(&mut self, rows: &mut Rows, user_id: &str) -> Option<Account> {
        let account = self.table.remove(rows, &user_id.to_owned())?;
        self.names.remove(&folded(&account.username));
        self.names.remove(&folded(&account.email));
        Some(account)
    }
}

impl State {
    /// One account.
    #[must_use]
    pub fn account(&self, user_id: &str) -> Option<&Account> {
        self.accounts.table.get(&user_id.to_owned())
    }

    /// The account of that name or address.
    #[must_use]
    pub fn account_named(&self, name: &str) -> Option<&Account> {
        self.account(self.accounts.names.get(&folded(name))?)
    }

    /// Accounts by id, after the given one.
    pub fn accounts_after(&self, user_id: Option<&str>) -> impl Iterator<Item = &Account> {
        self.accounts.table.after(user_id.map(str::to_owned)).map(|(_, account)| account)
    }

    /// How many accounts there are.
    #[must_use]
    pub fn accounts_len(&self) -> usize {
        self.accounts.table.len()
    }

    /// Names and addresses that are taken: two of each account, in any state that is sound.
    #[must_use]
    pub fn account_names_len(&self) -> usize {
        self.accounts.names.len()
    }
}

impl Txn<'_> {
    pub(super) fn account_command(&mut self, command: AccountCommand) -> Reply {
        match command {
            AccountCommand::Register(account) => self.register_account(*account),
            AccountCommand::NoteLogin { user_id } => {
                let now = self.now;
                self.edit_account(&user_id, |account| account.last_login_ms = now)
            }
            AccountCommand::Change { user_id, role, is_active } => {
                if role.as_ref().is_some_and(|role| role.len() > ROLE_MAX) {
                    return Err(Rejection::InvalidAccount("role is too long".to_owned()));
                }
                let now = self.now;
                self.edit_account(&user_id, |account| {
                    account.role = role.unwrap_or_else(|| account.role.clone());
                    account.is_active = is_active.unwrap_or(account.is_active);
                    account.updated_at_ms = now;
                })
            }
            AccountCommand::Remove { user_id } => {
                let removed = self.state.accounts.remove(&mut self.state.rows, &user_id);
                removed.map(|_| Outcome::Done).ok_or(Rejection::AccountNotFound)
            }
        }
    }

    fn edit_account(&mut self, user_id: &str, edit: impl FnOnce(&mut Account)) -> Reply {
        let (accounts, rows) = (&mut self.state.accounts, &mut self.state.rows);
        let edited = accounts.table.edit(rows, &user_id.to_owned(), edit);
        edited.map(|()| Outcome::Done).ok_or(Rejection::AccountNotFound)
    }

    fn register_account(&mut self, new: NewAccount) -> Reply {
        check(&new).map_err(|what| Rejection::InvalidAccount(what.to_owned()))?;
        for (what, name) in [("username", &new.username), ("email", &new.email)] {
            if self.state.account_named(name).is_some() {
                return Err(Rejection::AccountExists { what: what.to_owned() });
            }
        }
        if self.state.accounts_len() >= ACCOUNTS_MAX {
            return Err(Rejection::TooManyAccounts { max: ACCOUNTS_MAX as u64 });
        }
        let user_id = derive_uuid(&[b"account", &self.request_id.0.to_be_bytes()]);
        // The answer to this request may have been forgotten since.
        if self.state.account(&user_id).is_some() {
            return Err(Rejection::AccountExists { what: "request".to_owned() });
        }
        let account = Account {
            user_id: user_id.clone(),
            username: new.username,
            email: new.email,
            full_name: new.full_name,
            password_hash: new.password_hash,
            role: new.role,
            is_active: true,
            created_at_ms: self.now,
            updated_at_ms: self.now,
            last_login_ms: 0,
        };
        self.state.accounts.put(&mut self.state.rows, account);
        Ok(Outcome::AccountCreated { user_id })
    }
}

/// What keeps the index sound and rows small. What an address of mail must look like beyond that is
/// the door's affair.
fn check(new: &NewAccount) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let name = new.username.as_bytes();
    if name.is_empty() || name.len() > USERNAME_MAX || !name.iter().all(|byte| is_plain(*byte)) {
        return Err("username must be 1 to 64 letters, digits, dots, dashes and underscores");
    }
    if !new.email.contains('@') || new.email.len() > EMAIL_MAX {
        return Err("email must be an address of at most 254 bytes");
    }
    if new.full_name.len() > FULL_NAME_MAX {
        return Err("full_name must have at most 200 bytes");
    }
    if new.password_hash.is_empty() || new.password_hash.len() > HASH_MAX {
        return Err("password must be hashed");
    }
    if new.role.len() > ROLE_MAX { Err("role is too long") } else { Ok(()) }
}

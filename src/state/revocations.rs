//! Logins that were ended before their tokens ran out.
//!
//! A token proves itself, so a logout must be known on every member. What is kept of it is the
//! session's id and the age after which no token of that session is good anyway; rows beyond it go
//! with the next revocation. It is counted in the age of the state ([`super::Counters::aged_ms`]):
//! members judge tokens by their own clocks, so a leader's clock that leaps ahead ends none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::apply::Txn;
use super::rows::{Rows, Table, TableRow};
use super::{Fatal, Outcome, Rejection, Reply, State, TableId};
use crate::model::TimeMs;

/// Sessions remembered as ended. One more is refused rather than an old one believed again.
pub const REVOCATIONS_MAX: usize = 100_000;
/// The longest id of a session, in bytes.
pub const SESSION_ID_MAX: usize = 64;
/// Rows deleted by one command at most, so that no entry takes long.
const DROPPED_MAX: usize = 256;

/// One session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Revocation {
    session_id: String,
    until_aged_ms: TimeMs,
}

impl TableRow for Revocation {
    type Key = String;
    const TABLE: TableId = TableId::Revocations;

    fn write_key(&self, key: &String, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<String> {
        (stored == self.session_id.as_bytes()).then(|| self.session_id.clone())
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    table: Table<Revocation>,
    /// The same sessions by when they can be forgotten.
    by_end: BTreeSet<(TimeMs, String)>,
}

impl Revocations {
    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.table.load(key, value, hash)?;
        let session_id = String::from_utf8_lossy(key).into_owned();
        if let Some(row) = self.table.get(&session_id) {
            self.by_end.insert((row.until_aged_ms, session_id));
        }
        Ok(())
    }

    fn put(&mut self, rows: &mut Rows, session_id: String, mut until_aged_ms: TimeMs) {
        if let Some(old) = self.table.get(&session_id) {
            until_aged_ms = until_aged_ms.max(old.until_aged_ms);
            self.by_end.remove(&(old.until_aged_ms, session_id.clone()));
        }
        let row = Revocation { session_id: session_id.clone(), until_aged_ms };
        self.table.put(rows, session_id.clone(), row);
        self.by_end.insert((until_aged_ms, session_id));
    }

    fn ended(&self, aged: TimeMs) -> usize {
        let ended = self.by_end.iter().take_while(|(until_aged_ms, _)| *until_aged_ms <= aged);
        ended.take(DROPPED_MAX).count()
    }

    fn drop_ended(&mut self, rows: &mut Rows, aged: TimeMs) {
        for _ in 0..self.ended(aged) {
            if let Some((_, session_id)) = self.by_end.pop_first() {
                self.table.remove(rows, &session_id);
            }
        }
    }
}

impl State {
    /// Whether the tokens of a session are no longer good.
    #[must_use]
    pub fn is_revoked(&self, session_id: &str) -> bool {
        self.revocations.table.len() > 0
            && self.revocations.table.get(&session_id.to_owned()).is_some()
    }

    /// How many sessions are remembered as ended.
    #[must_use]
    pub fn revocations_len(&self) -> usize {
        self.revocations.table.len()
    }
}

impl Txn<'_> {
    pub(super) fn revoke_session(&mut self, session_id: String, left_ms: TimeMs) -> Reply {
        let aged = self.state.counters().aged_ms;
        let (revocations, rows) = (&mut self.state.revocations, &mut self.state.rows);
        // No token can name such an id, or its tokens have ended by themselves: nothing to remember.
        let is_idle = session_id.is_empty() || session_id.len() > SESSION_ID_MAX;
        if is_idle || left_ms == 0 {
            return Ok(Outcome::Done);
        }
        let left = revocations.table.len() - revocations.ended(aged);
        let is_new = revocations.table.get(&session_id).is_none();
        if is_new && left >= REVOCATIONS_MAX {
            return Err(Rejection::TooManyRevocations { max: REVOCATIONS_MAX as u64 });
        }
        revocations.drop_ended(rows, aged);
        revocations.put(rows, session_id, aged.saturating_add(left_ms));
        Ok(Outcome::Done)
    }
}

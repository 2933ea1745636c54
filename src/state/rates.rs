//! Rate limits of tasks by key: when the next one may be started, and the record of those that were.
//!
//! A key has a row from its first start until no window reaches its newest one. Rows are at most
//! [`RATE_KEYS_MAX`]: with so many, a task with yet another key waits until a row is over.

use super::apply::Txn;
use super::rows::TableRow;
use super::{Fatal, State, TableId};
use crate::model::{RATE_MAX, RateLimit, RateLog, Task, TimeMs};

/// The most keys whose starts are remembered at once.
pub const RATE_KEYS_MAX: usize = 10_000;
/// Rows that are over and are deleted with one start, so that each start costs little.
const FORGOTTEN_MAX: usize = 16;

impl TableRow for RateLog {
    type Key = String;
    const TABLE: TableId = TableId::RateLogs;

    fn write_key(&self, key: &String, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<String> {
        (stored == self.key.as_bytes()).then(|| self.key.clone())
    }
}

impl State {
    pub(super) fn load_rate_log(
        &mut self,
        key: &[u8],
        value: &[u8],
        hash: u64,
    ) -> Result<(), Fatal> {
        self.rate_logs.load(key, value, hash)?;
        let key = std::str::from_utf8(key).unwrap_or_default().to_owned();
        if let Some(log) = self.rate_logs.get(&key) {
            self.rate_ends.insert((log.over_ms(), key));
        }
        Ok(())
    }

    /// When the rate of its key lets `task` be started; `None` when it may be at `now`. `planned`
    /// starts with its key count as made at `now`. The scheduler and apply share this rule.
    #[must_use]
    pub fn rate_clears_ms(&self, task: &Task, now: TimeMs, planned: usize) -> Option<TimeMs> {
        let limit = task.rate.as_ref()?;
        if let Some(log) = self.rate_logs.get(&limit.key) {
            return log.clears_ms(limit, now, planned);
        }
        let full = self.rate_logs.len() >= RATE_KEYS_MAX;
        let first_over_ms = self.rate_ends.first().map(|(over_ms, _)| *over_ms);
        match first_over_ms.filter(|over_ms| full && *over_ms > now) {
            None => RateLog::default().clears_ms(limit, now, planned),
            over_ms => over_ms,
        }
    }

    /// The newest starts of tasks with this key in their rate limit, as far as they matter.
    #[must_use]
    pub fn rate_log(&self, key: &str) -> Option<&RateLog> {
        self.rate_logs.get(&key.to_owned())
    }

    /// Whether the record of starts is as it must be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_rates(&self) -> Result<(), String> {
        if self.rate_logs.len() > RATE_KEYS_MAX || self.rate_ends.len() != self.rate_logs.len() {
            let (rows, ends) = (self.rate_logs.len(), self.rate_ends.len());
            return Err(format!("{rows} keys of rates have starts, {ends} have an end"));
        }
        for (key, log) in self.rate_logs.iter() {
            let sorted = log.starts_ms.is_sorted() && log.starts_ms.len() <= RATE_MAX as usize;
            if !sorted || !self.rate_ends.contains(&(log.over_ms(), key.clone())) {
                return Err(format!("the starts of {key} are {log:?}"));
            }
        }
        Ok(())
    }
}

impl Txn<'_> {
    /// Records that a task was started under `limit`.
    pub(super) fn note_start(&mut self, limit: &RateLimit) {
        self.forget_starts();
        let State { rate_logs, rate_ends, rows, .. } = &mut *self.state;
        let known = rate_logs.get(&limit.key).cloned();
        if let Some(log) = &known {
            rate_ends.remove(&(log.over_ms(), limit.key.clone()));
        }
        let fresh = || RateLog { key: limit.key.clone(), ..RateLog::default() };
        let mut log = known.unwrap_or_else(fresh);
        log.note(limit, self.now);
        rate_ends.insert((log.over_ms(), limit.key.clone()));
        rate_logs.put(rows, limit.key.clone(), log);
    }

    /// Deletes some of the rows that no window reaches any more.
    fn forget_starts(&mut self) {
        let State { rate_logs, rate_ends, rows, .. } = &mut *self.state;
        for _ in 0..FORGOTTEN_MAX {
            let over = rate_ends.first().filter(|(over_ms, _)| *over_ms <= self.now);
            let Some((over_ms, key)) = over.cloned() else { return };
            rate_logs.remove(rows, &key);
            rate_ends.remove(&(over_ms, key));
        }
    }
}

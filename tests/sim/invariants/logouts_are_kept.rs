//! A login that was ended stays ended on every member that has applied it, through crashes, snapshots
//! and changes of the leader, until its tokens have run out anyway; and no more is remembered than that.
//!
//! Source: contract 1.4, logout; a revocation kept in one process's memory is the bug to avoid.

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::TimeMs;
use quorate::state::State;

#[derive(Default)]
pub(super) struct Logouts {
    /// By login: until which age of the state it is remembered, and an index at which it certainly is.
    told: BTreeMap<String, Vec<(TimeMs, u64)>>,
    asked: BTreeSet<String>,
}

impl Logouts {
    /// Somebody is about to end a login.
    pub(super) fn asked(&mut self, session_id: &str) {
        self.asked.insert(session_id.to_owned());
    }

    /// Somebody was told that a login is ended.
    pub(super) fn told(&mut self, index: u64, session_id: &str, until_aged_ms: TimeMs) {
        self.told.entry(session_id.to_owned()).or_default().push((until_aged_ms, index));
    }

    pub(super) fn check(&self, state: &State, index: u64) -> Result<(), String> {
        let aged = state.counters().aged_ms;
        for (session_id, ends) in &self.told {
            let due = ends.iter().find(|(until_aged_ms, at)| *at <= index && *until_aged_ms > aged);
            if let Some((until_aged_ms, at)) = due
                && !state.is_revoked(session_id)
            {
                return Err(format!(
                    "{session_id}, ended at {at} until {until_aged_ms}, is good again at {index} ({aged})"
                ));
            }
        }
        Ok(())
    }

    /// No login is remembered that nobody ended.
    pub(super) fn check_end(&self, state: &State) -> Result<(), String> {
        let known = self.asked.iter().filter(|session_id| state.is_revoked(session_id)).count();
        if known == state.revocations_len() {
            return Ok(());
        }
        Err(format!(
            "{} logins are remembered, {known} of them were ended",
            state.revocations_len()
        ))
    }
}

#[test]
fn a_logout_that_was_forgotten_is_found_until_its_tokens_have_ended() {
    let state = State::default();
    let mut logouts = Logouts::default();
    logouts.told(5, "a", 0);
    assert_eq!(logouts.check(&state, 9), Ok(()), "its tokens have ended");
    logouts.told(5, "a", 1);
    assert_eq!(logouts.check(&state, 4), Ok(()), "it is not there yet");
    assert!(logouts.check(&state, 5).is_err());
    assert_eq!(logouts.check_end(&state), Ok(()));
}

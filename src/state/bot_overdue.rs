//! Leases that run out. Their time is the age of [`super::Counters::aged_ms`], not the time of the state: a
//! leader's clock that leaps ahead must not take from a worker what it works on.

use super::apply::Txn;
use super::bot_command::ExpiredLease;
use super::{Outcome, Reply, State};
use crate::model::{AssignmentPlace, BotLease, Epoch, TimeMs};

impl State {
    /// Leases whose time is over for an entry that says it is `now`, the oldest end first. Those of
    /// removed swarms, which go in turns, are among them: naming them clears them away.
    pub fn due_leases(&self, now: TimeMs) -> impl Iterator<Item = ExpiredLease> {
        let aged = self.counters().aged_at(now);
        let due = self.bot_index.leases.iter().take_while(move |(at, _)| *at <= aged);
        due.filter_map(|(_, place)| self.expired_lease(*place))
    }

    /// The lease that ends next, due or not.
    #[must_use]
    pub fn next_lease(&self) -> Option<ExpiredLease> {
        let (_, place) = self.bot_index.leases.first()?;
        self.expired_lease(*place)
    }

    /// When the next lease runs out, unless time leaps.
    #[must_use]
    pub fn next_lease_end_ms(&self) -> Option<TimeMs> {
        self.bot_index.leases.first().map(|(at, _)| self.time_of_age(*at))
    }

    /// When a lease ends by itself, unless time leaps.
    #[must_use]
    pub fn lease_end_ms(&self, lease: &BotLease) -> TimeMs {
        self.time_of_age(lease.ends_aged_ms)
    }

    fn expired_lease(&self, place: AssignmentPlace) -> Option<ExpiredLease> {
        Some(ExpiredLease { place, attempt: self.progress(place)?.attempt })
    }

    /// The time at which the state will have an age, or had it.
    fn time_of_age(&self, aged_ms: TimeMs) -> TimeMs {
        let counters = self.counters();
        counters.last_at_ms.saturating_add(aged_ms).saturating_sub(counters.aged_ms)
    }
}

impl Txn<'_> {
    pub(super) fn expire_leases(&mut self, epoch: Epoch, leases: &[ExpiredLease]) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(leases.len())?;
        let (mut given_up, mut retried, mut stale) = (0, 0, 0);
        let aged = self.state.counters().aged_ms;
        for expired in leases {
            let row = self.state.progress(expired.place);
            let row = row.filter(|row| row.attempt == expired.attempt);
            let lease = row.and_then(|row| row.lease.as_ref());
            let lease = lease.filter(|lease| lease.ends_aged_ms <= aged);
            let is_there = self.state.live_wave(expired.place.wave).is_some();
            let Some(contact_ms) = lease.filter(|_| is_there).map(|lease| lease.contact_ms) else {
                stale += 1;
                continue;
            };
            self.state.note_activity(expired.place, contact_ms);
            match self.fail_try(expired.place, "the lease ran out".to_owned(), false) {
                true => given_up += 1,
                false => retried += 1,
            }
        }
        let accepted = given_up + retried;
        self.tell_reported(0, given_up, retried, None);
        // As many as are named: those of removed swarms go with their blocks.
        self.tend_waves(leases.len());
        Ok(Outcome::Judged { accepted, stale })
    }
}

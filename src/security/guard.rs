//! The door's memory: what the newest configuration says, who came how often.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::time::Instant;

use super::access::{Access, Principal};
use super::limits::{Limiter, Verdict, Who};
use crate::state::State;

/// The configuration's revision in the upper bits, and whether it is plain in the lowest; 0 before
/// the first look.
#[derive(Debug, Default)]
struct Stamp(AtomicU64);

impl Stamp {
    fn of(revision: u64, is_plain: bool) -> u64 {
        (revision + 1) << 1 | u64::from(is_plain)
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Guard {
    stamp: Stamp,
    access: RwLock<Arc<Access>>,
    limiter: Limiter,
}

impl Guard {
    /// What the configuration of `state` says; `None` when every request may pass unseen, which is
    /// the default and costs one comparison.
    pub fn access(&self, state: &State) -> Option<Arc<Access>> {
        let revision = state.config().revision;
        let stamp = self.stamp.0.load(Ordering::Acquire);
        if stamp == Stamp::of(revision, true) {
            return None;
        }
        let access = if stamp == Stamp::of(revision, false) {
            Arc::clone(&self.access.read())
        } else {
            self.look(state)
        };
        (!access.is_plain()).then_some(access)
    }

    /// As [`Self::access`], also when nothing is to be checked.
    pub fn whole(&self, state: &State) -> Arc<Access> {
        let stamp = self.stamp.0.load(Ordering::Acquire);
        if stamp >> 1 == state.config().revision + 1 {
            return Arc::clone(&self.access.read());
        }
        self.look(state)
    }

    /// What was known at the last look, for doors that must answer whatever the state does.
    pub fn known(&self) -> Option<Arc<Access>> {
        if self.stamp.0.load(Ordering::Acquire) & 1 == 1 {
            return None;
        }
        Some(Arc::clone(&self.access.read())).filter(|access| !access.is_plain())
    }

    /// Once per revision.
    fn look(&self, state: &State) -> Arc<Access> {
        let config = state.config();
        let mut access = Access::read(&config.document());
        let mut kept = self.access.write();
        access.adopt_usage(&kept);
        let access = Arc::new(access);
        // Somebody who looked at a newer one was faster.
        if self.stamp.0.load(Ordering::Acquire) >> 1 > config.revision + 1 {
            return access;
        }
        *kept = Arc::clone(&access);
        self.stamp.0.store(Stamp::of(config.revision, access.is_plain()), Ordering::Release);
        access
    }

    /// Counts a request against its caller's limits; `None` when there are none.
    pub fn count(
        &self,
        access: &Access,
        principal: Option<&Principal>,
        address: Option<IpAddr>,
    ) -> Option<Verdict> {
        let limits = access.limits(principal);
        let who = principal.map_or_else(|| Who::at(address), Principal::who);
        self.limiter.take(who, limits, Instant::now())
    }
}

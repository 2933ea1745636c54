//! The door's memory: what the newest configuration says, who came how often.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde_json::Value;
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
#[derive(Default)]
pub struct Guard {
    /// What counts before the cluster has its first configuration.
    first: Option<Value>,
    stamp: Stamp,
    access: RwLock<Arc<Access>>,
    limiter: Limiter,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    /// A guard for a member whose file has the sections `document`: they count until there is a
    /// replicated configuration, so that no door stands open in a cluster's first moments.
    #[must_use]
    pub fn new(document: &Value) -> Self {
        let mut first = document.clone();
        if let Some(security) = first.get_mut("security").and_then(Value::as_object_mut) {
            // Nobody can log in before there is anything to log in with.
            security.remove("users");
        }
        Self { first: first.is_object().then_some(first), ..Self::default() }
    }

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
        let first = self.first.as_ref().filter(|_| config.revision == 0);
        let mut access = match first {
            Some(first) => Access::read(first),
            None => Access::read(&config.document()),
        };
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

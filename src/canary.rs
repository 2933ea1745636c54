//! Planted faults, for proving that the tests would find real ones.
//!
//! Each canary breaks one promise on purpose. Without its feature (`canary-...`; `canaries` for
//! all) it is a constant `false` and costs nothing; with it, the environment variable
//! `QUORATE_CANARY` chooses at most one per process, so one binary serves all trials. A program
//! with any of them compiled in says so at every start and in its version.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Names the canary that is let loose, without `canary-`.
pub const VARIABLE: &str = "QUORATE_CANARY";

/// Whether any sabotage is compiled in.
pub const COMPILED: bool = cfg!(feature = "canary");

/// The program's version, which does not hide that it is sabotaged.
pub const VERSION: &str = if COMPILED {
    concat!(env!("CARGO_PKG_VERSION"), " SABOTAGED FOR TESTS: built with canary features")
} else {
    env!("CARGO_PKG_VERSION")
};

/// A promise that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// A leader that crashed leads on in its old term, and gives log ids out twice.
    LeaderRestore,
    /// Log entries are acknowledged before they are durable.
    AckBeforeFsync,
    /// Votes are answered before they are durable.
    VoteNotDurable,
    /// Linearizable reads are served from whatever this member has applied.
    LocalReads,
    /// What an older leader planned takes effect, wherever it is proposed. It notices late that it
    /// was deposed, which no check prevents and all of them make harmless.
    NoEpochCheck,
    /// A retry under the same request id is applied again.
    RequestsForgotten,
    /// Applying an entry reads this member's clock.
    ApplyClock,
    /// Nodes are given more than they said they can take.
    CapacityRace,
    /// A new leader decides the newest slot of each schedule again.
    SlotTwice,
    /// A launch does not count what was promised to others.
    BudgetRace,
    /// A bot's work is leased to one who asks while another one holds it.
    LeaseTwice,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::LeaderRestore,
        Self::AckBeforeFsync,
        Self::VoteNotDurable,
        Self::LocalReads,
        Self::NoEpochCheck,
        Self::RequestsForgotten,
        Self::ApplyClock,
        Self::CapacityRace,
        Self::SlotTwice,
        Self::BudgetRace,
        Self::LeaseTwice,
    ];

    /// Its name in [`VARIABLE`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaderRestore => "leader-restore",
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::VoteNotDurable => "vote-not-durable",
            Self::LocalReads => "local-reads",
            Self::NoEpochCheck => "no-epoch-check",
            Self::RequestsForgotten => "requests-forgotten",
            Self::ApplyClock => "apply-clock",
            Self::CapacityRace => "capacity-race",
            Self::SlotTwice => "slot-twice",
            Self::BudgetRace => "budget-race",
            Self::LeaseTwice => "lease-twice",
        }
    }

    const fn compiled(self) -> bool {
        match self {
            Self::LeaderRestore => cfg!(feature = "canary-leader-restore"),
            Self::AckBeforeFsync => cfg!(feature = "canary-ack-before-fsync"),
            Self::VoteNotDurable => cfg!(feature = "canary-vote-not-durable"),
            Self::LocalReads => cfg!(feature = "canary-local-reads"),
            Self::NoEpochCheck => cfg!(feature = "canary-no-epoch-check"),
            Self::RequestsForgotten => cfg!(feature = "canary-requests-forgotten"),
            Self::ApplyClock => cfg!(feature = "canary-apply-clock"),
            Self::CapacityRace => cfg!(feature = "canary-capacity-race"),
            Self::SlotTwice => cfg!(feature = "canary-slot-twice"),
            Self::BudgetRace => cfg!(feature = "canary-budget-race"),
            Self::LeaseTwice => cfg!(feature = "canary-lease-twice"),
        }
    }
}

/// Whether this promise is to be broken.
#[inline]
#[must_use]
pub fn active(canary: Canary) -> bool {
    canary.compiled() && chosen() == Some(canary)
}

/// What a sabotaged program says when it starts; nothing from a whole one.
#[must_use]
pub fn warning() -> Option<String> {
    let loose = || chosen().map_or("none", Canary::name);
    COMPILED.then(|| {
        format!(
            "THIS BUILD CONTAINS SABOTAGE FOR TESTS (canary features) AND MUST NOT HOLD DATA; \
             let loose by {VARIABLE}: {}",
            loose()
        )
    })
}

/// The wall clock, for the canary that reads it where no clock may be read.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the fault is that a clock is read")]
pub fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// # Panics
/// When the variable names no canary, or one that is not compiled in: a trial that breaks nothing
/// must not pass for one that found nothing.
#[expect(clippy::disallowed_methods, reason = "no setting: read by test builds alone")]
fn chosen() -> Option<Canary> {
    static CHOSEN: OnceLock<Option<Canary>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        let canary = Canary::ALL.into_iter().find(|canary| canary.name() == name);
        let canary = canary.filter(|canary| canary.compiled());
        assert!(canary.is_some(), "{VARIABLE}: no canary called {name} is compiled in");
        canary
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "canary"))]
    fn the_usual_build_has_no_sabotage() {
        assert!(!COMPILED && warning().is_none());
        assert_eq!(VERSION, env!("CARGO_PKG_VERSION"));
        assert!(Canary::ALL.into_iter().all(|canary| !canary.compiled() && !active(canary)));
    }

    #[test]
    #[cfg(feature = "canaries")]
    fn a_sabotaged_build_says_so_and_breaks_nothing_unasked() {
        assert!(VERSION.contains("SABOTAGED") && warning().is_some());
        assert!(Canary::ALL.into_iter().all(|canary| canary.compiled() && !active(canary)));
    }
}

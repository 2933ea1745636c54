//! The wall clocks of the members: each has its own, which differs from the others' and may jump.
//!
//! [`quorate::clock`] asks one function for the time since the beginning; which member asks is
//! told by the runtime it runs on, because every simulated host has one of its own.

use std::cell::RefCell;
use std::time::Duration;

use tokio::runtime::{Handle, Id};

/// Members never are further apart: the state machine's time stands still while a leader's clock
/// is behind an earlier leader's.
pub(crate) const SKEW_MAX: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Clocks {
    /// How far ahead the clock at each place is.
    ahead: Vec<Duration>,
    /// How long all machines have slept.
    slept: Duration,
    hosts: Vec<(Id, usize)>,
}

thread_local! {
    static CLOCKS: RefCell<Clocks> = RefCell::default();
}

/// The runtime that this is called on is the one of the host at `place`.
pub(crate) fn enter(place: usize) {
    let id = Handle::current().id();
    CLOCKS.with_borrow_mut(|clocks| {
        clocks.hosts.retain(|(_, other)| *other != place);
        clocks.hosts.push((id, place));
    });
}

/// Sets the clock at `place`.
pub(crate) fn set(place: usize, ahead: Duration) {
    CLOCKS.with_borrow_mut(|clocks| {
        if clocks.ahead.len() <= place {
            clocks.ahead.resize(place + 1, Duration::ZERO);
        }
        clocks.ahead[place] = ahead;
    });
}

/// All clocks are later by so much, as when the machines were suspended: no timer has run meanwhile.
pub(crate) fn sleep(lost: Duration) {
    CLOCKS.with_borrow_mut(|clocks| clocks.slept += lost);
}

/// What the clock of whoever asks shows.
pub(crate) fn elapsed() -> Duration {
    let slept = CLOCKS.with_borrow(|clocks| clocks.slept);
    let true_time = turmoil::sim_elapsed().unwrap_or_default() + slept;
    let Ok(handle) = Handle::try_current() else { return true_time };
    let ahead = CLOCKS.with_borrow(|clocks| {
        let id = handle.id();
        let place = clocks.hosts.iter().find(|(host, _)| *host == id).map(|(_, place)| *place);
        place.and_then(|place| clocks.ahead.get(place).copied()).unwrap_or_default()
    });
    true_time + ahead
}

//! What members keep beside their rows is equal at equal index as well: the order of the queue, timers,
//! what is under way, estimates. One built it entry by entry, another one when it loaded its home or got
//! a snapshot; the digest of the state covers rows alone, and the next leader decides by these.
//!
//! Source: docs/architecture.md, "state", what is derived is computed again from a scan at start.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use quorate::state::State;
use xxhash_rust::xxh3::xxh3_64;

use super::Process;

#[derive(Default)]
pub(super) struct Derived(BTreeMap<u64, (u64, Process)>);

impl Derived {
    pub(super) fn at(&mut self, index: u64, state: &State, process: Process) -> Result<(), String> {
        let derived = describe(state);
        let hash = xxh3_64(derived.as_bytes());
        let (known, by) = *self.0.entry(index).or_insert((hash, process));
        if known == hash {
            return Ok(());
        }
        Err(format!("at {index} {process:?} differs from {by:?}: {derived}"))
    }
}

fn describe(state: &State) -> String {
    let mut all = String::new();
    let mut say = |what: &str, ids: &mut dyn Iterator<Item = &str>| {
        all.push_str(what);
        ids.for_each(|id| {
            all.push(' ');
            all.push_str(id);
        });
    };
    say("queue", &mut state.queue().map(|task| task.task_id.as_str()));
    say(" live", &mut state.live_tasks().map(|task| task.task_id.as_str()));
    say(" steps", &mut state.open_steps().map(|task| task.task_id.as_str()));
    let estimates = state.estimates();
    say(" estimates", &mut estimates.keys().map(String::as_str));
    let estimates: u64 = estimates.values().sum();
    let newest = state.ended_keys(None, true).next();
    let told = state.told_ends().count();
    let (timer, due) = (state.next_timer_ms(), state.due_deliveries_len());
    let (ended, logouts) = (state.told_rows(), state.revocations_len());
    let open = (state.waiting_len(), state.tasks_len(), state.requests_len());
    // Writing to a string cannot fail.
    let _ =
        write!(all, " {estimates} {newest:?} {told} {timer:?} {due} {ended} {logouts} {open:?}");
    all
}

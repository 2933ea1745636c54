//! Every planted fault is found within a fixed number of seeds.

use quorate::canary::{Canary, VARIABLE};

use crate::fleet::{first_failure, run_fleet};

/// Seeds within which each must be found.
const SEEDS: u64 = 30;

/// Tries `known` first, the lowest seed that found this fault when it was last measured, and only
/// then all seeds from the beginning. It says which of the two it was.
fn is_found(canary: Canary, known: u64) {
    let (name, environment) = (canary.name(), [(VARIABLE, canary.name())]);
    if first_failure([known], &environment).is_some() {
        println!("{name}: found by seed {known}, which is tried first");
        return;
    }
    let found = first_failure(1..=SEEDS, &environment);
    println!("{name}: seeds to detect: {found:?}; seed {known}, tried first, finds it no more");
    assert!(found.is_some(), "{name} was not found within {SEEDS} seeds");
}

#[test]
fn leader_restore_is_found() {
    is_found(Canary::LeaderRestore, 1);
}

#[test]
fn acknowledging_before_fsync_is_found() {
    is_found(Canary::AckBeforeFsync, 2);
}

#[test]
fn votes_that_are_not_durable_are_found() {
    is_found(Canary::VoteNotDurable, 2);
}

#[test]
fn reads_that_are_served_locally_are_found() {
    is_found(Canary::LocalReads, 1);
}

#[test]
fn epochs_that_are_not_checked_are_found() {
    is_found(Canary::NoEpochCheck, 1);
}

#[test]
fn requests_that_are_forgotten_are_found() {
    is_found(Canary::RequestsForgotten, 1);
}

#[test]
fn a_clock_in_apply_is_found() {
    is_found(Canary::ApplyClock, 1);
}

#[test]
fn nodes_given_too_much_are_found() {
    is_found(Canary::CapacityRace, 1);
}

#[test]
fn slots_decided_twice_are_found() {
    is_found(Canary::SlotTwice, 6);
}

#[test]
fn budgets_that_race_are_found() {
    is_found(Canary::BudgetRace, 17);
}

#[test]
fn assignments_leased_twice_are_found() {
    is_found(Canary::LeaseTwice, 2);
}

/// What finds the faults is not what the features themselves change.
#[test]
fn no_canary_no_finding() {
    assert!(run_fleet(1..=2, &[]).failed.is_empty());
}

//! Every planted fault is found within a fixed number of seeds.

use quorate::canary::{Canary, VARIABLE};

use crate::fleet::{first_failure, run_fleet};

/// Seeds within which each must be found.
const SEEDS: u64 = 30;

fn is_found(canary: Canary) {
    let found = first_failure(1..=SEEDS, &[(VARIABLE, canary.name())]);
    println!("{}: seeds to detect: {found:?}", canary.name());
    assert!(found.is_some(), "{} was not found within {SEEDS} seeds", canary.name());
}

#[test]
fn leader_restore_is_found() {
    is_found(Canary::LeaderRestore);
}

#[test]
fn acknowledging_before_fsync_is_found() {
    is_found(Canary::AckBeforeFsync);
}

#[test]
fn votes_that_are_not_durable_are_found() {
    is_found(Canary::VoteNotDurable);
}

#[test]
fn reads_that_are_served_locally_are_found() {
    is_found(Canary::LocalReads);
}

#[test]
fn epochs_that_are_not_checked_are_found() {
    is_found(Canary::NoEpochCheck);
}

#[test]
fn requests_that_are_forgotten_are_found() {
    is_found(Canary::RequestsForgotten);
}

#[test]
fn a_clock_in_apply_is_found() {
    is_found(Canary::ApplyClock);
}

#[test]
fn nodes_given_too_much_are_found() {
    is_found(Canary::CapacityRace);
}

#[test]
fn slots_decided_twice_are_found() {
    is_found(Canary::SlotTwice);
}

#[test]
fn budgets_that_race_are_found() {
    is_found(Canary::BudgetRace);
}

/// What finds the faults is not what the features themselves change.
#[test]
fn no_canary_no_finding() {
    assert!(run_fleet(1..=4, &[]).failed.is_empty());
}

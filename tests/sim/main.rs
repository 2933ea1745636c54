//! The seeded simulation: three members, their clients, their disks and their network in one
//! process and one thread, under faults that a seed decides.
//!
//! One seed, one process: `QUORATE_SIM_SEED=7 cargo test --test sim one_seed -- --nocapture` runs
//! it again exactly. With `QUORATE_SIM_MUTATION=leader-restore` it runs with a known fault of the
//! library switched on, which it must find.

#![allow(clippy::disallowed_methods, reason = "the seed comes from the environment")]
#![allow(clippy::print_stdout, reason = "a run reports to the process that started it")]

mod fleet;
mod member;
mod net;
mod oracle;
mod run;

use fleet::{MUTATION_ENV, SEED_ENV, report, run_fleet};

/// The mutation: a leader that crashed leads on in its old term and gives log ids out twice.
const LEADER_RESTORE: &str = "leader-restore";
/// Seeds run by every build.
const FIXED_SEEDS: u64 = 60;
/// New ones on top.
const FRESH_SEEDS: u64 = 4;
/// Seeds within which the mutation must be found.
const MUTATION_SEEDS: u64 = 16;

/// Runs the seed of the environment; the others start it once per seed.
#[test]
fn one_seed() {
    let seed = std::env::var(SEED_ENV).map_or(1, |seed| seed.parse().expect("a seed is a number"));
    let mutation = std::env::var(MUTATION_ENV).ok();
    let tune: Option<fn(&mut openraft::Config)> = match mutation.as_deref() {
        None => None,
        Some(LEADER_RESTORE) => Some(|config| config.enable_leader_restore = Some(true)),
        Some(other) => panic!("no mutation is called {other}"),
    };
    let verdict = run::run(seed, tune);
    report(&verdict);
    assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
}

#[test]
fn sixty_seeds() {
    let fresh = quorate::clock::random() >> 16;
    let seeds = (1..=FIXED_SEEDS).chain(fresh..fresh + FRESH_SEEDS);
    let fleet = run_fleet(seeds, None);
    assert!(fleet.failed.is_empty(), "failing seeds: {:?}", fleet.failed);
    // A run that broke nothing has shown nothing.
    let covered = fleet.coverage;
    println!("{covered:?}");
    assert!(covered.acked >= 20_000, "{covered:?}");
    assert!(covered.reads >= 2_000, "{covered:?}");
    assert!(covered.torn_crashes >= 100, "{covered:?}");
    assert!(covered.partitions >= 200, "{covered:?}");
    assert!(covered.elections >= 300, "{covered:?}");
    assert!(covered.snapshots >= 20, "{covered:?}");
    assert!(covered.transfers >= 20, "{covered:?}");
    assert!(covered.unknown >= 1, "{covered:?}");
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    let first = run_fleet([11, 12], None);
    let second = run_fleet([11, 12], None);
    assert_eq!(first.traces, second.traces);
    assert_eq!(first.traces.len(), 2);
}

/// Without this one, nothing proves that the simulation tests durability.
#[test]
fn leader_restore_is_caught() {
    let fleet = run_fleet(1..=MUTATION_SEEDS, Some(LEADER_RESTORE));
    println!("caught by {} of {MUTATION_SEEDS} seeds: {:?}", fleet.failed.len(), fleet.failed);
    assert!(!fleet.failed.is_empty(), "the planted fault was not found");
}

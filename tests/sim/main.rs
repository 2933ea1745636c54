//! The seeded simulation: members, their leader work, clients, nodes, disks, clocks and network in
//! one process and one thread, under faults that a seed decides.
//!
//! One seed, one process: `QUORATE_SIM_SEED=7 cargo test --test sim one_seed -- --exact --nocapture`
//! runs it again exactly; `QUORATE_SIM_TRACE=1` shows it step by step,
//! `RUST_LOG` what members log. Many, as fast as it goes:
//! `QUORATE_SIM_SEEDS=1..2000 cargo test --release --test sim many_seeds -- --exact --nocapture`.
//! With `QUORATE_SIM_MUTATION=leader-restore` a known fault of the library is switched on; with
//! `--features canaries` planted ones of our own can be (docs/fault-testing.md).

#![allow(
    clippy::disallowed_methods,
    reason = "seeds come from the environment; runs are watched in real time"
)]
#![allow(clippy::print_stdout, reason = "a run reports to the process that started it")]

mod agents;
mod authors;
mod book;
#[cfg(feature = "canaries")]
mod canaries;
mod changes;
mod clients;
mod driver;
mod faults;
mod fleet;
mod invariants;
mod jobs;
mod keeper;
mod net;
mod nodes;
mod operator;
mod plan;
mod planners;
mod researchers;
mod rogue;
mod settings;
mod sink;
mod skew;
mod stage;
mod swarms;
mod work;

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use fleet::{MUTATION_ENV, SEED_ENV, report, run_fleet};

/// The mutation: a leader that crashed leads on in its old term and gives log ids out twice.
const LEADER_RESTORE: &str = "leader-restore";
/// Seeds run by every build, beside those of `seeds.txt`.
const FIXED_SEEDS: u64 = 15;
/// New ones on top.
const FRESH_SEEDS: u64 = 2;
/// The longest a run may take, in real time.
const RUN_MAX: Duration = Duration::from_secs(600);
/// Seeds within which the mutation must be found.
const MUTATION_SEEDS: u64 = 10;
/// Seeds that found something once.
const REGRESSIONS: &str = include_str!("seeds.txt");
/// What every build must have exercised: a run that broke nothing has shown nothing.
const COVERED: [(&str, u64); 64] = [
    ("acked", 3_100),
    ("acknowledged", 2),
    ("agent_calls", 1_900),
    ("agent_calls_again", 100),
    ("agents_died_at_work", 1),
    ("alerts", 87),
    ("assignments_completed", 7),
    ("assignments_leased", 88),
    ("calls", 1_900),
    ("campaigns_created", 61),
    ("campaigns_moved", 54),
    ("cancelled", 220),
    ("careless_plans", 18),
    ("clock_steps", 27),
    ("crashes", 310),
    ("crashes_while_founding", 13),
    ("demoted", 1),
    ("disk_errors", 10),
    ("drains", 13),
    ("elections", 110),
    ("elections_crashed", 9),
    ("iterations_asked_for", 45),
    ("jobs", 93),
    ("joined", 2),
    ("lag_then_crash", 1),
    ("logged_out", 220),
    ("lost_disks", 1),
    ("mails", 130),
    ("node_turns", 100),
    ("orchestrators_set", 75),
    ("partitions", 51),
    ("pauses", 6),
    ("pipelines_defined", 120),
    ("pipelines_taken_back", 34),
    ("posts", 1_100),
    ("promoted", 2),
    ("ran", 34),
    ("reads", 1_100),
    ("refused", 120),
    ("register_reads", 730),
    ("register_writes", 510),
    ("reigns_while_paused", 6),
    ("removed", 1),
    ("replays", 95),
    ("reports", 180),
    ("retried", 240),
    ("runs", 58),
    ("runs_with_a_task", 10),
    ("services_called", 39),
    ("settings", 83),
    ("sleeps", 9),
    ("slow_disks", 12),
    ("snapshots_ordered", 24),
    ("stragglers", 64),
    ("swarms_assigned", 20),
    ("swarms_created", 25),
    ("swarms_cut", 2),
    ("swarms_refused", 1),
    ("taken_out_at_work", 3),
    ("torn_crashes", 110),
    ("transfers", 18),
    ("tripped", 5),
    ("unknown", 13),
    ("workflows", 30),
];

/// Runs the seed of the environment; the others start it once per seed.
#[test]
fn one_seed() {
    let seed = std::env::var(SEED_ENV).map_or(1, |seed| seed.parse().expect("a seed is a number"));
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    }
    let mutation = std::env::var(MUTATION_ENV).ok();
    let tune: Option<fn(&mut openraft::Config)> = match mutation.as_deref() {
        None => None,
        Some(LEADER_RESTORE) => Some(|config| config.enable_leader_restore = Some(true)),
        Some(other) => panic!("no mutation is called {other}"),
    };
    let verdict = within(RUN_MAX, || driver::run(seed, tune));
    report(&verdict);
    assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
}

/// Ends this process, with status 3, if the run takes longer: a loop that takes no simulated time
/// would go on for ever. A run that has ended leaves nothing behind that could end the process, in
/// which the other tests are still at work.
fn within<T>(limit: Duration, run: impl FnOnce() -> T) -> T {
    let (_ended, running) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if running.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("a run that does not end");
            std::process::exit(3);
        }
    });
    run()
}

/// A run once left its guard behind, which ended the tests beside it when they took longer.
#[test]
fn the_guard_of_a_run_ends_with_the_run() {
    assert_eq!(within(Duration::from_millis(20), || 1), 1);
    std::thread::sleep(Duration::from_millis(200));
}

/// The seeds that found something, a fixed set, and some that nobody has ever run.
#[test]
fn known_fixed_and_fresh_seeds() {
    let fresh = quorate::clock::random() >> 16;
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let known = lines.filter_map(|line| line.split_whitespace().next());
    let known = known.map(|seed| seed.parse().expect("a line of seeds.txt begins with a seed"));
    let seeds = known.chain(1..=FIXED_SEEDS).chain(fresh..fresh + FRESH_SEEDS);
    let fleet = run_fleet(seeds, &[]);
    fleet.summarize();
    assert!(fleet.failed.is_empty(), "failing seeds: {:?}", fleet.failed);
    let short = COVERED.iter().filter(|(what, least)| fleet.covered(what) < *least);
    let short: Vec<_> = short.map(|(what, least)| (what, least, fleet.covered(what))).collect();
    assert!(short.is_empty(), "too little was exercised: {short:?}");
}

/// A long run; without a range in the environment there is nothing to do.
#[test]
fn many_seeds() {
    let Ok(range) = std::env::var("QUORATE_SIM_SEEDS") else { return };
    let (from, to) = range.split_once("..").expect("a range is written A..B");
    let range: Range<u64> =
        from.parse().expect("A is a number")..to.parse().expect("B is a number");
    let fleet = run_fleet(range, &[]);
    fleet.summarize();
    assert!(fleet.failed.is_empty(), "failing seeds: {:?}", fleet.failed);
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    let first = run_fleet([11, 12], &[]);
    let second = run_fleet([11, 12], &[]);
    assert_eq!(first.traces, second.traces);
    assert_eq!(first.traces.len(), 2);
}

/// Leaders that change in one run of every build; the variable asks for more.
const CHANGES: u64 = 20;
const CHANGES_ENV: &str = "QUORATE_SIM_CHANGES";

/// A schedule that is due every second, and a new leader about every second.
#[test]
fn every_slot_is_decided_once_whoever_leads() {
    let changes = std::env::var(CHANGES_ENV).map_or(CHANGES, |n| n.parse().expect("a number"));
    let began = std::time::Instant::now();
    let verdict = within(RUN_MAX * 6, || changes::run(5, changes));
    report(&verdict);
    println!("and {:.0?} of real time", began.elapsed());
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    let covered = |what| verdict.coverage.get(what).copied().unwrap_or(0);
    assert!(covered("elections") >= changes && covered("ran") >= changes / 2);
    assert!(covered("jobs") >= changes && covered("experiments") > 0);
}

/// Without this one, nothing proves that the simulation tests durability.
#[test]
fn leader_restore_is_caught() {
    let mutation = [(MUTATION_ENV, LEADER_RESTORE)];
    let found = fleet::first_failure(1..=MUTATION_SEEDS, &mutation);
    println!("seeds to detect: {found:?}");
    assert!(found.is_some(), "the planted fault was not found");
}

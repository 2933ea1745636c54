//! Many seeds: each in a process of its own, a few at a time.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

use parking_lot::Mutex;

use crate::driver::Verdict;

pub(crate) const SEED_ENV: &str = "QUORATE_SIM_SEED";
pub(crate) const MUTATION_ENV: &str = "QUORATE_SIM_MUTATION";
/// Processes at once, unless this variable says otherwise.
const JOBS_ENV: &str = "QUORATE_SIM_JOBS";
const JOBS: usize = 2;
/// In front of the line that tells the parent what came of a seed.
const MARK: &str = "simulated seed";

/// What came of all of them.
pub(crate) struct Fleet {
    pub(crate) failed: Vec<u64>,
    pub(crate) traces: BTreeMap<u64, u64>,
    covered: BTreeMap<String, u64>,
    began: Instant,
}

/// Prints what a parent reads, and a person.
pub(crate) fn report(verdict: &Verdict) {
    let covered: Vec<String> =
        verdict.coverage.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("{MARK} {} trace {:016x} {}", verdict.seed, verdict.trace, covered.join(" "));
    println!("it lasted {:?} of simulated time", verdict.simulated);
}

/// Runs every seed and sums up.
pub(crate) fn run_fleet(
    seeds: impl IntoIterator<Item = u64>,
    environment: &[(&str, &str)],
) -> Fleet {
    let queue = Mutex::new(seeds.into_iter().collect::<Vec<_>>().into_iter());
    let fleet = Mutex::new(Fleet::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs() {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().next() else { return };
                    let (passed, output) = run_seed(seed, environment);
                    fleet.lock().add(seed, passed, &output);
                }
            });
        }
    });
    let mut fleet = fleet.into_inner();
    fleet.failed.sort_unstable();
    fleet
}

fn jobs() -> usize {
    let said = std::env::var(JOBS_ENV).ok().and_then(|jobs| jobs.parse().ok());
    said.filter(|jobs| *jobs > 0).unwrap_or(JOBS)
}

/// The first of `seeds` that fails, a few at a time, and how many were needed.
pub(crate) fn first_failure(
    seeds: impl IntoIterator<Item = u64>,
    environment: &[(&str, &str)],
) -> Option<u64> {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let found = |some: &[u64]| run_fleet(some.iter().copied(), environment).failed.first().copied();
    seeds.chunks(jobs()).find_map(found)
}

fn run_seed(seed: u64, environment: &[(&str, &str)]) -> (bool, String) {
    let program = std::env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(program);
    command
        .args(["one_seed", "--exact", "--nocapture"])
        .env_remove(MUTATION_ENV)
        .env(SEED_ENV, seed.to_string())
        .env("RUST_BACKTRACE", "0")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let output = command.output().expect("the test's own program can be started");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

impl Fleet {
    fn new() -> Self {
        let (failed, traces) = (Vec::new(), BTreeMap::new());
        Self { failed, traces, covered: BTreeMap::new(), began: Instant::now() }
    }

    pub(crate) fn covered(&self, what: &str) -> u64 {
        self.covered.get(what).copied().unwrap_or(0)
    }

    /// Prints what was exercised, and how fast.
    pub(crate) fn summarize(&self) {
        let hours = self.covered("simulated_ms") as f64 / 3_600_000.0;
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
        println!("{} seeds, {} failed: {:?}", self.traces.len(), self.failed.len(), self.failed);
        println!(
            "{hours:.2} simulated hours in {minutes:.2} minutes: {:.2} per minute",
            hours / minutes
        );
        println!("{:?}", self.covered);
    }

    fn add(&mut self, seed: u64, passed: bool, output: &str) {
        if !passed {
            println!(
                "seed {seed} failed; again: {SEED_ENV}={seed} cargo test --test sim one_seed -- \
                 --exact --nocapture\n{output}"
            );
            self.failed.push(seed);
        }
        let Some(at) = output.find(MARK) else { return };
        let line = output[at..].lines().next().unwrap_or_default();
        let mut words = line.split_whitespace().skip(MARK.split_whitespace().count() + 1);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name == "trace" {
                let trace = u64::from_str_radix(value, 16).expect("a trace is a number");
                self.traces.insert(seed, trace);
            } else {
                let count: u64 = value.parse().expect("what was exercised is counted");
                *self.covered.entry(name.to_owned()).or_default() += count;
            }
        }
    }
}

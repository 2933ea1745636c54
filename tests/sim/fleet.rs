//! Many seeds: each in a process of its own, two at a time.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use parking_lot::Mutex;

use crate::oracle::Coverage;
use crate::run::Verdict;

pub(crate) const SEED_ENV: &str = "QUORATE_SIM_SEED";
pub(crate) const MUTATION_ENV: &str = "QUORATE_SIM_MUTATION";
/// Processes at once.
const AT_ONCE: usize = 2;
/// In front of the line that tells the parent what came of a seed.
const MARK: &str = "simulated seed";

/// What came of all of them.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) failed: Vec<u64>,
    pub(crate) traces: BTreeMap<u64, u64>,
    pub(crate) coverage: Coverage,
}

/// Prints what a parent reads, and a person.
pub(crate) fn report(verdict: &Verdict) {
    let c = verdict.coverage;
    println!(
        "{MARK} {} trace {:016x} simulated_ms {} acked {} unknown {} reads {} crashes {} torn {} \
         partitions {} elections {} transfers {} snapshots {} compared {}",
        verdict.seed,
        verdict.trace,
        verdict.simulated.as_millis(),
        c.acked,
        c.unknown,
        c.reads,
        c.crashes,
        c.torn_crashes,
        c.partitions,
        c.elections,
        c.transfers,
        c.snapshots,
        c.compared
    );
}

/// Runs every seed and sums up.
pub(crate) fn run_fleet(seeds: impl IntoIterator<Item = u64>, mutation: Option<&str>) -> Fleet {
    let queue = Mutex::new(seeds.into_iter().collect::<Vec<_>>().into_iter());
    let fleet = Mutex::new(Fleet::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().next() else { return };
                    let (passed, output) = run_seed(seed, mutation);
                    fleet.lock().add(seed, passed, &output);
                }
            });
        }
    });
    let mut fleet = fleet.into_inner();
    fleet.failed.sort_unstable();
    fleet
}

fn run_seed(seed: u64, mutation: Option<&str>) -> (bool, String) {
    let program = std::env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(program);
    command
        .args(["one_seed", "--exact", "--nocapture"])
        .env(SEED_ENV, seed.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    match mutation {
        Some(mutation) => command.env(MUTATION_ENV, mutation),
        None => command.env_remove(MUTATION_ENV),
    };
    let output = command.output().expect("the test's own program can be started");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

impl Fleet {
    fn add(&mut self, seed: u64, passed: bool, output: &str) {
        if !passed {
            println!("seed {seed} failed:\n{output}");
            self.failed.push(seed);
        }
        let Some(line) = output.lines().find(|line| line.contains(MARK)) else { return };
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let number = |name: &str| value(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(trace) = value("trace").and_then(|text| u64::from_str_radix(text, 16).ok()) {
            self.traces.insert(seed, trace);
        }
        let sum = &mut self.coverage;
        sum.acked += number("acked");
        sum.unknown += number("unknown");
        sum.reads += number("reads");
        sum.crashes += number("crashes");
        sum.torn_crashes += number("torn");
        sum.partitions += number("partitions");
        sum.elections += number("elections");
        sum.transfers += number("transfers");
        sum.snapshots += number("snapshots");
        sum.compared += number("compared");
    }
}

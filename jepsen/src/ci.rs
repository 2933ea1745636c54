//! The fixed set of short runs that every change goes through, within seven minutes on two cores.

use std::time::Duration;

use jepsen::checker::Validity;
use tokio::time::Instant;

use crate::nemesis::named;
use crate::run::{Spec, run};
use crate::selftest::power_cut_controls;

/// How long faults are unleashed in each run.
const TIME: Duration = Duration::from_secs(20);

/// Name, faults, workloads.
const RUNS: [(&str, &[&str], &[&str]); 9] = [
    (
        "ci-partitions",
        &["isolate-leader", "partition-halves", "one-way-leader-deaf", "flapping", "client-cut"],
        &["register", "append", "heartbeats"],
    ),
    (
        "ci-durability",
        &["lag-then-crash", "power-cut-all", "kill-leader"],
        &["set", "callbacks", "retry"],
    ),
    ("ci-attempts", &["pause-leader", "one-way-leader-mute", "worker-cut"], &["attempts", "keys"]),
    (
        "ci-pipelines",
        &["kill-leader", "pause-leader", "isolate-leader", "kill-majority", "partition-halves"],
        &["pipelines", "alerts", "retry"],
    ),
    (
        "ci-campaigns",
        &["kill-leader", "pause-leader", "isolate-leader", "transfer-storm", "clock-jump"],
        &["slots", "budgets", "set"],
    ),
    (
        "ci-bots",
        &["kill-leader", "pause-leader", "isolate-leader", "partition-halves", "transfer-storm"],
        &["leases", "capacity"],
    ),
    (
        "ci-clocks",
        &["clock-jump", "kill-follower", "forced-snapshots", "reorder"],
        &["register", "monotonic"],
    ),
    (
        "ci-membership",
        &["membership-churn", "transfer-storm", "isolate-follower", "wiped-disk"],
        &["set", "register"],
    ),
    (
        "ci-mixed",
        &[
            "kill-leader",
            "delay",
            "loss",
            "clock-jump",
            "transfer-storm",
            "fsync-error",
            "pause-then-isolate",
        ],
        &["register", "append", "set", "attempts", "monotonic", "retry"],
    ),
];

/// Runs the set with this seed.
///
/// # Errors
/// When the harness fails.
pub(crate) async fn ci(base: &Spec, seed: u64) -> anyhow::Result<Validity> {
    let began = Instant::now();
    println!("control rows of the injector:");
    let mut validity = match power_cut_controls() {
        Ok(true) => Validity::Valid,
        Ok(false) => Validity::Invalid,
        Err(why) => {
            println!("  not tried: {why:#}");
            Validity::Unknown
        }
    };
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for (name, faults, workloads) in RUNS {
        let spec = Spec {
            name: name.to_owned(),
            seed,
            faults: named(&texts(faults))?,
            workloads: texts(workloads),
            time: TIME,
            ..base.clone()
        };
        let ended = run(&spec).await?;
        rows.push((name, ended.validity));
        validity = validity.max(ended.validity);
    }
    println!("ci, seed {seed}, in {:.0?}:", began.elapsed());
    for (name, validity) in rows {
        println!("  {:7}  {name}", validity.as_str());
    }
    Ok(validity)
}

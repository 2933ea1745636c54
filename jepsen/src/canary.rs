//! The net has no holes: builds of the program that are broken on purpose must be caught, each
//! within a fixed number of runs by the workload and the fault that are made for it.

use std::time::Duration;

use jepsen::checker::{Validity, Verdict};
use serde_json::json;

use crate::nemesis::named;
use crate::run::{Spec, run, store};

/// Selects the sabotage in the program.
const SELECTOR: &str = "QUORATE_CANARY";

/// One sabotage, and what must catch it.
struct Canary {
    name: &'static str,
    members: usize,
    faults: &'static [&'static str],
    workloads: &'static [&'static str],
    /// What it breaks: a run that is invalid for another reason has not caught it.
    breaks: &'static [&'static str],
    seconds: u64,
    /// It must be caught within so many runs.
    runs_max: u64,
}

const CANARIES: [Canary; 11] = [
    Canary {
        name: "leader-restore",
        members: 3,
        faults: &["kill-leader", "restart-storm", "power-cut-one"],
        workloads: &["register", "set", "attempts"],
        breaks: &[
            "every member tells the same",
            "equal state at equal index",
            "linearizable",
            "nothing acknowledged is lost",
        ],
        seconds: 20,
        runs_max: 10,
    },
    Canary {
        name: "ack-before-fsync",
        members: 3,
        faults: &["lag-then-crash"],
        workloads: &["set", "register"],
        breaks: &["nothing acknowledged is lost", "linearizable"],
        seconds: 15,
        runs_max: 3,
    },
    Canary {
        name: "vote-not-durable",
        members: 3,
        faults: &["election-then-crash"],
        workloads: &["register", "set"],
        breaks: &["linearizable", "nothing acknowledged is lost", "one leader per term"],
        seconds: 30,
        runs_max: 5,
    },
    Canary {
        name: "local-reads",
        members: 3,
        faults: &["isolate-leader", "partition-halves"],
        workloads: &["register"],
        breaks: &["linearizable"],
        seconds: 15,
        runs_max: 3,
    },
    Canary {
        name: "no-epoch-check",
        members: 3,
        faults: &["transfer-storm", "pause-leader", "isolate-leader"],
        workloads: &["attempts"],
        breaks: &["epochs only grow, and name their decisions", "one live attempt at a time"],
        seconds: 25,
        runs_max: 3,
    },
    Canary {
        name: "requests-forgotten",
        members: 3,
        faults: &["kill-leader", "isolate-leader"],
        workloads: &["retry"],
        breaks: &["a repeated request gets its first answer", "each change has one effect"],
        seconds: 15,
        runs_max: 3,
    },
    Canary {
        name: "apply-clock",
        members: 3,
        faults: &["clock-jump"],
        workloads: &["set"],
        breaks: &["equal state at equal index", "equal state digests at equal index"],
        seconds: 15,
        runs_max: 3,
    },
    Canary {
        name: "capacity-race",
        members: 3,
        faults: &["transfer-storm", "worker-cut"],
        workloads: &["attempts"],
        breaks: &["no node over its capacity"],
        seconds: 20,
        runs_max: 3,
    },
    Canary {
        name: "slot-twice",
        members: 3,
        faults: &["kill-leader", "transfer-storm"],
        workloads: &["slots"],
        breaks: &["every slot is decided once"],
        seconds: 20,
        runs_max: 3,
    },
    Canary {
        name: "budget-race",
        members: 3,
        faults: &["kill-leader", "isolate-leader"],
        workloads: &["budgets"],
        breaks: &["no budget is ever overspent"],
        seconds: 20,
        runs_max: 3,
    },
    Canary {
        name: "lease-twice",
        members: 3,
        faults: &["kill-leader", "isolate-leader"],
        workloads: &["leases"],
        breaks: &["no assignment is held by two"],
        seconds: 15,
        runs_max: 3,
    },
];

/// The cargo features of the sabotages.
pub(crate) fn features() -> Vec<String> {
    CANARIES.iter().map(|canary| format!("canary-{}", canary.name)).collect()
}

/// Runs each sabotage (or those named) until it is caught. Valid when all are.
///
/// # Errors
/// When the harness fails.
pub(crate) async fn canaries(base: &Spec, only: &[String], seed: u64) -> anyhow::Result<Validity> {
    let mut rows = Vec::new();
    let mut validity = Validity::Valid;
    for canary in CANARIES
        .iter()
        .filter(|canary| only.is_empty() || only.iter().any(|name| name == canary.name))
    {
        let caught = hunt(base, canary, seed).await?;
        validity = if caught.is_some() { validity } else { Validity::Invalid };
        rows.push((canary, caught));
    }
    println!("| sabotage | faults | workloads | runs to detect | caught by |");
    println!("| --- | --- | --- | --- | --- |");
    let mut results = Vec::new();
    for (Canary { name, faults, workloads, runs_max, .. }, caught) in &rows {
        let (runs, by) = match caught {
            Some((runs, by)) => (format!("{runs} (of at most {runs_max})"), by.clone()),
            None => (format!("NOT CAUGHT in {runs_max}"), String::new()),
        };
        let (faults, workloads) = (faults.join(", "), workloads.join(", "));
        println!("| {name} | {faults} | {workloads} | {runs} | {by} |");
        let runs = caught.as_ref().map(|(runs, _)| *runs);
        results.push(json!({ "name": name, "runs": runs, "runs_max": runs_max, "by": by }));
    }
    std::fs::create_dir_all(store())?;
    let text = serde_json::to_string_pretty(&results)?;
    std::fs::write(store().join("canaries.json"), text)?;
    Ok(validity)
}

/// The verdict that shows what the sabotage breaks.
fn caught<'a>(canary: &Canary, verdicts: &'a [Verdict]) -> Option<&'a Verdict> {
    let shows = |verdict: &&Verdict| {
        verdict.validity == Validity::Invalid && canary.breaks.contains(&verdict.property.as_str())
    };
    verdicts.iter().find(shows)
}

/// In which run it was caught, and by which property.
async fn hunt(base: &Spec, canary: &Canary, seed: u64) -> anyhow::Result<Option<(u64, String)>> {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for number in 1..=canary.runs_max {
        let spec = Spec {
            name: format!("canary-{}", canary.name),
            seed: seed + number - 1,
            members: canary.members,
            faults: named(&texts(canary.faults))?,
            workloads: texts(canary.workloads),
            time: Duration::from_secs(canary.seconds),
            environment: vec![(SELECTOR.to_owned(), canary.name.to_owned())],
            ..base.clone()
        };
        let ended = run(&spec).await?;
        let told = |verdict: &Verdict| format!("{}: {}", verdict.workload, verdict.property);
        if let Some(found) = caught(canary, &ended.verdicts) {
            return Ok(Some((number, told(found))));
        }
        let other = ended.verdicts.iter().find(|verdict| verdict.validity == Validity::Invalid);
        if let Some(other) = other {
            eprintln!("{}: invalid for another reason ({})", canary.name, told(other));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canary_is_hunted_with_faults_and_workloads_that_there_are() {
        for canary in &CANARIES {
            let texts =
                |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(named(&texts(canary.faults)).unwrap().len(), canary.faults.len());
            crate::judge::workloads(&texts(canary.workloads)).unwrap();
            assert!(canary.runs_max > 0 && canary.seconds > 5);
        }
    }

    /// Any invalid verdict counted, and an outage that was none ended the hunt for `budget-race`.
    #[test]
    fn only_what_a_canary_breaks_catches_it() {
        for canary in &CANARIES {
            let of = |property: &str| Verdict::new("w", property, Validity::Invalid, "");
            assert!(caught(canary, &[of("serves within 5 s of healing")]).is_none());
            let names: Vec<String> =
                canary.workloads.iter().map(|name| (*name).to_owned()).collect();
            let workloads = crate::judge::workloads(&names).unwrap();
            let history = jepsen::history::History::default();
            let verdicts = crate::judge::judge(&history, &workloads, &[], &[], Vec::new());
            let known = |property: &&str| verdicts.iter().any(|one| one.property == **property);
            assert!(canary.breaks.iter().any(known), "{}", canary.name);
            for property in canary.breaks {
                let verdicts = [of("no member panicked"), of(property)];
                assert_eq!(caught(canary, &verdicts).unwrap().property, *property);
            }
        }
    }
}

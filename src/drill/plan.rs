//! What a drill would do, and whether the cluster could survive it: decided from what members say,
//! before anything is broken.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::view::{Account, ClusterView, LAG_MAX};
use super::{Options, Way};
use crate::model::DrillKind;

/// How the fault is caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The process is killed and started again: by us, or by what watches over it.
    Kill,
    /// The process lives on, but neither peers nor clients hear of it.
    Silence,
    /// The office is handed over.
    HandOver,
    /// The member hangs: peers and clients wait for it.
    Hang,
    /// Links are cut.
    Cut,
    /// Processes are stopped in order and started again, one after the other.
    RestartOneByOne,
    /// All processes are killed at once and started again.
    KillAll,
    /// Flushes of the log take longer.
    SlowDisk,
    /// A backup is made and restored.
    Rehearse,
}

impl Method {
    /// Its word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Silence => "silence",
            Self::HandOver => "hand over",
            Self::Hang => "hang",
            Self::Cut => "cut",
            Self::RestartOneByOne => "restart one by one",
            Self::KillAll => "kill all",
            Self::SlowDisk => "slow disk",
            Self::Rehearse => "rehearse",
        }
    }
}

/// What is known before a drill.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The cluster, as one member sees it.
    pub view: ClusterView,
    /// What each member says of drills, or why it says nothing.
    pub accounts: BTreeMap<u64, Result<Account, String>>,
    /// Processes are ours to kill and start.
    pub ours: bool,
}

/// How many voters may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Margin {
    /// Who votes.
    pub voters: usize,
    /// Voters needed for a decision.
    pub quorum: usize,
    /// Voters that may fail before the drill.
    pub before: usize,
    /// Voters that may fail beside those that the drill takes away; below 0 the cluster does not
    /// serve meanwhile.
    pub during: i64,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is rehearsed.
    pub kind: DrillKind,
    /// On whom.
    pub targets: Vec<u64>,
    /// The same, in words.
    pub target: String,
    /// How.
    pub method: Method,
    /// Who leads before.
    pub leader: u64,
    /// In which term.
    pub term: u64,
    /// What stays of the quorum.
    pub margin: Margin,
    /// What happens, in order, for people.
    pub steps: Vec<String>,
}

/// Why a drill may not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Refusal {
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

fn refuse<T>(code: &'static str, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, text: text.into() })
}

impl Plan {
    /// As JSON, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "target": self.target,
            "members": self.targets,
            "method": self.method.as_str(),
            "leader": self.leader,
            "term": self.term,
            "margin": self.margin.json(),
            "steps": self.steps,
        })
    }
}

impl Margin {
    /// As JSON, for programs.
    #[must_use]
    pub fn json(self) -> Value {
        json!({
            "voters": self.voters, "quorum": self.quorum,
            "may_fail_before": self.before, "may_fail_during": self.during,
        })
    }
}

/// Decides.
///
/// # Errors
/// [`Refusal`] when the cluster could not survive the drill, or does not allow it.
pub fn plan(facts: &Facts, options: &Options) -> Result<Plan, Refusal> {
    let view = &facts.view;
    let Some(leader) = view.leader else {
        return refuse("NO_LEADER", "nobody leads: there is nothing to rehearse on");
    };
    check_health(facts, options)?;
    let targets = targets(view, options, leader)?;
    let method = method(facts, options, &targets)?;
    let margin = check_margin(view, method, &targets)?;
    if options.kind == DrillKind::Transfer {
        check_heir(view, leader, options.to)?;
    }
    let steps = steps(view, options, &targets, method);
    let names: Vec<String> = targets.iter().map(|id| view.name(*id)).collect();
    Ok(Plan {
        kind: options.kind,
        target: names.join(", "),
        targets,
        method,
        leader,
        term: view.term,
        margin,
        steps,
    })
}

/// Everybody is there, in step, and lets itself be broken.
fn check_health(facts: &Facts, options: &Options) -> Result<(), Refusal> {
    let view = &facts.view;
    if view.changing {
        return refuse("CHANGE_IN_PROGRESS", "the membership is being changed");
    }
    for member in &view.members {
        let name = view.name(member.id);
        if member.state == "diverged" {
            return refuse("MEMBER_DIVERGED", format!("{name} has stopped serving"));
        }
        if options.degraded {
            continue;
        }
        if !member.serves() {
            return refuse("MEMBER_UNREACHABLE", format!("{name} cannot be reached"));
        }
        if !member.votes() {
            let text = format!("{name} is a learner: the membership is about to change");
            return refuse("LEARNER_PRESENT", text);
        }
        if member.lag > LAG_MAX {
            let text = format!("{name} is {} entries behind", member.lag);
            return refuse("NOT_CAUGHT_UP", text);
        }
    }
    for (id, account) in &facts.accounts {
        match account {
            Err(why) => {
                let unreachable = view.member(*id).is_none_or(|member| !member.serves());
                if !(options.degraded && unreachable) {
                    let text = format!("{} does not take part in drills: {why}", view.name(*id));
                    return refuse("DRILLS_REFUSED", text);
                }
            }
            Ok(account) => {
                if let Some(running) = account.running {
                    return refuse("DRILL_RUNNING", format!("drill {running} is under way"));
                }
            }
        }
    }
    Ok(())
}

/// On whom: as asked for, else on the leader, or on everybody.
fn targets(view: &ClusterView, options: &Options, leader: u64) -> Result<Vec<u64>, Refusal> {
    let everybody = || view.members.iter().map(|member| member.id).collect();
    let mut targets: Vec<u64> = match options.kind {
        DrillKind::Failover | DrillKind::Transfer => vec![leader],
        DrillKind::RestartAll => everybody(),
        DrillKind::Restore if options.members.is_empty() => everybody(),
        DrillKind::Pause | DrillKind::Partition | DrillKind::DiskSlow
            if options.members.is_empty() =>
        {
            vec![leader]
        }
        DrillKind::Pause
        | DrillKind::Partition
        | DrillKind::DiskSlow
        | DrillKind::Restore
        | DrillKind::Chaos => options.members.clone(),
    };
    targets.sort_unstable();
    targets.dedup();
    match targets.iter().find(|id| view.member(**id).is_none()) {
        Some(stranger) => refuse("MEMBER_NOT_FOUND", format!("there is no member {stranger}")),
        None => Ok(targets),
    }
}

fn method(facts: &Facts, options: &Options, targets: &[u64]) -> Result<Method, Refusal> {
    let supervised = |id: &u64| {
        facts.ours || matches!(facts.accounts.get(id), Some(Ok(account)) if account.supervised)
    };
    let all_supervised = targets.iter().all(supervised);
    Ok(match options.kind {
        DrillKind::Failover if all_supervised => Method::Kill,
        DrillKind::Failover => Method::Silence,
        DrillKind::Transfer => Method::HandOver,
        DrillKind::Pause => Method::Hang,
        DrillKind::Partition => Method::Cut,
        DrillKind::RestartAll if !all_supervised => {
            let left = targets.iter().filter(|id| !supervised(id)).map(|id| facts.view.name(*id));
            let left: Vec<String> = left.collect();
            let text = format!(
                "nothing starts {} again (cluster.drills.supervised): it can only be restarted by \
                 hand",
                left.join(", ")
            );
            return refuse("NOT_SUPERVISED", text);
        }
        DrillKind::RestartAll if options.at_once => Method::KillAll,
        DrillKind::RestartAll => Method::RestartOneByOne,
        DrillKind::DiskSlow => Method::SlowDisk,
        DrillKind::Restore => Method::Rehearse,
        DrillKind::Chaos => return refuse("INVALID_DRILL", "chaos is for `quorate dev --chaos`"),
    })
}

fn check_margin(view: &ClusterView, method: Method, targets: &[u64]) -> Result<Margin, Refusal> {
    let voters: Vec<_> = view.members.iter().filter(|member| member.votes()).collect();
    let quorum = voters.len() / 2 + 1;
    let alive = voters.iter().filter(|member| member.serves());
    // How many voters are away at once.
    let taken = match method {
        Method::HandOver | Method::Rehearse => 0,
        Method::RestartOneByOne => 1,
        Method::Kill
        | Method::Silence
        | Method::Hang
        | Method::Cut
        | Method::KillAll
        | Method::SlowDisk => alive.clone().filter(|member| targets.contains(&member.id)).count(),
    };
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let alive = alive.count();
    let during = signed(alive) - signed(taken) - signed(quorum);
    let before = alive.saturating_sub(quorum);
    let margin = Margin { voters: voters.len(), quorum, before, during };
    if during < 0 && method != Method::KillAll {
        let text = format!(
            "{quorum} of {} voters are needed and {} would be left",
            voters.len(),
            alive.saturating_sub(taken)
        );
        return refuse("QUORUM_AT_RISK", text);
    }
    Ok(margin)
}

/// Somebody else can lead.
fn check_heir(view: &ClusterView, leader: u64, to: Option<u64>) -> Result<(), Refusal> {
    let fit = |id: u64| {
        let member = view.member(id);
        id != leader && member.is_some_and(|m| m.votes() && m.serves() && m.lag <= LAG_MAX)
    };
    match to {
        Some(to) if !fit(to) => {
            refuse("NO_HEIR", format!("{} cannot take the office over", view.name(to)))
        }
        None if !view.members.iter().any(|member| fit(member.id)) => {
            refuse("NO_HEIR", "nobody else can take the office over")
        }
        Some(_) | None => Ok(()),
    }
}

fn steps(view: &ClusterView, options: &Options, targets: &[u64], method: Method) -> Vec<String> {
    let names: Vec<String> = targets.iter().map(|id| view.name(*id)).collect();
    let (names, hold) = (names.join(", "), options.hold);
    let cause = match method {
        Method::Kill => format!("kill {names} and start it again after {hold:?}"),
        Method::Silence => format!(
            "silence {names} for {hold:?}: its peers do not hear it and its clients are refused; \
             the process itself lives on"
        ),
        Method::HandOver => match options.to {
            Some(to) => format!("hand the office over from {names} to {}", view.name(to)),
            None => format!("hand the office over from {names} to the best suited voter"),
        },
        Method::Hang => format!("let {names} hang for {hold:?}: peers and clients wait for it"),
        Method::Cut => {
            let way = match options.way {
                Way::Both => "both ways",
                Way::In => "what is sent to it",
                Way::Out => "what it sends",
            };
            format!("cut {names} off from the others for {hold:?} ({way})")
        }
        Method::RestartOneByOne => {
            format!("restart {names}, one after the other, the leader last")
        }
        Method::KillAll => format!("kill {names} at once and start them again"),
        Method::SlowDisk => format!(
            "make each flush of the log of {names} take {:?} longer for {hold:?}",
            options.delay
        ),
        Method::Rehearse => {
            format!("back {names} up, each, restore that into a scratch state and compare")
        }
    };
    vec![
        format!("probe the cluster for {:?}: writes, reads, dispatches", options.before),
        cause,
        format!("heal, wait until all are in step, probe for {:?}", options.after),
        "look for what was lost or doubled, and store the report".to_owned(),
    ]
}

#[cfg(test)]
mod tests;

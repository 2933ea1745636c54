//! Clients: they submit tasks, read them, cancel some, send requests again, and use the
//! configuration as a register.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::{Cluster, Consistency, ProposeError};
use quorate::model::{Requirements, TaskId, TaskStatus};
use quorate::state::{Command, Outcome, Rejection, TaskSpec};
use serde_json::json;

use crate::invariants::{Kind, Operation, Process, Told, expected_by_a_read};
use crate::stage::{Phase, Stage};
use crate::{sink, work};

/// Under which name a task carries what its client knows it by.
pub(crate) const MARKER: &str = "marker";
/// Where in the configuration the register is.
const REGISTER: &str = "sim.register";
/// What no node can do: tasks that ask for it wait for ever.
pub(crate) const IMPOSSIBLE: &str = "impossible";

pub(crate) async fn run(stage: Stage, process: Process, member: Cluster) {
    while member.member_id() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    set_up(&stage, &member).await;
    loop {
        tokio::time::sleep(Duration::from_millis(clock::random() % stage.plan.client_pause_ms))
            .await;
        if stage.phase() == Phase::Healed {
            return;
        }
        match clock::random() % 100 {
            0..52 => submit(&stage, process.place, &member).await,
            52..67 => drop(read(&stage, &member).await),
            67..77 => write_register(&stage, &member).await,
            77..89 => read_register(&stage, &member).await,
            89..93 => cancel(&stage, &member).await,
            _ if stage.plan.faults.retries => retry(&stage, &member).await,
            _ => drop(read(&stage, &member).await),
        }
    }
}

/// Short times, so that much happens within a run. Every client makes sure of them.
async fn set_up(stage: &Stage, member: &Cluster) {
    let value = json!({
        "network": { "node_timeout": 2 },
        "tasks": { "retry_delay_ms": 100 },
        "agents": { "heartbeat_timeout": 2, "removal_timeout": 4 },
        // Posts are lost for as long as things break; none may be given up before.
        "callbacks": { "max_tries": 100 },
        "alerts": {
            "webhook": { "enabled": true, "url": sink::ALERTS },
            "email": sink::mail_channel(),
        },
    });
    let command = Command::PatchConfig {
        path: String::new(),
        value: value.to_string(),
        // The first one wins, and the others find it done.
        expected_revision: Some(0),
    };
    let request_id = quorate::model::RequestId::from_key("set up");
    while stage.phase() != Phase::Healed {
        if member.propose(request_id, "client", command.clone()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn spec(marker: &str, named: bool) -> TaskSpec {
    let random = clock::random();
    // Payloads that live outside their row are loaded on a thread when they are handed over, which
    // no simulation can have: such tasks wait for ever.
    let large = random.is_multiple_of(6);
    let requirements = Requirements {
        capabilities: large.then(|| IMPOSSIBLE.to_owned()).into_iter().collect(),
        ..Requirements::default()
    };
    let mut spec = TaskSpec {
        task_id: named.then(|| TaskId::trusted(marker)),
        task_type: "plain".to_owned(),
        metadata: json!({ MARKER: marker }).to_string(),
        requirements,
        input: format!("\"{}\"", "x".repeat(if large { 900 } else { (random % 200) as usize })),
        timeout_ms: 1500 + random % 2000,
        max_retries: (random % 4) as u32,
        ..TaskSpec::default()
    };
    if !large {
        work::shape(&mut spec);
    }
    spec
}

async fn submit(stage: &Stage, place: usize, member: &Cluster) {
    let serial = stage.next_serial();
    let marker = format!("t{serial}-{place}");
    let named = serial.is_multiple_of(2);
    let request_id = clock::mint_request_id();
    let command = Command::SubmitTasks(vec![spec(&marker, named)]);
    stage.invariants.submissions(|all| all.began(&marker, request_id, command.clone(), named));
    let answer = member.propose(request_id, "client", command).await;
    answered(stage, &marker, answer);
}

/// Sends a request again, through another member or after a long time.
async fn retry(stage: &Stage, member: &Cluster) {
    let again = stage.invariants.submissions(|all| {
        let known = all.all.len();
        let nth = clock::random() as usize % known.max(1);
        let marker = all.all.keys().nth(nth)?.clone();
        let (request_id, command) = all.again(&marker)?;
        Some((marker, request_id, command))
    });
    let Some((marker, request_id, command)) = again else { return };
    stage.book().cover("retried");
    let answer = member.propose(request_id, "client", command).await;
    answered(stage, &marker, answer);
}

fn answered(
    stage: &Stage,
    marker: &str,
    answer: Result<quorate::cluster::Committed, ProposeError>,
) {
    let told = match answer {
        Ok(committed) => match committed.reply {
            Ok(Outcome::TaskSubmitted { task_id, duplicate, .. }) => {
                stage.book().cover("acked");
                Told::Acknowledged { task_id, index: committed.index, duplicate }
            }
            Err(Rejection::UnknownTaskType { .. }) => {
                stage.book().cover("refused");
                Told::Refused
            }
            other => {
                let what = format!("{marker} was answered with {other:?}");
                stage.book().violation("exactly once", &what);
                return;
            }
        },
        Err(ProposeError::NotStarted { .. }) => Told::NotStarted,
        Err(ProposeError::Unknown { .. } | ProposeError::Stopped { .. }) => {
            stage.book().cover("unknown");
            Told::Unknown
        }
    };
    stage.book().trace(&format!("{marker} {told:?}"));
    stage.invariants.answered(marker, told);
}

/// Everything acknowledged before the read began must be seen by it.
async fn read(stage: &Stage, member: &Cluster) -> bool {
    let expected = stage.invariants.submissions(|all| expected_by_a_read(all));
    if member.read_barrier(Consistency::Linearizable).await.is_err() {
        return false;
    }
    stage.book().cover("reads");
    for id in expected {
        if member.view().read(|state| !state.has_task(&id)) {
            let what = format!("a read of member {} missed {id}", member.member_id());
            stage.book().violation("reads are linearizable", &what);
        }
    }
    true
}

fn register_of(member: &Cluster) -> (u64, u64) {
    member.view().read(|state| {
        let config = state.config();
        let value = config.document().pointer("/sim/register").and_then(|value| value.as_u64());
        (config.revision, value.unwrap_or(0))
    })
}

async fn read_register(stage: &Stage, member: &Cluster) {
    let began = stage.book().moment();
    if member.read_barrier(Consistency::Linearizable).await.is_err() {
        return;
    }
    let (revision, value) = register_of(member);
    let ended = Some(stage.book().moment());
    stage.book().cover("register_reads");
    stage.invariants.operates(Operation { kind: Kind::Read, began, ended, value, revision });
}

/// Writes a new value, blindly or if nobody wrote since this member's state.
async fn write_register(stage: &Stage, member: &Cluster) {
    let value = stage.next_serial();
    let blindly = clock::random().is_multiple_of(2);
    let expected_revision = (!blindly).then(|| register_of(member).0);
    let command = Command::PatchConfig {
        path: REGISTER.to_owned(),
        value: value.to_string(),
        expected_revision,
    };
    let began = stage.book().moment();
    let operation =
        |ended, revision| Operation { kind: Kind::Write, began, ended, value, revision };
    // Until its end is known it may take effect at any time.
    let number = stage.invariants.operates(operation(None, 0));
    let written = member.propose(clock::mint_request_id(), "client", command).await;
    let moment = stage.book().moment();
    stage.book().trace(&format!("register {value} {written:?}"));
    match written {
        Ok(committed) => match committed.reply {
            Ok(Outcome::ConfigPatched { revision }) => {
                stage.book().cover("register_writes");
                let kept = expected_revision.is_none_or(|seen| revision == seen + 1);
                if !kept {
                    let what = format!("{expected_revision:?} was replaced by {revision}");
                    stage.book().violation("the register is linearizable", &what);
                }
                stage.invariants.operated(number, Some(operation(Some(moment), revision)));
            }
            Err(Rejection::RevisionMismatch { .. }) => {
                stage.book().cover("register_refusals");
                stage.invariants.operated(number, None);
            }
            other => {
                let what = format!("a write was answered with {other:?}");
                stage.book().violation("the register is linearizable", &what);
            }
        },
        Err(ProposeError::NotStarted { .. }) => stage.invariants.operated(number, None),
        Err(ProposeError::Unknown { .. } | ProposeError::Stopped { .. }) => {}
    }
}

async fn cancel(stage: &Stage, member: &Cluster) {
    let stepping = clock::random().is_multiple_of(3);
    let task_id = member.view().read(|state| {
        let mut stepping = state.tasks_by_status(TaskStatus::Stepping).filter(|_| stepping);
        let waiting = || state.queue().next().map(|task| task.task_id.clone());
        stepping.next().map(|task| task.task_id.clone()).or_else(waiting)
    });
    let Some(task_id) = task_id else { return };
    let command = Command::CancelTask { task_id, reason: "enough".to_owned() };
    if member.propose(clock::mint_request_id(), "client", command).await.is_ok() {
        stage.book().cover("cancelled");
    }
}

/// After the faults: writes and reads through this member until both succeeded.
pub(crate) async fn probe(stage: Stage, place: usize, member: Cluster) {
    while stage.phase() != Phase::Healed || member.member_id() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        let before = stage.book().covered("acked");
        submit(&stage, place, &member).await;
        if stage.book().covered("acked") > before && read(&stage, &member).await {
            stage.places.lock()[place].served = true;
            return;
        }
        // A member that has ended answers at once.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

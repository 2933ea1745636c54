//! Who says what tasks of a type do: defines pipelines anew while tasks follow the old ones, and takes
//! them back, so that a built-in one holds again, or none.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::state::{Command, Outcome, Rejection};

use crate::stage::{Phase, Stage};
use crate::work::{TYPES, pipeline};

pub(crate) async fn run(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(100 + clock::random() % 500)).await;
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        match stage.phase() {
            Phase::Healed => return,
            Phase::Chaos if member.member_id() != 0 && ready => act(&stage, &member).await,
            Phase::Founding | Phase::Chaos => {}
        }
    }
}

async fn act(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let task_type = TYPES[random as usize % TYPES.len()];
    if !stage.plan.faults.authors && member.view().read(|state| state.pipeline(task_type).is_some())
    {
        return;
    }
    if (random >> 8) % 10 < 7 {
        define(stage, member, task_type).await;
    } else {
        take_back(stage, member, task_type).await;
    }
}

async fn define(stage: &Stage, member: &Cluster, task_type: &str) {
    let name = format!("v{}", stage.next_serial());
    let pipeline = pipeline(task_type, &name);
    stage.invariants.defines(&name, &pipeline);
    let command = Command::PutPipeline(pipeline);
    let answer = member.propose(clock::mint_request_id(), "author", command).await;
    match answer.map(|committed| (committed.index, committed.reply)) {
        Ok((index, Ok(Outcome::Done))) => {
            stage.book().cover("pipelines_defined");
            stage.invariants.defined(index, task_type, Some(&name));
        }
        Ok((_, other)) => refused(stage, task_type, &format!("{other:?}")),
        Err(_) => {}
    }
}

async fn take_back(stage: &Stage, member: &Cluster, task_type: &str) {
    let command = Command::RemovePipeline { task_type: task_type.to_owned() };
    let answer = member.propose(clock::mint_request_id(), "author", command).await;
    match answer.map(|committed| (committed.index, committed.reply)) {
        Ok((index, Ok(Outcome::Done))) => {
            stage.book().cover("pipelines_taken_back");
            stage.invariants.defined(index, task_type, None);
        }
        Ok((_, Err(Rejection::PipelineNotFound { .. }))) => {}
        Ok((_, other)) => refused(stage, task_type, &format!("{other:?}")),
        Err(_) => stage.invariants.maybe_taken_back(task_type),
    }
}

fn refused(stage: &Stage, task_type: &str, answer: &str) {
    let what = format!("a change of {task_type} was answered with {answer}");
    stage.book().violation("flows keep their definition", &what);
}

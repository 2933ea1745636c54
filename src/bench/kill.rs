//! The leader is killed once, at a known moment of a run, and started again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::args::{LoadArgs, System};
use super::crowd::KillArgs;
use super::drive::Run;
use super::failover::lose;
use super::members::Members;
use super::report::ms;
use super::subject::Subject;

/// What the run is told of its kill; null when there was none.
pub(super) struct Kill(Option<JoinHandle<anyhow::Result<Value>>>);

/// The processes behind the URLs.
///
/// # Errors
/// When a kill is asked for and they are not known.
pub(super) fn members_of(args: &KillArgs, load: &LoadArgs) -> anyhow::Result<Members> {
    let members = Members::new(&args.members, load.url.len())?;
    ensure!(
        !args.kill_leader || (members.are_known() && members.can_restart()),
        "--kill-leader needs --pid-file and --restart"
    );
    Ok(members)
}

impl Kill {
    /// Kills the leader of a run that begins now, when that is asked for.
    #[must_use]
    pub(super) fn plan(args: &KillArgs, load: &LoadArgs, run: &Arc<Run>, members: Members) -> Self {
        if !args.kill_leader {
            return Self(None);
        }
        let wait = load.warmup + args.kill_after.unwrap_or(load.secs / 2);
        let (subject, run) = (Subject::new(System::Quorate, load), Arc::clone(run));
        Self(Some(tokio::spawn(kill(subject, members, run, wait))))
    }

    /// How it went, once the member is back.
    ///
    /// # Errors
    /// When the leader could not be killed, or did not come back.
    pub(super) async fn done(self) -> anyhow::Result<Value> {
        match self.0 {
            Some(task) => task.await.context("the kill ended badly")?,
            None => Ok(Value::Null),
        }
    }
}

async fn kill(
    subject: Subject,
    members: Members,
    run: Arc<Run>,
    wait: Duration,
) -> anyhow::Result<Value> {
    tokio::time::sleep(wait).await;
    let leader = subject.leader().await?.context("nobody leads, so nobody is killed")?;
    let outage = lose(&subject, &members, &run, leader, Signal::KILL).await?;
    run.spread();
    Ok(json!({
        "member": leader + 1,
        "next_ack_ms": ms(outage.next_ack),
        "silence_ms": ms(outage.silence),
    }))
}

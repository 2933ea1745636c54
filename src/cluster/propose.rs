//! Holding a proposal through elections: the retry loop in front of the queue.

use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, Counters};
use super::error::{NotStarted, ProposeError};
use super::pause::Pause;
use super::proposer::Fate;
use crate::canary::{self, Canary};
use crate::clock;
use crate::model::{Epoch, RequestId};
use crate::state::{self, Command, Envelope, Reply};

/// The longest a duty waits for its command: duties plan again, they do not hold on.
const DUTY_TIMEOUT: Duration = Duration::from_secs(10);

/// A command that was applied; `reply` may still be a refusal of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Log index of its entry.
    pub index: u64,
    /// What the state machine answered.
    pub reply: Reply,
}

/// Proposes through this member and holds on, under the same request id, until the deadline.
pub(crate) async fn propose(
    core: &Core,
    request_id: RequestId,
    principal: &str,
    command: Command,
) -> Result<Committed, ProposeError> {
    let deadline = Instant::now() + core.options.propose_timeout;
    let envelope = Envelope { request_id, principal: principal.to_owned(), command };
    let encoded = state::encode_envelope(&envelope);
    drop(envelope);
    if encoded.len() > core.options.limits.command_bytes {
        return not_started(core, NotStarted::TooLarge);
    }
    Counters::add(&core.counters.proposals, 1);
    let mut pause = Pause::new();
    // Once a try may have reached a log, only the state machine's answer can say "not started".
    let mut maybe_started = false;
    let mut last = NotStarted::NoLeader;
    loop {
        if let Some(why) = core.why_ended() {
            return Err(ProposeError::Stopped { why, maybe_started });
        }
        if core.raft().is_none() {
            return not_started(core, NotStarted::NotInitialized);
        }
        let fate = match core.queue.put(vec![encoded.clone()], None, false, deadline) {
            Ok(ticket) => ticket.wait(deadline).await,
            Err(reason) => Fate::NotStarted(reason),
        };
        match fate {
            Fate::Committed(index, mut replies) => {
                let reply = replies.pop().expect("one envelope has one answer");
                return Ok(Committed { index, reply });
            }
            Fate::NotStarted(NotStarted::Overloaded) if !maybe_started => {
                Counters::add(&core.counters.overloaded, 1);
                return not_started(core, NotStarted::Overloaded);
            }
            Fate::NotStarted(reason) => last = reason,
            Fate::Unknown => maybe_started = true,
            Fate::Stopped => {
                maybe_started = true;
                core.end("raft stopped");
            }
        }
        Counters::add(&core.counters.retries, 1);
        if !pause.wait(core, deadline).await {
            break;
        }
    }
    if maybe_started {
        Counters::add(&core.counters.unknown, 1);
        return Err(ProposeError::Unknown { request_id });
    }
    not_started(core, if last == NotStarted::NotLeader { NotStarted::NoLeader } else { last })
}

/// Proposes a duty's command: only here, only in the term of its epoch, once.
pub(crate) async fn propose_local(
    core: &Core,
    epoch: Epoch,
    command: Command,
) -> Result<Committed, ProposeError> {
    if let Some(why) = core.why_ended() {
        return Err(ProposeError::Stopped { why, maybe_started: false });
    }
    if core.current().leading != Some(epoch.term) || core.member_id() != epoch.member {
        if canary::active(Canary::NoEpochCheck) {
            return propose(core, clock::mint_request_id(), "", command).await;
        }
        return not_started(core, NotStarted::NotLeader);
    }
    let request_id = clock::mint_request_id();
    let envelope = Envelope { request_id, principal: String::new(), command };
    let encoded = state::encode_envelope(&envelope);
    drop(envelope);
    if encoded.len() > core.options.limits.command_bytes {
        return not_started(core, NotStarted::TooLarge);
    }
    Counters::add(&core.counters.proposals, 1);
    let deadline = Instant::now() + DUTY_TIMEOUT;
    let ticket = match core.queue.put(vec![encoded], Some(epoch.term), false, deadline) {
        Ok(ticket) => ticket,
        Err(reason) => return not_started(core, reason),
    };
    match ticket.wait(deadline).await {
        Fate::Committed(index, mut replies) => {
            let reply = replies.pop().expect("one envelope has one answer");
            Ok(Committed { index, reply })
        }
        Fate::NotStarted(reason) => not_started(core, reason),
        Fate::Unknown => Err(ProposeError::Unknown { request_id }),
        Fate::Stopped => {
            Err(ProposeError::Stopped { why: "raft stopped".to_owned(), maybe_started: true })
        }
    }
}

fn not_started<T>(core: &Core, reason: NotStarted) -> Result<T, ProposeError> {
    Err(ProposeError::NotStarted { reason, leader: core.current().leader })
}

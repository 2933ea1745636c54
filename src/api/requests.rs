//! What became of a request: for clients that lost the answer to a write.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::App;
use super::error::ApiError;
use super::params::{Params, Path};
use super::reply;
use crate::model::{CampaignId, RequestId, TaskId, TaskStatus};
use crate::state::{BotOutcome, Outcome, REQUEST_WINDOW_MS, Recorded, Rejection, Reply};

#[derive(Debug, Serialize)]
struct RequestReply {
    success: bool,
    request_id: String,
    /// `committed`, `rejected` or `never_seen`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<RejectionView>,
    /// Answers are remembered at least so long, unless there are too many.
    remembered_ms: u64,
}

#[derive(Debug, Serialize)]
struct RejectionView {
    code: &'static str,
    error: String,
}

impl From<&Rejection> for RejectionView {
    fn from(rejection: &Rejection) -> Self {
        Self { code: rejection.code(), error: rejection.to_string() }
    }
}

/// The recorded outcome on the wire.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutcomeView {
    Done,
    NodeRegistered { new: bool },
    NodeStatusSet { old: &'static str, new: &'static str },
    TaskSubmitted { task_id: TaskId, duplicate: bool },
    TasksSubmitted { created: u32, duplicates: u32 },
    Judged { accepted: u32, stale: u32 },
    TaskReported { status: &'static str, attempt: u32, stale: bool },
    TaskCancelled { was: &'static str },
    ConfigPatched { revision: u64 },
    MemberAllocated { member: u64, replaces: Option<u64> },
    DrillBegun { drill_id: u64 },
    RunBegun { run_id: u64 },
    CampaignCreated { campaign_id: CampaignId },
    IterationsQueued { count: u32 },
    JobsCreated { count: u32 },
    AgentCommand { number: u64, outcome: Option<Box<Self>>, rejection: Option<RejectionView> },
    AccountCreated { user_id: String },
    Bot { outcome: BotOutcome },
    LeftAlone { status: Option<&'static str> },
    Asked { outcome: Option<Box<Self>>, rejection: Option<RejectionView> },
}

impl From<&Outcome> for OutcomeView {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::NodeRegistered { new } => Self::NodeRegistered { new: *new },
            Outcome::NodeStatusSet { old, new } => {
                Self::NodeStatusSet { old: old.as_str(), new: new.as_str() }
            }
            Outcome::TaskSubmitted { task_id, duplicate, estimate_ms: _ } => {
                Self::TaskSubmitted { task_id: task_id.clone(), duplicate: *duplicate }
            }
            Outcome::TasksSubmitted { created, duplicates } => {
                Self::TasksSubmitted { created: *created, duplicates: *duplicates }
            }
            Outcome::Judged { accepted, stale } => {
                Self::Judged { accepted: *accepted, stale: *stale }
            }
            Outcome::TaskReported { status, attempt, stale } => {
                let (status, attempt) = (status.as_str(), *attempt);
                Self::TaskReported { status, attempt, stale: *stale }
            }
            Outcome::TaskCancelled { was } => Self::TaskCancelled { was: was.as_str() },
            Outcome::ConfigPatched { revision } | Outcome::PauseSet { revision, .. } => {
                Self::ConfigPatched { revision: *revision }
            }
            Outcome::MemberAllocated { member_id, replaces } => {
                Self::MemberAllocated { member: *member_id, replaces: *replaces }
            }
            Outcome::DrillBegun { drill_id } => Self::DrillBegun { drill_id: *drill_id },
            Outcome::RunBegun { run_id } => Self::RunBegun { run_id: *run_id },
            Outcome::CampaignCreated { campaign_id } => {
                Self::CampaignCreated { campaign_id: campaign_id.clone() }
            }
            Outcome::IterationsQueued { count } => Self::IterationsQueued { count: *count },
            Outcome::JobsCreated { count } => Self::JobsCreated { count: *count },
            Outcome::AgentCommand { number, reply } => {
                let (outcome, rejection) = inner(reply);
                Self::AgentCommand { number: *number, outcome, rejection }
            }
            Outcome::Asked { print: _, reply } => {
                let (outcome, rejection) = inner(reply);
                Self::Asked { outcome, rejection }
            }
            Outcome::AccountCreated { user_id } => {
                Self::AccountCreated { user_id: user_id.clone() }
            }
            Outcome::Bot(outcome) => Self::Bot { outcome: outcome.clone() },
            Outcome::LeftAlone { status } => {
                Self::LeftAlone { status: status.map(TaskStatus::as_str) }
            }
        }
    }
}

/// An answer that another one holds.
fn inner(reply: &Reply) -> (Option<Box<OutcomeView>>, Option<RejectionView>) {
    match reply {
        Ok(outcome) => (Some(Box::new(outcome.into())), None),
        Err(rejection) => (None, Some(rejection.into())),
    }
}

fn view(request_id: RequestId, recorded: Option<&Recorded>) -> RequestReply {
    let mut reply = RequestReply {
        success: true,
        request_id: request_id.to_string(),
        state: "never_seen",
        index: recorded.map(|recorded| recorded.index),
        outcome: None,
        rejection: None,
        remembered_ms: REQUEST_WINDOW_MS,
    };
    match recorded.map(|recorded| &recorded.reply) {
        None => {}
        Some(Ok(outcome)) => {
            reply.state = "committed";
            reply.outcome = Some(outcome.into());
        }
        Some(Err(rejection)) => {
            reply.state = "rejected";
            reply.rejection = Some(rejection.into());
        }
    }
    reply
}

/// `GET /api/v1/requests/{id}`: by the id of an answer, or by the client's own `Idempotency-Key`.
pub(super) async fn get(
    State(app): State<App>,
    Path(key): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let request_id = RequestId::from_key(key.trim());
    let mut stamp = app.admit(&params).await?;
    let found = app.show(&mut stamp, |state| view(request_id, state.request(request_id).as_ref()));
    Ok(reply::read(&stamp, reply::encode(&found)))
}

//! Errors at the door: RFC 9457 problem documents that also carry what each family's clients look
//! for (contract 1.3).
//!
//! `code` is stable and is what programs match on. `error` is the family's own short text, kept
//! word for word where an existing client compares it; `detail` says more to people.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use super::object::{BodyError, FieldError};
use super::wire_time::iso;
use crate::clock;
use crate::cluster::{MembershipCode, MembershipError, NotStarted, ProposeError, ReadError};
use crate::model::{MemberId, RequestId};
use crate::state::{BotRejection, Rejection};

/// An error on its way to a client. Boxed, because answers are the rule and errors the exception.
#[derive(Debug)]
pub struct ApiError(Box<Problem>);

#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    error: String,
    detail: Option<String>,
    retry_after_s: Option<u64>,
    leader: Option<LeaderHint>,
    request_id: Option<RequestId>,
    failed_task: Option<Option<String>>,
    field: Option<String>,
}

/// Who leads, for clients that want to ask there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LeaderHint {
    pub(super) member: MemberId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
}

impl ApiError {
    /// An error of `status` with a stable code and a text for the client.
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            status,
            code,
            error: error.into(),
            detail: None,
            retry_after_s: None,
            leader: None,
            request_id: None,
            failed_task: None,
            field: None,
        }))
    }

    /// The client sent something that makes no sense.
    pub fn bad_request(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error)
    }

    /// There is no such thing.
    pub fn not_found(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, error)
    }

    /// It fits badly with how things stand.
    pub fn conflict(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, error)
    }

    /// Not now; try again after `retry_after_s` seconds.
    pub fn unavailable(code: &'static str, error: impl Into<String>, retry_after_s: u64) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error);
        error.0.retry_after_s = Some(retry_after_s);
        error
    }

    /// It may or may not have happened; the client can ask by its request id.
    pub(super) fn unknown_outcome(request_id: RequestId) -> Self {
        let text = "the outcome of this request is unknown";
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "OUTCOME_UNKNOWN", text);
        error.0.request_id = Some(request_id);
        error.0.retry_after_s = Some(1);
        error.with_detail(format!(
            "Sending it again with the header Idempotency-Key: {request_id} is safe. \
             GET /api/v1/requests/{request_id} tells what became of it."
        ))
    }

    /// The family's text, with the reason moved into the detail.
    pub(super) fn with_family_text(mut self, text: &str) -> Self {
        let reason = std::mem::replace(&mut self.0.error, text.to_owned());
        if self.0.detail.is_none() && reason != text {
            self.0.detail = Some(reason);
        }
        self
    }

    /// The same error in family N's words (contract 3.3, 3.5), if it is the server's: `what` failed.
    pub(super) fn failing(mut self, what: &str) -> Self {
        if self.0.status.is_server_error() {
            self.0.error = format!("{what}: {}", self.0.error);
        }
        self
    }

    /// Family W's text for an orchestrator that cannot work (contract 2.3), where that is the case.
    fn with_text_of_stopped(self) -> Self {
        if web4ai_code(self.0.code) == "ORCHESTRATOR_NOT_STARTED" {
            return self.with_family_text("Orchestrator not started");
        }
        self
    }

    pub(super) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Asks the client to wait.
    pub(super) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn with_leader(mut self, leader: Option<LeaderHint>) -> Self {
        self.0.leader = leader;
        self
    }

    pub(super) fn with_request_id(mut self, request_id: RequestId) -> Self {
        self.0.request_id = Some(request_id);
        self
    }

    /// Marks a failed submission of family A, which reports it in its submit shape.
    pub(super) fn of_submission(mut self, task_id: Option<String>) -> Self {
        self.0.failed_task = Some(task_id);
        self
    }

    /// Names the field that it is about: a path with dots.
    pub(super) fn about(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// The same error, of an object that stands at `outer` of another one.
    pub(super) fn within(mut self, outer: &str) -> Self {
        if let Some(inner) = self.0.field.take() {
            let path = format!("{outer}.{inner}");
            if let Some(rest) = self.0.error.strip_prefix(&inner) {
                self.0.error = format!("{path}{rest}");
            }
            self.0.field = Some(path);
        }
        self
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::bad_request("INVALID_BODY", error.to_string())
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::bad_request("INVALID_FIELD", error.to_string()).about(&error.field)
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let status = match &rejection {
            Rejection::NodeNotFound
            | Rejection::TaskNotFound
            | Rejection::MemberNotFound { .. }
            | Rejection::DrillNotFound { .. }
            | Rejection::PipelineNotFound { .. }
            | Rejection::AlertNotFound
            | Rejection::OrchestratorNotFound { .. }
            | Rejection::CampaignNotFound { .. }
            | Rejection::StructuresNotFound
            | Rejection::ModelNotFound
            | Rejection::InstrumentNotFound
            | Rejection::AccountNotFound => StatusCode::NOT_FOUND,
            Rejection::TooManyNodes { .. }
            | Rejection::NodeIdReserved
            | Rejection::BatchSize { .. }
            | Rejection::InvalidConfig(_)
            | Rejection::InvalidDrill(_)
            | Rejection::UnknownTaskType { .. }
            | Rejection::InvalidFlow(_)
            | Rejection::TooManyPipelines { .. }
            | Rejection::TooManyAgents { .. }
            | Rejection::LimitReached { .. }
            | Rejection::OrchestratorNotActive { .. }
            | Rejection::CampaignState(_)
            | Rejection::BudgetExceeded { .. }
            | Rejection::InvalidCampaign(_)
            | Rejection::TooManyAccounts { .. }
            | Rejection::InvalidAccount(_) => StatusCode::BAD_REQUEST,
            Rejection::QueueFull { .. }
            | Rejection::LedgerBehind { .. }
            | Rejection::TooManyRevocations { .. } => StatusCode::TOO_MANY_REQUESTS,
            Rejection::TaskEnded { .. }
            | Rejection::RevisionMismatch { .. }
            | Rejection::MemberConflict { .. }
            | Rejection::AlreadyInitialized
            | Rejection::StaleEpoch { .. }
            | Rejection::DrillRunning { .. }
            | Rejection::DrillOver { .. }
            | Rejection::AlertResolved
            | Rejection::AlreadyThere { .. }
            | Rejection::CampaignChanged
            | Rejection::RunOpen { .. }
            | Rejection::KeyReused
            | Rejection::AccountExists { .. } => StatusCode::CONFLICT,
            Rejection::Bot(rejection) => bot_status(rejection),
        };
        let mut error = Self::new(status, rejection.code(), rejection.to_string());
        if status == StatusCode::TOO_MANY_REQUESTS {
            error.0.retry_after_s = Some(1);
        }
        error
    }
}

/// Bots have no more than one family of doors, whose statuses contract 5.1 names.
fn bot_status(rejection: &BotRejection) -> StatusCode {
    match rejection {
        BotRejection::BotNotFound { .. }
        | BotRejection::SwarmNotFound { .. }
        | BotRejection::WorkflowNotFound { .. } => StatusCode::NOT_FOUND,
        BotRejection::BotCapacity { .. }
        | BotRejection::SwarmCapacity
        | BotRejection::Invalid(_) => StatusCode::BAD_REQUEST,
        BotRejection::TooManyAssignments { .. }
        | BotRejection::TooManyWaves { .. }
        | BotRejection::TooManyWorkflows { .. }
        | BotRejection::WorkflowsTooLarge { .. } => StatusCode::TOO_MANY_REQUESTS,
        BotRejection::WorkflowEnded => StatusCode::CONFLICT,
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let code = error.code();
        match error {
            ProposeError::Unknown { request_id } => Self::unknown_outcome(request_id),
            ProposeError::NotStarted { reason: NotStarted::TooLarge, .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, "the request is too large")
            }
            ProposeError::NotStarted { ref leader, .. } => {
                let hint = leader.map(|member| LeaderHint { member, http: None });
                Self::unavailable(code, error.to_string(), 1)
                    .with_leader(hint)
                    .with_text_of_stopped()
            }
            ProposeError::Stopped { maybe_started: false, .. } => {
                Self::unavailable(code, "this member has stopped", 1).with_text_of_stopped()
            }
            ProposeError::Stopped { maybe_started: true, .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, code, "this member has stopped")
                    .with_detail("Whether the request took effect is unknown.")
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let unavailable =
            Self::unavailable(error.code(), error.to_string(), 1).with_text_of_stopped();
        match error {
            ReadError::NoLeader { leader } => {
                unavailable.with_leader(leader.map(|member| LeaderHint { member, http: None }))
            }
            ReadError::Behind { .. }
            | ReadError::Stale { .. }
            | ReadError::NotInitialized
            | ReadError::Stopped { .. } => unavailable,
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let status = match error.code {
            MembershipCode::NoLeader
            | MembershipCode::NotInitialized
            | MembershipCode::InProgress
            | MembershipCode::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            MembershipCode::UnknownMember => StatusCode::NOT_FOUND,
            MembershipCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            MembershipCode::AlreadyInitialized
            | MembershipCode::FoundersDisagree
            | MembershipCode::Conflict
            | MembershipCode::QuorumAtRisk
            | MembershipCode::NotCaughtUp
            | MembershipCode::ForeignCluster
            | MembershipCode::PredecessorAlive
            | MembershipCode::Removed
            | MembershipCode::Refused => StatusCode::CONFLICT,
        };
        let mut out = Self::new(status, error.code.as_str(), error.text);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            out.0.retry_after_s = Some(1);
        }
        out
    }
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    /// RFC 9457's number, or family A's word in its failure form.
    status: serde_json::Value,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a LeaderHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    success: bool,
    error: &'a str,
    message: &'a str,
    error_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    timestamp: String,
    details: Details,
}

#[derive(Serialize)]
struct Details {
    code: &'static str,
}

/// Family W's name for what happened, where it has one.
fn web4ai_code(code: &'static str) -> &'static str {
    match code {
        "NO_LEADER" | "NOT_INITIALIZED" | "MEMBER_STOPPED" => "ORCHESTRATOR_NOT_STARTED",
        "QUEUE_FULL" | "OVERLOADED" => "RATE_LIMITED",
        other => other,
    }
}

/// Family A's name for what happened.
pub(super) fn agents_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        504 => "TIMEOUT",
        429 | 503 => "AGENT_UNAVAILABLE",
        500..=599 => "EXECUTION_FAILED",
        _ => "VALIDATION_ERROR",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let Problem {
            status,
            code,
            error,
            detail,
            retry_after_s,
            leader,
            request_id,
            failed_task,
            field,
        } = *self.0;
        let body = ProblemBody {
            kind: format!("urn:quorate:problem:{}", code.to_ascii_lowercase()),
            title: status.canonical_reason().unwrap_or("Error"),
            status: match &failed_task {
                Some(_) => "failed".into(),
                None => status.as_u16().into(),
            },
            detail: detail.as_deref().unwrap_or(&error),
            code,
            retry_after: retry_after_s,
            leader: leader.as_ref(),
            request_id: request_id.map(|id| id.to_string()),
            success: false,
            error: &error,
            message: &error,
            error_code: agents_code(status),
            task_id: failed_task.as_ref().and_then(Option::as_deref),
            field: field.as_deref(),
            timestamp: iso(clock::now_ms()),
            details: Details { code: web4ai_code(code) },
        };
        let text = serde_json::to_vec(&body).expect("plain data is always JSON");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(id) = request_id
            && let Ok(value) = HeaderValue::from_str(&id.to_string())
        {
            headers.insert(super::headers::REQUEST, value);
        }
        response
    }
}

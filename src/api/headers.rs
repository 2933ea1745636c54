//! Names of the headers that answers carry about where they come from and how fresh they are.

use axum::http::HeaderName;

/// Log index that was applied when a read was served, or of the commit of a write.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-quorate-index");
/// The leader's open reign, `<term>.<member>`.
pub(super) const EPOCH: HeaderName = HeaderName::from_static("x-quorate-epoch");
/// Who leads, as far as the answering member knows.
pub(super) const LEADER: HeaderName = HeaderName::from_static("x-quorate-leader");
/// Time since the answering member last heard of a leader.
pub(super) const AGE_MS: HeaderName = HeaderName::from_static("x-quorate-age-ms");
/// The read mode that was served: always the one asked for.
pub(super) const CONSISTENCY: HeaderName = HeaderName::from_static("x-quorate-consistency");
/// Which member answered.
pub(super) const MEMBER: HeaderName = HeaderName::from_static("x-quorate-member");
/// Under which id a write can be asked for.
pub(super) const REQUEST: HeaderName = HeaderName::from_static("x-quorate-request-id");
/// The client's own key for a write.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Proof that the caller may use the doors of administrators.
pub(super) const ADMIN_KEY: HeaderName = HeaderName::from_static("x-quorate-admin-key");
/// Names one request in logs, echoed when the client sent one.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// An API key (contract 1.4).
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Requests allowed in a span (contract 1.5).
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// How many of them are left.
pub(super) const RATE_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// When all of them are there again, in seconds since the epoch.
pub(super) const RATE_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// How long the answer took, in words of the old generation of family W (contract 1.6).
pub(super) const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
/// The same in seconds, at family N's doors.
pub(super) const PROCESS_TIME: HeaderName = HeaderName::from_static("x-process-time");
/// Requests that this member has answered, at family N's doors.
pub(super) const REQUEST_COUNT: HeaderName = HeaderName::from_static("x-request-count");
/// The share of them that were refused or failed, at family N's doors.
pub(super) const ERROR_RATE: HeaderName = HeaderName::from_static("x-error-rate");

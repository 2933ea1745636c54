//! From a call to a request of the router, and from its answer to a status.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::ANSWER_BYTES_MAX;
use crate::api::{Peer, headers};

/// Metadata of a call that mean the same as the headers of these names.
const PASSED_ON: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-api-key"),
    headers::IDEMPOTENCY_KEY,
    headers::X_REQUEST_ID,
];

/// Under this key a status names the stable code of its problem.
pub(super) const ERROR_CODE: &str = "error-code";

/// Who calls: its credentials, its names for the request, its address.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    headers: HeaderMap,
    address: Option<SocketAddr>,
}

impl Caller {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        let given: &HeaderMap = request.metadata().as_ref();
        let mut headers = HeaderMap::new();
        for name in PASSED_ON {
            if let Some(value) = given.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self { headers, address: request.remote_addr() }
    }

    /// What it shows of who it is, as headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// What the router answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `null` for what is no JSON.
    pub(super) body: Value,
}

impl Reply {
    /// The body of a success.
    pub(super) fn ok(self) -> Result<Value, Status> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.refusal()) }
    }

    /// What it says in words.
    pub(super) fn message(&self) -> String {
        let words = ["detail", "message", "error"].iter().find_map(|key| self.body[*key].as_str());
        words.unwrap_or_else(|| self.status.canonical_reason().unwrap_or("error")).to_owned()
    }

    /// A refusal as gRPC says it. The stable code of the problem travels as [`ERROR_CODE`].
    pub(super) fn refusal(&self) -> Status {
        let mut metadata = MetadataMap::new();
        let code = self.body["code"].as_str().and_then(|code| code.parse().ok());
        if let Some(code) = code {
            metadata.insert(ERROR_CODE, code);
        }
        let mut status = Status::with_metadata(code_of(self.status), self.message(), metadata);
        for name in [header::RETRY_AFTER, headers::REQUEST] {
            if let Some(value) = self.headers.get(&name) {
                status.metadata_mut().as_mut().insert(name, value.clone());
            }
        }
        status
    }
}

/// A 504 says that it may have happened, as `DEADLINE_EXCEEDED` does.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 => Code::Unimplemented,
        409 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

/// The router, called without a socket. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Doors(Router);

impl Doors {
    pub(super) fn new(router: Router) -> Self {
        Self(router)
    }

    /// Makes one request; `null` is no body.
    pub(super) async fn call(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Reply, Status> {
        let text = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(text)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        *request.headers_mut() = caller.headers.clone();
        let kind = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(address) = caller.address {
            request.extensions_mut().insert(ConnectInfo(Peer(address)));
        }
        // A router is always ready, and never fails.
        let Ok(response) = self.0.clone().call(request).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| Status::out_of_range(error.to_string()))?;
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    pub(super) async fn get(&self, caller: &Caller, path: &str) -> Result<Reply, Status> {
        self.call(caller, Method::GET, path, &Value::Null).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(status: u16, body: Value) -> Reply {
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers: HeaderMap::new(), body }
    }

    #[test]
    fn refusals_keep_their_words_and_codes() {
        let mut reply = reply(503, json!({"error": "no leader", "code": "NO_LEADER"}));
        reply.headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
        let status = reply.refusal();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "no leader"));
        assert_eq!(status.metadata().get("error-code").unwrap(), "NO_LEADER");
        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    }

    #[test]
    fn statuses_find_their_codes() {
        for (status, code) in [
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (409, Code::FailedPrecondition),
            (413, Code::ResourceExhausted),
            (429, Code::ResourceExhausted),
            (500, Code::Internal),
            (503, Code::Unavailable),
            (504, Code::DeadlineExceeded),
        ] {
            assert_eq!(reply(status, Value::Null).refusal().code(), code, "{status}");
        }
    }

    #[test]
    fn only_what_a_door_reads_is_passed_on() {
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("x-api-key", "k".parse().unwrap());
        request.metadata_mut().insert("x-quorate-admin-key", "a".parse().unwrap());
        let caller = Caller::of(&request);
        assert_eq!(caller.headers.len(), 1);
        assert_eq!(caller.headers["x-api-key"], "k");
    }
}

//! The WebSocket of family W (contract 2.4): `/ws` of every HTTP listener, and `/` of a listener of
//! its own.
//!
//! A client gets the status, then a status every five seconds and what happens in between. Every
//! member tells the same events in the same order under the same ids, whoever leads. `hub` makes
//! each frame once for all clients of the member; `session` is one client; `frames` are the words.

mod frames;
mod hub;
mod session;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

pub(super) use hub::Hub;

use super::App;
use super::error::ApiError;
use super::reply;
use crate::security::Principal;

/// The largest frame a client may send, in bytes: its questions are short.
const FRAME_BYTES_MAX: usize = 64 * 1024;

#[derive(Serialize)]
struct Reply {
    success: bool,
    websocket: Info,
}

#[derive(Serialize)]
struct Info {
    enabled: bool,
    url: String,
    connected_clients: usize,
    max_connections: u64,
}

/// Clients connect to `url` as it stands, so it is made from the host they already reached: its
/// listener for the WebSocket alone, or else `/ws` beside the API.
fn url(host: Option<&str>, port: Option<u16>, secure: bool) -> String {
    let scheme = if secure { "wss" } else { "ws" };
    let host = host.unwrap_or("localhost");
    let Some(port) = port else { return format!("{scheme}://{host}/ws") };
    let name = match host.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket, not in digits.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    format!("{scheme}://{name}:{port}")
}

/// Where a client that sent these headers connects to.
pub(super) fn url_for(app: &App, headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let secure = text(header::HeaderName::from_static("x-forwarded-proto")) == Some("https");
    url(text(header::HOST), app.options().websocket_port, secure)
}

/// `GET /api/v1/websocket/info`.
pub(super) async fn info(State(app): State<App>, headers: HeaderMap) -> Response {
    let settings = app.cluster().view().read(|state| app.settings(state));
    let websocket = Info {
        enabled: settings.websocket.enabled,
        url: url_for(&app, &headers),
        connected_clients: app.hub().clients(),
        max_connections: settings.websocket.connections_max,
    };
    reply::json(reply::encode(&Reply { success: true, websocket }))
}

/// `GET /ws` with an upgrade.
pub(super) async fn connect(
    State(app): State<App>,
    principal: Option<Extension<Principal>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        let status = match rejection.status() {
            status if status.is_client_error() => status,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, "WEBSOCKET_EXPECTED", "a WebSocket is served here")
            .with_detail(rejection.body_text())
    })?;
    let settings = app.cluster().view().read(|state| app.settings(state));
    if !settings.websocket.enabled {
        return Err(ApiError::not_found("WEBSOCKET_OFF", "websocket.enabled is false"));
    }
    let max = usize::try_from(settings.websocket.connections_max).unwrap_or(usize::MAX);
    let Some(place) = app.hub().enter(&app, max) else {
        let text = format!("{max} WebSocket clients are connected already");
        return Err(ApiError::unavailable("TOO_MANY_CLIENTS", text, 5));
    };
    let principal = principal.map(|Extension(principal)| principal);
    let upgrade = upgrade.max_message_size(FRAME_BYTES_MAX).max_frame_size(FRAME_BYTES_MAX);
    let timing = settings.websocket.timing;
    Ok(upgrade.on_upgrade(move |socket: WebSocket| async move {
        session::Session::new(app, principal, place, timing).run(socket).await;
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_2_3_the_url_names_the_host_that_was_asked() {
        for (host, port, expected) in [
            (Some("10.0.0.1:9000"), Some(9001), "ws://10.0.0.1:9001"),
            (Some("quorate.example"), Some(9001), "ws://quorate.example:9001"),
            (Some("[::1]:9000"), Some(9101), "ws://[::1]:9101"),
            (Some("[::1]"), Some(9001), "ws://[::1]:9001"),
            (None, Some(9001), "ws://localhost:9001"),
            (Some("10.0.0.1:9000"), None, "ws://10.0.0.1:9000/ws"),
            (Some("quorate.example"), None, "ws://quorate.example/ws"),
        ] {
            assert_eq!(url(host, port, false), expected);
        }
        assert_eq!(url(Some("q.example"), None, true), "wss://q.example/ws");
    }
}

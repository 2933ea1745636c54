//! `GET /api/v1/websocket/info`: where family W's dashboards would connect.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Serialize;

use super::App;
use super::reply;

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

/// Clients connect to `url` as it stands, so it is made from the host they already reached.
pub(super) fn url(host: Option<&str>) -> String {
    let host = host.unwrap_or("localhost");
    let name = match host.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket, not in digits.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    format!("ws://{name}:9001")
}

/// This listener pushes nothing over WebSocket; events are served by `/api/v1/events`.
pub(super) async fn info(State(app): State<App>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let max_connections = app.cluster().view().read(|state| app.settings(state).websocket_max);
    let websocket = Info { enabled: false, url: url(host), connected_clients: 0, max_connections };
    reply::json(reply::encode(&Reply { success: true, websocket }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_2_3_the_url_names_the_host_that_was_asked() {
        for (host, expected) in [
            (Some("10.0.0.1:9000"), "ws://10.0.0.1:9001"),
            (Some("quorate.example"), "ws://quorate.example:9001"),
            (Some("[::1]:9000"), "ws://[::1]:9001"),
            (Some("[::1]"), "ws://[::1]:9001"),
            (None, "ws://localhost:9001"),
        ] {
            assert_eq!(url(host), expected);
        }
    }
}

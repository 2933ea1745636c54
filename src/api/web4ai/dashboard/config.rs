//! `GET /api/v1/dashboard/config`: how a page reaches this orchestrator and how it behaves.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::reply;
use crate::api::websocket;

#[derive(Serialize)]
struct Reply {
    success: bool,
    config: Config,
}

#[derive(Serialize)]
struct Config {
    orchestrator_url: String,
    websocket_url: String,
    /// Milliseconds.
    refresh_interval: u32,
    auto_refresh: bool,
    theme: &'static str,
}

/// The addresses are made from the host that the page already reached.
pub(in crate::api) async fn config(State(app): State<App>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let config = Config {
        orchestrator_url: format!("http://{}", host.unwrap_or("localhost:9000")),
        websocket_url: websocket::url_for(&app, &headers),
        refresh_interval: 5000,
        auto_refresh: true,
        theme: "light",
    };
    reply::json(reply::encode(&Reply { success: true, config }))
}

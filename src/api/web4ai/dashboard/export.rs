//! `GET /api/v1/dashboard/export/{json|csv|xml}`: the figures to take away.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::nodes::{DetailedNode, detailed};
use super::xml;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::web4ai::figures::{NetworkMetrics, network_metrics};
use crate::api::web4ai::lists::{Summary, summary};
use crate::api::web4ai::nodes::Book;
use crate::api::wire_time::iso;
use crate::state::State as Tables;

/// From the document down to the fields of a node's metadata.
const READ_LEVELS: u32 = 4;

#[derive(Serialize)]
struct Reply<'a> {
    success: bool,
    data: Data<'a>,
    export_format: &'static str,
}

#[derive(Serialize)]
struct Data<'a> {
    timestamp: String,
    orchestrator_id: String,
    network_metrics: NetworkMetrics,
    nodes: Vec<DetailedNode<'a>>,
    tasks_summary: Summary,
}

fn data<'a>(app: &App, state: &'a Tables, book: &Book) -> Data<'a> {
    Data {
        timestamp: iso(book.now()),
        orchestrator_id: app.settings(state).orchestrator_id.clone(),
        network_metrics: network_metrics(app, state, book),
        nodes: state.nodes().map(|node| detailed(node, book, book.now())).collect(),
        tasks_summary: summary(state),
    }
}

/// `GET /api/v1/dashboard/export/{format}`.
pub(in crate::api) async fn export(
    State(app): State<App>,
    Path(format): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let format = format.to_ascii_lowercase();
    if !matches!(format.as_str(), "json" | "csv" | "xml") {
        return Err(ApiError::bad_request("UNSUPPORTED_FORMAT", "Unsupported format"));
    }
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let text = app.show(&mut stamp, |state| match format.as_str() {
        "json" => {
            let data = data(&app, state, &book);
            reply::encode(&Reply { success: true, data, export_format: "json" })
        }
        "csv" => csv(&network_metrics(&app, state, &book)).into_bytes(),
        // Only copied here; it is written once the state is let go.
        _ => reply::encode(&data(&app, state, &book)),
    });
    let (text, kind) = match format.as_str() {
        "json" => (text, "application/json"),
        "csv" => (text, "text/csv; charset=utf-8"),
        _ => (as_xml(text).await?.into_bytes(), "application/xml; charset=utf-8"),
    };
    let mut response = Response::new(Body::from(text));
    reply::write_stamp(response.headers_mut(), &stamp);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Header and rows as the contract lists them.
fn csv(metrics: &NetworkMetrics) -> String {
    let mut text = String::from("metric,value\n");
    let NetworkMetrics { active_nodes, tasks_completed, success_rate, .. } = metrics;
    let _ = writeln!(text, "active_nodes,{active_nodes}");
    let _ = writeln!(text, "tasks_completed,{tasks_completed}");
    let _ = writeln!(text, "success_rate,{success_rate}");
    text
}

/// The same data as in JSON. A fleet of thousands takes a while, so no serving thread does it.
async fn as_xml(json: Vec<u8>) -> Result<String, ApiError> {
    let written = tokio::task::spawn_blocking(move || {
        let value = read(&String::from_utf8_lossy(&json), READ_LEVELS);
        xml::document("orchestrator_export", &value)
    });
    written.await.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", error.to_string())
    })
}

/// Reads JSON that may hold what a client nested deeper than a reader goes: that stays text.
fn read(json: &str, levels: u32) -> Value {
    if let Ok(value) = serde_json::from_str(json) {
        return value;
    }
    let Some(levels) = levels.checked_sub(1) else { return Value::String(json.to_owned()) };
    if let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
        let fields = fields.into_iter().map(|(key, value)| (key, read(value.get(), levels)));
        return Value::Object(fields.collect());
    }
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) {
        return items.into_iter().map(|item| read(item.get(), levels)).collect();
    }
    Value::String(json.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_too_deep_is_exported_as_text() {
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        let json = format!(r#"{{"nodes":[{{"node_id":"n","metadata":{{"x":{deep}}}}}]}}"#);
        let value = read(&json, READ_LEVELS);
        assert_eq!(value["nodes"][0]["node_id"], "n");
        assert_eq!(value["nodes"][0]["metadata"]["x"], deep);
        assert!(xml::document("r", &value).contains("<node_id>n</node_id>"));
    }
}

//! The record of drills, for everybody to read.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::App;
use super::error::ApiError;
use super::params::Params;
use super::reply;
use super::wire_time::iso;
use crate::clock;
use crate::model::{Drill, DrillId, DrillState};

#[derive(Serialize)]
struct DrillView {
    drill_id: DrillId,
    kind: &'static str,
    state: &'static str,
    target: String,
    started_by: String,
    begun_at: String,
    ended_at: Option<String>,
    lease_until: String,
    summary: String,
}

impl From<&Drill> for DrillView {
    fn from(drill: &Drill) -> Self {
        // The log says so once the next one begins.
        let over = drill.state == DrillState::Running && drill.lease_until_ms <= clock::now_ms();
        let state = if over { DrillState::Abandoned } else { drill.state };
        Self {
            drill_id: drill.drill_id,
            kind: drill.kind.as_str(),
            state: state.as_str(),
            target: drill.target.clone(),
            started_by: drill.started_by.clone(),
            begun_at: iso(drill.begun_at_ms),
            ended_at: (drill.ended_at_ms > 0).then(|| iso(drill.ended_at_ms)),
            lease_until: iso(drill.lease_until_ms),
            summary: drill.summary.clone(),
        }
    }
}

#[derive(Serialize)]
struct ListReply {
    success: bool,
    drills: Vec<DrillView>,
    count: usize,
}

#[derive(Serialize)]
struct DrillReply {
    success: bool,
    drill: DrillView,
    report: Option<Box<RawValue>>,
}

/// `GET /api/v1/drills`: the newest first.
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let stamp = app.admit(&params).await?;
    let drills: Vec<DrillView> =
        app.cluster().view().read(|state| state.drills().rev().map(DrillView::from).collect());
    let reply = ListReply { success: true, count: drills.len(), drills };
    Ok(reply::read(&stamp, reply::encode(&reply)))
}

/// `GET /api/v1/drills/{id}`: with its report.
pub(super) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let stamp = app.admit(&params).await?;
    let id = id.parse::<DrillId>().ok();
    let found = app.cluster().view().read(|state| {
        let drill = state.drill(id?)?;
        Some((DrillView::from(drill), state.drill_report(drill.drill_id)))
    });
    let Some((drill, report)) = found else {
        return Err(ApiError::not_found("DRILL_NOT_FOUND", "no such drill, or no longer"));
    };
    // It was an object when it was stored.
    let report = RawValue::from_string(report).ok();
    Ok(reply::read(&stamp, reply::encode(&DrillReply { success: true, drill, report })))
}

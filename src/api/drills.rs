//! The record of drills, for everybody to read.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::App;
use super::error::ApiError;
use super::list_query::{ListKind, ListQuery, invalid_cursor};
use super::params::{Params, Path};
use super::reply;
use super::wire_time::{iso, iso_or_null};
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
            ended_at: iso_or_null(drill.ended_at_ms),
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

/// As [`ListReply`], for those who ask for a part.
#[derive(Serialize)]
struct PageReply {
    success: bool,
    drills: Vec<DrillView>,
    count: usize,
    /// All drills that match.
    total: usize,
    next_cursor: Option<String>,
}

const DRILLS: ListKind = ListKind {
    name: "drills",
    sorts: &["begun_at"],
    descending: true,
    filters: &["status", "kind"],
    own: &[],
};

#[derive(Serialize)]
struct DrillReply {
    success: bool,
    drill: DrillView,
    report: Option<Box<RawValue>>,
}

/// `GET /api/v1/drills`: the newest first.
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    if DRILLS.asked(&params) {
        return page(&app, &params).await;
    }
    let stamp = app.admit(&params).await?;
    let drills: Vec<DrillView> =
        app.cluster().view().read(|state| state.drills().rev().map(DrillView::from).collect());
    let reply = ListReply { success: true, count: drills.len(), drills };
    Ok(reply::read(&stamp, reply::encode(&reply)))
}

/// A page of the drills that match. There are few of them, so all are looked at.
async fn page(app: &App, params: &Params) -> Result<Response, ApiError> {
    let query = ListQuery::parse(&DRILLS, params)?;
    let mut stamp = app.admit(params).await?;
    let query = query.in_cluster(app.cluster().cluster_id());
    let after = query.place()?.map(|place| place.parse::<DrillId>().map_err(|_| invalid_cursor()));
    let after = after.transpose()?;
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let (status, kind) = (said("status"), said("kind"));
    let mut drills: Vec<(u64, DrillView)> = app.show(&mut stamp, |state| {
        let within = state.drills().filter(|drill| query.window.holds(drill.begun_at_ms));
        within.map(|drill| (drill.drill_id, DrillView::from(drill))).collect()
    });
    drills.retain(|(_, view)| {
        status.is_none_or(|status| view.state == status)
            && kind.is_none_or(|kind| view.kind == kind)
    });
    let total = drills.len();
    if query.descending {
        drills.reverse();
    }
    let is_later = |id: u64, after: u64| if query.descending { id < after } else { id > after };
    drills.retain(|(id, _)| after.is_none_or(|after| is_later(*id, after)));
    let more = drills.len() > query.limit;
    drills.truncate(query.limit);
    let next_cursor = drills.last().filter(|_| more).map(|(id, _)| query.cursor(&id.to_string()));
    let drills: Vec<_> = drills.into_iter().map(|(_, view)| view).collect();
    let reply = PageReply { success: true, count: drills.len(), drills, total, next_cursor };
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

//! The doors of administrators: a member breaks on purpose what a drill asks it to.
//!
//! Closed unless the member's own configuration opens them, and then only to callers with the
//! admin key. A fault is caused for the drill that is under way and for no other, carries its end,
//! and is refused when the cluster could not bear it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::app::key_reused;
use super::body::RequestBody;
use super::error::ApiError;
use super::headers;
use super::object::{FieldError, Object};
use super::params::{Params, Path};
use super::reply;
use super::ticket::{Caller, Ticket};
use crate::clock;
use crate::cluster::{Clients, Consistency, Direction, FAULT_MAX, FAULTS_MAX, Fault};
use crate::leader::ReignRecord;
use crate::model::{DrillId, DrillKind, DrillState};
use crate::state::{Command, DRILL_REPORT_MAX, Outcome};
use crate::storage::{self, Slowdown};

/// Gives the last reigns of this member, oldest first.
pub type ReignSource = Arc<dyn Fn() -> Vec<ReignRecord> + Send + Sync>;

/// Who may break this member on purpose, and how far.
#[derive(Clone)]
pub struct Admin {
    /// Whether drills are allowed at all.
    pub drills: bool,
    /// Whether something starts this process again when it ends.
    pub supervised: bool,
    /// Cancelled to end this process in order, so that it is started again.
    pub restart: CancellationToken,
    /// What this member did as leader, step by step.
    pub reigns: ReignSource,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            drills: false,
            supervised: false,
            restart: CancellationToken::new(),
            reigns: Arc::new(Vec::new),
        }
    }
}

/// Proof that the caller may be here.
pub(super) struct Administrator;

impl FromRequestParts<App> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let options = app.options();
        let Some(key) = options.admin_key.as_ref().filter(|_| options.admin.drills) else {
            let text = "this member does not allow drills (cluster.drills.enabled)";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "DRILLS_DISABLED", text));
        };
        let offered = parts.headers.get(headers::ADMIN_KEY);
        if offered.is_some_and(|offered| key.admits(offered.as_bytes())) {
            return Ok(Self);
        }
        let text = "the header X-Quorate-Admin-Key must hold the admin key";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "ADMIN_KEY_REQUIRED", text))
    }
}

#[derive(Serialize)]
struct Account {
    success: bool,
    member_id: u64,
    name: String,
    /// By this member's clock, so that callers can tell how theirs differs.
    now_ms: u64,
    /// Since this process started.
    uptime_ms: u64,
    supervised: bool,
    running: Option<DrillId>,
    faults: Vec<FaultView>,
    views: Vec<ViewView>,
    reigns: Vec<ReignView>,
}

#[derive(Serialize)]
struct FaultView {
    drill_id: DrillId,
    #[serde(flatten)]
    fault: serde_json::Value,
    ends_in_ms: u64,
}

#[derive(Serialize)]
struct ViewView {
    at_ms: u64,
    term: u64,
    leader: Option<u64>,
}

/// Times are milliseconds after `elected_at_ms`.
#[derive(Serialize)]
struct ReignView {
    term: u64,
    elected_at_ms: u64,
    barrier_ms: Option<f64>,
    epoch_open_ms: Option<f64>,
    gate_open_ms: Option<f64>,
    duties_started_ms: Option<f64>,
}

impl From<ReignRecord> for ReignView {
    fn from(record: ReignRecord) -> Self {
        let ms = |step: Option<Duration>| step.map(|step| step.as_secs_f64() * 1000.0);
        Self {
            term: record.epoch.term,
            elected_at_ms: record.detected_at_ms,
            barrier_ms: ms(record.barrier),
            epoch_open_ms: ms(record.epoch_open),
            gate_open_ms: ms(record.gate_open),
            duties_started_ms: ms(record.duties_started),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn fault_view(fault: Fault) -> serde_json::Value {
    match fault {
        Fault::Silence(clients) => {
            let clients = match clients {
                Clients::Hang => "hang",
                Clients::Refused => "refused",
            };
            json!({ "fault": "silence", "clients": clients })
        }
        Fault::Cut { peer, direction } => {
            let direction = match direction {
                Direction::In => "in",
                Direction::Out => "out",
            };
            json!({ "fault": "cut", "peer": peer, "direction": direction })
        }
        Fault::SlowDisk { delay } => json!({ "fault": "slow-disk", "delay_ms": millis(delay) }),
    }
}

/// `GET /api/v1/admin/drills`: what this member allows, what is broken on it, and what it saw of
/// elections and reigns.
pub(super) async fn account(_: Administrator, State(app): State<App>) -> Response {
    let (cluster, admin) = (app.cluster(), &app.options().admin);
    let now = Instant::now();
    let faults = cluster.faults().list().into_iter().map(|active| FaultView {
        drill_id: active.drill_id,
        fault: fault_view(active.fault),
        ends_in_ms: millis(active.until.saturating_duration_since(now)),
    });
    let views = cluster.view_changes().into_iter();
    let account = Account {
        success: true,
        member_id: cluster.member_id(),
        name: cluster.member().name.clone(),
        now_ms: clock::now_ms(),
        uptime_ms: millis(app.uptime()),
        supervised: admin.supervised,
        running: running(&app),
        faults: faults.collect(),
        views: views
            .map(|view| ViewView { at_ms: view.at_ms, term: view.term, leader: view.leader })
            .collect(),
        reigns: (admin.reigns)().into_iter().map(ReignView::from).collect(),
    };
    reply::json(reply::encode(&account))
}

/// The drill under way. One whose lease is over does not count: nobody runs it any more.
fn running(app: &App) -> Option<DrillId> {
    let now = clock::now_ms();
    app.cluster().view().read(|state| {
        let drill = state.running_drill().filter(|drill| drill.lease_until_ms > now)?;
        Some(drill.drill_id)
    })
}

fn required<T>(found: Option<T>, field: &str, wanted: &'static str) -> Result<T, ApiError> {
    found.ok_or_else(|| FieldError::new(field, wanted).into())
}

/// `POST /api/v1/admin/drills`: a drill begins, when no other is under way.
pub(super) async fn begin(
    _: Administrator,
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    let text = |name| -> Result<String, ApiError> {
        Ok(body.text(name)?.unwrap_or_default().into_owned())
    };
    let kind = DrillKind::parse(&text("kind")?);
    let command = Command::BeginDrill {
        kind: required(kind, "kind", "a kind of drill")?,
        target: text("target")?,
        started_by: text("started_by")?,
        lease_ms: required(body.count("lease_ms")?, "lease_ms", "given")?,
    };
    let written = app.write(ticket, &caller, command).await?;
    let Outcome::DrillBegun { drill_id } = written.outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let answer = json!({ "success": true, "drill_id": drill_id, "index": written.index });
    Ok(reply::written(ticket, written.index, &answer))
}

/// `POST /api/v1/admin/drills/{id}/end`: with its verdict and its report.
pub(super) async fn end(
    _: Administrator,
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    let id: DrillId = required(id.parse().ok(), "id", "the number of a drill")?;
    let state = body.text("state")?.and_then(|word| DrillState::parse(&word));
    let report = body.object("report").map(|_| body.json("report"))?;
    if report.len() > DRILL_REPORT_MAX {
        return Err(FieldError::new("report", "at most 64 KiB").into());
    }
    let command = Command::EndDrill {
        drill_id: id,
        state: required(state, "state", "how the drill ended")?,
        summary: body.text("summary")?.unwrap_or_default().into_owned(),
        report,
    };
    let written = app.write(ticket, &caller, command).await?;
    Ok(reply::written(ticket, written.index, &json!({ "success": true, "drill_id": id })))
}

/// The fault that a body or a query describes.
fn parse_fault(
    name: &str,
    text: impl Fn(&str) -> Option<String>,
    number: impl Fn(&str) -> Option<u64>,
) -> Result<Fault, ApiError> {
    match name {
        "silence" => match text("clients").as_deref() {
            None | Some("hang") => Ok(Fault::Silence(Clients::Hang)),
            Some("refused") => Ok(Fault::Silence(Clients::Refused)),
            Some(_) => Err(FieldError::new("clients", "hang or refused").into()),
        },
        "cut" => {
            let peer = required(number("peer"), "peer", "the number of a member")?;
            match text("direction").as_deref() {
                Some("in") => Ok(Fault::Cut { peer, direction: Direction::In }),
                Some("out") => Ok(Fault::Cut { peer, direction: Direction::Out }),
                _ => Err(FieldError::new("direction", "in or out").into()),
            }
        }
        "slow-disk" => {
            let delay = number("delay_ms").map(Duration::from_millis).unwrap_or_default();
            if delay > Slowdown::DELAY_MAX {
                return Err(FieldError::new("delay_ms", "at most 2000").into());
            }
            Ok(Fault::SlowDisk { delay })
        }
        _ => Err(FieldError::new("fault", "silence, cut or slow-disk").into()),
    }
}

/// Waits until this member knows of the drill, which must be the one under way.
async fn check_drill(app: &App, body: &Object<'_>) -> Result<DrillId, ApiError> {
    let drill_id = required(body.count("drill_id")?, "drill_id", "the drill it is for")?;
    if running(app) != Some(drill_id)
        && let Some(index) = body.count("index")?
    {
        // Begun through another member a moment ago.
        app.barrier(Consistency::Local { max_age: None, min_index: Some(index) }).await?;
    }
    if running(app) == Some(drill_id) {
        return Ok(drill_id);
    }
    Err(ApiError::conflict("DRILL_OVER", format!("drill {drill_id} is not under way")))
}

/// Refuses what would leave no quorum.
async fn check_margin(app: &App) -> Result<(), ApiError> {
    let status = app.cluster().status().await;
    if status.failure_tolerance > 0 {
        return Ok(());
    }
    let text = format!("no member may fail now: {} are needed for a quorum", status.quorum);
    Err(ApiError::conflict("QUORUM_AT_RISK", text))
}

/// `POST /api/v1/admin/faults`: causes a fault, or makes it last longer.
pub(super) async fn cause(
    _: Administrator,
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    let drill_id = check_drill(&app, &body).await?;
    let text = |key: &str| body.text(key).ok().flatten().map(|text| text.into_owned());
    let name = text("fault").unwrap_or_default();
    let fault = parse_fault(&name, text, |key| body.count(key).ok().flatten())?;
    let lasting = required(body.count("lasting_ms")?, "lasting_ms", "given")?;
    let lasting = Duration::from_millis(lasting);
    if lasting.is_zero() || lasting > FAULT_MAX {
        return Err(FieldError::new("lasting_ms", "1 to 120000").into());
    }
    let faults = app.cluster().faults();
    // The first fault of a drill here is the one that takes this member away.
    let first = !faults.list().iter().any(|active| active.drill_id == drill_id);
    let isolates = !matches!(fault, Fault::SlowDisk { .. });
    if first && isolates && body.flag("force")? != Some(true) {
        check_margin(&app).await?;
    }
    if !faults.cause(fault, drill_id, lasting) {
        let text = format!("{FAULTS_MAX} faults are in force already");
        return Err(ApiError::conflict("TOO_MANY_FAULTS", text));
    }
    let answer = json!({ "success": true, "drill_id": drill_id, "at_ms": clock::now_ms() });
    Ok(reply::json(reply::encode(&answer)))
}

/// `DELETE /api/v1/admin/faults`: ends one fault (`?fault=...`), those of one drill
/// (`?drill_id=`), or all.
pub(super) async fn heal(
    _: Administrator,
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let faults = app.cluster().faults();
    let healed = match params.get("fault") {
        Some(name) => {
            let text = |key: &str| params.get(key).map(str::to_owned);
            let fault = parse_fault(name, text, |key| params.number(key).ok().flatten())?;
            usize::from(faults.heal_one(fault))
        }
        None => faults.heal(params.number("drill_id")?),
    };
    let answer = json!({ "success": true, "healed": healed, "at_ms": clock::now_ms() });
    Ok(reply::json(reply::encode(&answer)))
}

/// `POST /api/v1/admin/stop`: ends this process, `how: kill` without a word, `how: restart` in
/// order. Only where something starts it again.
pub(super) async fn stop(
    _: Administrator,
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    check_drill(&app, &body).await?;
    let admin = &app.options().admin;
    if !admin.supervised {
        let text = "nothing starts this member again (cluster.drills.supervised)";
        return Err(ApiError::conflict("NOT_SUPERVISED", text));
    }
    if body.flag("force")? != Some(true) {
        check_margin(&app).await?;
    }
    match body.text("how")?.as_deref() {
        Some("kill") => {
            tracing::warn!("a drill kills this member");
            // The answer may or may not get out: that is what a crash is like.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        Some("restart") => {
            tracing::warn!("a drill restarts this member");
            admin.restart.cancel();
        }
        _ => return Err(FieldError::new("how", "kill or restart").into()),
    }
    Ok(reply::json(reply::encode(&json!({ "success": true }))))
}

/// `POST /api/v1/admin/rehearse`: makes a backup of this member, restores it in memory and compares
/// it with what the member had at that index. The file is removed again.
pub(super) async fn rehearse(
    _: Administrator,
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let drill_id = check_drill(&app, &Object::parse(&body)?).await?;
    let Ok(_slot) = Arc::clone(app.backup_slots()).try_acquire_owned() else {
        return Err(ApiError::unavailable("BUSY", "this member is sending backups", 5));
    };
    let started = Instant::now();
    let limit = app.options().request_timeout / 2;
    let (index, _) = app.cluster().view().digest();
    let backup = app.cluster().backup(index, limit).await?;
    let made = started.elapsed();
    let path = app.options().data_dir.join(format!("rehearsal-{drill_id}.qbak"));
    let restored = tokio::task::spawn_blocking(move || {
        let restored = backup.write(&path).and_then(|()| storage::rehearse(&path));
        // There is none when it could not be written.
        let _ = std::fs::remove_file(&path);
        restored
    });
    let failed =
        |error: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "REHEARSAL_FAILED", error);
    let restored = restored.await.map_err(|error| failed(error.to_string()))?;
    let restored = restored.map_err(|error| failed(error.to_string()))?;
    let (info, own) = (&restored.info, app.cluster().digest_at(restored.info.last.index));
    let answer = json!({
        "success": true,
        "index": info.last.index,
        "bytes": info.bytes,
        "rows": info.digest.rows,
        "tasks": restored.tasks,
        "nodes": restored.nodes,
        "digest": info.digest.to_string(),
        "matches": own.map(|own| own == info.digest),
        "own_digest": own.map(|own| own.to_string()),
        "backup_ms": millis(made),
        "restore_ms": millis(restored.took),
    });
    Ok(reply::json(reply::encode(&answer)))
}

//! Backups: `GET /api/v1/backup` streams one of the member that is asked; `GET /api/v1/backups` lists
//! those that the schedule wrote there.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::error::ApiError;
use super::headers;
use super::list_query::{ListKind, ListQuery};
use super::params::Params;
use super::reply;
use super::wire_time::iso;
use crate::leader::{BackupFile, RehearsalReport};
use crate::storage::{Backup, BackupInfo};

/// Bytes read from the disk at once.
const PIECE_BYTES: u64 = 1 << 20;
/// What is left of a request's time for everything but writing the snapshot.
const MARGIN: Duration = Duration::from_secs(2);

/// Refuses callers without the admin key: a backup holds everything the cluster knows.
fn check_administrator(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &app.options().admin_key else {
        let text = "this member has no admin key (cluster.admin_key), so nobody may do this";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ADMIN_KEY_MISSING", text));
    };
    let offered = headers.get(headers::ADMIN_KEY);
    if offered.is_some_and(|offered| key.admits(offered.as_bytes())) {
        return Ok(());
    }
    let text = "the header X-Quorate-Admin-Key must hold the admin key";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "ADMIN_KEY_REQUIRED", text))
}

/// A backup on its way to a client, which sets the pace.
struct Sending {
    backup: Backup,
    offset: u64,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        if self.offset >= self.backup.info().bytes {
            return None;
        }
        let (backup, offset) = (self.backup.clone(), self.offset);
        let read = tokio::task::spawn_blocking(move || backup.read_at(offset, PIECE_BYTES)).await;
        let piece = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        // After an error the connection is cut, and the client sees fewer bytes than promised.
        self.offset = match &piece {
            Ok(bytes) => self.offset + bytes.len() as u64,
            Err(_) => self.backup.info().bytes,
        };
        Some((piece, self))
    }

    fn stream(self) -> impl Stream<Item = std::io::Result<Bytes>> {
        futures::stream::unfold(self, Self::next)
    }
}

/// `GET /api/v1/backup`: of the moment it is asked for; with `consistency=local`, of what this member
/// has, also when nobody leads.
pub(super) async fn create(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_administrator(&app, &headers)?;
    let Ok(permit) = std::sync::Arc::clone(app.backup_slots()).try_acquire_owned() else {
        let text = "this member is sending as many backups as it may; ask another, or later";
        return Err(ApiError::unavailable("BUSY", text, 5));
    };
    let stamp = app.admit(&params).await?;
    let limit = app.options().request_timeout.saturating_sub(MARGIN);
    let backup = app.cluster().backup(stamp.index, limit).await?;
    let (name, info) = (backup.file_name(), backup.info().clone());
    let sending = Sending { backup, offset: 0, _permit: permit };
    let mut response = Response::new(Body::from_stream(sending.stream()));
    let headers = response.headers_mut();
    reply::write_stamp(headers, &stamp);
    headers.insert(headers::INDEX, HeaderValue::from(info.last.index));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(info.bytes));
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

#[derive(Serialize)]
struct List {
    success: bool,
    member_id: u64,
    /// Whether this member writes backups when it leads.
    scheduled: bool,
    interval_ms: Option<u64>,
    keep: Option<usize>,
    /// The last failure, until a backup succeeds.
    fault: Option<FaultView>,
    backups: Vec<FileView>,
    #[serde(flatten)]
    page: Option<PageView>,
}

/// Beside a part of the backups.
#[derive(Serialize)]
struct PageView {
    count: usize,
    /// All backups that match.
    total: usize,
    next_cursor: Option<String>,
}

const BACKUPS: ListKind =
    ListKind { name: "backups", sorts: &["created_at"], descending: true, filters: &[], own: &[] };

#[derive(Serialize)]
struct FaultView {
    at: String,
    error: String,
}

#[derive(Serialize)]
struct FileView {
    name: String,
    #[serde(flatten)]
    info: Option<InfoView>,
    /// Why the headers cannot be read.
    error: Option<String>,
    rehearsal: Option<RehearsalView>,
}

#[derive(Serialize)]
struct InfoView {
    created_at: String,
    cluster_id: String,
    member: String,
    version: String,
    term: u64,
    index: u64,
    digest: String,
    rows: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct RehearsalView {
    passed: bool,
    at: String,
    took_ms: u64,
    error: Option<String>,
}

impl From<BackupInfo> for InfoView {
    fn from(info: BackupInfo) -> Self {
        Self {
            created_at: iso(info.head.created_at_ms),
            cluster_id: format!("{:032x}", info.head.cluster_id),
            member: info.head.member_name,
            version: info.head.version,
            term: info.last.leader_id.term,
            index: info.last.index,
            digest: info.digest.to_string(),
            rows: info.digest.rows,
            bytes: info.bytes,
        }
    }
}

impl From<RehearsalReport> for RehearsalView {
    fn from(report: RehearsalReport) -> Self {
        Self {
            passed: report.error.is_none(),
            at: iso(report.at_ms),
            took_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
            error: report.error,
        }
    }
}

impl From<BackupFile> for FileView {
    fn from(file: BackupFile) -> Self {
        let (info, error) = match file.info {
            Ok(info) => (Some(info.into()), None),
            Err(error) => (None, Some(error)),
        };
        Self { name: file.name, info, error, rehearsal: file.rehearsal.map(RehearsalView::from) }
    }
}

/// `GET /api/v1/backups`: of the member that is asked. Names, sizes and results are no secrets, so
/// this takes no admin key.
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let query = match BACKUPS.asked(&params) {
        true => Some(ListQuery::parse(&BACKUPS, &params)?),
        false => None,
    };
    let after = query.as_ref().map(ListQuery::place).transpose()?.flatten();
    let backups = app.options().backups.clone();
    let plan = backups.plan().cloned();
    let fault = backups.fault();
    let listed = tokio::task::spawn_blocking(move || backups.list()).await;
    let listed = listed.unwrap_or_else(|error| Err(error.to_string()));
    let mut files = listed.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "BACKUPS_UNREADABLE", error)
    })?;
    let page = query.map(|query| cut_page(&query, after.as_deref(), &mut files));
    let interval_ms = |plan: &crate::leader::BackupPlan| plan.interval.as_millis() as u64;
    Ok(reply::json(reply::encode(&List {
        success: true,
        member_id: app.cluster().member_id(),
        scheduled: plan.is_some(),
        interval_ms: plan.as_ref().map(interval_ms),
        keep: plan.as_ref().map(|plan| plan.keep),
        fault: fault.map(|fault| FaultView { at: iso(fault.at_ms), error: fault.error }),
        backups: files.into_iter().map(FileView::from).collect(),
        page,
    })))
}

/// Leaves one page of `files`, which are in order of their names, the newest first.
fn cut_page(query: &ListQuery, after: Option<&str>, files: &mut Vec<BackupFile>) -> PageView {
    let created = |file: &BackupFile| file.info.as_ref().map_or(0, |info| info.head.created_at_ms);
    files.retain(|file| query.window.holds(created(file)));
    let total = files.len();
    if !query.descending {
        files.reverse();
    }
    let is_later = |name: &str, after: &str| match query.descending {
        true => name < after,
        false => name > after,
    };
    files.retain(|file| after.is_none_or(|after| is_later(&file.name, after)));
    let more = files.len() > query.limit;
    files.truncate(query.limit);
    let next_cursor = files.last().filter(|_| more).map(|file| query.cursor(&file.name));
    PageView { count: files.len(), total, next_cursor }
}

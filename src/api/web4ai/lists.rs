//! Lists of tasks as family W knows them (contract 2.3): the four buckets with their summary, and one
//! bucket alone. Whoever asks for more than `status`, `limit` and `offset` gets a page of
//! [`task_walk`].

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use super::task_view::TaskRow;
use super::task_walk;
use super::words::Bucket;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::model::Task;
use crate::state::State as Tables;

const LIMIT_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 1000;
/// Deeper pages are for the cursor, whose cost does not grow with the depth.
const OFFSET_MAX: u64 = 100_000;

#[derive(Debug, Clone, Copy)]
struct Page {
    limit: usize,
    offset: usize,
}

#[derive(Serialize)]
struct Buckets<'a> {
    success: bool,
    tasks: Lists<'a>,
    summary: Summary,
}

#[derive(Default, Serialize)]
struct Lists<'a> {
    pending: Vec<TaskRow<'a>>,
    active: Vec<TaskRow<'a>>,
    completed: Vec<TaskRow<'a>>,
    failed: Vec<TaskRow<'a>>,
}

/// How many tasks each bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::api) struct Summary {
    pub(in crate::api) pending_count: u64,
    pub(in crate::api) active_count: u64,
    pub(in crate::api) completed_count: u64,
    pub(in crate::api) failed_count: u64,
}

#[derive(Serialize)]
struct Flat<'a> {
    success: bool,
    tasks: Vec<TaskRow<'a>>,
    count: usize,
    total: u64,
}

pub(in crate::api) fn summary(state: &Tables) -> Summary {
    Summary {
        pending_count: total(state, Bucket::Pending),
        active_count: total(state, Bucket::Active),
        completed_count: total(state, Bucket::Completed),
        failed_count: total(state, Bucket::Failed),
    }
}

fn total(state: &Tables, bucket: Bucket) -> u64 {
    bucket.statuses().iter().map(|status| state.tasks_in(*status)).sum()
}

/// One page of a bucket, in order of submission. Work that waits or runs is shown from the oldest
/// on; of ended work the newest is shown, as upstream keeps its last ones.
fn bucket_page(state: &Tables, bucket: Bucket, page: Page) -> Vec<TaskRow<'_>> {
    let newest_first = matches!(bucket, Bucket::Completed | Bucket::Failed);
    // What is passed over is not read: ended tasks would have to be decoded for it.
    let seqs = state.task_seqs(bucket.statuses(), None, newest_first).skip(page.offset);
    let rows = seqs.filter_map(|seq| state.task_at(seq));
    let mut rows: Vec<_> = rows.take(page.limit).map(TaskRow).collect();
    if newest_first {
        rows.reverse();
    }
    rows
}

fn page(params: &Params) -> Result<Page, ApiError> {
    let limit = params.number("limit")?.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let offset = params.number("offset")?.unwrap_or(0);
    if offset > OFFSET_MAX {
        let text = format!("offset is at most {OFFSET_MAX}; use cursor for deeper pages");
        return Err(ApiError::bad_request("INVALID_QUERY", text));
    }
    Ok(Page { limit: limit as usize, offset: offset as usize })
}

/// The bucket that `status` names, and whether it names something else.
fn wanted_bucket(params: &Params) -> (Option<Bucket>, bool) {
    let word = params.get("status").filter(|word| !word.is_empty());
    let bucket = word.and_then(Bucket::parse);
    (bucket, word.is_some() && bucket.is_none())
}

/// The first rows of a bucket, as its list shows them.
pub(super) fn bucket_head(state: &Tables, bucket: Bucket, limit: usize) -> Vec<Task> {
    let rows = bucket_page(state, bucket, Page { limit, offset: 0 });
    rows.into_iter().map(|TaskRow(task)| task.into_owned()).collect()
}

/// `GET /api/v1/tasks`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let (only, is_other) = wanted_bucket(&params);
    if is_other || task_walk::TASKS.asked(&params) {
        return task_walk::page(&app, &params, None).await;
    }
    let page = page(&params)?;
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| reply::encode(&buckets(state, only, page)));
    Ok(reply::read(&stamp, body))
}

fn buckets(state: &Tables, only: Option<Bucket>, page: Page) -> Buckets<'_> {
    let list = |bucket: Bucket| match only {
        Some(only) if only != bucket => Vec::new(),
        Some(_) | None => bucket_page(state, bucket, page),
    };
    let tasks = Lists {
        pending: list(Bucket::Pending),
        active: list(Bucket::Active),
        completed: list(Bucket::Completed),
        failed: list(Bucket::Failed),
    };
    Buckets { success: true, tasks, summary: summary(state) }
}

/// `GET /api/v1/tasks/{pending|active|completed|failed}`.
pub(in crate::api) async fn bucket(
    State(app): State<App>,
    uri: Uri,
    params: Params,
) -> Result<Response, ApiError> {
    let word = uri.path().rsplit('/').next().unwrap_or_default();
    let Some(bucket) = Bucket::parse(word) else {
        return Err(ApiError::not_found("TASK_NOT_FOUND", "Task not found"));
    };
    if task_walk::bucket_kind(bucket).asked(&params) {
        return task_walk::page(&app, &params, Some(bucket)).await;
    }
    let page = page(&params)?;
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let tasks = bucket_page(state, bucket, page);
        let (count, total) = (tasks.len(), total(state, bucket));
        reply::encode(&Flat { success: true, tasks, count, total })
    });
    Ok(reply::read(&stamp, body))
}

//! A filtered walk over tasks, page by page. The state is held for a few hundred rows at a time, and
//! a page looks at a bounded number of them: a filter that matches little ends it early.

use axum::response::Response;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::lists::{Summary, summary};
use super::task_view::TaskRow;
use super::words::Bucket;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::params::Params;
use crate::api::reply;
use crate::cluster::ReadStamp;
use crate::model::{Task, TaskStatus};
use crate::state::{EndedKey, State as Tables};

/// Rows looked at while the state is held, and for one page.
const CHUNK: usize = 500;
const SCAN_MAX: usize = 10_000;

const SORTS: &[&str] = &["created_at", "completed_at"];
const FILTERS: &[&str] = &["status", "task_type", "node_id", "capability"];

/// `GET /api/v1/tasks`.
pub(super) const TASKS: ListKind = ListKind {
    name: "tasks",
    sorts: SORTS,
    descending: false,
    filters: FILTERS,
    own: &["limit", "status"],
};

/// `GET /api/v1/tasks/{bucket}`.
pub(super) fn bucket_kind(bucket: Bucket) -> ListKind {
    ListKind { name: bucket.as_str(), own: &["limit"], ..TASKS }
}

/// Where a walk stands: the end of a task with its place, or 0 and its place alone.
pub(super) type Key = EndedKey;

/// Which tasks, in which order.
pub(super) struct Walk<'a> {
    query: &'a ListQuery,
    by_end: bool,
    statuses: Vec<TaskStatus>,
    task_type: Option<&'a str>,
    node_id: Option<&'a str>,
    capability: Option<&'a str>,
}

/// A row of a page: its bucket, and it as JSON.
pub(super) struct Row(pub(super) Bucket, pub(super) Box<RawValue>);

/// What one look at the state gave.
struct Step {
    rows: Vec<Row>,
    scanned: usize,
    last: Option<Key>,
    more: bool,
}

/// The statuses that a word stands for: one of the buckets, or one state of our own.
fn statuses(word: &str) -> Result<Vec<TaskStatus>, ApiError> {
    if let Some(bucket) = Bucket::parse(word) {
        return Ok(bucket.statuses().to_vec());
    }
    let word_is = |status: &TaskStatus| status.as_str().eq_ignore_ascii_case(word);
    match TaskStatus::ALL.into_iter().find(word_is) {
        Some(status) => Ok(vec![status]),
        None if word.eq_ignore_ascii_case("timeout") => Ok(vec![TaskStatus::TimedOut]),
        None => {
            let text = format!("status must be pending, active, completed or failed, not {word}");
            Err(ApiError::bad_request("INVALID_QUERY", text))
        }
    }
}

impl<'a> Walk<'a> {
    fn new(
        query: &'a ListQuery,
        params: &'a Params,
        bucket: Option<Bucket>,
    ) -> Result<Self, ApiError> {
        let said = |key: &str| params.get(key).map(str::trim).filter(|text| !text.is_empty());
        let by_end = query.sort == "completed_at";
        let wanted = said("status").map(statuses).transpose()?;
        let wanted = |status: &TaskStatus| {
            wanted.as_ref().is_none_or(|wanted| wanted.contains(status))
                && bucket.is_none_or(|bucket| Bucket::of(*status) == bucket)
                && (!by_end || status.is_terminal())
        };
        Ok(Self {
            query,
            by_end,
            statuses: TaskStatus::ALL.into_iter().filter(wanted).collect(),
            task_type: said("task_type"),
            node_id: said("node_id"),
            capability: said("capability"),
        })
    }

    /// Over tasks of one status, in order of submission.
    pub(super) fn of_status(
        query: &'a ListQuery,
        status: TaskStatus,
        task_type: Option<&'a str>,
    ) -> Self {
        let statuses = vec![status];
        Self { query, by_end: false, statuses, task_type, node_id: None, capability: None }
    }

    /// Whether anything beside the status must be looked up in the rows.
    pub(super) fn is_filtered(&self) -> bool {
        let filters = [self.task_type, self.node_id, self.capability];
        filters.iter().any(Option::is_some) || !self.query.window.is_open()
    }

    fn keys<'s>(
        &'s self,
        state: &'s Tables,
        after: Option<Key>,
    ) -> Box<dyn Iterator<Item = Key> + 's> {
        let down = self.query.descending;
        if self.by_end {
            return Box::new(state.ended_keys(after, down));
        }
        let window = self.query.window;
        // Tasks are accepted in order, so the walk begins where the window does.
        let edge = if down {
            window.before.map(|before| state.seq_at(before))
        } else {
            window.after.map(|after| state.seq_at(after.saturating_add(1)).saturating_sub(1))
        };
        let after = match (after.map(|(_, seq)| seq), edge) {
            (Some(seq), Some(edge)) => Some(if down { seq.min(edge) } else { seq.max(edge) }),
            (Some(seq), None) => Some(seq),
            (None, edge) => edge,
        };
        Box::new(state.task_seqs(&self.statuses, after, down).map(|seq| (0, seq)))
    }

    /// Whether the walk has left the window for good.
    fn is_past(&self, task: &Task) -> bool {
        let window = self.query.window;
        let at = task.created_at_ms;
        !self.by_end
            && match self.query.descending {
                true => window.after.is_some_and(|after| at <= after),
                false => window.before.is_some_and(|before| at >= before),
            }
    }

    fn matches(&self, task: &Task) -> bool {
        let holder = task.live_on().or(task.node_id.as_ref()).map(|node_id| node_id.as_str());
        let needs = |name: &str| task.requirements.capabilities.iter().any(|need| need == name);
        self.statuses.contains(&task.status)
            && self.task_type.is_none_or(|wanted| task.task_type == wanted)
            && self.node_id.is_none_or(|wanted| holder == Some(wanted))
            && self.capability.is_none_or(needs)
            && self.query.window.holds(task.created_at_ms)
    }

    /// Looks at some rows after `after`, until `room` of them match.
    fn step(&self, state: &Tables, after: Option<Key>, room: usize) -> Step {
        let mut step = Step { rows: Vec::new(), scanned: 0, last: after, more: false };
        for key in self.keys(state, after) {
            if step.rows.len() == room || step.scanned == CHUNK {
                step.more = true;
                return step;
            }
            step.scanned += 1;
            step.last = Some(key);
            let Some(task) = state.task_at(key.1) else { continue };
            if self.is_past(&task) {
                return step;
            }
            if self.matches(&task) {
                let bucket = Bucket::of(task.status);
                let row = to_raw_value(&TaskRow(task)).expect("a row is plain data");
                step.rows.push(Row(bucket, row));
            }
        }
        step
    }

    /// One page, and where to go on.
    pub(super) async fn page(
        &self,
        app: &App,
        stamp: &mut ReadStamp,
        mut after: Option<Key>,
    ) -> (Vec<Row>, Option<Key>) {
        let (mut rows, mut scanned) = (Vec::new(), 0);
        loop {
            let room = self.query.limit - rows.len();
            let step = app.show(stamp, |state| self.step(state, after, room));
            rows.extend(step.rows);
            scanned += step.scanned;
            after = step.last;
            if !step.more {
                return (rows, None);
            }
            if rows.len() == self.query.limit || scanned >= SCAN_MAX {
                return (rows, after);
            }
            tokio::task::yield_now().await;
        }
    }
}

fn parse_key(place: &str) -> Result<Key, ApiError> {
    let parsed =
        place.split_once('.').and_then(|(at, seq)| Some((at.parse().ok()?, seq.parse().ok()?)));
    parsed.ok_or_else(invalid_cursor)
}

#[derive(Serialize)]
struct Page<'a> {
    success: bool,
    /// The rows where family W's clients look for them.
    tasks: Lists<'a>,
    /// The same rows in the order of the walk.
    items: Vec<&'a RawValue>,
    count: usize,
    /// Of the whole walk; null when that would have to be counted row by row.
    total: Option<u64>,
    next_cursor: Option<String>,
    summary: Summary,
}

#[derive(Default, Serialize)]
struct Lists<'a> {
    pending: Vec<&'a RawValue>,
    active: Vec<&'a RawValue>,
    completed: Vec<&'a RawValue>,
    failed: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct BucketPage<'a> {
    success: bool,
    tasks: Vec<&'a RawValue>,
    count: usize,
    total: Option<u64>,
    next_cursor: Option<String>,
}

/// A page of all tasks, or of one bucket.
pub(super) async fn page(
    app: &App,
    params: &Params,
    bucket: Option<Bucket>,
) -> Result<Response, ApiError> {
    let kind = bucket.map_or(TASKS, bucket_kind);
    let query = ListQuery::parse(&kind, params)?;
    let mut stamp = app.admit(params).await?;
    let query = query.in_cluster(app.cluster().cluster_id());
    let walk = Walk::new(&query, params, bucket)?;
    let after = query.place()?.as_deref().map(parse_key).transpose()?;
    let (rows, next) = walk.page(app, &mut stamp, after).await;
    let next_cursor = next.map(|(at, seq)| query.cursor(&format!("{at}.{seq}")));
    let (summary, total) = app.show(&mut stamp, |state| {
        let total: u64 = walk.statuses.iter().map(|status| state.tasks_in(*status)).sum();
        (summary(state), (!walk.is_filtered()).then_some(total))
    });
    let (success, count) = (true, rows.len());
    let items: Vec<&RawValue> = rows.iter().map(|Row(_, row)| &**row).collect();
    let text = if bucket.is_some() {
        reply::encode(&BucketPage { success, tasks: items, count, total, next_cursor })
    } else {
        let mut tasks = Lists::default();
        for Row(bucket, row) in &rows {
            let list = match bucket {
                Bucket::Pending => &mut tasks.pending,
                Bucket::Active => &mut tasks.active,
                Bucket::Completed => &mut tasks.completed,
                Bucket::Failed => &mut tasks.failed,
            };
            list.push(row);
        }
        reply::encode(&Page { success, tasks, items, count, total, next_cursor, summary })
    };
    Ok(reply::read(&stamp, text))
}

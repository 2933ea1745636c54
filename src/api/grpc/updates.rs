//! `StreamTaskUpdates`: what becomes of one task, until it has ended.
//!
//! The first update is read linearizably and is a request like others: it has a place among them and
//! is counted. All others are read from this member as it applies, which never goes back, and are
//! none: a stream neither uses up its reader's rate nor ends because others ask much. Whether its
//! reader may still see the task is asked with each look. A task that changes faster than it is
//! looked at shows its latest state only.

use std::time::Duration;

use futures::Stream;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::Status;

use super::doors::{Caller, Doors};
use super::orchestrator::{task_of, task_path, unknown};
use super::view;
use crate::agent::proto::TaskUpdate;
use crate::api::App;
use crate::api::web4ai::task_page::Shown;
use crate::clock;
use crate::cluster::Consistency;
use crate::model::TaskId;
use crate::security::{Action, Area, Permission, Principal};

/// The least time between two looks at a task.
const PAUSE: Duration = Duration::from_millis(50);
/// A task whose own row does not change is looked at so often all the same, as long as this member
/// applies anything: its steps have rows of their own.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// To see a task.
const SEE: Permission = Permission(Area::Tasks, Action::Read);

/// One reader.
pub(super) struct Updates {
    app: App,
    /// `None` when nobody asked who it is.
    principal: Option<Principal>,
    task_id: TaskId,
    /// What was read and not yet told.
    next: Option<Value>,
    last: Option<TaskUpdate>,
    seen_revision: Option<u64>,
    looked: Instant,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Updates {
    /// Looks for the task.
    ///
    /// # Errors
    /// `NOT_FOUND`; `RESOURCE_EXHAUSTED` when there are too many streams; what the door says.
    pub(super) async fn open(
        app: &App,
        doors: &Doors,
        caller: Caller,
        task_id: String,
    ) -> Result<Self, Status> {
        let permit = app.streams().clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many streams"))?;
        let known = TaskId::parse(&task_id);
        let seen_revision = known.as_ref().ok().and_then(|task_id| revision(app, task_id));
        let reply = doors.get(&caller, &task_path(&task_id)).await?;
        let next = Some(task_of(reply, &task_id)?);
        Ok(Self {
            app: app.clone(),
            principal: app.principal_of(caller.headers()),
            task_id: known.map_err(|_| unknown(&task_id))?,
            next,
            last: None,
            seen_revision,
            looked: Instant::now(),
            over: false,
            _permit: permit,
        })
    }

    /// The updates, each once.
    pub(super) fn stream(self) -> impl Stream<Item = Result<TaskUpdate, Status>> + Send {
        futures::stream::unfold(self, |mut updates| async move {
            let update = updates.following().await?;
            Some((update, updates))
        })
    }

    async fn following(&mut self) -> Option<Result<TaskUpdate, Status>> {
        while !self.over {
            let body = match self.next.take() {
                Some(body) => body,
                None => match self.look_again().await {
                    Ok(body) => body,
                    Err(status) => {
                        self.over = true;
                        return Some(Err(status));
                    }
                },
            };
            let update = view::update(&body, clock::now_ms());
            self.over = view::is_over(update.status());
            if self.last.as_ref().is_none_or(|last| differs(last, &update)) {
                self.last = Some(update.clone());
                return Some(Ok(update));
            }
        }
        None
    }

    /// Waits until something may have changed, and reads the task from this member.
    async fn look_again(&mut self) -> Result<Value, Status> {
        let mut applied = self.app.cluster().view().applied_watch();
        loop {
            applied.mark_unchanged();
            let revision = revision(&self.app, &self.task_id);
            let due = self.looked.elapsed() >= LOOK_EVERY;
            if revision != self.seen_revision || due {
                self.seen_revision = revision;
                break;
            }
            tokio::select! {
                biased;
                () = self.app.closing().cancelled() => {
                    return Err(Status::unavailable("this member stops; ask another"));
                }
                changed = applied.changed() => {
                    changed.map_err(|_| Status::unavailable("this member has stopped"))?;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.looked = Instant::now();
        if !self.app.still_admits(self.principal.as_ref(), SEE) {
            return Err(Status::unauthenticated("whoever reads may not see the task any more"));
        }
        self.look().await
    }

    /// The task as this member has it, as its door shows it.
    async fn look(&self) -> Result<Value, Status> {
        let local = Consistency::Local { max_age: None, min_index: None };
        let admitted = self.app.barrier(local).await;
        admitted.map_err(|_| Status::unavailable("this member may not be read; ask another"))?;
        let view = self.app.cluster().view();
        let shown = view.read(|state| Shown::of(state, &self.task_id));
        let shown = shown.ok_or_else(|| unknown(self.task_id.as_str()))?;
        let text = shown.render(view, false).map_err(|error| {
            tracing::error!(task_id = %self.task_id, %error, "a payload cannot be read");
            Status::internal("a payload of the task cannot be read")
        })?;
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }
}

/// `None` for a task that is not there.
fn revision(app: &App, task_id: &TaskId) -> Option<u64> {
    app.cluster().view().read(|state| state.task(task_id).map(|task| task.revision))
}

/// Whether an update says something new; its time alone does not.
fn differs(a: &TaskUpdate, b: &TaskUpdate) -> bool {
    let what = |update: &TaskUpdate| (update.status, update.progress_percent);
    what(a) != what(b) || a.agent_id != b.agent_id || a.message != b.message
}

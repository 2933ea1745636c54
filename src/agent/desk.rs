//! What an agent serves: `AgentService` (contract 4.9).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use sysinfo::System;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::proto::agent_service_server::AgentService;
use super::proto::{
    AgentHealthRequest, AgentHealthResponse, AgentRegistration, AgentRegistrationResponse,
    AgentTaskRequest, AgentTaskResponse, AgentTaskUpdate, TaskStatus,
};
use super::runner::Runner;
use super::task::{AgentDone, AgentFailure, AgentTask, FailureCode};
use super::wire;

/// Takes steps and answers for them. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    agent_id: String,
    agent_type: String,
    runner: Runner,
    slots: Arc<Semaphore>,
    /// Steps under way.
    tasks: TaskTracker,
    /// No more steps are taken.
    draining: CancellationToken,
    /// What runs is stopped.
    abort: CancellationToken,
    active: AtomicI32,
    completed: AtomicI32,
    failed: AtomicI32,
    system: Mutex<System>,
}

/// A step under way. Dropping it stops the work.
struct Running {
    agent_task_id: String,
    started: Instant,
    work: tokio::task::JoinHandle<Result<AgentDone, AgentFailure>>,
    _stop: tokio_util::sync::DropGuard,
}

/// How a step ended, and after how long.
type End = (Result<AgentDone, AgentFailure>, Duration);

impl Desk {
    pub(super) fn new(
        agent_id: &str,
        agent_type: &str,
        runner: Runner,
        max_concurrent_tasks: usize,
        draining: CancellationToken,
        abort: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            agent_id: agent_id.to_owned(),
            agent_type: agent_type.to_owned(),
            runner,
            slots: Arc::new(Semaphore::new(max_concurrent_tasks)),
            tasks: TaskTracker::new(),
            draining,
            abort,
            active: AtomicI32::new(0),
            completed: AtomicI32::new(0),
            failed: AtomicI32::new(0),
            system: Mutex::new(System::new()),
        }))
    }

    /// The steps under way.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(super) fn active(&self) -> i32 {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Begins a step, or says why not; whatever is refused here was not begun.
    fn begin(&self, request: AgentTaskRequest) -> Result<Running, Status> {
        let inner = &self.0;
        if inner.draining.is_cancelled() {
            return Err(Status::unavailable("this agent is leaving"));
        }
        if !request.agent_type.is_empty() && request.agent_type != inner.agent_type {
            let message =
                format!("this agent does {}, not {}", inner.agent_type, request.agent_type);
            return Err(Status::unavailable(message));
        }
        let mut task = AgentTask::try_from(request).map_err(Status::invalid_argument)?;
        task.agent_type.clone_from(&inner.agent_type);
        let Ok(slot) = Arc::clone(&inner.slots).try_acquire_owned() else {
            return Err(Status::resource_exhausted("all slots of this agent are taken"));
        };
        let stop = inner.abort.child_token();
        let agent_task_id = task.agent_task_id.clone();
        tracing::debug!(task_id = task.task_id, agent_task_id, "begins");
        let (desk, killed) = (self.clone(), stop.clone());
        inner.active.fetch_add(1, Ordering::Relaxed);
        let work = inner.tasks.spawn(async move {
            let end = desk.0.runner.run(task, &killed).await;
            desk.count(&end);
            // Only now: the slot is free when the program is gone.
            drop(slot);
            end
        });
        Ok(Running { agent_task_id, started: Instant::now(), work, _stop: stop.drop_guard() })
    }

    fn count(&self, end: &Result<AgentDone, AgentFailure>) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        let counter = if end.is_ok() { &self.0.completed } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the end of a step. One that this agent stopped because it leaves may be done by
    /// another, so its caller is not told that it was cancelled.
    async fn end(&self, running: &mut Running) -> Result<End, Status> {
        let end = (&mut running.work).await.unwrap_or_else(|error| {
            Err(AgentFailure::new(FailureCode::ExecutionFailed, format!("the work broke: {error}")))
        });
        let took = running.started.elapsed();
        match &end {
            Err(failure)
                if failure.code == FailureCode::Cancelled && self.0.abort.is_cancelled() =>
            {
                return Err(Status::unavailable("this agent left before the step was done"));
            }
            Err(failure) if failure.busy => {
                return Err(Status::resource_exhausted(failure.message.clone()));
            }
            Err(failure) => tracing::info!(running.agent_task_id, %failure, "failed"),
            Ok(_) => tracing::debug!(running.agent_task_id, ?took, "done"),
        }
        Ok((end, took))
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<AgentTaskUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Desk {
    async fn execute_task(
        &self,
        request: Request<AgentTaskRequest>,
    ) -> Result<Response<AgentTaskResponse>, Status> {
        let mut running = self.begin(request.into_inner())?;
        let (end, took) = self.end(&mut running).await?;
        Ok(Response::new(match end {
            Ok(done) => wire::response(&running.agent_task_id, &done),
            Err(failure) => wire::failed(&running.agent_task_id, &failure, took),
        }))
    }

    type StreamExecutionStream = Updates;

    /// One update when the step begins and one when it ended: in between nothing is known.
    async fn stream_execution(
        &self,
        request: Request<AgentTaskRequest>,
    ) -> Result<Response<Updates>, Status> {
        let mut running = self.begin(request.into_inner())?;
        let begun = AgentTaskUpdate {
            agent_task_id: running.agent_task_id.clone(),
            status: TaskStatus::Running.into(),
            message: "started".to_owned(),
            progress_percent: 0,
        };
        let desk = self.clone();
        let ended = async move {
            let (end, took) = desk.end(&mut running).await?;
            let (status, message, progress_percent) = match end {
                Ok(done) => {
                    let message = format!("{} in {} ms", done.output_type, took.as_millis());
                    (TaskStatus::Completed, message, 100)
                }
                Err(failure) if failure.code == FailureCode::Cancelled => {
                    (TaskStatus::Cancelled, failure.message, 0)
                }
                Err(failure) => (TaskStatus::Failed, failure.to_string(), 0),
            };
            let agent_task_id = running.agent_task_id.clone();
            Ok(AgentTaskUpdate { agent_task_id, status: status.into(), message, progress_percent })
        };
        let updates = futures::stream::iter([Ok(begun)]).chain(futures::stream::once(ended));
        Ok(Response::new(Box::pin(updates)))
    }

    async fn register_agent(
        &self,
        _request: Request<AgentRegistration>,
    ) -> Result<Response<AgentRegistrationResponse>, Status> {
        Err(Status::unimplemented("agents register with the orchestrator, not with each other"))
    }

    async fn agent_health_check(
        &self,
        request: Request<AgentHealthRequest>,
    ) -> Result<Response<AgentHealthResponse>, Status> {
        let inner = &self.0;
        let asked = request.into_inner().agent_id;
        if !asked.is_empty() && asked != inner.agent_id {
            return Err(Status::not_found(format!(
                "this is agent {}, not {asked}",
                inner.agent_id
            )));
        }
        let (cpu, memory) = {
            let mut system = inner.system.lock();
            system.refresh_cpu_usage();
            system.refresh_memory();
            let share = system.used_memory() as f64 / system.total_memory().max(1) as f64;
            (system.global_cpu_usage(), share * 100.0)
        };
        Ok(Response::new(AgentHealthResponse {
            healthy: !inner.draining.is_cancelled(),
            active_tasks: self.active(),
            completed_tasks: inner.completed.load(Ordering::Relaxed),
            failed_tasks: inner.failed.load(Ordering::Relaxed),
            cpu_usage: cpu,
            memory_usage: memory as f32,
        }))
    }
}

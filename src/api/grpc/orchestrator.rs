//! `OrchestratorService` (contract 4.9).

use std::pin::Pin;

use axum::http::{Method, StatusCode};
use futures::Stream;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::doors::{Caller, Doors, ERROR_CODE, Reply};
use super::updates::Updates;
use super::{submission, view};
use crate::agent::proto::orchestrator_service_server::OrchestratorService;
use crate::agent::proto::{
    HealthCheckRequest, HealthCheckResponse, TaskCancelRequest, TaskCancelResponse, TaskRequest,
    TaskResponse, TaskStatusRequest, TaskStatusResponse, TaskUpdate,
};
use crate::api::App;
use crate::client::segment;

/// What clients of the orchestrator call.
#[derive(Debug)]
pub(super) struct Orchestrator {
    app: App,
    doors: Doors,
}

impl Orchestrator {
    pub(super) fn new(app: App, doors: Doors) -> Self {
        Self { app, doors }
    }
}

/// What whoever asks for a task that nobody knows is told.
pub(super) fn unknown(task_id: &str) -> Status {
    let mut status = Status::not_found(format!("unknown task: {task_id}"));
    let code = MetadataValue::from_static("TASK_NOT_FOUND");
    status.metadata_mut().insert(ERROR_CODE, code);
    status
}

/// The task of a reply. Some words name lists over HTTP; here they are tasks that nobody knows.
pub(super) fn task_of(reply: Reply, task_id: &str) -> Result<Value, Status> {
    match reply.status {
        StatusCode::NOT_FOUND => Err(unknown(task_id)),
        _ => {
            let body = reply.ok()?;
            if body["task_id"] == task_id { Ok(body) } else { Err(unknown(task_id)) }
        }
    }
}

/// Where a task is over HTTP.
pub(super) fn task_path(task_id: &str) -> String {
    format!("/api/v1/tasks/{}", segment(task_id))
}

type TaskUpdates = Pin<Box<dyn Stream<Item = Result<TaskUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl OrchestratorService for Orchestrator {
    async fn submit_task(
        &self,
        request: Request<TaskRequest>,
    ) -> Result<Response<TaskResponse>, Status> {
        let caller = Caller::of(&request);
        let body = submission::body(request.into_inner()).map_err(Status::invalid_argument)?;
        let reply = self.doors.call(&caller, Method::POST, "/api/v1/tasks", &body).await?.ok()?;
        Ok(Response::new(TaskResponse {
            task_id: reply["task_id"].as_str().unwrap_or_default().to_owned(),
            status: view::status(&reply["status"]).into(),
            message: reply["message"].as_str().unwrap_or_default().to_owned(),
            estimated_completion_ms: reply["estimated_completion_ms"].as_i64().unwrap_or_default(),
        }))
    }

    async fn get_task_status(
        &self,
        request: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskStatusResponse>, Status> {
        let caller = Caller::of(&request);
        let task_id = request.into_inner().task_id;
        let reply = self.doors.get(&caller, &task_path(&task_id)).await?;
        Ok(Response::new(view::task(&task_of(reply, &task_id)?)))
    }

    type StreamTaskUpdatesStream = TaskUpdates;

    async fn stream_task_updates(
        &self,
        request: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskUpdates>, Status> {
        let caller = Caller::of(&request);
        let task_id = request.into_inner().task_id;
        let updates = Updates::open(&self.app, &self.doors, caller, task_id).await?;
        Ok(Response::new(Box::pin(updates.stream())))
    }

    async fn cancel_task(
        &self,
        request: Request<TaskCancelRequest>,
    ) -> Result<Response<TaskCancelResponse>, Status> {
        let caller = Caller::of(&request);
        let TaskCancelRequest { task_id, reason } = request.into_inner();
        let body = json!({ "reason": reason });
        let reply = self.doors.call(&caller, Method::DELETE, &task_path(&task_id), &body).await?;
        let message = match reply.status {
            // Words that name lists over HTTP cannot be deleted there.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "Task not found".to_owned(),
            StatusCode::CONFLICT => reply.message(),
            _ => {
                let done = reply.ok()?;
                let message = done["message"].as_str().unwrap_or_default().to_owned();
                return Ok(Response::new(TaskCancelResponse { success: true, message }));
            }
        };
        Ok(Response::new(TaskCancelResponse { success: false, message }))
    }

    async fn health_check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let health = self.doors.get(&Caller::of(&request), "/health").await?.ok()?;
        Ok(Response::new(HealthCheckResponse {
            healthy: health["healthy"].as_bool().unwrap_or_default(),
            version: health["version"].as_str().unwrap_or_default().to_owned(),
            uptime_seconds: health["uptime_seconds"].as_i64().unwrap_or_default(),
            stats: view::stats(&health),
        }))
    }
}

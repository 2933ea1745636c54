//! `AgentService` as the orchestrator serves it: only `RegisterAgent` (contract 4.9).

use axum::http::{Method, StatusCode};
use futures::stream::Empty;
use serde_json::{Map, json};
use tonic::{Request, Response, Status};

use super::doors::{Caller, Doors};
use crate::agent::proto::agent_service_server::AgentService;
use crate::agent::proto::{
    AgentHealthRequest, AgentHealthResponse, AgentRegistration, AgentRegistrationResponse,
    AgentTaskRequest, AgentTaskResponse, AgentTaskUpdate,
};
use crate::agent::scalars;

/// Where agents register over HTTP.
const DOOR: &str = "/api/v1/agents/register";

/// Takes registrations of agents.
#[derive(Debug)]
pub(super) struct Agents(Doors);

impl Agents {
    pub(super) fn new(doors: Doors) -> Self {
        Self(doors)
    }
}

fn not_here() -> Status {
    Status::unimplemented("the orchestrator does no steps: ask an agent at its own endpoint")
}

#[tonic::async_trait]
impl AgentService for Agents {
    async fn execute_task(
        &self,
        _request: Request<AgentTaskRequest>,
    ) -> Result<Response<AgentTaskResponse>, Status> {
        Err(not_here())
    }

    type StreamExecutionStream = Empty<Result<AgentTaskUpdate, Status>>;

    async fn stream_execution(
        &self,
        _request: Request<AgentTaskRequest>,
    ) -> Result<Response<Self::StreamExecutionStream>, Status> {
        Err(not_here())
    }

    /// A decision against the agent is an answer; why there is no decision is a status.
    async fn register_agent(
        &self,
        request: Request<AgentRegistration>,
    ) -> Result<Response<AgentRegistrationResponse>, Status> {
        let caller = Caller::of(&request);
        let agent = request.into_inner();
        let body = json!({
            "agent_id": agent.agent_id,
            "agent_type": agent.agent_type,
            "capabilities": agent.capabilities,
            "endpoint": agent.endpoint,
            "max_concurrent_tasks": agent.max_concurrent_tasks,
            "metadata": scalars(agent.metadata).into_iter().collect::<Map<_, _>>(),
        });
        let reply = self.0.call(&caller, Method::POST, DOOR, &body).await?;
        let (success, token) = match reply.status {
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => (false, String::new()),
            StatusCode::NOT_FOUND => return Err(Status::unimplemented(reply.message())),
            status if status.is_success() => {
                let token = reply.body["registration_token"].as_str().unwrap_or_default();
                (true, token.to_owned())
            }
            _ => return Err(reply.refusal()),
        };
        let message = reply.message();
        let response = AgentRegistrationResponse { success, message, registration_token: token };
        Ok(Response::new(response))
    }

    async fn agent_health_check(
        &self,
        _request: Request<AgentHealthRequest>,
    ) -> Result<Response<AgentHealthResponse>, Status> {
        Err(not_here())
    }
}

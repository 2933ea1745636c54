//! The registry of agents (contract 4.7). Registering again is an agent's heartbeat: what is known
//! already costs no log entry.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::web4ai::nodes::is_registered;
use crate::api::web4ai::register::capabilities;
use crate::api::wire_time::Epoch;
use crate::cluster::Beat;
use crate::model::{AGENT_PREFIX, Load, Node, NodeId, NodeStatus, TimeMs};
use crate::state::{Command, NodeSpec, Outcome};

const NAME_BYTES_MAX: usize = 200;
const METADATA_BYTES_MAX: usize = 64 * 1024;
const CAPACITY_MAX: u32 = 100_000;
/// What an agent takes at once that does not say (contract 4.4).
const CAPACITY: u32 = 10;
/// What `metadata.state` says of an agent that stops.
const LEAVING: &str = "leaving";

/// What an agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct AgentSpec {
    /// Its own name.
    agent_id: String,
    /// What kind of work it does.
    agent_type: String,
    /// Words for people.
    capabilities: Vec<String>,
    /// `host:port` of its `AgentService`.
    endpoint: String,
    /// 0 for the default.
    max_concurrent_tasks: u32,
    /// A JSON object. `instance` in it names one run of its program.
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// The nine keys of an agent's record (contract 4.7), and where it comes from (contract C22).
#[derive(Debug, Serialize)]
pub(in crate::api) struct AgentRecord<'a> {
    agent_id: &'a str,
    agent_type: &'a str,
    endpoint: String,
    capabilities: &'a [String],
    max_concurrent_tasks: u32,
    current_tasks: u32,
    healthy: bool,
    last_heartbeat: Epoch,
    metadata: &'a serde_json::value::RawValue,
    source: &'static str,
    status: &'static str,
    tasks_completed: u64,
    tasks_failed: u64,
}

/// Shows `agent`; it was heard of last at `heard_at_ms`.
pub(in crate::api) fn record(agent: &Node, heard_at_ms: TimeMs) -> AgentRecord<'_> {
    let builtin = agent.host.is_empty();
    AgentRecord {
        agent_id: crate::leader::agent_id_of(agent.node_id.as_str()),
        agent_type: agent.agent_type.as_deref().unwrap_or_default(),
        endpoint: if builtin {
            "builtin".to_owned()
        } else {
            format!("{}:{}", agent.host, agent.port)
        },
        capabilities: &agent.capabilities,
        max_concurrent_tasks: agent.capacity,
        current_tasks: agent.live,
        healthy: agent.is_healthy(),
        last_heartbeat: Epoch(heard_at_ms),
        metadata: crate::api::fragment::fragment(&agent.metadata, "{}"),
        source: "agents",
        status: agent.status.as_str(),
        tasks_completed: agent.tasks_completed,
        tasks_failed: agent.tasks_failed,
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("INVALID_AGENT", text.into())
}

fn node_spec(spec: AgentSpec) -> Result<NodeSpec, ApiError> {
    for (key, text) in [("agent_id", &spec.agent_id), ("agent_type", &spec.agent_type)] {
        let plain = text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
        if text.is_empty() || !plain {
            return Err(invalid(format!("{key} is 1 to {NAME_BYTES_MAX} bytes of plain text")));
        }
    }
    let endpoint = spec.endpoint.rsplit_once(':');
    let endpoint = endpoint.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let endpoint = endpoint
        .filter(|(host, port)| !host.is_empty() && *port > 0 && host.len() <= NAME_BYTES_MAX);
    let (host, port) = endpoint.ok_or_else(|| invalid("endpoint must be host:port"))?;
    let capacity = match spec.max_concurrent_tasks {
        0 => CAPACITY,
        given if given <= CAPACITY_MAX => given,
        _ => return Err(invalid(format!("max_concurrent_tasks is at most {CAPACITY_MAX}"))),
    };
    let text = |key: &str| {
        spec.metadata.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let (instance, version) = (text("instance"), text("version"));
    let metadata = serde_json::Value::Object(spec.metadata).to_string();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(invalid("metadata is at most 64 KiB"));
    }
    let node_id = NodeId::parse(&format!("{AGENT_PREFIX}{}", spec.agent_id));
    Ok(NodeSpec {
        node_id: node_id.map_err(|error| invalid(format!("agent_id: {error}")))?,
        host: host.to_owned(),
        port,
        node_type: "agent".to_owned(),
        capabilities: spec.capabilities,
        capacity,
        agents_count: 0,
        agents: Vec::new(),
        load: Load::default(),
        version,
        location: None,
        external_url: None,
        instance,
        metadata,
        agent_type: Some(spec.agent_type),
    })
}

/// Whether `agent` is what `spec` says, so that it need not be written again. One in maintenance
/// would stay so.
fn is_known(agent: &Node, spec: &NodeSpec) -> bool {
    let mut capabilities = spec.capabilities.clone();
    capabilities.sort();
    capabilities.dedup();
    matches!(agent.status, NodeStatus::Active | NodeStatus::Maintenance)
        && agent.host == spec.host
        && agent.port == spec.port
        && agent.capacity == spec.capacity
        && agent.capabilities == capabilities
        && agent.agent_type == spec.agent_type
        && agent.instance == spec.instance
        && agent.metadata == spec.metadata
}

#[derive(Serialize)]
struct Registered<'a> {
    success: bool,
    message: String,
    agent_id: &'a str,
    /// The same for the same agent: whoever holds it has proof of nothing but its registration.
    registration_token: String,
}

/// `POST /api/v1/agents/register`, which `RegisterAgent` of gRPC leads to. An agent that is known as it
/// stands has beaten; any other is written.
pub(in crate::api) async fn register(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let spec = read(&Object::parse(&body)?)?;
    let agent_id = spec.agent_id.clone();
    let leaves = spec.metadata.get("state").and_then(serde_json::Value::as_str) == Some(LEAVING);
    let spec = node_spec(spec)?;
    if leaves {
        dismiss(&app, ticket, &caller, spec.node_id).await?;
    } else {
        take(&app, ticket, &caller, spec).await?;
    }
    let token = crate::model::RequestId::from_key(&format!("agent/{agent_id}"));
    Ok(reply::json(reply::encode(&Registered {
        success: true,
        message: format!("Agent {agent_id} registered successfully"),
        agent_id: &agent_id,
        registration_token: token.to_string(),
    })))
}

fn read(body: &Object<'_>) -> Result<AgentSpec, ApiError> {
    let text = |key: &str| -> Result<String, ApiError> {
        Ok(body.text(key)?.unwrap_or_default().into_owned())
    };
    let metadata = body.object("metadata")?;
    let metadata = if metadata.is_empty() { String::new() } else { body.json("metadata") };
    let metadata = serde_json::from_str(&metadata).unwrap_or_default();
    let most = body.count("max_concurrent_tasks")?.unwrap_or(0);
    Ok(AgentSpec {
        agent_id: text("agent_id")?,
        agent_type: text("agent_type")?,
        capabilities: capabilities(body)?,
        endpoint: text("endpoint")?,
        max_concurrent_tasks: u32::try_from(most).unwrap_or(u32::MAX),
        metadata,
    })
}

/// An agent that stops gets no more work, and keeps what it has; once it is silent it is taken out.
async fn dismiss(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    node_id: NodeId,
) -> Result<(), ApiError> {
    let status = NodeStatus::Maintenance;
    match app.write(ticket, caller, Command::SetNodeStatus { node_id, status }).await {
        Ok(Written { outcome: Outcome::NodeStatusSet { .. }, .. }) => Ok(()),
        Ok(_) => Err(key_reused(ticket.request_id)),
        // It is gone already.
        Err(error) if error.code() == "NODE_NOT_FOUND" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Registers an agent, or takes its heartbeat when nothing is new.
async fn take(app: &App, ticket: Ticket, caller: &Caller, spec: NodeSpec) -> Result<(), ApiError> {
    let node_id = spec.node_id.clone();
    let known = app
        .cluster()
        .view()
        .read(|state| state.node(&node_id).is_some_and(|agent| is_known(agent, &spec)));
    // What this member shows may be old: an agent that was taken out registers anew.
    if !known || !is_registered(app, &node_id).await? {
        let written = app.write(ticket, caller, Command::RegisterNode(spec)).await?;
        let Written { outcome: Outcome::NodeRegistered { .. }, .. } = written else {
            return Err(key_reused(ticket.request_id));
        };
    }
    let beat = Beat { status: Some(NodeStatus::Active), load: None };
    app.cluster().heartbeats().record(&node_id, beat);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> AgentSpec {
        AgentSpec {
            agent_id: "agent-x-1".to_owned(),
            agent_type: "x".to_owned(),
            endpoint: "10.0.0.1:50052".to_owned(),
            ..AgentSpec::default()
        }
    }

    #[test]
    fn contract_4_7_agents_have_a_name_space_of_their_own() {
        let node = node_spec(spec()).unwrap();
        assert_eq!(node.node_id.as_str(), "agent:agent-x-1");
        assert_eq!((node.host.as_str(), node.port, node.capacity), ("10.0.0.1", 50_052, 10));
        assert_eq!(node.agent_type.as_deref(), Some("x"));
    }

    #[test]
    fn contract_4_7_the_record_has_its_nine_keys_and_says_who_is_well() {
        let mut agent = crate::api::web4ai::node_view::tests::node();
        agent.node_id = NodeId::trusted("agent:agent-x-1");
        agent.agent_type = Some("x".to_owned());
        let shown = |agent: &Node| {
            let text = serde_json::to_string(&record(agent, 1_700_000_000_500)).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        let value = shown(&agent);
        let expected = serde_json::json!({
            "agent_id": "agent-x-1", "agent_type": "x", "endpoint": "10.0.0.7:5000",
            "capabilities": ["a"], "max_concurrent_tasks": 4, "current_tasks": 1, "healthy": true,
            "last_heartbeat": 1_700_000_000.5, "metadata": {"features": {}},
        });
        for (key, expected) in expected.as_object().unwrap() {
            assert_eq!(&value[key], expected, "{key}");
        }
        agent.failing = true;
        assert_eq!(shown(&agent)["healthy"], false, "a failed agent stayed healthy");
        (agent.failing, agent.status) = (false, NodeStatus::Offline);
        assert_eq!(shown(&agent)["healthy"], false);
    }

    #[test]
    fn what_cannot_be_an_agent_is_refused() {
        for (spec, error) in [
            (AgentSpec { agent_id: String::new(), ..spec() }, "agent_id is"),
            (AgentSpec { agent_type: "a\n".to_owned(), ..spec() }, "agent_type is"),
            (AgentSpec { endpoint: "nowhere".to_owned(), ..spec() }, "endpoint must be"),
            (AgentSpec { endpoint: ":50052".to_owned(), ..spec() }, "endpoint must be"),
            (AgentSpec { max_concurrent_tasks: u32::MAX, ..spec() }, "max_concurrent_tasks"),
        ] {
            let refused = format!("{:?}", node_spec(spec).unwrap_err());
            assert!(refused.contains(error), "{refused}");
        }
    }
}

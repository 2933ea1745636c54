//! Doors of single nodes (contract 2.3). Their list, heartbeats and agents have files of their own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde::ser::Serializer;

use super::node_view::{AgentRow, Freshness, NodeObject, agent_row, node_object, node_row};
use super::register;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::clock;
use crate::cluster::{Beat, Cluster, Consistency, Heard};
use crate::model::{Node, NodeId, NodeStatus, TimeMs};
use crate::state::{Command, Outcome, State as Tables};

/// What the liveness book knows, by node, as times of this member's clock.
#[derive(Debug, Default)]
pub(in crate::api) struct Book {
    heard: BTreeMap<NodeId, Heard>,
    now: TimeMs,
}

impl Book {
    pub(in crate::api) fn open(app: &App) -> Self {
        Self::read(app.cluster())
    }

    pub(in crate::api) fn read(cluster: &Cluster) -> Self {
        let heard = cluster.heartbeats().ages().into_iter().collect();
        Self { heard, now: clock::now_ms() }
    }

    pub(in crate::api) fn now(&self) -> TimeMs {
        self.now
    }

    /// A node that was never heard of since has at least registered.
    pub(in crate::api) fn of(&self, node: &Node) -> Freshness {
        match self.heard.get(&node.node_id) {
            Some(heard) => {
                let mut fresh = freshness(heard);
                // What was measured from here says more than what the node says, if anything.
                if let (Some(load), 1..) = (&mut fresh.load, node.load.latency_us) {
                    load.latency_us = node.load.latency_us;
                }
                fresh
            }
            None => Freshness { heard_at_ms: node.registered_at_ms, load: None },
        }
    }
}

fn freshness(heard: &Heard) -> Freshness {
    Freshness { heard_at_ms: heard.at_ms, load: heard.beat.load }
}

fn not_found() -> ApiError {
    ApiError::not_found("NODE_NOT_FOUND", "Node not found")
}

fn parse_id(node_id: &str) -> Result<NodeId, ApiError> {
    NodeId::parse(node_id).map_err(|_| not_found())
}

/// All nodes as a map from id to row.
pub(super) struct NodeMap<'a> {
    pub(super) state: &'a Tables,
    pub(super) book: &'a Book,
}

impl<'a> Serialize for NodeMap<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row =
            |node: &'a Node| (&node.node_id, node_row(node, self.book.of(node), self.book.now()));
        serializer.collect_map(self.state.nodes().map(row))
    }
}

pub(super) fn active_nodes(state: &Tables) -> usize {
    state.nodes().filter(|node| node.status == NodeStatus::Active).count()
}

#[derive(Serialize)]
struct OneNode<'a> {
    success: bool,
    node: NodeObject<'a>,
    agents: Vec<AgentRow<'a>>,
}

/// `GET /api/v1/nodes/{node_id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(node_id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let node_id = parse_id(&node_id)?;
    let mut stamp = app.admit(&params).await?;
    let now = clock::now_ms();
    let heard = app.cluster().heartbeats().heard(&node_id);
    let body = app.show(&mut stamp, |state| {
        let node = state.node(&node_id)?;
        let fresh = match &heard {
            Some(heard) => freshness(heard),
            None => Freshness { heard_at_ms: node.registered_at_ms, load: None },
        };
        let agents = node.agents.iter().map(|agent| agent_row(node, agent, fresh)).collect();
        let node = node_object(node, fresh, now);
        Some(reply::encode(&OneNode { success: true, node, agents }))
    });
    Ok(reply::read(&stamp, body.ok_or_else(not_found)?))
}

/// One node as JSON text, as this member sees it now; `None` when it is not known.
pub(in crate::api) fn node_text(app: &App, node_id: &str) -> Option<String> {
    let (book, node_id) = (Book::open(app), NodeId::parse(node_id).ok()?);
    app.cluster().view().read(|state| {
        let node = state.node(&node_id)?;
        let object = node_object(node, book.of(node), book.now());
        Some(serde_json::to_string(&object).expect("answers are plain data with string keys"))
    })
}

#[derive(Serialize)]
struct Registered<'a> {
    success: bool,
    message: String,
    node_id: &'a NodeId,
    registration_id: String,
    new: bool,
}

/// `POST /api/v1/nodes/{node_id}/register`.
pub(in crate::api) async fn register(
    State(app): State<App>,
    Path(node_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    const FAILED: &str = "Failed to register node";
    let object = Object::parse(&body)?;
    if object.is_empty() {
        return Err(ApiError::bad_request("INVALID_BODY", "No data provided"));
    }
    let node_id = NodeId::parse(&node_id).map_err(|error| {
        ApiError::bad_request("INVALID_FIELD", error.to_string()).with_family_text(FAILED)
    })?;
    let refused = |error| ApiError::from(error).with_family_text(FAILED);
    let defaults = app.cluster().view().read(|state| {
        let policy = state.policy();
        (policy.node_capacity, policy.load_weights)
    });
    let spec = register::parse(node_id.clone(), &object, defaults).map_err(refused)?;
    let status = register::status(&object).map_err(refused)?;
    let load = spec.load;
    let written = app.write(ticket, &caller, Command::RegisterNode(spec)).await;
    let Written { index, outcome } = written.map_err(|error| match error.code() {
        "TOO_MANY_NODES" | "NODE_ID_RESERVED" => error.with_family_text(FAILED),
        _ => error,
    })?;
    let Outcome::NodeRegistered { new } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    // A registration is a sign of life too.
    let beat = Beat { status: Some(status), load: Some(load) };
    app.cluster().heartbeats().record(&node_id, beat);
    let registered = Registered {
        success: true,
        message: format!("Node {node_id} registered successfully"),
        node_id: &node_id,
        registration_id: ticket.request_id.to_string(),
        new,
    };
    Ok(reply::written(ticket, index, &registered))
}

/// Whether the node is known here, or at least to the leader: a node may register through one
/// member and beat through another that is a moment behind.
pub(in crate::api) async fn is_registered(app: &App, node_id: &NodeId) -> Result<bool, ApiError> {
    let known = || app.cluster().view().read(|state| state.node(node_id).is_some());
    if known() {
        return Ok(true);
    }
    app.barrier(Consistency::Linearizable).await?;
    Ok(known())
}

#[derive(Serialize)]
struct StatusSet {
    success: bool,
    message: String,
    old_status: &'static str,
    new_status: &'static str,
}

/// `PUT /api/v1/nodes/{node_id}/status`, an operator's word.
pub(in crate::api) async fn set_status(
    State(app): State<App>,
    Path(node_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let word = object.text("status")?.filter(|word| !word.is_empty());
    let Some(word) = word else {
        return Err(ApiError::bad_request("INVALID_FIELD", "Status required"));
    };
    let node_id = parse_id(&node_id)?;
    let Some(status) = NodeStatus::parse(&word) else {
        // Upstream looks for the node before it looks at the word (contract 2.3).
        if !is_registered(&app, &node_id).await? {
            return Err(not_found());
        }
        return Err(ApiError::bad_request("INVALID_FIELD", format!("Invalid status: {word}")));
    };
    let command = Command::SetNodeStatus { node_id, status };
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::NodeStatusSet { old, new } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let set = StatusSet {
        success: true,
        message: format!("Node status updated to {}", new.as_str()),
        old_status: old.as_str(),
        new_status: new.as_str(),
    };
    Ok(reply::written(ticket, index, &set))
}

#[derive(Serialize)]
struct Removed {
    success: bool,
    message: String,
}

/// `DELETE /api/v1/nodes/{node_id}`.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(node_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let node_id = parse_id(&node_id)?;
    let command = Command::RemoveNode { node_id: node_id.clone() };
    let Written { index, .. } = app.write(ticket, &caller, command).await?;
    app.cluster().heartbeats().forget(&node_id);
    let message = format!("Node {node_id} unregistered successfully");
    Ok(reply::written(ticket, index, &Removed { success: true, message }))
}

//! Single agents: the workers that nodes declare (contract 2.3, C22), and the map of all of them.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::node_view::agent_row;
use super::nodes::Book;
use crate::api::App;
use crate::api::agents::registry::record;
use crate::api::error::ApiError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::leader::agent_id_of;
use crate::model::Node;
use crate::state::State as Tables;

/// All agents of all nodes, and those of family A, as a map from id to row; `source` tells them
/// apart. Ids are unique within their node only: a second agent of one id is listed as
/// `node_id/agent_id`.
pub(super) struct AgentMap<'a> {
    pub(super) state: &'a Tables,
    pub(super) book: &'a Book,
}

impl Serialize for AgentMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen = BTreeSet::new();
        let agents = self.state.nodes().flat_map(|node| {
            let fresh = self.book.of(node);
            node.agents.iter().map(move |agent| (node, agent, fresh))
        });
        let mut map = serializer.serialize_map(None)?;
        for (node, agent, fresh) in agents {
            if seen.insert(agent.agent_id.as_str()) {
                map.serialize_entry(&agent.agent_id, &agent_row(node, agent, fresh))?;
            } else {
                let key = format!("{}/{}", node.node_id, agent.agent_id);
                map.serialize_entry(&key, &agent_row(node, agent, fresh))?;
            }
        }
        for agent in self.state.agents() {
            let id = agent_id_of(agent.node_id.as_str());
            // Theirs is a name space of its own, so a name may stand in both.
            let key = if seen.insert(id) { id } else { agent.node_id.as_str() };
            map.serialize_entry(key, &record(agent, self.book.of(agent).heard_at_ms))?;
        }
        map.end()
    }
}

pub(super) fn total_agents(state: &Tables) -> usize {
    state.nodes().map(|node| node.agents.len()).sum::<usize>() + state.agents_len()
}

#[derive(Serialize)]
struct OneAgent<A: Serialize> {
    success: bool,
    agent: A,
}

/// `GET /api/v1/agents/{agent_id}`; `node_id/agent_id` names one of several of that id.
pub(in crate::api) async fn agent(
    State(app): State<App>,
    Path(agent_id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let (on_node, name) = match agent_id.rsplit_once('/') {
        Some((node_id, name)) => (Some(node_id), name),
        None => (None, agent_id.as_str()),
    };
    let body = app.show(&mut stamp, |state| {
        let of_node = |node: &&Node| on_node.is_none_or(|wanted| node.node_id.as_str() == wanted);
        let found = state.nodes().filter(of_node).find_map(|node| {
            let agent = node.agents.iter().find(|agent| agent.agent_id == name)?;
            Some(agent_row(node, agent, book.of(node)))
        });
        if let Some(agent) = found {
            return Some(reply::encode(&OneAgent { success: true, agent }));
        }
        let wanted = |agent: &&Node| {
            [agent.node_id.as_str(), agent_id_of(agent.node_id.as_str())].contains(&name)
        };
        let agent = state.agents().filter(|_| on_node.is_none()).find(wanted)?;
        let agent = record(agent, book.of(agent).heard_at_ms);
        Some(reply::encode(&OneAgent { success: true, agent }))
    });
    let missing = || ApiError::not_found("AGENT_NOT_FOUND", "Agent not found");
    Ok(reply::read(&stamp, body.ok_or_else(missing)?))
}

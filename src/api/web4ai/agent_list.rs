//! `GET /api/v1/agents`: all agents as family W lists them, or a page of those that match.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::agents::{AgentMap, total_agents};
use super::node_view::{Freshness, agent_row};
use super::nodes::Book;
use crate::api::App;
use crate::api::agents::registry::record;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::params::Params;
use crate::api::reply;
use crate::leader::agent_id_of;
use crate::model::{Agent, Node};
use crate::state::State as Tables;

const AGENTS: ListKind = ListKind {
    name: "agents",
    sorts: &["agent_id"],
    descending: false,
    filters: &["status", "capability", "node_id", "agent_type"],
    own: &[],
};

#[derive(Serialize)]
struct AgentList<'a> {
    success: bool,
    agents: AgentMap<'a>,
    total_agents: usize,
}

#[derive(Serialize)]
struct AgentPage<'a> {
    success: bool,
    agents: PageMap<'a>,
    total_agents: usize,
    /// The keys of `agents` in the order that was asked for: JSON objects have none.
    order: Vec<String>,
    count: usize,
    /// All agents that match.
    total: usize,
    next_cursor: Option<String>,
}

/// An agent of a page.
struct Listed<'a> {
    /// The node it is on; of family A, the agent itself.
    node: &'a Node,
    /// What its node says of it; `None` for an agent of family A.
    agent: Option<&'a Agent>,
    /// Another one before it has the same id.
    is_second: bool,
}

impl<'a> Listed<'a> {
    fn agent_id(&self) -> &'a str {
        match self.agent {
            Some(agent) => &agent.agent_id,
            None => agent_id_of(self.node.node_id.as_str()),
        }
    }

    fn agent_type(&self) -> &'a str {
        match self.agent {
            Some(agent) => &agent.agent_type,
            None => self.node.agent_type.as_deref().unwrap_or_default(),
        }
    }

    fn status(&self) -> &'a str {
        self.agent.map_or(self.node.status.as_str(), |agent| &agent.status)
    }

    fn capabilities(&self) -> &'a [String] {
        self.agent.map_or(&self.node.capabilities, |agent| &agent.capabilities)
    }

    /// Its place in the order.
    fn place(&self) -> (&'a str, &'a str) {
        (self.agent_id(), self.node.node_id.as_str())
    }

    /// As in the whole list: see [`AgentMap`].
    fn key(&self) -> String {
        let (agent_id, node_id) = self.place();
        match (self.is_second, self.agent) {
            (false, _) => agent_id.to_owned(),
            (true, Some(_)) => format!("{node_id}/{agent_id}"),
            (true, None) => node_id.to_owned(),
        }
    }
}

struct PageMap<'a> {
    rows: Vec<(Listed<'a>, Freshness)>,
}

impl Serialize for PageMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for (row, fresh) in &self.rows {
            match row.agent {
                Some(agent) => {
                    map.serialize_entry(&row.key(), &agent_row(row.node, agent, *fresh))?;
                }
                None => map.serialize_entry(&row.key(), &record(row.node, fresh.heard_at_ms))?,
            }
        }
        map.end()
    }
}

/// Every agent by its id, then that of its node.
fn in_order(state: &Tables) -> Vec<Listed<'_>> {
    let agents = state.nodes().flat_map(|node| {
        let of_node = node.agents.iter().map(Some);
        of_node.map(move |agent| Listed { node, agent, is_second: false })
    });
    let mut all: Vec<_> = agents.collect();
    // Stable: what one node says twice stays in its order.
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    // Whoever comes from the nodes has a name before agents of family A, as in the whole list.
    all.extend(state.agents().map(|node| Listed { node, agent: None, is_second: false }));
    let mut seen = BTreeSet::new();
    for row in &mut all {
        row.is_second = !seen.insert(row.agent_id());
    }
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    all
}

/// Which agents.
struct Filter<'a> {
    query: &'a ListQuery,
    status: Option<&'a str>,
    capability: Option<&'a str>,
    node_id: Option<&'a str>,
    agent_type: Option<&'a str>,
    after: Option<(String, String)>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a ListQuery, params: &'a Params) -> Result<Self, ApiError> {
        let said = |key: &str| params.get(key).map(str::trim).filter(|text| !text.is_empty());
        let after = query.place()?.map(|place| {
            serde_json::from_str::<(String, String)>(&place).map_err(|_| invalid_cursor())
        });
        Ok(Self {
            query,
            status: said("status"),
            capability: said("capability"),
            node_id: said("node_id"),
            agent_type: said("agent_type"),
            after: after.transpose()?,
        })
    }

    fn matches(&self, row: &Listed<'_>) -> bool {
        let has = |wanted: &str| row.capabilities().iter().any(|name| name == wanted);
        self.status.is_none_or(|wanted| row.status().eq_ignore_ascii_case(wanted))
            && self.capability.is_none_or(has)
            && self.node_id.is_none_or(|wanted| row.node.node_id.as_str() == wanted)
            && self.agent_type.is_none_or(|wanted| row.agent_type() == wanted)
            && self.query.window.holds(row.node.registered_at_ms)
    }

    fn is_later(&self, row: &Listed<'_>) -> bool {
        let Some((agent_id, node_id)) = &self.after else { return true };
        let seen = (agent_id.as_str(), node_id.as_str());
        if self.query.descending { row.place() < seen } else { row.place() > seen }
    }

    /// The page, the number of all that match, and whether more follow.
    fn page<'s>(&self, state: &'s Tables) -> (Vec<Listed<'s>>, usize, bool) {
        let mut all = in_order(state);
        all.retain(|row| self.matches(row));
        let total = all.len();
        if self.query.descending {
            all.reverse();
        }
        all.retain(|row| self.is_later(row));
        let more = all.len() > self.query.limit;
        all.truncate(self.query.limit);
        (all, total, more)
    }
}

/// `GET /api/v1/agents`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    if AGENTS.asked(&params) {
        return page(&app, &params).await;
    }
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let body = app.show(&mut stamp, |state| {
        let agents = AgentMap { state, book: &book };
        reply::encode(&AgentList { success: true, agents, total_agents: total_agents(state) })
    });
    Ok(reply::read(&stamp, body))
}

async fn page(app: &App, params: &Params) -> Result<Response, ApiError> {
    let query = ListQuery::parse(&AGENTS, params)?;
    let mut stamp = app.admit(params).await?;
    let query = query.in_cluster(app.cluster().cluster_id());
    let filter = Filter::new(&query, params)?;
    let book = Book::open(app);
    let body = app.show(&mut stamp, |state| {
        let (rows, total, more) = filter.page(state);
        let place = |row: &Listed<'_>| serde_json::json!(row.place()).to_string();
        let next_cursor = rows.last().filter(|_| more).map(|row| query.cursor(&place(row)));
        reply::encode(&AgentPage {
            success: true,
            total_agents: total_agents(state),
            order: rows.iter().map(Listed::key).collect(),
            count: rows.len(),
            total,
            next_cursor,
            agents: PageMap {
                rows: rows
                    .into_iter()
                    .map(|row| {
                        let fresh = book.of(row.node);
                        (row, fresh)
                    })
                    .collect(),
            },
        })
    });
    Ok(reply::read(&stamp, body))
}

//! `GET /api/v1/nodes`: all nodes as family W lists them, or a page of those that match.

use std::cmp::Ordering;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde::ser::Serializer;

use super::node_view::{Freshness, node_row};
use super::nodes::{Book, NodeMap, active_nodes};
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::params::Params;
use crate::api::reply;
use crate::model::{Node, NodeStatus, TimeMs};
use crate::state::State as Tables;

pub(super) const NODES: ListKind = ListKind {
    name: "nodes",
    sorts: &["node_id", "created_at", "last_heartbeat", "load_score", "status", "tasks_completed"],
    descending: false,
    filters: &["status", "capability", "node_id", "node_type"],
    own: &[],
};

#[derive(Serialize)]
struct NodeList<'a> {
    success: bool,
    nodes: NodeMap<'a>,
    total_nodes: usize,
    active_nodes: usize,
}

#[derive(Serialize)]
struct NodePage<'a> {
    success: bool,
    nodes: PageMap<'a>,
    total_nodes: usize,
    active_nodes: usize,
    /// The keys of `nodes` in the order that was asked for: JSON objects have none.
    order: Vec<&'a str>,
    count: usize,
    /// All nodes that match.
    total: usize,
    next_cursor: Option<String>,
}

/// A node of a page, and the value it is sorted by.
pub(super) struct Listed<'a> {
    key: u64,
    pub(super) node: &'a Node,
    fresh: Freshness,
}

/// One page of nodes.
pub(super) struct Cut<'a> {
    pub(super) rows: Vec<Listed<'a>>,
    /// All nodes that match.
    pub(super) total: usize,
    pub(super) next_cursor: Option<String>,
}

struct PageMap<'a> {
    rows: Vec<Listed<'a>>,
    now: TimeMs,
}

impl Serialize for PageMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.rows
                .iter()
                .map(|row| (&row.node.node_id, node_row(row.node, row.fresh, self.now))),
        )
    }
}

/// Which nodes.
struct Filter<'a> {
    query: &'a ListQuery,
    status: Option<NodeStatus>,
    capability: Option<&'a str>,
    node_id: Option<&'a str>,
    node_type: Option<&'a str>,
    after: Option<(u64, String)>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a ListQuery, params: &'a Params) -> Result<Self, ApiError> {
        let said = |key: &str| params.get(key).map(str::trim).filter(|text| !text.is_empty());
        let status = said("status").map(|word| {
            let unknown = || {
                let text = format!("status must be a status of nodes, not {word}");
                ApiError::bad_request("INVALID_QUERY", text)
            };
            NodeStatus::parse(word).ok_or_else(unknown)
        });
        let place = query.place()?;
        let after = place.map(|place| {
            let parsed = place.split_once('/').and_then(|(key, id)| Some((key.parse().ok()?, id)));
            parsed.map(|(key, id): (u64, &str)| (key, id.to_owned())).ok_or_else(invalid_cursor)
        });
        Ok(Self {
            query,
            status: status.transpose()?,
            capability: said("capability"),
            node_id: said("node_id"),
            node_type: said("node_type"),
            after: after.transpose()?,
        })
    }

    fn matches(&self, node: &Node) -> bool {
        let has = |wanted: &str| node.capabilities.iter().any(|name| name == wanted);
        self.status.is_none_or(|wanted| node.status == wanted)
            && self.capability.is_none_or(has)
            && self.node_id.is_none_or(|wanted| node.node_id.as_str() == wanted)
            && self.node_type.is_none_or(|wanted| node.node_type == wanted)
            && self.query.window.holds(node.registered_at_ms)
    }

    fn key(&self, node: &Node, fresh: Freshness) -> u64 {
        match self.query.sort {
            "created_at" => node.registered_at_ms,
            "last_heartbeat" => fresh.heard_at_ms,
            "load_score" => u64::from(fresh.load.unwrap_or(node.load).score_milli),
            "status" => node.status as u64,
            "tasks_completed" => node.tasks_completed,
            _ => 0,
        }
    }

    fn in_order(&self, one: (u64, &str), other: (u64, &str)) -> Ordering {
        let order = one.cmp(&other);
        if self.query.descending { order.reverse() } else { order }
    }

    /// The page, the number of all that match, and whether more follow.
    fn page<'s>(&self, state: &'s Tables, book: &Book) -> (Vec<Listed<'s>>, usize, bool) {
        let mut total = 0;
        let mut rows: Vec<Listed<'s>> = Vec::new();
        for node in state.nodes().filter(|node| self.matches(node)) {
            total += 1;
            let fresh = book.of(node);
            let key = self.key(node, fresh);
            let is_later = |(key_seen, id_seen): &(u64, String)| {
                let seen = (*key_seen, id_seen.as_str());
                self.in_order((key, node.node_id.as_str()), seen) == Ordering::Greater
            };
            if self.after.as_ref().is_none_or(is_later) {
                rows.push(Listed { key, node, fresh });
            }
        }
        let place = |row: &Listed<'s>| (row.key, row.node.node_id.as_str());
        let limit = self.query.limit;
        let more = rows.len() > limit;
        if more {
            rows.select_nth_unstable_by(limit, |a, b| self.in_order(place(a), place(b)));
            rows.truncate(limit);
        }
        rows.sort_unstable_by(|a, b| self.in_order(place(a), place(b)));
        (rows, total, more)
    }
}

/// `GET /api/v1/nodes`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    if NODES.asked(&params) {
        return page(&app, &params).await;
    }
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let body = app.show(&mut stamp, |state| {
        reply::encode(&NodeList {
            success: true,
            nodes: NodeMap { state, book: &book },
            total_nodes: state.nodes_len(),
            active_nodes: active_nodes(state),
        })
    });
    Ok(reply::read(&stamp, body))
}

async fn page(app: &App, params: &Params) -> Result<Response, ApiError> {
    let written = |state: &Tables, book: &Book, cut: Cut<'_>| {
        let Cut { rows, total, next_cursor } = cut;
        reply::encode(&NodePage {
            success: true,
            total_nodes: state.nodes_len(),
            active_nodes: active_nodes(state),
            order: rows.iter().map(|row| row.node.node_id.as_str()).collect(),
            count: rows.len(),
            total,
            next_cursor,
            nodes: PageMap { rows, now: book.now() },
        })
    };
    page_of(&NODES, app, params, written).await
}

/// A page of a list of nodes, as `written` has it.
pub(super) async fn page_of(
    kind: &ListKind,
    app: &App,
    params: &Params,
    written: impl FnOnce(&Tables, &Book, Cut<'_>) -> Vec<u8>,
) -> Result<Response, ApiError> {
    let query = ListQuery::parse(kind, params)?;
    let mut stamp = app.admit(params).await?;
    let query = query.in_cluster(app.cluster().cluster_id());
    let filter = Filter::new(&query, params)?;
    let book = Book::open(app);
    let body = app.show(&mut stamp, |state| {
        let (rows, total, more) = filter.page(state, &book);
        let cursor = |row: &Listed<'_>| query.cursor(&format!("{}/{}", row.key, row.node.node_id));
        let next_cursor = rows.last().filter(|_| more).map(cursor);
        written(state, &book, Cut { rows, total, next_cursor })
    });
    Ok(reply::read(&stamp, body))
}

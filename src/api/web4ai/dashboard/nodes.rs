//! `GET /api/v1/dashboard/nodes/detailed`: every node with all its fields, or a page of those that
//! match.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::list_query::ListKind;
use crate::api::listed::PageView;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::web4ai::node_list::{Cut, NODES, page_of};
use crate::api::web4ai::node_view::{NodeObject, node_object};
use crate::api::web4ai::nodes::Book;
use crate::model::{Node, TimeMs};
use crate::state::State as Tables;

const HOUR_MS: f64 = 3_600_000.0;
/// Filters and orders are those of `GET /api/v1/nodes`; cursors are its own.
const DETAILED: ListKind = ListKind { name: "nodes detailed", ..NODES };

#[derive(Serialize)]
struct Reply<'a> {
    success: bool,
    nodes: Vec<DetailedNode<'a>>,
    total_nodes: usize,
}

#[derive(Serialize)]
struct Page<'a> {
    success: bool,
    nodes: Vec<DetailedNode<'a>>,
    total_nodes: usize,
    /// All nodes that match.
    total: usize,
    #[serde(flatten)]
    page: PageView,
}

/// A node as it stands on its own, and what a page would otherwise compute.
#[derive(Serialize)]
pub(super) struct DetailedNode<'a> {
    #[serde(flatten)]
    node: NodeObject<'a>,
    uptime_hours: f64,
}

/// `node` at `now`.
pub(super) fn detailed<'a>(node: &'a Node, book: &Book, now: TimeMs) -> DetailedNode<'a> {
    DetailedNode {
        node: node_object(node, book.of(node), now),
        uptime_hours: now.saturating_sub(node.registered_at_ms) as f64 / HOUR_MS,
    }
}

/// `GET /api/v1/dashboard/nodes/detailed`.
pub(in crate::api) async fn nodes(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    if DETAILED.asked(&params) {
        return page_of(&DETAILED, &app, &params, page).await;
    }
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let body = app.show(&mut stamp, |state| {
        let nodes: Vec<_> = state.nodes().map(|node| detailed(node, &book, book.now())).collect();
        let total_nodes = nodes.len();
        reply::encode(&Reply { success: true, nodes, total_nodes })
    });
    Ok(reply::read(&stamp, body))
}

fn page(state: &Tables, book: &Book, cut: Cut<'_>) -> Vec<u8> {
    let Cut { rows, total, next_cursor } = cut;
    let nodes: Vec<_> = rows.iter().map(|row| detailed(row.node, book, book.now())).collect();
    let page = PageView { count: nodes.len(), next_cursor };
    let total_nodes = state.nodes_len();
    reply::encode(&Page { success: true, nodes, total_nodes, total, page })
}

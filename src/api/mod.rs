//! The doors: requests in, [`Command`](crate::state::Command)s and views out.
//!
//! Every listener serves the same router ([`router()`]). A handler reads its body into domain types,
//! proposes at most one command or admits one read, and writes the answer in its family's shape;
//! it decides nothing. From a route to its apply function it is three jumps: handler, command,
//! noun file. Wire shapes stay in this room and are converted by hand.
//!
//! Layout: `web4ai` is the family of nodes and tasks, `nanoos` that of campaigns, `bots` that of bots,
//! `agents` what family A adds; `auth` says who may come in; what no family owns (cluster, events,
//! requests, probes, metrics, configuration) stands beside it; the rest is what all of them share.

mod admin;
mod agents;
mod app;
mod around;
mod audit;
mod auth;
mod backup_doors;
mod body;
mod bots;
mod cluster_doors;
mod config_doc;
mod drills;
mod error;
mod events;
mod fragment;
mod headers;
mod health;
mod host;
mod list_query;
mod listed;
mod nanoos;
mod object;
mod pages;
mod params;
mod probes;
mod prometheus;
mod queue_depths;
mod reply;
mod requests;
mod router;
mod settings;
mod stats;
mod task_stats;
mod ticket;
mod web4ai;
mod websocket;
mod wire_time;

pub mod grpc;

#[cfg(test)]
mod tests;

pub use admin::{Admin, ReignSource};
pub use app::{ApiOptions, App, MetricsSource};
pub use auth::{Need, Pass, Peer};
pub use error::ApiError;
pub use pages::Front;
pub use router::{router, router_with, websocket_router};
pub use web4ai::task_page::CallbackRenderer;

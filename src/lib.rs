//! Quorate: a highly available control plane for fleets of AI nodes, agents and bots.

pub mod agent;
pub mod api;
pub mod bench;
pub mod canary;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod drill;
pub mod leader;
pub mod model;
pub mod outward;
pub mod security;
pub mod server;
pub mod state;
pub mod storage;
pub mod telemetry;
pub mod worker;

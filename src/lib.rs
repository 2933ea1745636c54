//! Quorate: a highly available control plane for fleets of AI nodes, agents and bots.

pub mod bench;
pub mod clock;
pub mod model;
pub mod state;
pub mod storage;

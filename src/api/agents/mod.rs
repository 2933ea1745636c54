//! Family A: tasks done in steps by agents (contract 4). Its tasks share their doors with family W's
//! (contract C1, C2); what is its own stands here.

pub(super) mod output;
pub(super) mod pipelines;
pub(super) mod registry;
pub(super) mod steps;

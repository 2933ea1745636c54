//! Family W: nodes, agents, tasks, status, metrics (contract section 2), with family A's fields
//! on the paths the two share (contract section 7).
//!
//! Reading bodies (`submit`, `payloads`, `callback`, `register`, `heartbeat`, `report`, `load`) and writing objects
//! (`task_view`, `node_view`, `words`) are pure and tested as tables by paragraph of the contract;
//! the doors (`tasks`, `lists`, `nodes`, `beats`, `agents`, `status`, `performance`, `node_list`,
//! `agent_list`, `task_walk`, `dashboard`) only tie them to the cluster.

pub(super) mod agent_list;
pub(super) mod agents;
pub(super) mod beats;
mod callback;
pub(super) mod control;
pub(super) mod dashboard;
pub(super) mod dead_letters;
pub(super) mod deliveries;
pub(super) mod drain;
pub(super) mod figures;
mod heartbeat;
mod limits;
pub(super) mod lists;
mod load;
pub(super) mod node_list;
pub(super) mod node_view;
pub(super) mod nodes;
pub(super) mod notices;
mod payloads;
pub(super) mod performance;
pub(super) mod register;
mod report;
pub(super) mod status;
pub(super) mod submit;
pub(super) mod task_page;
pub(super) mod task_view;
mod task_walk;
pub(super) mod tasks;
pub(super) mod why;
pub(super) mod words;

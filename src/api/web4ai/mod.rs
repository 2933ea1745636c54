//! Family W: nodes, agents, tasks, status, metrics (contract section 2), with family A's fields
//! on the paths the two share (contract section 7).

mod heartbeat;
mod load;
mod node_view;
mod register;
mod report;
mod submit;
mod task_view;
mod words;

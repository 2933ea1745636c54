//! What family W's dashboard asks for (contract 2.3, dashboard endpoints), with figures that are
//! real: where something is not known, it says null.

pub(in crate::api) mod alerts;
pub(in crate::api) mod config;
pub(in crate::api) mod export;
pub(in crate::api) mod history;
pub(in crate::api) mod nodes;
pub(in crate::api) mod queue;
pub(in crate::api) mod samples;
pub(in crate::api) mod system;
mod xml;

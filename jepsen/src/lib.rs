//! Black-box fault tests of quorate, in the manner of Jepsen: a cluster of real processes is driven
//! through its public interfaces while faults are injected; what the clients saw is recorded and
//! checked afterwards. The crate under test is not a dependency.
//!
//! The judge's half: [`history`] (what happened), [`client`] (one call and how it ended),
//! [`workload`] (what clients do, and what must hold of it), [`checker`] (the decision procedures)
//! and [`report`] (what people look at).

#![forbid(unsafe_code)]

pub mod checker;
pub mod client;
pub mod history;
mod proto;
pub mod report;
pub mod workload;

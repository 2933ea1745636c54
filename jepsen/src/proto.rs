//! What `proto/orchestrator.proto` compiles to: the public interface of agents.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "generated; the proto file has the words"
)]

tonic::include_proto!("orchestrator");

//! What `proto/orchestrator.proto` compiles to (contract 4.9).

#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "generated; the proto file has the words"
)]

tonic::include_proto!("orchestrator");

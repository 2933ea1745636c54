//! Family A's agents: programs that do one kind of step, and how they are called (contract 4).
//!
//! [`AgentTask`] goes in, [`AgentDone`] or [`AgentFailure`] comes out; over gRPC by [`AgentCaller`],
//! in this process by [`Builtins`]. An [`Agent`] is the program: it serves one type, registers with
//! any member, and again every ten seconds, which is its heartbeat.
//!
//! Invariants: at most `max_concurrent_tasks` steps run, and what is beyond is refused before it
//! begins; a step whose call is dropped is stopped; nothing runs longer than its time.

mod builtin;
mod caller;
mod desk;
mod input;
mod join;
mod run;
mod runner;
mod task;
mod wire;

pub mod proto;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;

pub use builtin::{Builtins, concurrency, knows, output_type, types};
pub use caller::{AgentCaller, GrpcCaller};
pub use input::{AgentInput, INPUTS_MAX, InputData, InputKind};
pub use run::{Agent, Error, Options};
pub use runner::{Engine, Outside};
pub use task::{
    AgentDone, AgentFailure, AgentTask, FailureCode, OUTPUT_BYTES_MAX, STEP_TIMEOUT, scalar,
};
pub use wire::{failed, inputs, output, read_output, read_response, response, scalars};

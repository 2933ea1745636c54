//! Black-box fault testing of a Quorate cluster: real processes, real disks, real partitions.
//!
//! Exit codes: 0 valid, 1 invalid, 2 unknown, 3 the harness itself failed.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the command line, about real time and the real environment"
)]

mod args;
mod canary;
mod ci;
mod judge;
mod kills;
mod nemesis;
mod program;
mod recovery;
mod run;
mod scenario;
mod selftest;
mod world;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;

fn main() -> ExitCode {
    let ended = args::start(Cli::parse());
    ended.unwrap_or_else(|error| {
        eprintln!("the harness failed: {error:#}");
        ExitCode::from(3)
    })
}

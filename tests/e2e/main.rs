//! Quorate as its users meet it: real processes of the real program, real disks, real signals, and
//! nothing but its public interfaces. Each test brings its own cluster and leaves no process behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]
#![allow(clippy::print_stdout, reason = "figures, what was skipped and the logs of members")]

mod fleet;
mod history;
mod house;
mod http;
#[path = "../shared/mailbox.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it")]
mod mailbox;
mod ports;
mod process;
mod tools;

mod agents;
mod balancer;
mod boards;
mod bot_blows;
mod bot_failover;
mod bot_line;
mod bot_operations;
mod bots;
mod campaign_line;
mod campaigns;
mod command_line;
mod configuration;
mod deadlines;
mod deliveries;
mod dev;
mod disks;
mod drills;
mod failover;
mod health;
mod mails;
mod membership;
mod old_clients;
mod pipelines;
mod probes;
mod recovery;
mod security;
mod serving;
mod tuning;
mod work;

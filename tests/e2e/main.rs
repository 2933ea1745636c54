//! Quorate as its users meet it: real processes of the real program, real disks, real signals, and
//! nothing but its public interfaces. Each test brings its own cluster and leaves no process behind.

mod fleet;
mod history;
mod house;
mod http;
mod ports;
mod process;

mod configuration;
mod failover;
mod membership;
mod old_clients;
mod serving;

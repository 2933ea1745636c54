//! Members of a real cluster in one process: real TCP, real data directories.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod founding;
mod house;
mod lagging;
mod membership;
mod pieces;

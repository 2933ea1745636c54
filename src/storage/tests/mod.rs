//! The whole of storage under openraft's suite, crashes and damage.

mod kit;
mod log;
mod snapshots;
mod suite;

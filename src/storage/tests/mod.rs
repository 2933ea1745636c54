//! The whole of storage under openraft's suite, crashes and damage.

mod backups;
mod kit;
mod log;
mod offline;
mod power_cut;
mod recovery;
mod snapshots;
mod suite;

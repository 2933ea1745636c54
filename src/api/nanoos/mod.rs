//! Family N: orchestrators and campaigns (contract section 3), under its three prefixes.

pub(super) mod agent;
pub(super) mod agent_summary;
pub(super) mod agent_view;
mod answers;
pub(super) mod campaign_parse;
pub(super) mod campaign_view;
pub(super) mod campaigns;
pub(super) mod config;
pub(super) mod instruments;
pub(super) mod job_parse;
pub(super) mod job_view;
pub(super) mod jobs;
mod merge;
pub(super) mod orchestrators;
pub(super) mod paging;
pub(super) mod runs;
pub(super) mod shape;
pub(super) mod slots;
pub(super) mod structures;

/// The paths of one door (contract 3.1).
macro_rules! under_prefixes {
    ($path:literal) => {
        [$path, concat!("/api", $path), concat!("/api/v1", $path)]
    };
}

pub(super) use under_prefixes;

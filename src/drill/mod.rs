//! Drills: a fault caused on purpose on a cluster that serves, and what its clients notice of it.
//!
//! A drill is planned from what members say ([`plan()`]), refused when the cluster could not survive
//! it, and then conducted ([`conduct`]): probes write, read through every member and take
//! dispatches before, during and after the fault; members tell when they elected, passed the
//! barrier and opened the epoch; what is missing or was done twice is looked for; a verdict says
//! whether the limits were kept. A run whose fault did not take effect, or whose probes saw too
//! little, is inconclusive and never a pass.
//!
//! Invariants: nothing is broken before the cluster has recorded that a drill is under way;
//! whatever is broken is healed on every way out of [`conduct`]; faults are leases that members
//! end by themselves when they are not renewed, so that even a drill that is killed heals.

mod act;
mod admin;
mod html;
mod node;
mod phases;
mod plan;
mod probes;
mod report;
mod run;
mod samples;
mod verdict;
mod view;

use std::net::SocketAddr;
use std::time::Duration;

pub use act::Hands;
pub use admin::{Admin, Seen};
pub use html::page;
pub use plan::{Facts, Margin, Method, Plan, Refusal, plan};
pub use report::text;
pub use run::{Error, conduct};
pub use samples::longest_gap;
pub use verdict::{Limits, Verdict};
pub use view::{Account, ClusterView, MemberView};

use crate::model::DrillKind;

/// Which way links are cut, as seen from the member that is cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// Both ways.
    #[default]
    Both,
    /// What is sent to it does not arrive.
    In,
    /// What it sends does not arrive.
    Out,
}

/// Where the probe node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeNode {
    /// Where it binds; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` at which the leader reaches it; where it listens, when nothing is said.
    pub advertise: Option<String>,
}

/// What is to be rehearsed, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// What.
    pub kind: DrillKind,
    /// On whom; the leader, or everybody, when empty.
    pub members: Vec<u64>,
    /// Who shall lead afterwards.
    pub to: Option<u64>,
    /// Which way links are cut.
    pub way: Way,
    /// How much longer a flush takes.
    pub delay: Duration,
    /// All members at once.
    pub at_once: bool,
    /// Also when members are missing, learning or behind, as long as a quorum stays.
    pub degraded: bool,
    /// How long the cluster is probed before the fault.
    pub before: Duration,
    /// How long the fault lasts.
    pub hold: Duration,
    /// How long the cluster is probed once it is healed.
    pub after: Duration,
    /// Writes per second; as many reads through each member.
    pub rate: u32,
    /// Where dispatches are taken; without one, there are none.
    pub node: Option<ProbeNode>,
    /// What must be kept.
    pub limits: Limits,
    /// Who runs it, for the record.
    pub started_by: String,
}

impl Options {
    /// The usual figures.
    #[must_use]
    pub fn new(kind: DrillKind) -> Self {
        Self {
            kind,
            members: Vec::new(),
            to: None,
            way: Way::Both,
            delay: Duration::from_millis(100),
            at_once: false,
            degraded: false,
            before: Duration::from_secs(3),
            hold: Duration::from_secs(5),
            after: Duration::from_secs(3),
            rate: 20,
            node: Some(ProbeNode {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                advertise: None,
            }),
            limits: Limits::default(),
            started_by: String::new(),
        }
    }
}

//! What members say of the cluster and of themselves, as a drill reads it.

use serde::{Deserialize, Serialize};

/// The answer of `GET /api/v1/cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterView {
    /// Who answered.
    pub member_id: u64,
    /// Who leads.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Everybody.
    pub members: Vec<MemberView>,
    /// Voters needed for a decision.
    pub quorum: u64,
    /// Voters that may fail now.
    pub failure_tolerance: u64,
    /// The membership is being changed.
    pub changing: bool,
}

/// One member of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MemberView {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `voter` or `learner`.
    pub role: String,
    /// `leader`, `follower`, `learner`, `diverged`, `stopped` or `unreachable`.
    pub state: String,
    /// `host:port` of its REST API.
    pub http: String,
    /// The newest entry it has applied.
    pub applied: u64,
    /// How far it is behind.
    pub lag: u64,
    /// Digest of its state.
    pub digest: String,
}

impl MemberView {
    /// Whether it votes.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.role == "voter"
    }

    /// Whether it answers and serves.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.state.as_str(), "leader" | "follower" | "learner")
    }
}

impl ClusterView {
    /// One member.
    #[must_use]
    pub fn member(&self, id: u64) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == id)
    }

    /// A member's name for people.
    #[must_use]
    pub fn name(&self, id: u64) -> String {
        match self.member(id) {
            Some(member) => format!("member {id} ({})", member.name),
            None => format!("member {id}"),
        }
    }

    /// Everybody votes or learns, is there, and has applied what the others have.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let newest = self.members.iter().map(|member| member.applied).max().unwrap_or(0);
        let close = |member: &MemberView| member.serves() && newest - member.applied <= LAG_MAX;
        self.leader.is_some() && self.members.iter().all(close)
    }
}

/// Entries a member may be behind and still count as being with the others.
pub(super) const LAG_MAX: u64 = 512;

/// The answer of `GET /api/v1/admin/drills`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Who answered.
    pub member_id: u64,
    /// By its clock.
    pub now_ms: u64,
    /// Since its process started.
    pub uptime_ms: u64,
    /// Something starts it again.
    pub supervised: bool,
    /// The drill under way.
    pub running: Option<u64>,
    /// Who it saw leading.
    pub views: Vec<ViewSeen>,
    /// Its own reigns.
    pub reigns: Vec<Reign>,
}

/// Who a member saw leading from when on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ViewSeen {
    /// By its clock.
    pub at_ms: u64,
    /// Its term.
    pub term: u64,
    /// Who led.
    pub leader: Option<u64>,
}

/// One reign of a member; steps are milliseconds after `elected_at_ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reign {
    /// Its term.
    pub term: u64,
    /// By its clock.
    pub elected_at_ms: u64,
    /// Everything committed before is applied.
    pub barrier_ms: Option<f64>,
    /// Older leaders are fenced.
    pub epoch_open_ms: Option<f64>,
    /// Queues are rebuilt.
    pub gate_open_ms: Option<f64>,
    /// Duties run.
    pub duties_started_ms: Option<f64>,
}

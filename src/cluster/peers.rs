//! The other members: where they are, how they are reached, and who may speak to this one.
//!
//! Every request of a peer passes [`Peers::admit`] before anything acts on it: its cluster, whom
//! it meant to reach, and the data directory it runs on must be right. A disk that was wiped and
//! comes back under its old number would otherwise vote without remembering its votes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::faults::Faults;
use super::link::{CallError, Link, Route};
use super::net::Net;
use super::wire::{Hello, PROTOCOL_VERSION, Refusal, RefusalCode, Request, Response};
use crate::model::{Incarnation, Member, MemberId};

/// The same refusal of the same peer is logged at most so often.
const LOG_PAUSE: Duration = Duration::from_secs(10);
/// The most distinct refusals remembered for that.
const LOGGED_MAX: usize = 256;

/// What a connection is for. Each has its own, so that none waits behind another: a heartbeat
/// behind a large append would cost the leader its office.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// The stream of log entries.
    Append,
    /// Heartbeats, votes, hand-overs.
    Pulse,
    /// Snapshots.
    Snapshot,
    /// Proposals, reads, node heartbeats, probes.
    Request,
}

/// Who this member is, on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub cluster_id: u128,
    pub member_id: MemberId,
    pub incarnation: Incarnation,
    pub name: String,
}

/// Who belongs to the cluster, as far as this member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    pub members: BTreeMap<MemberId, Member>,
    /// A number up to this one that is not among `members` has left for good.
    pub last_member_id: MemberId,
}

/// See the module's description.
pub(crate) struct Peers {
    net: Arc<dyn Net>,
    /// What is broken on purpose.
    pub(crate) faults: Arc<Faults>,
    own: RwLock<Own>,
    roster: RwLock<Roster>,
    links: Mutex<BTreeMap<(MemberId, Lane), Arc<Link>>>,
    logged: Mutex<BTreeMap<(String, RefusalCode), Instant>>,
    /// A refusal that concerns this member itself: it was removed, or its number is taken.
    turned_away: watch::Sender<Option<Refusal>>,
    streams: AtomicU64,
}

impl Peers {
    pub(crate) fn new(net: Arc<dyn Net>, faults: Arc<Faults>, own: Own) -> Self {
        Self {
            net,
            faults,
            own: RwLock::new(own),
            roster: RwLock::new(Roster::default()),
            links: Mutex::new(BTreeMap::new()),
            logged: Mutex::new(BTreeMap::new()),
            turned_away: watch::Sender::new(None),
            streams: AtomicU64::new(1),
        }
    }

    /// This member has got its place.
    pub(crate) fn set_own(&self, own: Own) {
        *self.own.write() = own;
    }

    pub(crate) fn roster(&self) -> Roster {
        self.roster.read().clone()
    }

    pub(crate) fn set_roster(&self, roster: Roster) {
        let gone = |id: &MemberId| !roster.members.contains_key(id);
        self.links.lock().retain(|(id, _), _| !gone(id));
        *self.roster.write() = roster;
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<Member> {
        self.roster.read().members.get(&id).cloned()
    }

    /// Tells of a refusal that concerns this member itself.
    pub(crate) fn turned_away(&self) -> watch::Receiver<Option<Refusal>> {
        self.turned_away.subscribe()
    }

    /// A number no other append stream of this member has.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn link(&self, target: MemberId, lane: Lane) -> Arc<Link> {
        let mut links = self.links.lock();
        let link = links.entry((target, lane)).or_insert_with(|| Arc::new(self.new_link()));
        Arc::clone(link)
    }

    fn new_link(&self) -> Link {
        Link::new(Arc::clone(&self.net), Arc::clone(&self.faults))
    }

    /// How to reach `target`: at the address it announced last, else at the `fallback`'s.
    pub(crate) fn route(&self, target: MemberId, fallback: Option<&Member>) -> Option<Route> {
        let announced = self.roster.read().members.get(&target).map(|m| m.peer_addr.clone());
        let addr = announced.or_else(|| fallback.map(|member| member.peer_addr.clone()))?;
        Some(Route { addr, hello: self.hello(target) })
    }

    fn hello(&self, target: MemberId) -> Hello {
        let own = self.own.read();
        Hello {
            protocol: PROTOCOL_VERSION,
            cluster_id: own.cluster_id,
            sender: own.member_id,
            incarnation: own.incarnation,
            name: own.name.clone(),
            target,
        }
    }

    /// Asks a member on its lane for requests.
    pub(crate) async fn call(
        &self,
        target: MemberId,
        request: &Request,
        attachment: &[Bytes],
        limit: Duration,
    ) -> Result<Response, CallError> {
        let Some(route) = self.route(target, None) else {
            return Err(CallError::Unreachable(format!("member {target}: its address is unknown")));
        };
        let link = self.link(target, Lane::Request);
        let answer = link.call(&route, request, attachment, Instant::now() + limit).await;
        self.note(target, answer.as_ref().err());
        answer.map(|(response, _attachment)| response)
    }

    /// Asks whoever answers at `addr`, over a connection of its own.
    pub(crate) async fn call_addr(
        &self,
        addr: &str,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, CallError> {
        let link = self.new_link();
        let route = Route { addr: addr.to_owned(), hello: self.hello(0) };
        let asked = link.call(&route, request, &[], Instant::now() + limit);
        match timeout(limit, asked).await {
            Ok(answer) => answer.map(|(response, _attachment)| response),
            Err(_elapsed) => Err(CallError::Timeout(addr.to_owned())),
        }
    }

    /// Logs a refusal, and remembers one that concerns this member itself.
    pub(crate) fn note(&self, target: MemberId, error: Option<&CallError>) {
        let Some(CallError::Refused(refusal)) = error else { return };
        match refusal.code {
            RefusalCode::Removed | RefusalCode::WrongIncarnation | RefusalCode::OwnId => {
                self.turned_away.send_if_modified(|known| {
                    let new = known.is_none();
                    known.get_or_insert_with(|| refusal.clone());
                    new
                });
            }
            RefusalCode::NotLeader | RefusalCode::Busy | RefusalCode::Membership => return,
            RefusalCode::Protocol
            | RefusalCode::ForeignCluster
            | RefusalCode::WrongTarget
            | RefusalCode::NotReady
            | RefusalCode::Diverged
            | RefusalCode::Stopping
            | RefusalCode::BadRequest => {}
        }
        if self.may_log(&format!("member {target}"), refusal.code) {
            tracing::warn!(peer = target, code = refusal.code.as_str(), text = %refusal.text,
                "a peer turned this member away");
        }
    }

    /// Whether this refusal was not logged just now.
    pub(crate) fn may_log(&self, peer: &str, code: RefusalCode) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        logged.retain(|_, at| now.duration_since(*at) < LOG_PAUSE);
        let key = (peer.to_owned(), code);
        if logged.len() >= LOGGED_MAX || logged.contains_key(&key) {
            return false;
        }
        logged.insert(key, now);
        true
    }

    /// Decides whether a peer may speak at all. Asked at the handshake and again for every
    /// request, because the roster changes under a living connection.
    pub(crate) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let own = self.own.read();
        if hello.protocol != PROTOCOL_VERSION {
            let text = format!(
                "this member speaks peer protocol {PROTOCOL_VERSION}, the caller {}",
                hello.protocol
            );
            return Err(Refusal::new(RefusalCode::Protocol, text));
        }
        // Before the number: numbers mean nothing between clusters.
        let foreign = hello.cluster_id != own.cluster_id;
        if foreign && hello.cluster_id != 0 && own.cluster_id != 0 {
            let text = format!(
                "this member belongs to cluster {:032x}, the caller to {:032x}",
                own.cluster_id, hello.cluster_id
            );
            return Err(Refusal::new(RefusalCode::ForeignCluster, text));
        }
        if hello.target != 0 && own.member_id != 0 && hello.target != own.member_id {
            let text = format!("this is member {}, not member {}", own.member_id, hello.target);
            return Err(Refusal::new(RefusalCode::WrongTarget, text));
        }
        if hello.sender == 0 || own.cluster_id == 0 {
            return Ok(());
        }
        if hello.sender == own.member_id && hello.incarnation != own.incarnation {
            let text = format!("member {} is this member, on another disk", own.member_id);
            return Err(Refusal::new(RefusalCode::OwnId, text));
        }
        self.admit_sender(hello)
    }

    fn admit_sender(&self, hello: &Hello) -> Result<(), Refusal> {
        let roster = self.roster.read();
        match roster.members.get(&hello.sender) {
            Some(known) if known.incarnation != hello.incarnation => {
                let text = format!(
                    "member {} is known on another disk ({:016x}, not {:016x}): a wiped disk must \
                     not come back under its old number; start it without an identity to join anew",
                    hello.sender, known.incarnation, hello.incarnation
                );
                Err(Refusal::new(RefusalCode::WrongIncarnation, text))
            }
            None if hello.sender <= roster.last_member_id => {
                let text = format!("member {} left this cluster for good", hello.sender);
                Err(Refusal::new(RefusalCode::Removed, text))
            }
            // Known, or so new that this member has not heard of it yet: numbers are never given
            // out twice, so it cannot be somebody else.
            Some(_) | None => Ok(()),
        }
    }

    /// Decides whether this request may be acted on, coming from `hello`'s sender.
    pub(crate) fn admit_request(&self, hello: &Hello, request: &Request) -> Result<(), Refusal> {
        self.admit(hello)?;
        let seated = self.own.read().cluster_id != 0;
        let open_to_all =
            matches!(request, Request::Probe | Request::Join { .. } | Request::Found { .. });
        if open_to_all {
            return Ok(());
        }
        if !seated {
            let text = "this member has no place in a cluster yet";
            return Err(Refusal::new(RefusalCode::NotReady, text));
        }
        // An operator's program has no number, and may ask for changes like a member.
        if hello.sender == 0 || hello.cluster_id == 0 {
            let text = "the caller belongs to no cluster";
            return Err(Refusal::new(RefusalCode::ForeignCluster, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::net::TcpNet;

    fn no_faults() -> Arc<Faults> {
        Arc::new(Faults::new(Arc::default()))
    }

    fn peers() -> Peers {
        let own = Own { cluster_id: 7, member_id: 1, incarnation: 11, name: "one".to_owned() };
        let peers = Peers::new(Arc::new(TcpNet), no_faults(), own);
        let member = |incarnation| Member { incarnation, ..Member::default() };
        let members = BTreeMap::from([(1, member(11)), (2, member(22))]);
        peers.set_roster(Roster { members, last_member_id: 3 });
        peers
    }

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            cluster_id: 7,
            sender: 2,
            incarnation: 22,
            name: "two".to_owned(),
            target: 1,
        }
    }

    #[test]
    fn only_the_right_peer_is_admitted() {
        let peers = peers();
        let vote = Request::ReadIndex;
        let code = |hello: Hello| peers.admit_request(&hello, &vote).err().map(|r| r.code);
        assert_eq!(code(hello()), None);
        assert_eq!(code(Hello { protocol: 9, ..hello() }), Some(RefusalCode::Protocol));
        assert_eq!(code(Hello { cluster_id: 8, ..hello() }), Some(RefusalCode::ForeignCluster));
        assert_eq!(code(Hello { target: 2, ..hello() }), Some(RefusalCode::WrongTarget));
        let stranger = Hello { cluster_id: 8, target: 2, ..hello() };
        assert_eq!(code(stranger), Some(RefusalCode::ForeignCluster), "says more than its number");
        assert_eq!(code(Hello { incarnation: 23, ..hello() }), Some(RefusalCode::WrongIncarnation));
        assert_eq!(code(Hello { sender: 1, ..hello() }), Some(RefusalCode::OwnId));
        assert_eq!(code(Hello { sender: 3, ..hello() }), Some(RefusalCode::Removed));
        assert_eq!(code(Hello { sender: 4, ..hello() }), None, "newer than this member's log");
        assert_eq!(code(Hello { cluster_id: 0, ..hello() }), Some(RefusalCode::ForeignCluster));
    }

    #[test]
    fn a_newcomer_may_only_probe_join_and_be_founded() {
        let peers = peers();
        let newcomer = Hello { cluster_id: 0, sender: 0, incarnation: 5, target: 0, ..hello() };
        assert!(peers.admit_request(&newcomer, &Request::Probe).is_ok());
        let join = Request::Join { member: Member::default(), forwarded: false };
        assert!(peers.admit_request(&newcomer, &join).is_ok());
        assert!(peers.admit_request(&newcomer, &Request::ReadIndex).is_err());
    }

    #[test]
    fn a_member_without_a_place_answers_no_raft_request() {
        let peers = Peers::new(Arc::new(TcpNet), no_faults(), Own::default());
        let refused = peers.admit_request(&hello(), &Request::ReadIndex).unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotReady);
        assert!(peers.admit_request(&hello(), &Request::Probe).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_is_logged_once_in_a_while() {
        let peers = peers();
        assert!(peers.may_log("a", RefusalCode::WrongTarget));
        assert!(!peers.may_log("a", RefusalCode::WrongTarget));
        assert!(peers.may_log("b", RefusalCode::WrongTarget));
        tokio::time::advance(LOG_PAUSE).await;
        assert!(peers.may_log("a", RefusalCode::WrongTarget));
    }
}

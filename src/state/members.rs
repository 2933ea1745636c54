//! Members: who they are and where they listen now. Who votes is Raft's own record.

use super::apply::Txn;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{Incarnation, Member, MemberId};

impl State {
    /// All members that were ever given a number and have not left, by number.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// One member.
    #[must_use]
    pub fn member(&self, member_id: MemberId) -> Option<&Member> {
        self.members.get(&member_id)
    }

    /// Whether this member shall vote once it has caught up: it has a number, no operator took its
    /// vote away, and no newer disk came under its name.
    #[must_use]
    pub fn vote_wanted(&self, member_id: MemberId) -> bool {
        let Some(member) = self.member(member_id) else { return false };
        let replaced =
            self.members().any(|(id, other)| id > member_id && other.name == member.name);
        !replaced && !self.kept_learners().contains(&member_id)
    }
}

impl Txn<'_> {
    pub(super) fn init_cluster(
        &mut self,
        cluster_id: u128,
        members: Vec<(MemberId, Member)>,
    ) -> Reply {
        let mut row = self.state.cluster_row();
        if row.cluster_id == cluster_id {
            return Ok(Outcome::Done);
        }
        if row.cluster_id != 0 {
            return Err(Rejection::AlreadyInitialized);
        }
        row.cluster_id = cluster_id;
        for (member_id, member) in members {
            row.last_member_id = row.last_member_id.max(member_id);
            self.put_member(member_id, member);
        }
        self.state.set_cluster_row(row);
        Ok(Outcome::Done)
    }

    /// Gives a joining data directory a number of its own. The same directory asking again gets
    /// the same number; a new directory under a known name replaces that member.
    pub(super) fn allocate_member(&mut self, member: Member) -> Reply {
        let mut known_as = None;
        let mut replaces = None;
        for (known_id, known) in self.state.members() {
            if known.incarnation == member.incarnation {
                known_as = Some(known_id);
            } else if known.name == member.name {
                replaces = Some(known_id);
            } else if let Some(what) = shared_address(known, &member) {
                return Err(Rejection::MemberConflict { member_id: known_id, what });
            }
        }
        if let Some(member_id) = known_as {
            let replaces = replaces.filter(|other| *other < member_id);
            return Ok(Outcome::MemberAllocated { member_id, replaces });
        }
        let mut row = self.state.cluster_row();
        row.last_member_id += 1;
        let member_id = row.last_member_id;
        self.state.set_cluster_row(row);
        self.put_member(member_id, member);
        Ok(Outcome::MemberAllocated { member_id, replaces })
    }

    pub(super) fn announce_member(&mut self, member_id: MemberId, member: Member) -> Reply {
        let known = self.state.member(member_id);
        if known.is_none_or(|known| known.incarnation != member.incarnation) {
            return Err(Rejection::MemberNotFound { member_id });
        }
        if known == Some(&member) {
            return Ok(Outcome::Done);
        }
        for (other_id, other) in self.state.members().filter(|(id, _)| *id != member_id) {
            // A member and the lost one it replaces share their name and address for a while.
            if other.name != member.name
                && let Some(what) = shared_address(other, &member)
            {
                return Err(Rejection::MemberConflict { member_id: other_id, what });
            }
        }
        self.put_member(member_id, member);
        Ok(Outcome::Done)
    }

    pub(super) fn forget_member(&mut self, member_id: MemberId, incarnation: Incarnation) -> Reply {
        match self.state.member(member_id) {
            None => Ok(Outcome::Done),
            Some(known) if known.incarnation != incarnation => {
                Err(Rejection::MemberNotFound { member_id })
            }
            Some(_) => {
                self.state.keep_learner(member_id, false);
                self.state.members.remove(&mut self.state.rows, &member_id);
                self.facts.push(Fact::MemberChanged { member_id });
                Ok(Outcome::Done)
            }
        }
    }

    pub(super) fn want_vote(&mut self, member_id: MemberId, wanted: bool) -> Reply {
        if self.state.member(member_id).is_none() {
            return Err(Rejection::MemberNotFound { member_id });
        }
        if self.state.keep_learner(member_id, !wanted) {
            self.facts.push(Fact::MemberChanged { member_id });
        }
        Ok(Outcome::Done)
    }

    fn put_member(&mut self, member_id: MemberId, member: Member) {
        self.state.members.put(&mut self.state.rows, member_id, member);
        self.facts.push(Fact::MemberChanged { member_id });
    }
}

/// The address that both claim, if any.
fn shared_address(one: &Member, other: &Member) -> Option<String> {
    let pairs = [
        (&one.peer_addr, &other.peer_addr),
        (&one.http_addr, &other.http_addr),
        (&one.grpc_addr, &other.grpc_addr),
    ];
    let shared = pairs.into_iter().find(|(a, b)| a == b && !a.is_empty());
    shared.map(|(address, _)| format!("the address {address}"))
}

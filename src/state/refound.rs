//! Founding a new cluster on the state of an old one: after its quorum was lost, or from a backup.
//!
//! This is no command of a log: it is done once, offline, before the new cluster's first entry. All
//! that the old world may still say later must find a newer number here: its epochs are older, its
//! executions are over, its attempts, revisions and member numbers are skipped
//! (docs/decisions/0005-a-new-cluster-from-an-old-state.md says why each).

use super::apply::Txn;
use super::singles::ClusterRow;
use super::{Config, State};
use crate::model::{Epoch, Member, MemberId, RequestId, TaskId, TaskStatus};

/// Attempts that no open task will have: those the old world may have begun after this state.
const ATTEMPTS_SKIPPED: u32 = 1_000;
/// Revisions that the configuration will not have.
const REVISIONS_SKIPPED: u64 = 1_000;
/// The new cluster numbers its members from the next multiple of this on.
const MEMBER_NUMBERS_SKIPPED: MemberId = 100;

/// What the new cluster begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Its random name.
    pub cluster_id: u128,
    /// The number of its first member: [`State::next_founder`].
    pub member_id: MemberId,
    /// Its first member.
    pub member: Member,
    /// A term above every term of the old world. Nobody leads in it.
    pub term: u64,
    /// The log index that the new state is at, above every index of the old world.
    pub index: u64,
}

/// What founding changed beside numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refounded {
    /// Tasks that are not over.
    pub open: u64,
    /// Executions that were taken back; their tasks wait in the queue again.
    pub requeued: u64,
}

impl State {
    /// The number that the first member of a cluster founded on this state gets: one that the old
    /// cluster is not likely to have reached.
    #[must_use]
    pub fn next_founder(&self) -> MemberId {
        let rounds = self.last_member_id() / MEMBER_NUMBERS_SKIPPED + 1;
        rounds * MEMBER_NUMBERS_SKIPPED + 1
    }

    /// Makes this the state of a new cluster.
    ///
    /// # Panics
    /// When the new term is not above the open epoch's: every refusal of what is old stands on it.
    pub fn refound(&mut self, founding: Founding) -> Refounded {
        let Founding { cluster_id, member_id, member, term, index } = founding;
        assert!(term > self.epoch().term, "a new cluster begins in a newer term");
        let old: Vec<MemberId> = self.members().map(|(id, _)| id).collect();
        for id in old {
            self.members.remove(&mut self.rows, &id);
        }
        self.members.put(&mut self.rows, member_id, member);
        self.set_cluster_row(ClusterRow { cluster_id, last_member_id: member_id });
        self.set_epoch(Epoch { term, member: member_id });
        let refounded = self.take_back_executions(index);
        self.refound_bots();
        // Revision 0 stays: the first configuration has yet to be written.
        let config = self.config().clone();
        if config.revision > 0 {
            let policy = self.policy().clone();
            let revision = config.revision + REVISIONS_SKIPPED;
            self.set_config(Config { revision, ..config }, policy);
        }
        self.flush_nodes();
        self.flush_counters();
        refounded
    }

    /// Every execution is over, without blame for task or node, and every open task goes on with
    /// an attempt that the old world cannot have named.
    fn take_back_executions(&mut self, index: u64) -> Refounded {
        let mut refounded = Refounded::default();
        let now = self.counters().last_at_ms;
        let (request_id, facts) = (RequestId(0), &mut Vec::new());
        let (place, losses_left, reading) = (0, 0, None);
        let mut txn =
            Txn { state: self, index, place, now, request_id, facts, losses_left, reading };
        for status in TaskStatus::ALL.into_iter().filter(|status| !status.is_terminal()) {
            // What is taken back waits from then on, and those who wait come first in this order.
            let tasks = txn.state.tasks_by_status(status).map(|task| task.task_id.clone());
            let steps = txn.state.open_steps().filter(|step| step.status == status);
            let ids: Vec<TaskId> = tasks.chain(steps.map(|step| step.task_id.clone())).collect();
            for task_id in ids {
                if status.is_live() {
                    txn.take_back(&task_id, 0, true, None);
                }
                // A job whose budget holds no other try has ended, and others may have with it.
                if txn.state.open_task(&task_id).is_none() {
                    continue;
                }
                refounded.requeued += u64::from(status.is_live());
                txn.edit_task(&task_id, |task| {
                    task.attempt = task.attempt.saturating_add(ATTEMPTS_SKIPPED);
                });
                refounded.open += 1;
            }
        }
        refounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;
    use crate::state::invariants;
    use crate::state::scripts::Script;

    const TERM: u64 = 1_000_009;
    const INDEX: u64 = 1_000_000_100;

    fn founding(state: &State) -> Founding {
        let member = Member { name: "new".to_owned(), incarnation: 77, ..Member::default() };
        let member_id = state.next_founder();
        Founding { cluster_id: 2, member_id, member, term: TERM, index: INDEX }
    }

    fn say(script: &mut Script, line: &str) -> String {
        let mut out = String::new();
        script.run(line, &mut out);
        out
    }

    /// An old world with a task in every stage: `t1` runs, `t2` is assigned, `t3` waits, `t4` is
    /// done, `t5` waits for its back-off.
    fn old_world() -> Script {
        let mut script = Script::default();
        for line in [
            "at 1",
            "init 1 a b c",
            "epoch 9.1",
            "register n1 capacity=4",
            "config network.max_nodes 50",
            "submit t1 t2 t3 t4 t5 timeout=2000 retries=2",
            "assign 9.1 t1 n1",
            "assign 9.1 t2 n1",
            "assign 9.1 t4 n1",
            "assign 9.1 t5 n1",
            "dispatch 9.1 t1 1 ack",
            "dispatch 9.1 t5 1 end fail=network",
            "report t4 attempt=1 done=1",
        ] {
            let said = say(&mut script, line);
            assert!(!said.contains("refused"), "{line}: {said}");
        }
        script
    }

    fn stands(state: &State, id: &str) -> (TaskStatus, u32, u32) {
        let task = state.task(&TaskId::trusted(id)).unwrap();
        (task.status, task.attempt, task.retry_count)
    }

    #[test]
    fn every_number_of_the_old_world_is_passed() {
        let mut script = old_world();
        let state = &mut script.state;
        let node = |state: &State| state.node(&NodeId::trusted("n1")).unwrap().clone();
        let (revision, counters, before) =
            (state.config().revision, *state.counters(), node(state));
        let founding = founding(state);
        assert_eq!(founding.member_id, 101);
        let refounded = state.refound(founding);
        assert_eq!(refounded, Refounded { open: 4, requeued: 2 });
        invariants::check(state);
        assert_eq!(
            (state.cluster_id(), state.last_member_id(), state.next_founder()),
            (2, 101, 201)
        );
        let members: Vec<_> =
            state.members().map(|(id, member)| (id, member.name.as_str())).collect();
        assert_eq!(members, [(101, "new")]);
        assert_eq!(state.epoch(), Epoch { term: TERM, member: 101 });
        assert_eq!(state.config().revision, revision + 1000);
        assert_eq!(state.policy().nodes_max, 50);
        assert_eq!(*state.counters(), counters, "nothing was retried, nothing ended");
        let after = node(state);
        assert_eq!((before.live, after.live), (2, 0));
        assert_eq!(after.reliability_milli, before.reliability_milli, "no node is to blame");
        assert_eq!(stands(state, "t1"), (TaskStatus::Pending, 1001, 0));
        assert_eq!(stands(state, "t2"), (TaskStatus::Pending, 1001, 0));
        assert_eq!(stands(state, "t3"), (TaskStatus::Pending, 1000, 0));
        assert_eq!(stands(state, "t4"), (TaskStatus::Completed, 1, 0));
        assert_eq!(stands(state, "t5"), (TaskStatus::Retrying, 1001, 1));
    }

    #[test]
    fn what_the_old_world_says_later_is_refused() {
        let mut script = old_world();
        let founding = founding(&script.state);
        script.state.refound(founding);
        script.index = INDEX;
        // An old leader's duties, and an old candidate's claim to a reign.
        for line in ["assign 9.1 t3 n1", "dispatch 9.1 t1 1 end done=1", "epoch 900.2"] {
            let said = say(&mut script, line);
            assert!(said.contains("refused STALE_EPOCH"), "{line}: {said}");
        }
        // Late reports: while the task waits, and once it runs again.
        assert!(say(&mut script, "report t1 attempt=1 done=1").contains("stale: true"));
        say(&mut script, "epoch 1000010.101");
        assert!(say(&mut script, "assign 1000010.101 t1 n1").contains("attempt: 1002"));
        for line in [
            "report t1 attempt=1 done=1",
            "report t1 attempt=1 epoch=9.1 done=1",
            // Tries that the old world may have made after this state.
            "report t1 attempt=2 done=1",
            "report t1 epoch=11.2 done=1",
            "report t1 attempt=1001 done=1",
        ] {
            let said = say(&mut script, line);
            assert!(said.contains("stale: true"), "{line}: {said}");
        }
        let said = say(&mut script, "report t1 attempt=1002 epoch=1000010.101 done=1");
        assert!(said.contains("stale: false"), "{said}");
    }

    #[test]
    #[should_panic(expected = "a newer term")]
    fn a_new_cluster_needs_a_newer_term() {
        let mut script = old_world();
        let founding = Founding { term: 9, ..founding(&script.state) };
        script.state.refound(founding);
    }
}

//! Bots of a cluster that is founded on an old state: nothing that the old world may still have
//! named after that state means anything here (docs/decisions/0005-a-new-cluster-from-an-old-state.md).

use super::State;
use super::bot_leases::back_to_waiting;
use crate::model::AssignmentPlace;

/// Attempts, waves and workflows that the new cluster will not number.
const NUMBERS_SKIPPED: u32 = 1_000_000;
/// Indexes of bots that it will not use, in each swarm and beside them.
const INDEXES_SKIPPED: u32 = 100_000;
/// Swarms that it will not number.
const SWARMS_SKIPPED: u32 = 1_000;

impl State {
    /// Takes all leases back and passes every number that ids and attempts are made of. The seed
    /// stays, so that ids of what there is remain good.
    pub(super) fn refound_bots(&mut self) {
        let totals = *self.bot_totals();
        if totals.seed == 0 {
            return;
        }
        let leases = self.bot_index.leases.iter().map(|(_, place)| *place);
        let leases = leases.filter(|place| self.live_wave(place.wave).is_some());
        for place in leases.collect::<Vec<AssignmentPlace>>() {
            // As when a lease ends: somebody has worked for it.
            let lease = self.progress(place).and_then(|row| row.lease.as_ref());
            let contact_ms = lease.map_or(0, |lease| lease.contact_ms);
            self.note_activity(place, contact_ms);
            self.edit_progress(place, back_to_waiting);
        }
        self.write_bot_blocks();
        let swarms: Vec<u32> = self.swarms_after(0).map(|(number, _)| number).collect();
        for number in swarms {
            self.swarms.edit(&mut self.rows, &number, |row| {
                row.next_index = row.next_index.saturating_add(INDEXES_SKIPPED);
            });
        }
        self.edit_bot_totals(|totals| {
            totals.swarms = totals.swarms.saturating_add(SWARMS_SKIPPED);
            totals.next_bot = totals.next_bot.saturating_add(INDEXES_SKIPPED);
            totals.waves += u64::from(NUMBERS_SKIPPED);
            totals.workflows += u64::from(NUMBERS_SKIPPED);
            totals.attempts_passed = totals.attempts_passed.saturating_add(NUMBERS_SKIPPED);
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{AssignmentPlace, BotPlace, Member};
    use crate::state::scripts::Script;
    use crate::state::{Founding, State, invariants};

    fn say(script: &mut Script, line: &str) -> String {
        let mut out = String::new();
        script.run(line, &mut out);
        out
    }

    fn refound(state: &mut State) {
        let (member_id, member) = (state.next_founder(), Member::default());
        state.refound(Founding { cluster_id: 2, member_id, member, term: 1000, index: 100_000 });
        invariants::check(state);
    }

    #[test]
    fn a_lease_of_the_old_world_is_good_for_nothing() {
        let mut script = Script::default();
        for line in ["at 1", "bots swarm 3", "bots create", "bots assign s1", "bots lease s1 max=2"]
        {
            say(&mut script, line);
        }
        let id = script.state.bot_id(BotPlace { swarm: 1, index: 2 });
        refound(&mut script.state);
        script.index = 100_000;
        assert_eq!(script.state.bot_id(BotPlace { swarm: 1, index: 2 }), id);
        assert!(say(&mut script, "bots complete w1.0:1").contains("[Stale]"));
        let leased = say(&mut script, "bots lease s1");
        assert!(leased.contains("attempt: 1000001"), "{leased}");
        // Tries that the old world may have made after this state.
        assert!(say(&mut script, "bots complete w1.0:2").contains("[Stale]"));
        assert!(say(&mut script, "bots complete w1.0:1000001").contains("[Accepted]"));
        // What is new has numbers that the old world has not given.
        assert!(say(&mut script, "bots assign s1").contains("wave: 1000002"));
        say(&mut script, "bots scale s1 4");
        assert!(script.state.has_bot(BotPlace { swarm: 1, index: 100_003 }));
        say(&mut script, "bots create");
        assert!(script.state.has_bot(BotPlace { swarm: 0, index: 100_001 }));
        let waits = AssignmentPlace { wave: 1, index: 1 };
        assert_eq!(script.state.progress(waits).unwrap().lease, None);
    }
}

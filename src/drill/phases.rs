//! When what happened after the fault: from the accounts of members, whose clocks are compared
//! with ours, and from the probes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::samples::Samples;
use super::view::{Account, Reign};

/// How a member's clock stands to the time since the first probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockOffset {
    /// The member's clock at the first probe, in milliseconds.
    pub(super) origin_ms: f64,
    /// How far that may be wrong: half a round trip.
    pub(super) error_ms: f64,
}

impl ClockOffset {
    /// The time since the first probe; negative before it.
    fn since_start(&self, at_ms: u64) -> f64 {
        at_ms as f64 - self.origin_ms
    }
}

/// One step, in milliseconds after the fault.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) ms: f64,
    pub(super) member: Option<u64>,
}

impl Phase {
    pub(super) fn json(&self) -> Value {
        let ms = (self.ms * 10.0).round() / 10.0;
        json!({ "name": self.name, "ms": ms, "member": self.member })
    }
}

/// What is known when phases are told.
pub(super) struct Story<'a> {
    /// Accounts and clocks, by member.
    pub(super) accounts: &'a BTreeMap<u64, (Account, ClockOffset)>,
    /// Who led before, in which term.
    pub(super) old: (u64, u64),
    /// When the fault was caused.
    pub(super) fault: Duration,
    pub(super) samples: &'a Samples,
}

impl Story<'_> {
    fn fault_ms(&self) -> f64 {
        self.fault.as_secs_f64() * 1000.0
    }

    /// Reigns that began after the fault, in order of time after it, with whose they were.
    pub(super) fn reigns(&self) -> Vec<(f64, u64, Reign)> {
        let (_, old_term) = self.old;
        let mut reigns: Vec<(f64, u64, Reign)> = Vec::new();
        for (id, (account, clock)) in self.accounts {
            let newer = account.reigns.iter().filter(|reign| reign.term > old_term);
            reigns.extend(newer.map(|reign| {
                (clock.since_start(reign.elected_at_ms) - self.fault_ms(), *id, *reign)
            }));
        }
        reigns.sort_by_key(|(_, _, reign)| reign.term);
        reigns
    }

    /// The first moment at which somebody saw that the old leader leads no more.
    fn detected(&self) -> Option<Phase> {
        let (old_leader, old_term) = self.old;
        let mut first: Option<Phase> = None;
        for (id, (account, clock)) in self.accounts {
            // The old leader itself may not notice anything.
            let others = account.views.iter().filter(|_| *id != old_leader);
            let doubts =
                others.filter(|view| view.term >= old_term && view.leader != Some(old_leader));
            for view in doubts {
                let ms = clock.since_start(view.at_ms) - self.fault_ms();
                let late = ms >= -clock.error_ms - 1.0;
                if late && first.as_ref().is_none_or(|first| ms < first.ms) {
                    first = Some(Phase { name: "detected", ms: ms.max(0.0), member: Some(*id) });
                }
            }
        }
        first
    }

    /// The steps of the first reign after the fault that came as far as its epoch, and what the
    /// probes saw after its election.
    pub(super) fn phases(&self) -> Vec<Phase> {
        let mut phases: Vec<Phase> = self.detected().into_iter().collect();
        let reigns = self.reigns();
        let opened = reigns.iter().find(|(_, _, reign)| reign.epoch_open_ms.is_some());
        let Some((elected, member, reign)) = opened.or_else(|| reigns.first()) else {
            phases.clear();
            return phases;
        };
        let step = |name, after: f64| Phase { name, ms: elected + after, member: Some(*member) };
        phases.push(step("elected", 0.0));
        for (name, after) in [
            ("barrier", reign.barrier_ms),
            ("epoch open", reign.epoch_open_ms),
            ("duties started", reign.duties_started_ms),
        ] {
            phases.extend(after.map(|after| step(name, after)));
        }
        let error = self.accounts.get(member).map_or(0.0, |(_, clock)| clock.error_ms);
        let after_election = |moments: &mut dyn Iterator<Item = Duration>| {
            let since_fault = moments.map(|at| at.as_secs_f64() * 1000.0 - self.fault_ms());
            since_fault.filter(|ms| *ms >= elected - error - 1.0).reduce(f64::min)
        };
        for (name, first) in [
            ("first write", after_election(&mut self.samples.write_moments())),
            ("first read", after_election(&mut self.samples.read_moments())),
            ("first dispatch", after_election(&mut self.samples.arrival_moments())),
        ] {
            phases.extend(first.map(|ms| Phase { name, ms, member: None }));
        }
        phases.sort_by(|one, other| one.ms.total_cmp(&other.ms));
        phases
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{End, Write};
    use super::super::view::ViewSeen;
    use super::*;

    #[test]
    fn phases_are_told_in_our_time_whatever_the_members_clocks_say() {
        let reign = Reign {
            term: 8,
            elected_at_ms: 50_330,
            barrier_ms: Some(2.0),
            epoch_open_ms: Some(4.5),
            ..Reign::default()
        };
        let view = |at_ms, term, leader| ViewSeen { at_ms, term, leader };
        let seen = vec![view(40_000, 7, Some(1)), view(50_170, 7, None), view(50_330, 8, Some(2))];
        let two = Account { views: seen, reigns: vec![reign], ..Account::default() };
        let three = Account { views: vec![view(9_340, 8, Some(2))], ..Account::default() };
        let clock = |origin_ms| ClockOffset { origin_ms, error_ms: 0.5 };
        // The first probe was sent at 47,000 of the second member's clock, and the fault caused
        // three seconds later. The third member's clock is another.
        let accounts = BTreeMap::from([(2, (two, clock(47_000.0))), (3, (three, clock(6_000.0)))]);
        let write = |ms| Write {
            task_id: String::new(),
            ended: Duration::from_millis(ms),
            end: End::Acknowledged,
        };
        // The one in the middle was under way when the old leader was lost.
        let samples = Samples {
            writes: vec![write(2_990), write(3_001), write(3_360)],
            ..Samples::default()
        };
        let fault = Duration::from_secs(3);
        let story = Story { accounts: &accounts, old: (1, 7), fault, samples: &samples };
        let told: Vec<(&str, f64)> = story.phases().iter().map(|p| (p.name, p.ms)).collect();
        let expected = [
            ("detected", 170.0),
            ("elected", 330.0),
            ("barrier", 332.0),
            ("epoch open", 334.5),
            ("first write", 360.0),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn without_a_new_reign_there_are_no_phases() {
        let accounts = BTreeMap::new();
        let samples = Samples::default();
        let fault = Duration::from_secs(3);
        let story = Story { accounts: &accounts, old: (1, 7), fault, samples: &samples };
        assert_eq!(story.phases(), []);
    }
}

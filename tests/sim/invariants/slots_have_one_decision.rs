//! Every nominal slot of a schedule is decided once, the decision never changes, and none is left out:
//! neither between two of one timetable nor at its end, whoever leads. No run stands for two slots.
//!
//! Source: issue 5, "slot ledger"; docs/decisions/0008, "a slot is a row that is keyed by its nominal
//! time".

use std::collections::BTreeMap;

use quorate::model::{Cadence, Mode, RunId, Slot, TimeMs};
use quorate::state::{CampaignFact, Fact, State};

use super::events_are_the_same::Events;

/// A schedule and a nominal time of it, or the moment a timetable was set.
type Key = (String, TimeMs);

#[derive(Default)]
pub(super) struct Slots {
    decided: BTreeMap<Key, Slot>,
    /// How far each ledger was looked at.
    seen: BTreeMap<String, TimeMs>,
    /// The interval that counts since a moment, if it is one.
    timetables: BTreeMap<Key, Option<u64>>,
    runs: BTreeMap<RunId, Key>,
}

impl Slots {
    /// Takes in what is new in a state.
    pub(super) fn note(&mut self, state: &State) -> Result<(), String> {
        for schedule in state.schedules() {
            let Some(orchestrator) = state.orchestrator(&schedule.key) else { continue };
            let interval = match (orchestrator.mode, &schedule.timetable.cadence) {
                (Mode::Scheduled | Mode::Paused, Cadence::Every { interval_ms }) => {
                    Some(*interval_ms)
                }
                _ => None,
            };
            self.timetables.insert((schedule.key.clone(), schedule.since_ms), interval);
            let seen = self.seen.get(&schedule.key).copied().unwrap_or(0);
            self.note_slots(state.slots_from(&schedule.key, seen + 1))?;
            self.seen.insert(schedule.key.clone(), seen.max(schedule.decided_ms));
        }
        Ok(())
    }

    /// Holds all rows of a state against what others showed: what a member has just loaded, and what
    /// they have in the end.
    pub(super) fn note_all(&mut self, state: &State) -> Result<(), String> {
        state
            .schedules()
            .try_for_each(|schedule| self.note_slots(state.slots_from(&schedule.key, 0)))
    }

    fn note_slots<'a>(&mut self, slots: impl Iterator<Item = &'a Slot>) -> Result<(), String> {
        for slot in slots {
            let key = (slot.schedule.clone(), slot.nominal_ms);
            let known = self.decided.entry(key.clone()).or_insert_with(|| slot.clone());
            if known != slot {
                return Err(format!("{known:?} was decided again: {slot:?}"));
            }
            let Some(run_id) = slot.decision.run_id() else { continue };
            let stands_for = self.runs.entry(run_id).or_insert_with(|| key.clone());
            if *stands_for != key {
                return Err(format!("run {run_id} stands for {stands_for:?} and for {key:?}"));
            }
        }
        Ok(())
    }

    /// Holds the events of the whole run against the rows; gives how many of each decision there are.
    pub(super) fn check_events(
        &self,
        events: &Events,
    ) -> Result<BTreeMap<&'static str, u64>, String> {
        let (mut last, mut counts) = (BTreeMap::new(), BTreeMap::new());
        let mut decided = 0;
        for (at, fact) in events.iter() {
            let Fact::Campaign(CampaignFact::SlotDecided { schedule, nominal_ms, decision }) = fact
            else {
                continue;
            };
            let before = last.insert(schedule.clone(), *nominal_ms);
            if before.is_some_and(|before| before >= *nominal_ms) {
                return Err(format!("at {at:?} {fact:?}, after {before:?}"));
            }
            if let Some(due) =
                self.due(schedule, before, *nominal_ms).filter(|due| due != nominal_ms)
            {
                return Err(format!("at {at:?} {fact:?}, and {due} was due"));
            }
            let row = self.decided.get(&(schedule.clone(), *nominal_ms));
            if row.is_none_or(|row| row.decision.as_str() != *decision) {
                return Err(format!("at {at:?} {fact:?}, and the ledger says {row:?}"));
            }
            *counts.entry(*decision).or_default() += 1;
            decided += 1;
        }
        if decided == self.decided.len() {
            self.check_ends()?;
            return Ok(counts);
        }
        Err(format!("{decided} slots were decided, and {} stand in ledgers", self.decided.len()))
    }

    /// A timetable with a rhythm that another one followed got all that was due of it.
    fn check_ends(&self) -> Result<(), String> {
        let next = self.timetables.iter().skip(1);
        for (((schedule, since), interval), ((other, until), _)) in self.timetables.iter().zip(next)
        {
            let Some(interval) = interval.filter(|_| schedule == other) else { continue };
            let last = since + (until - since) / interval * interval;
            if last > *since && !self.decided.contains_key(&(schedule.clone(), last)) {
                return Err(format!("{last} of {schedule} was due, and {until} began another"));
            }
        }
        Ok(())
    }

    /// The slot that was due after `before`, if the timetable of the one at `nominal_ms` has a rhythm.
    fn due(&self, schedule: &str, before: Option<TimeMs>, nominal_ms: TimeMs) -> Option<TimeMs> {
        let until = (schedule.to_owned(), nominal_ms);
        let (key, interval) = self.timetables.range((schedule.to_owned(), 0)..until).next_back()?;
        let since = before.unwrap_or(0).max(key.1);
        (*interval).map(|interval| since + interval)
    }
}

#[cfg(test)]
mod tests {
    use quorate::model::SlotDecision;

    use super::*;

    fn slot(nominal_ms: TimeMs, decision: SlotDecision) -> Slot {
        Slot { schedule: "s".to_owned(), nominal_ms, decision, decided_at_ms: nominal_ms }
    }

    fn decided(slot: &Slot) -> Fact {
        Fact::Campaign(CampaignFact::SlotDecided {
            schedule: slot.schedule.clone(),
            nominal_ms: slot.nominal_ms,
            decision: slot.decision.as_str(),
        })
    }

    /// Timetables from 1000 on every second, from 5500 on every two.
    fn judged(slots: &[Slot], told: &[&Slot]) -> Result<BTreeMap<&'static str, u64>, String> {
        let mut ledger = Slots::default();
        ledger.timetables.insert(("s".to_owned(), 1000), Some(1000));
        ledger.timetables.insert(("s".to_owned(), 5500), Some(2000));
        ledger.note_slots(slots.iter())?;
        ledger.check_events(&Events::made(told.iter().map(|slot| decided(slot))))
    }

    #[test]
    fn slots_decided_twice_left_out_or_shared_are_found() {
        use SlotDecision::{MissedOutage, Ran, SkippedOverlap};
        let good = [
            slot(2000, Ran(1)),
            slot(3000, SkippedOverlap),
            slot(4000, MissedOutage),
            slot(5000, MissedOutage),
            slot(7500, Ran(2)),
        ];
        let [first, second, third, last, fourth] = &good;
        let counts = judged(&good, &[first, second, third, last, fourth]);
        assert_eq!(counts.map(|counts| counts["ran"]), Ok(2), "a new timetable may begin between");
        let ended = [first.clone(), second.clone(), third.clone(), fourth.clone()];
        let why = judged(&ended, &[first, second, third, fourth]).unwrap_err();
        assert!(why.contains("5000 of s was due"), "{why}");
        assert!(judged(&good, &[first, second, fourth]).is_err(), "one is told of by nobody");
        let gap = [slot(2000, Ran(1)), slot(4000, Ran(2))];
        assert!(judged(&gap, &[&gap[0], &gap[1]]).unwrap_err().contains("3000 was due"));
        assert!(judged(&good, &[second, first, third, last, fourth]).is_err(), "out of order");
        let twice = [first, first, second, third, last, fourth];
        assert!(judged(&good, &twice).is_err(), "told twice");
        let again = [slot(2000, Ran(1)), slot(2000, MissedOutage)];
        assert!(judged(&again, &[]).unwrap_err().contains("decided again"));
        let shared = [slot(2000, Ran(1)), slot(3000, Ran(1))];
        assert!(judged(&shared, &[]).unwrap_err().contains("stands for"));
    }
}

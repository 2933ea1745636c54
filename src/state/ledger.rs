//! The ledger of a schedule's slots (contract 3.4 "Modes").
//!
//! A schedule's row says how far its ledger goes; each decision moves it on, so a slot that was decided
//! cannot be decided again, and none is left out: of intervals apply knows which one is next. A timetable
//! that ends leaves a [`Closing`] until all that was due of it is decided.

use super::apply::Txn;
use super::campaign_command::{SlotChoice, SlotPlan};
use super::{CampaignFact, Outcome, ROWS_PER_COMMAND_MAX, Rejection, Reply, State};
use crate::canary::{self, Canary};
use crate::model::{
    Closing, Epoch, Mode, Orchestrator, RunId, Schedule, Slot, SlotDecision, TimeMs,
};

/// Slots remembered of each schedule; the oldest are forgotten first.
pub const SLOTS_MAX: usize = 10_000;
/// Timetables of one schedule that have ended and are not closed yet.
pub const CLOSINGS_MAX: usize = 16;

impl State {
    /// How many slots of a schedule are remembered.
    #[must_use]
    pub fn slots_kept(&self, key: &str) -> usize {
        self.schedule(key).map_or(0, |schedule| {
            usize::try_from(schedule.counts.iter().sum::<u64>() - schedule.forgotten)
                .unwrap_or(usize::MAX)
        })
    }

    /// Slots of one schedule that were due in `from..`, the oldest first.
    pub fn slots_from(&self, key: &str, from: TimeMs) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots
            .range((key.to_owned(), from), (key.to_owned(), TimeMs::MAX))
            .map(|(_, slot)| slot)
    }
}

impl Txn<'_> {
    pub(super) fn judge_schedule(&mut self, epoch: Epoch, key: String, degraded: String) -> Reply {
        self.check_epoch(epoch)?;
        let stale = self.state.schedule(&key).is_none_or(|known| known.degraded == degraded);
        if !stale {
            self.state.schedules.edit(&mut self.state.rows, &key, |schedule| {
                schedule.degraded = degraded;
            });
            self.tell(CampaignFact::OrchestratorChanged { name: key });
        }
        Ok(Outcome::Judged { accepted: u32::from(!stale), stale: u32::from(stale) })
    }

    /// Decides slots in their order, up to the first that cannot be decided so.
    pub(super) fn decide_slots(
        &mut self,
        epoch: Epoch,
        key: &str,
        seen_decided_ms: TimeMs,
        slots: &[SlotPlan],
    ) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(slots.len())?;
        let offered = u32::try_from(slots.len()).expect("a batch is bounded");
        let current = self.state.schedule(key).filter(|row| row.decided_ms == seen_decided_ms);
        if current.is_none() {
            return Ok(Outcome::Judged { accepted: 0, stale: offered });
        }
        let mut accepted = 0;
        for slot in slots {
            if !self.decide_slot(key, *slot) {
                break;
            }
            accepted += 1;
        }
        if accepted > 0 {
            self.forget_old_slots(key);
        }
        Ok(Outcome::Judged { accepted, stale: offered - accepted })
    }

    fn decide_slot(&mut self, key: &str, slot: SlotPlan) -> bool {
        let Some(schedule) = self.state.schedule(key) else { return false };
        let Some(orchestrator) = self.state.orchestrator(key) else { return false };
        let nominal_ms = slot.nominal_ms;
        if nominal_ms > self.now || !may_follow(schedule, orchestrator, nominal_ms) {
            return false;
        }
        let may_run = orchestrator.may_launch();
        let decision = match slot.choice {
            SlotChoice::Run | SlotChoice::CatchUp
                if !may_run || orchestrator.open_run.is_some() =>
            {
                return false;
            }
            SlotChoice::Run => SlotDecision::Ran(self.begin_scheduled_run(key, nominal_ms)),
            SlotChoice::CatchUp => {
                SlotDecision::CaughtUp(self.begin_scheduled_run(key, nominal_ms))
            }
            SlotChoice::SkipOverlap
                if orchestrator.open_run.is_some()
                    || schedule.fell_due_during_a_run(nominal_ms, orchestrator) =>
            {
                SlotDecision::SkippedOverlap
            }
            SlotChoice::SkipInactive if !may_run => SlotDecision::SkippedInactive,
            SlotChoice::SkipOverlap | SlotChoice::SkipInactive => return false,
            SlotChoice::Miss => SlotDecision::MissedOutage,
        };
        self.note_slot(key, nominal_ms, decision);
        true
    }

    /// Ends the timetable that there is, for an orchestrator in mode `next` from then on. What may be due
    /// of it is decided when the leader's calendar says what that is ([`Self::close_slots`]), and before
    /// anything of the timetable that begins now.
    pub(super) fn close_ledger(&mut self, key: &str, next: Option<Mode>) -> Result<(), Rejection> {
        let Some(schedule) = self.state.schedule(key) else { return Ok(()) };
        let closing = self.closing_of(schedule, next);
        if closing.is_some() && schedule.closings.len() >= CLOSINGS_MAX {
            return Err(Rejection::LedgerBehind { max: CLOSINGS_MAX as u64 });
        }
        let now = self.now;
        self.state.schedules.edit(&mut self.state.rows, &key.to_owned(), |schedule| {
            schedule.closings.extend(closing);
            schedule.since_ms = now;
            skip_to_beginning(schedule);
        });
        Ok(())
    }

    /// What is left of a timetable that ends now, if anything can be.
    fn closing_of(&self, schedule: &Schedule, next: Option<Mode>) -> Option<Closing> {
        let row = self.state.orchestrator(&schedule.key)?;
        let (cadence, since_ms) = (schedule.timetable.cadence.clone(), schedule.since_ms);
        let by_timetable = matches!(row.mode, Mode::Scheduled | Mode::Paused);
        let decided_ms = schedule.decided_ms.max(since_ms);
        let first_ms = cadence.next_interval(since_ms, decided_ms).unwrap_or(decided_ms + 1);
        if !by_timetable || first_ms > self.now {
            return None;
        }
        let rests = |mode: Mode| matches!(mode, Mode::Manual | Mode::Paused);
        let decision = match !row.is_active || rests(row.mode) || next.is_some_and(rests) {
            true => SlotDecision::SkippedInactive,
            false => SlotDecision::MissedOutage,
        };
        Some(Closing { cadence, since_ms, until_ms: self.now, decision })
    }

    /// Decides slots of the oldest timetable that has ended, in their order, up to the first that cannot
    /// be the next one. When none is left, the ledger goes on with the timetable behind it.
    pub(super) fn close_slots(
        &mut self,
        epoch: Epoch,
        key: &str,
        (seen_decided_ms, until_ms): (TimeMs, TimeMs),
        nominal_ms: &[TimeMs],
        done: bool,
    ) -> Reply {
        self.check_epoch(epoch)?;
        if nominal_ms.len() > ROWS_PER_COMMAND_MAX {
            let (len, max) = (nominal_ms.len() as u64, ROWS_PER_COMMAND_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        let current = self.state.schedule(key).filter(|row| row.decided_ms == seen_decided_ms);
        let oldest = current.and_then(|row| row.closings.first());
        let Some(closing) = oldest.filter(|oldest| oldest.until_ms == until_ms).cloned() else {
            return Ok(Outcome::Judged { accepted: 0, stale: 1 });
        };
        let (mut accepted, mut decided_ms) = (0, seen_decided_ms);
        for at in nominal_ms {
            let is_next = *at > decided_ms
                && *at <= closing.until_ms
                && closing.next_interval(decided_ms).is_none_or(|next| next == *at);
            if !is_next {
                break;
            }
            self.note_slot(key, *at, closing.decision.clone());
            (accepted, decided_ms) = (accepted + 1, *at);
        }
        let all = accepted as usize == nominal_ms.len();
        let ended = closing.next_interval(decided_ms).is_none_or(|next| next > closing.until_ms);
        if all && done && ended {
            self.state.schedules.edit(&mut self.state.rows, &key.to_owned(), |schedule| {
                schedule.decided_ms = schedule.decided_ms.max(closing.until_ms);
                schedule.closings.remove(0);
                skip_to_beginning(schedule);
            });
            accepted += 1;
        }
        if accepted > 0 {
            self.forget_old_slots(key);
        }
        Ok(Outcome::Judged { accepted, stale: u32::from(accepted == 0) })
    }

    fn note_slot(&mut self, key: &str, nominal_ms: TimeMs, decision: SlotDecision) {
        let ordinal = decision.ordinal();
        let word = decision.as_str();
        let row = Slot { schedule: key.to_owned(), nominal_ms, decision, decided_at_ms: self.now };
        self.state.slots.put(&mut self.state.rows, (key.to_owned(), nominal_ms), row);
        self.state.schedules.edit(&mut self.state.rows, &key.to_owned(), |schedule| {
            schedule.decided_ms = nominal_ms;
            schedule.counts[ordinal] += 1;
        });
        let schedule = key.to_owned();
        self.tell(CampaignFact::SlotDecided { schedule, nominal_ms, decision: word });
    }

    fn begin_scheduled_run(&mut self, key: &str, nominal_ms: TimeMs) -> RunId {
        let context = format!("{{\"slot_ms\":{nominal_ms}}}");
        self.open_run(key, "scheduler".to_owned(), context, nominal_ms)
    }

    fn forget_old_slots(&mut self, key: &str) {
        while self.state.slots_kept(key) > SLOTS_MAX {
            let Some(oldest) = self.state.slots_from(key, 0).next() else { return };
            let row = (key.to_owned(), oldest.nominal_ms);
            self.state.slots.remove(&mut self.state.rows, &row);
            self.state.schedules.edit(&mut self.state.rows, &key.to_owned(), |schedule| {
                schedule.forgotten += 1;
            });
        }
    }
}

/// Where nothing is left of timetables before it, the ledger goes on from where the present one was set.
fn skip_to_beginning(schedule: &mut Schedule) {
    if schedule.closings.is_empty() {
        schedule.decided_ms = schedule.decided_ms.max(schedule.since_ms);
    }
}

impl Closing {
    /// The first slot behind `decided_ms`, as its cadence has it.
    fn next_interval(&self, decided_ms: TimeMs) -> Option<TimeMs> {
        self.cadence.next_interval(self.since_ms, decided_ms.max(self.since_ms))
    }
}

/// Whether a slot is the next one of its schedule, as far as that can be told without a calendar.
fn may_follow(schedule: &Schedule, orchestrator: &Orchestrator, nominal_ms: TimeMs) -> bool {
    if !schedule.closings.is_empty() {
        return false;
    }
    if nominal_ms <= schedule.decided_ms {
        return canary::active(Canary::SlotTwice) && nominal_ms == schedule.decided_ms;
    }
    let next = schedule.timetable.cadence.next_interval(schedule.since_ms, schedule.decided_ms);
    match orchestrator.mode {
        Mode::Manual => false,
        Mode::Continuous => true,
        Mode::Scheduled | Mode::Paused => next.is_none_or(|next| next == nominal_ms),
    }
}

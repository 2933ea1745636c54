//! How assignments end: completed or given up, each once (contract 5.1, 5.3).

use super::apply::Txn;
use super::bot_command::{BotFact, BotOutcome, BotReport, Verdict};
use super::bot_leases::{back_to_waiting, check_items};
use super::rows::BlobPart;
use super::{Outcome, Reply, State, blob_owner};
use crate::model::{AssignmentPlace, AssignmentState, BotPlace, DerivedId, Payload, Progress};

/// The longest result of an assignment, in bytes.
pub const BOT_RESULT_MAX: usize = 16 * 1024;
/// Results up to this many bytes lie in the block, beside 63 others.
const INLINE_BYTES_MAX: usize = 24;

impl State {
    /// What would become of a report, without what it changes.
    fn judge_report(
        &self,
        report: &BotReport,
        completes: bool,
    ) -> Result<AssignmentPlace, Verdict> {
        let place = self.assignment_place(report.task).ok_or(Verdict::NotFound)?;
        let blank = Progress::default();
        let row = self.progress(place).unwrap_or(&blank);
        if let Some(bot) = report.bot {
            // One that is gone may end what it is leased as, and one that is there what was made for it,
            // though it may be another's share since.
            let bot = self.named_bot(bot).ok_or(Verdict::NotFound)?;
            if self.bot_of(place, row) != Some(bot) && self.made_for(place) != Some(bot) {
                return Err(Verdict::NotFound);
            }
        }
        let same = report.attempt.is_none_or(|attempt| attempt == row.attempt);
        match (row.state, report.attempt) {
            // Without a try there is nothing to tell a failure from the same one told again.
            (AssignmentState::Waiting, None) if row.told && !completes && !report.permanent => {
                Err(Verdict::Repeated)
            }
            (AssignmentState::Waiting, None) => Ok(place),
            (AssignmentState::Leased, None) => Err(Verdict::Held),
            (AssignmentState::Leased, Some(_)) if same => Ok(place),
            (AssignmentState::Waiting | AssignmentState::Leased, Some(_)) => Err(Verdict::Stale),
            (AssignmentState::Completed | AssignmentState::Failed, _) if !same => {
                Err(Verdict::Stale)
            }
            (AssignmentState::Completed, _) if completes => Err(Verdict::Repeated),
            (AssignmentState::Failed, _) if !completes => Err(Verdict::Repeated),
            (AssignmentState::Completed | AssignmentState::Failed, _) => Err(Verdict::Ended),
        }
    }

    /// Whose assignment it is, as whom it is leased, or who ended it.
    pub(super) fn bot_of(&self, place: AssignmentPlace, row: &Progress) -> Option<BotPlace> {
        if row.state == AssignmentState::Waiting {
            return self.assignee(place);
        }
        let swarm = self.waves.get(&place.wave)?.swarm;
        Some(BotPlace { swarm, index: row.bot.unwrap_or(place.index) })
    }
}

impl Txn<'_> {
    pub(super) fn end_assignments(&mut self, items: Vec<BotReport>, completes: bool) -> Reply {
        check_items(items.len())?;
        let single = (items.len() == 1).then(|| items[0].task);
        let (mut completed, mut failed, mut retried) = (0, 0, 0);
        let (mut verdicts, mut places) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            if item.text.len() > BOT_RESULT_MAX {
                verdicts.push(Verdict::TooLarge);
                continue;
            }
            let place = match self.state.judge_report(&item, completes) {
                Ok(place) => place,
                Err(verdict) => {
                    verdicts.push(verdict);
                    continue;
                }
            };
            verdicts.push(Verdict::Accepted);
            places.push(place);
            if completes {
                let bot = item.bot.and_then(|bot| self.state.named_bot(bot));
                self.end_assignment(place, bot, AssignmentState::Completed, item.text);
                completed += 1;
            } else {
                let now = self.now;
                self.state.note_activity(place, now);
                if self.fail_try(place, item.text, item.permanent) {
                    failed += 1;
                } else {
                    retried += 1;
                    let leaseless = item.attempt.is_none();
                    self.state.edit_progress(place, |row| row.told = leaseless);
                }
            }
        }
        if completed > 0 {
            self.state.edit_bot_totals(|totals| totals.completed += u64::from(completed));
        }
        self.note_contact(places.iter());
        self.tell_reported(completed, failed, retried, single);
        if !places.is_empty() {
            self.tend_waves(places.len());
        }
        Ok(Outcome::Bot(BotOutcome::Judged { verdicts }))
    }

    /// A try failed; gives whether the assignment was given up.
    pub(super) fn fail_try(
        &mut self,
        place: AssignmentPlace,
        error: String,
        permanent: bool,
    ) -> bool {
        let failures = self.state.progress(place).map_or(0, |row| row.failures) + 1;
        let gives_up = permanent || failures > self.state.policy().max_retries;
        self.state.edit_progress(place, |row| row.failures = failures);
        if gives_up {
            self.end_assignment(place, None, AssignmentState::Failed, error);
            self.state.edit_bot_totals(|totals| totals.failed += 1);
        } else {
            self.state.edit_progress(place, back_to_waiting);
        }
        gives_up
    }

    /// `named` is who ends it; what is leased is ended by who it is leased as.
    fn end_assignment(
        &mut self,
        place: AssignmentPlace,
        named: Option<BotPlace>,
        state: AssignmentState,
        text: String,
    ) {
        let blank = Progress::default();
        let row = self.state.progress(place).unwrap_or(&blank);
        let named = named.filter(|_| row.state == AssignmentState::Waiting);
        let bot = named.or_else(|| self.state.bot_of(place, row));
        let heir = bot.map(|bot| bot.index).filter(|index| *index != place.index);
        let result = if text.is_empty() {
            Payload::Absent
        } else {
            let (owner, part) = (blob_owner(place.wave, place.index), BlobPart::BotResult);
            self.state.rows.put_payload_beyond(INLINE_BYTES_MAX, &owner, part, text)
        };
        let now = self.now;
        self.state.edit_progress(place, |row| {
            row.state = state;
            row.lease = None;
            row.bot = heir;
            row.ended_at_ms = now;
            row.result = result;
        });
        if let Some(lender) = self.state.made_for(place).filter(|_| heir.is_some()) {
            self.state.edit_record(lender, |record| record.given += 1);
        }
        let Some(bot) = bot.filter(|bot| self.state.has_bot(*bot)) else { return };
        self.state.edit_record(bot, |record| {
            record.assigned += u64::from(heir.is_some());
            match state {
                AssignmentState::Completed => {
                    record.completed += 1;
                    record.contact_ms = now;
                }
                AssignmentState::Failed => record.failed += 1,
                AssignmentState::Waiting | AssignmentState::Leased => {}
            }
            record.last_active_ms = now;
        });
    }

    pub(super) fn tell_reported(
        &mut self,
        completed: u32,
        failed: u32,
        retried: u32,
        task: Option<DerivedId>,
    ) {
        if completed + failed + retried > 0 {
            self.tell_bots(BotFact::AssignmentsReported { completed, failed, retried, task });
        }
    }
}

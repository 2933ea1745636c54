//! Instruments: what experiments are done with (contract 3.6).

use super::apply::Txn;
use super::campaign_command::PutWhen;
use super::orchestrators::check_name;
use super::{CONTEXT_MAX, Outcome, Rejection, Reply, State};
use crate::model::{Instrument, JobTemplate};

/// Instruments there may be.
pub const INSTRUMENTS_MAX: usize = 10_000;

impl State {
    /// One instrument.
    #[must_use]
    pub fn instrument(&self, instrument_id: &str) -> Option<&Instrument> {
        self.instruments.get(&instrument_id.to_owned())
    }

    /// All instruments, by id.
    pub fn instruments(&self) -> impl Iterator<Item = &Instrument> {
        self.instruments.iter().map(|(_, instrument)| instrument)
    }

    /// How many instruments there are.
    #[must_use]
    pub fn instruments_len(&self) -> usize {
        self.instruments.len()
    }
}

impl Txn<'_> {
    pub(super) fn put_instrument(
        &mut self,
        instrument_id: String,
        owner: String,
        body: String,
        job: JobTemplate,
        when: PutWhen,
    ) -> Reply {
        check_name("instrument_id", &instrument_id)?;
        check_name("task_type", &job.task_type)?;
        if body.len() > CONTEXT_MAX || job.input.len() > CONTEXT_MAX {
            let text = format!("an instrument holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        let known = self.state.instrument(&instrument_id);
        match known {
            Some(_) if when == PutWhen::Absent => {
                let what = "Instrument".to_owned();
                return Err(Rejection::AlreadyThere { what, id: instrument_id });
            }
            None if when == PutWhen::Present => return Err(Rejection::InstrumentNotFound),
            None if self.state.instruments_len() >= INSTRUMENTS_MAX => {
                return Err(Rejection::too_many("instruments", INSTRUMENTS_MAX));
            }
            Some(_) | None => {}
        }
        let row = Instrument {
            instrument_id: instrument_id.clone(),
            owner: known.map_or(owner, |row| row.owner.clone()),
            body,
            job,
            created_at_ms: known.map_or(self.now, |row| row.created_at_ms),
            updated_at_ms: self.now,
        };
        self.state.instruments.put(&mut self.state.rows, instrument_id, row);
        Ok(Outcome::Done)
    }

    /// Experiments on it that wait or run go on.
    pub(super) fn remove_instrument(&mut self, instrument_id: &str) -> Reply {
        let key = instrument_id.to_owned();
        let removed = self.state.instruments.remove(&mut self.state.rows, &key);
        removed.map(|_| Outcome::Done).ok_or(Rejection::InstrumentNotFound)
    }
}

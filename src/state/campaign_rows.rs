//! How the rows of campaigns and their steps are keyed.

use super::TableId;
use super::rows::TableRow;
use super::structures::JobMinute;
use crate::model::{
    AgentCommand, Campaign, CampaignId, CampaignLine, CandidateNote, DecisionPage, Discovery,
    Instrument, Iteration, Model, Orchestrator, Run, RunId, Schedule, Slot, Structure, TimeMs,
};

/// Ends a text inside a key; ids and names hold no control characters.
const END: u8 = 0;

/// Rows whose key is a text that the row itself holds.
macro_rules! keyed_by_text {
    ($row:ty, $table:ident, $field:ident) => {
        impl TableRow for $row {
            type Key = String;
            const TABLE: TableId = TableId::$table;

            fn write_key(&self, key: &String, to: &mut Vec<u8>) {
                to.extend_from_slice(key.as_bytes());
            }

            fn read_key(&self, stored: &[u8]) -> Option<String> {
                (stored == self.$field.as_bytes()).then(|| self.$field.clone())
            }
        }
    };
}

keyed_by_text!(Orchestrator, Orchestrators, name);
keyed_by_text!(Schedule, Schedules, key);
keyed_by_text!(Structure, Structures, structure_id);
keyed_by_text!(Model, Models, name);
keyed_by_text!(Instrument, Instruments, instrument_id);

/// Rows whose key is a number that counts up.
macro_rules! keyed_by_number {
    ($row:ty, $table:ident) => {
        impl TableRow for $row {
            type Key = u64;
            const TABLE: TableId = TableId::$table;

            fn write_key(&self, key: &u64, to: &mut Vec<u8>) {
                to.extend_from_slice(&key.to_be_bytes());
            }

            fn read_key(&self, stored: &[u8]) -> Option<u64> {
                stored.try_into().ok().map(u64::from_be_bytes)
            }
        }
    };
}

keyed_by_number!(AgentCommand, AgentCommands);
keyed_by_number!(Discovery, Discoveries);
keyed_by_number!(JobMinute, JobMinutes);
keyed_by_number!(Run, Runs);

impl TableRow for Campaign {
    type Key = CampaignId;
    const TABLE: TableId = TableId::Campaigns;

    fn write_key(&self, key: &CampaignId, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_str().as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<CampaignId> {
        (stored == self.campaign_id.as_str().as_bytes()).then(|| self.campaign_id.clone())
    }
}

impl Iteration {
    /// The key that is stored so.
    pub(super) fn key_of(stored: &[u8]) -> Option<(CampaignId, u32)> {
        let (campaign_id, rest) = read_text(stored)?;
        Some((CampaignId::trusted(campaign_id), u32::from_be_bytes(rest.try_into().ok()?)))
    }
}

impl TableRow for Iteration {
    type Key = (CampaignId, u32);
    const TABLE: TableId = TableId::Iterations;

    fn write_key(&self, (campaign_id, index): &(CampaignId, u32), to: &mut Vec<u8>) {
        write_text(campaign_id.as_str(), to);
        to.extend_from_slice(&index.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(CampaignId, u32)> {
        Self::key_of(stored)
    }
}

impl TableRow for CandidateNote {
    type Key = (CampaignId, u32, u32);
    const TABLE: TableId = TableId::CandidateNotes;

    fn write_key(&self, (campaign_id, index, place): &(CampaignId, u32, u32), to: &mut Vec<u8>) {
        write_text(campaign_id.as_str(), to);
        to.extend_from_slice(&index.to_be_bytes());
        to.extend_from_slice(&place.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(CampaignId, u32, u32)> {
        let (campaign_id, rest) = read_text(stored)?;
        let (index, place) = rest.split_first_chunk()?;
        let place = u32::from_be_bytes(place.try_into().ok()?);
        Some((CampaignId::trusted(campaign_id), u32::from_be_bytes(*index), place))
    }
}

impl TableRow for CampaignLine {
    /// Whose, and its number.
    type Key = (CampaignId, u64);
    const TABLE: TableId = TableId::CampaignLines;

    fn write_key(&self, (campaign_id, number): &(CampaignId, u64), to: &mut Vec<u8>) {
        write_text(campaign_id.as_str(), to);
        to.extend_from_slice(&number.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(CampaignId, u64)> {
        let (campaign_id, rest) = read_text(stored)?;
        Some((CampaignId::trusted(campaign_id), u64::from_be_bytes(rest.try_into().ok()?)))
    }
}

impl TableRow for Slot {
    type Key = (String, TimeMs);
    const TABLE: TableId = TableId::Slots;

    fn write_key(&self, (schedule, nominal_ms): &(String, TimeMs), to: &mut Vec<u8>) {
        write_text(schedule, to);
        to.extend_from_slice(&nominal_ms.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(String, TimeMs)> {
        let (schedule, rest) = read_text(stored)?;
        Some((schedule.to_owned(), TimeMs::from_be_bytes(rest.try_into().ok()?)))
    }
}

impl TableRow for DecisionPage {
    /// Whose, and which one.
    type Key = (RunId, u32);
    const TABLE: TableId = TableId::DecisionPages;

    fn write_key(&self, (run_id, number): &(RunId, u32), to: &mut Vec<u8>) {
        to.extend_from_slice(&run_id.to_be_bytes());
        to.extend_from_slice(&number.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(RunId, u32)> {
        let (run_id, number) = stored.split_first_chunk()?;
        Some((RunId::from_be_bytes(*run_id), u32::from_be_bytes(number.try_into().ok()?)))
    }
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(text.as_bytes());
    to.push(END);
}

fn read_text(stored: &[u8]) -> Option<(&str, &[u8])> {
    let end = stored.iter().position(|byte| *byte == END)?;
    Some((std::str::from_utf8(&stored[..end]).ok()?, &stored[end + 1..]))
}

//! Bots: made and removed, their ids and what is counted of them (contract 5.1, 5.3).

use super::apply::Txn;
use super::bot_command::{BotCommand, BotFact, BotOutcome, BotRejection, BotSpec};
use super::bot_index::Figures;
use super::{Fact, Fatal, NAME_MAX, Outcome, Rejection, Reply, State, TableId};
use crate::model::{
    AssignmentPlace, Bot, BotBlock, BotPlace, BotRecord, DerivedId, IdOf, Progress, Span,
    block_slot,
};

/// The longest name of a tier, in bytes.
pub const TIER_MAX: usize = 64;
/// The most capabilities of a bot.
pub const BOT_CAPABILITIES_MAX: usize = 64;

impl State {
    /// The id of a bot, whether it is there or not.
    #[must_use]
    pub fn bot_id(&self, bot: BotPlace) -> DerivedId {
        let numbers = (u64::from(bot.swarm), bot.index);
        DerivedId::of(IdOf::Bot, self.bot_totals().seed, numbers)
    }

    /// The id of a swarm, whether it is there or not.
    #[must_use]
    pub fn swarm_id(&self, swarm: u32) -> DerivedId {
        DerivedId::of(IdOf::Swarm, self.bot_totals().seed, (u64::from(swarm), 0))
    }

    /// The bot of an id, if it is there.
    #[must_use]
    pub fn bot_place(&self, id: DerivedId) -> Option<BotPlace> {
        self.named_bot(id).filter(|bot| self.has_bot(*bot))
    }

    /// The bot of an id, whether it is there or not.
    pub(super) fn named_bot(&self, id: DerivedId) -> Option<BotPlace> {
        let (swarm, index) = id.numbers(IdOf::Bot, self.bot_totals().seed)?;
        Some(BotPlace { swarm: u32::try_from(swarm).ok()?, index })
    }

    /// The number of the swarm of an id, if it is there.
    #[must_use]
    pub fn swarm_number(&self, id: DerivedId) -> Option<u32> {
        let (swarm, _) = id.numbers(IdOf::Swarm, self.bot_totals().seed)?;
        let swarm = u32::try_from(swarm).ok()?;
        self.swarms.get(&swarm).is_some().then_some(swarm)
    }

    /// Whether a bot is there.
    #[must_use]
    pub fn has_bot(&self, bot: BotPlace) -> bool {
        match bot.swarm {
            0 => self.bots.get(&bot.index).is_some(),
            swarm => self.swarms.get(&swarm).is_some_and(|row| row.has(bot.index)),
        }
    }

    /// How many bots there are.
    #[must_use]
    pub fn bots_len(&self) -> u64 {
        self.bot_index.all.bots
    }

    /// How many more bots there may be (`bots.capacity`).
    #[must_use]
    pub fn bot_room(&self) -> u64 {
        self.policy().bots_max.saturating_sub(self.bots_len())
    }

    /// What is counted of a bot that is there.
    #[must_use]
    pub fn bot_record(&self, bot: BotPlace) -> BotRecord {
        if bot.swarm == 0 {
            return self.bots.get(&bot.index).map(|row| row.record).unwrap_or_default();
        }
        let (block, slot) = block_slot(bot.index);
        let records = self.bot_blocks.get(&(bot.swarm, block)).map(|block| &block.records);
        let found = records.and_then(|records| {
            let at = records.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
            records.get(at)
        });
        found.map(|(_, record)| *record).unwrap_or_default()
    }

    /// The tier of a bot, or of a swarm's bots.
    pub(super) fn tier_of(&self, bot: BotPlace) -> &str {
        let tier = match bot.swarm {
            0 => self.bots.get(&bot.index).map(|row| &row.tier),
            swarm => self.swarms.get(&swarm).map(|row| &row.tier),
        };
        tier.map_or("", String::as_str)
    }

    /// Reads one row of bots back from the home, and notes what is derived from it.
    pub(super) fn load_bot_row(
        &mut self,
        table: TableId,
        key: &[u8],
        value: &[u8],
        hash: u64,
    ) -> Result<(), Fatal> {
        let number = key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default();
        let long = key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default();
        let block = key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default();
        match table {
            TableId::Swarms => {
                self.swarms.load(key, value, hash)?;
                let row = self.swarms.get(&number).map(|row| (row.count, row.contact_ms));
                let (count, contact_ms) = row.unwrap_or_default();
                self.count_bots(BotPlace { swarm: number, index: 0 }, 0, count);
                if contact_ms > 0 {
                    self.bot_index.attach(BotPlace { swarm: number, index: 0 });
                }
            }
            TableId::Bots => {
                self.bots.load(key, value, hash)?;
                let bot = BotPlace { swarm: 0, index: number };
                self.count_bots(bot, 0, 1);
                self.count_record(bot, BotRecord::default(), self.bot_record(bot));
                if self.bot_record(bot).contact_ms > 0 {
                    self.bot_index.attach(bot);
                }
            }
            TableId::BotBlocks => {
                self.bot_blocks.load(key, value, hash)?;
                let records = self.bot_blocks.get(&(number, block)).map(|row| row.records.clone());
                let bot = BotPlace { swarm: number, index: 0 };
                for (_, record) in records.into_iter().flatten() {
                    self.count_record(bot, BotRecord::default(), record);
                }
            }
            TableId::Waves => {
                self.waves.load(key, value, hash)?;
                self.note_wave(long);
            }
            TableId::WaveBlocks => {
                self.wave_blocks.load(key, value, hash)?;
                let Some(row) = self.wave_blocks.get(&(long, block)).cloned() else {
                    return Ok(());
                };
                if self.waves.get(&long).is_none() {
                    self.bot_index.folding.insert(long);
                }
                if self.live_wave(long).is_none() {
                    return Ok(());
                }
                for progress in &row.rows {
                    let index = block * crate::model::BOT_BLOCK + u32::from(progress.slot);
                    let place = AssignmentPlace { wave: long, index };
                    self.note_progress(place, &Progress::default(), progress);
                }
            }
            _ => {
                self.workflows.load(key, value, hash)?;
                self.note_workflow(long);
                self.note_workflow_bytes(long);
            }
        }
        Ok(())
    }

    pub(super) fn count_bots(&mut self, bot: BotPlace, from: u32, to: u32) {
        let tier = self.tier_of(bot).to_owned();
        let figures = |bots: u32| Figures { bots: u64::from(bots), ..Figures::default() };
        self.bot_index.shift(bot.swarm, &tier, &figures(from), &figures(to));
    }

    fn count_record(&mut self, bot: BotPlace, from: BotRecord, to: BotRecord) {
        let tier = self.tier_of(bot).to_owned();
        let figures = |record: BotRecord| Figures {
            completed: record.completed,
            failed: record.failed,
            ..Figures::default()
        };
        if figures(from) != figures(to) {
            self.bot_index.shift(bot.swarm, &tier, &figures(from), &figures(to));
        }
    }
}

impl Txn<'_> {
    pub(super) fn bot_command(&mut self, command: BotCommand) -> Reply {
        let reply = self.apply_bot_command(command);
        self.state.write_bot_blocks();
        reply
    }

    fn apply_bot_command(&mut self, command: BotCommand) -> Reply {
        match command {
            BotCommand::CreateBot(spec) => self.create_bot(spec),
            BotCommand::CreateSwarm { spec, count } => self.create_swarm(spec, count),
            BotCommand::ScaleSwarm { swarm, count } => self.scale_swarm(swarm, count),
            BotCommand::RemoveBot { bot } => self.remove_bot(bot),
            BotCommand::RemoveSwarm { swarm } => self.remove_swarm(swarm),
            BotCommand::AssignBot { bot, work } => self.assign_bot(bot, work),
            BotCommand::AssignSwarm { swarm, work } => self.assign_swarm(swarm, work),
            BotCommand::LeaseAssignments { holder, scope, max, lease_ms, types } => {
                self.lease_assignments(holder, (&scope, &types), max, lease_ms)
            }
            BotCommand::RenewLeases { leases, lease_ms } => self.renew_leases(&leases, lease_ms),
            BotCommand::ReleaseLeases { leases } => self.release_leases(&leases),
            BotCommand::CompleteAssignments { items } => self.end_assignments(items, true),
            BotCommand::FailAssignments { items } => self.end_assignments(items, false),
            BotCommand::ExpireLeases { epoch, leases } => self.expire_leases(epoch, &leases),
            BotCommand::CreateWorkflow { tasks, priority } => self.create_workflow(tasks, priority),
            BotCommand::RecordStep { epoch, workflow, seen, result } => {
                self.record_step(epoch, workflow, seen, result)
            }
            BotCommand::CancelWorkflow { workflow } => self.cancel_workflow(workflow),
        }
    }

    fn create_bot(&mut self, spec: BotSpec) -> Reply {
        check_spec(&spec)?;
        let index = self.state.bot_totals().next_bot;
        let next = index.checked_add(1).filter(|_| self.state.bot_room() > 0);
        let max = self.state.policy().bots_max;
        let next = next.ok_or(BotRejection::BotCapacity { max })?;
        self.ensure_bot_seed();
        let BotSpec { name, tier, capabilities } = spec;
        let record = BotRecord::default();
        let row = Bot { name, tier, capabilities, created_at_ms: self.now, record };
        self.state.bots.put(&mut self.state.rows, index, row);
        let place = BotPlace { swarm: 0, index };
        self.state.count_bots(place, 0, 1);
        self.state.edit_bot_totals(|totals| {
            totals.next_bot = next;
            totals.created += 1;
        });
        let bot = self.state.bot_id(place);
        self.tell_bots(BotFact::BotCreated { bot });
        self.tend_waves(1);
        Ok(Outcome::Bot(BotOutcome::BotCreated { bot }))
    }

    fn remove_bot(&mut self, bot: DerivedId) -> Reply {
        let place = self.state.bot_place(bot).ok_or(BotRejection::BotNotFound { bot })?;
        if place.swarm == 0 {
            let tier = self.state.tier_of(place).to_owned();
            self.state.bot_index.drop_bot(place, &tier);
            self.state.edit_record(place, |record| *record = BotRecord::default());
            self.state.count_bots(place, 1, 0);
            self.state.bots.remove(&mut self.state.rows, &place.index);
        } else {
            let span = Span { first: place.index, end: place.index + 1 };
            self.check_stretches(place.swarm)?;
            self.remove_members(place.swarm, &[span]);
        }
        self.tell_bots(BotFact::BotRemoved { bot });
        self.tend_waves(1);
        Ok(Outcome::Done)
    }

    /// Ids are derived with a number that the first command that needs one brings along. It stays
    /// when a new cluster is founded on this state, so that clients' ids remain good.
    pub(super) fn ensure_bot_seed(&mut self) {
        if self.state.bot_totals().seed == 0 {
            let request_id = self.request_id.0.to_be_bytes();
            let cluster = self.state.cluster_id() as u64;
            let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&request_id, cluster).max(1);
            self.state.edit_bot_totals(|totals| totals.seed = seed);
        }
    }

    pub(super) fn tell_bots(&mut self, fact: BotFact) {
        self.facts.push(Fact::Bot(fact));
    }
}

impl State {
    /// Changes what is counted of a bot that is there.
    pub(super) fn edit_record(&mut self, bot: BotPlace, edit: impl FnOnce(&mut BotRecord)) {
        let before = self.bot_record(bot);
        let mut after = before;
        edit(&mut after);
        if before == after {
            return;
        }
        self.count_record(bot, before, after);
        if bot.swarm == 0 {
            if after.contact_ms > 0 {
                self.bot_index.attach(bot);
            }
            self.bots.edit(&mut self.rows, &bot.index, |row| row.record = after);
            return;
        }
        let (block, slot) = block_slot(bot.index);
        let key = (bot.swarm, block);
        let put =
            |row: &mut BotBlock| match row.records.binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) if after == BotRecord::default() => drop(row.records.remove(at)),
                Ok(at) => row.records[at].1 = after,
                Err(at) => row.records.insert(at, (slot, after)),
            };
        if self.bot_blocks.get(&key).is_none() {
            self.bot_blocks.put(&mut self.rows, key, BotBlock { records: vec![(slot, after)] });
        } else {
            self.bot_blocks.edit_unwritten(&key, put);
            self.bot_index.unwritten_bots.insert(key);
        }
    }

    /// Records the blocks that were changed: each once, however much of it was.
    pub(super) fn write_bot_blocks(&mut self) {
        while let Some(key) = self.bot_index.unwritten_waves.pop_first() {
            self.wave_blocks.write(&mut self.rows, &key);
        }
        while let Some(key) = self.bot_index.unwritten_bots.pop_first() {
            if self.bot_blocks.get(&key).is_some_and(|row| row.records.is_empty()) {
                self.bot_blocks.remove(&mut self.rows, &key);
            } else {
                self.bot_blocks.write(&mut self.rows, &key);
            }
        }
    }
}

pub(super) fn check_spec(spec: &BotSpec) -> Result<(), Rejection> {
    check_text("name", &spec.name, NAME_MAX)?;
    check_text("tier", &spec.tier, TIER_MAX)?;
    if spec.capabilities.len() > BOT_CAPABILITIES_MAX {
        let text = format!("capabilities holds at most {BOT_CAPABILITIES_MAX} texts");
        return Err(BotRejection::Invalid(text).into());
    }
    spec.capabilities.iter().try_for_each(|text| check_text("capabilities", text, NAME_MAX))
}

pub(super) fn check_text(what: &str, text: &str, max: usize) -> Result<(), Rejection> {
    if text.len() > max {
        let text = format!("{what} holds at most {max} bytes");
        return Err(BotRejection::Invalid(text).into());
    }
    Ok(())
}

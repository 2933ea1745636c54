//! Orchestrators, and the ledger of their slots (contract 3.2 to 3.4).
//!
//! A schedule's row says how far its ledger goes; each decision moves it on, so a slot that was decided
//! cannot be decided again, and none is left out: of intervals apply knows which one is next.

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::{DueSlots, OrchestratorPatch, SlotChoice, SlotPlan};
use super::{CampaignFact, Outcome, Rejection, Reply, State};
use crate::canary::{self, Canary};
use crate::model::{
    Budget, Cadence, Epoch, FleetStats, JobTemplate, Mode, Orchestrator, Resource, Schedule, Slot,
    SlotDecision, StepConfig, TimeMs, Timetable,
};

/// Orchestrators there may be.
pub const ORCHESTRATORS_MAX: usize = 100;
/// Slots that one change of a timetable may decide.
pub const DUE_SLOTS_MAX: usize = 1000;
/// The longest name, of anything a campaign has to do with, in bytes.
pub const NAME_MAX: usize = 256;
/// Slots remembered of each schedule; the oldest are forgotten first.
pub const SLOTS_MAX: usize = 10_000;
/// The one that is always there.
pub const DEFAULT_ORCHESTRATOR: &str = "default";
/// The longest pause of mode `CONTINUOUS`: a day.
const PAUSE_MAX_MS: u64 = 24 * 3_600_000;
/// The pause when nothing was said (contract 3.4).
const PAUSE_DEFAULT_MS: u64 = 30_000;

/// A UUID (version 8) of 128 bits that were hashed from what it names.
#[must_use]
pub fn derive_uuid(seed: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for part in seed {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
    let hash = hash & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{hash:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl State {
    /// All orchestrators, by name.
    pub fn orchestrators(&self) -> impl DoubleEndedIterator<Item = &Orchestrator> {
        self.orchestrators.iter().map(|(_, orchestrator)| orchestrator)
    }

    /// One orchestrator.
    #[must_use]
    pub fn orchestrator(&self, name: &str) -> Option<&Orchestrator> {
        self.orchestrators.get(&name.to_owned())
    }

    /// All schedules, by name.
    pub fn schedules(&self) -> impl DoubleEndedIterator<Item = &Schedule> {
        self.schedules.iter().map(|(_, schedule)| schedule)
    }

    /// The schedule of an orchestrator.
    #[must_use]
    pub fn schedule(&self, key: &str) -> Option<&Schedule> {
        self.schedules.get(&key.to_owned())
    }

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
    /// The orchestrator that is there from the beginning (contract 3.3 `[P]`).
    pub(super) fn ensure_default_orchestrator(&mut self) {
        if self.state.orchestrator(DEFAULT_ORCHESTRATOR).is_none() {
            self.create_orchestrator(DEFAULT_ORCHESTRATOR.to_owned());
        }
    }

    pub(super) fn ensure_orchestrator(&mut self, name: String) -> Reply {
        if self.state.orchestrator(&name).is_some() {
            return Ok(Outcome::Done);
        }
        check_name("name", &name)?;
        if self.state.orchestrators.len() >= ORCHESTRATORS_MAX {
            let text = format!("there are {ORCHESTRATORS_MAX} orchestrators already");
            return Err(Rejection::InvalidCampaign(text));
        }
        self.create_orchestrator(name);
        Ok(Outcome::Done)
    }

    fn create_orchestrator(&mut self, name: String) {
        let cluster = self.state.cluster_id().to_be_bytes();
        let orchestrator = Orchestrator {
            id: derive_uuid(&[b"orchestrator", &cluster, name.as_bytes()]),
            name: name.clone(),
            description: "NANO-OS AGI Control Plane".to_owned(),
            mode: Mode::Manual,
            config: StepConfig::default(),
            pause_ms: PAUSE_DEFAULT_MS,
            budgets: BTreeMap::new(),
            is_active: true,
            error: String::new(),
            last_run_at_ms: 0,
            last_run_ended_ms: 0,
            last_training_at_ms: 0,
            last_experiment_at_ms: 0,
            runs: 0,
            runs_forgotten: 0,
            simulations: 0,
            experiments: 0,
            trainings: 0,
            stats: None::<FleetStats>,
            open_run: None,
            task: None,
            created_at_ms: self.now,
            updated_at_ms: self.now,
        };
        let schedule = Schedule {
            key: name.clone(),
            timetable: Timetable::default(),
            since_ms: self.now,
            decided_ms: self.now,
            degraded: String::new(),
            counts: [0; 5],
            forgotten: 0,
        };
        self.state.orchestrators.put(&mut self.state.rows, name.clone(), orchestrator);
        self.state.schedules.put(&mut self.state.rows, name.clone(), schedule);
        self.tell(CampaignFact::OrchestratorChanged { name });
    }

    /// Changes a row and notes the time.
    pub(super) fn edit_orchestrator(&mut self, name: &str, edit: impl FnOnce(&mut Orchestrator)) {
        let now = self.now;
        self.state.orchestrators.edit(&mut self.state.rows, &name.to_owned(), |orchestrator| {
            edit(orchestrator);
            orchestrator.updated_at_ms = now;
        });
    }

    pub(super) fn patch_orchestrator(&mut self, name: &str, patch: OrchestratorPatch) -> Reply {
        let before = self.state.orchestrator(name).ok_or_else(|| unknown(name))?;
        check_patch(&patch)?;
        let old = self.state.schedule(name).map(|schedule| &schedule.timetable);
        let timetable = old.zip(patch.timetable.as_ref()).map(|(old, patch)| patch.onto(old));
        if let Some(timetable) = &timetable {
            check_timetable(timetable)?;
        }
        if let Some(Some(task)) = &patch.task {
            self.check_task(name, task)?;
        }
        // Another cadence counts from now on: what was due before belongs to the old one.
        let other =
            timetable.as_ref().zip(old).is_some_and(|(new, old)| new.cadence != old.cadence);
        let anew = other || patch.mode.is_some_and(|mode| mode != before.mode);
        let now = self.now;
        if anew {
            self.close_ledger(name, &patch.due, patch.mode);
        }
        if anew || timetable.is_some() {
            self.state.schedules.edit(&mut self.state.rows, &name.to_owned(), |schedule| {
                if let Some(timetable) = timetable {
                    schedule.timetable = timetable;
                }
                if anew {
                    schedule.since_ms = now;
                    schedule.decided_ms = schedule.decided_ms.max(now);
                }
                schedule.degraded = String::new();
            });
        }
        // A budget counts what was promised before there was one: those jobs will be settled with it.
        let promised = patch.budgets.keys().map(|resource| {
            let key = (name.to_owned(), *resource);
            (*resource, self.state.indexes.promised.get(&key).copied().unwrap_or(0))
        });
        let promised: BTreeMap<Resource, u64> = promised.collect();
        self.edit_orchestrator(name, |orchestrator| {
            for setting in patch.settings {
                orchestrator.config.set(setting);
            }
            orchestrator.mode = patch.mode.unwrap_or(orchestrator.mode);
            orchestrator.pause_ms = patch.pause_ms.unwrap_or(orchestrator.pause_ms);
            if let Some(task) = patch.task {
                orchestrator.task = task;
            }
            if let Some(description) = patch.description {
                orchestrator.description = description;
            }
            for (resource, budget) in patch.budgets {
                match budget {
                    None => drop(orchestrator.budgets.remove(&resource)),
                    Some(Budget { limit, soft, .. }) => {
                        let reserved = promised.get(&resource).copied().unwrap_or(0);
                        let fresh = Budget { reserved, ..Budget::default() };
                        let known = orchestrator.budgets.entry(resource).or_insert(fresh);
                        *known = Budget { limit, soft, warned: false, ..*known };
                    }
                }
            }
        });
        self.tell(CampaignFact::OrchestratorChanged { name: name.to_owned() });
        Ok(Outcome::Done)
    }

    /// Whether an orchestrator may do this task instead of advancing campaigns.
    fn check_task(&self, name: &str, task: &JobTemplate) -> Result<(), Rejection> {
        check_name("task_type", &task.task_type)?;
        if task.input.len() > super::CONTEXT_MAX {
            let text = format!("input holds at most {} bytes", super::CONTEXT_MAX);
            return Err(Rejection::InvalidCampaign(text));
        }
        let mut campaigns = self.state.running_campaigns();
        if name == DEFAULT_ORCHESTRATOR || campaigns.any(|row| row.plan.orchestrator == name) {
            let text = format!("Orchestrator '{name}' advances campaigns; another may do a task");
            return Err(Rejection::InvalidCampaign(text));
        }
        Ok(())
    }

    pub(super) fn set_orchestrator_active(&mut self, name: &str, active: bool) -> Reply {
        let before = self.state.orchestrator(name).ok_or_else(|| unknown(name))?;
        if before.is_active != active {
            self.edit_orchestrator(name, |orchestrator| orchestrator.is_active = active);
            self.tell(CampaignFact::OrchestratorChanged { name: name.to_owned() });
        }
        Ok(Outcome::Done)
    }

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
        let may_run = orchestrator.is_active && orchestrator.mode != Mode::Paused;
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
            SlotChoice::SkipOverlap if orchestrator.open_run.is_some() => {
                SlotDecision::SkippedOverlap
            }
            SlotChoice::SkipInactive if !may_run => SlotDecision::SkippedInactive,
            SlotChoice::SkipOverlap | SlotChoice::SkipInactive => return false,
            SlotChoice::Miss => SlotDecision::MissedOutage,
        };
        self.note_slot(key, nominal_ms, decision);
        true
    }

    /// Decides what is due of a timetable that ends now, in mode `next` from then on.
    fn close_ledger(&mut self, key: &str, due: &DueSlots, next: Option<Mode>) {
        let Some(row) = self.state.orchestrator(key) else { return };
        let (mode, is_active, now) = (row.mode, row.is_active, self.now);
        let Some(schedule) = self.state.schedule(key) else { return };
        let by_timetable = matches!(mode, Mode::Scheduled | Mode::Paused);
        if !by_timetable || schedule.since_ms != due.since_ms {
            return;
        }
        let rests = |mode: Mode| matches!(mode, Mode::Manual | Mode::Paused);
        let decision = match !is_active || rests(mode) || next.is_some_and(rests) {
            true => SlotDecision::SkippedInactive,
            false => SlotDecision::MissedOutage,
        };
        let decided_ms = schedule.decided_ms;
        for nominal_ms in due.nominal_ms.iter().filter(|at| (decided_ms + 1..=now).contains(at)) {
            self.note_slot(key, *nominal_ms, decision.clone());
        }
        self.forget_old_slots(key);
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

    fn begin_scheduled_run(&mut self, key: &str, nominal_ms: TimeMs) -> crate::model::RunId {
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

/// Whether a slot is the next one of its schedule, as far as that can be told without a calendar.
fn may_follow(schedule: &Schedule, orchestrator: &Orchestrator, nominal_ms: TimeMs) -> bool {
    if nominal_ms <= schedule.decided_ms {
        return canary::active(Canary::SlotTwice) && nominal_ms == schedule.decided_ms;
    }
    match (orchestrator.mode, &schedule.timetable.cadence) {
        (Mode::Manual, _) => false,
        (Mode::Continuous, _) | (_, Cadence::Cron { .. }) => true,
        (Mode::Scheduled | Mode::Paused, Cadence::Every { interval_ms }) => {
            let since = |at: TimeMs| at.saturating_sub(schedule.since_ms) / interval_ms;
            let on_time =
                (nominal_ms - schedule.since_ms.min(nominal_ms)).is_multiple_of(*interval_ms);
            on_time && since(nominal_ms) == since(schedule.decided_ms) + 1
        }
    }
}

/// What can be checked of a patch alone.
fn check_patch(patch: &OrchestratorPatch) -> Result<(), Rejection> {
    for setting in &patch.settings {
        setting.check().map_err(Rejection::InvalidCampaign)?;
    }
    if patch.pause_ms.is_some_and(|pause_ms| pause_ms == 0 || pause_ms > PAUSE_MAX_MS) {
        let text = format!("the pause between steps must be 1 to {PAUSE_MAX_MS} ms");
        return Err(Rejection::InvalidCampaign(text));
    }
    if patch.description.as_ref().is_some_and(|text| text.len() > super::CONTEXT_MAX) {
        return Err(Rejection::InvalidCampaign("description is too long".to_owned()));
    }
    if patch.due.nominal_ms.len() > DUE_SLOTS_MAX {
        let (len, max) = (patch.due.nominal_ms.len() as u64, DUE_SLOTS_MAX as u64);
        return Err(Rejection::BatchSize { len, max });
    }
    Ok(())
}

/// What can be checked of a timetable without a calendar.
fn check_timetable(timetable: &Timetable) -> Result<(), Rejection> {
    match &timetable.cadence {
        Cadence::Every { interval_ms } => {
            let bounds = Cadence::INTERVAL_MIN_MS..=Cadence::INTERVAL_MAX_MS;
            if !bounds.contains(interval_ms) {
                let text = "an interval is one second to one year".to_owned();
                return Err(Rejection::InvalidCampaign(text));
            }
        }
        Cadence::Cron { expression, zone } => {
            check_name("cron", expression)?;
            check_name("timezone", zone)?;
        }
    }
    Ok(())
}

/// Refuses a name that is empty, too long, or would not end where it ends inside a key.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Rejection> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let text = format!("{what} must hold 1 to {NAME_MAX} bytes and no control characters");
        return Err(Rejection::InvalidCampaign(text));
    }
    Ok(())
}

pub(super) fn unknown(name: &str) -> Rejection {
    Rejection::OrchestratorNotFound { name: name.to_owned() }
}

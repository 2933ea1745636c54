//! Orchestrators and their settings (contract 3.2 to 3.4).

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::OrchestratorPatch;
use super::{CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    Budget, Cadence, FleetStats, JobTemplate, Mode, Orchestrator, Resource, Schedule, StepConfig,
    Timetable,
};

/// Orchestrators there may be.
pub const ORCHESTRATORS_MAX: usize = 100;
/// The longest name, of anything a campaign has to do with, in bytes.
pub const NAME_MAX: usize = 256;
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

    /// The budgets of an orchestrator under other limits: what is promised and spent stays, also where
    /// there is no limit any more. A new one counts what was promised before there was one, because
    /// those jobs will be settled with it.
    fn rebudgeted(
        &self,
        row: &Orchestrator,
        changes: &BTreeMap<Resource, Option<Budget>>,
    ) -> BTreeMap<Resource, Budget> {
        let mut budgets = row.budgets.clone();
        for (resource, change) in changes {
            if change.is_none() && !budgets.contains_key(resource) {
                continue;
            }
            let promised = self.indexes.promised.get(&(row.name.clone(), *resource));
            let reserved = promised.copied().unwrap_or(0);
            let fresh = Budget { reserved, ..Budget::default() };
            let known = budgets.entry(*resource).or_insert(fresh);
            let (limit, soft) = change.map_or((u64::MAX, 0), |asked| (asked.limit, asked.soft));
            let warned = known.warned && (known.limit, known.soft) == (limit, soft);
            *known = Budget { limit, soft, warned, ..*known };
        }
        budgets
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
            return Err(Rejection::too_many("orchestrators", ORCHESTRATORS_MAX));
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
            per_job: BTreeMap::new(),
            is_active: true,
            error: String::new(),
            last_run_at_ms: 0,
            last_run_ended_ms: 0,
            last_training_at_ms: 0,
            trainings_from: String::new(),
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
            busy_since_ms: 0,
            stretches: Vec::new(),
            closings: Vec::new(),
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
        let has_zone = patch.timetable.as_ref().is_some_and(|patch| patch.zone.is_some());
        let cadence = timetable.as_ref().map(|timetable| &timetable.cadence);
        if has_zone && matches!(cadence, Some(Cadence::Every { .. })) {
            let text = "timezone: only a cron expression has one".to_owned();
            return Err(Rejection::InvalidCampaign(text));
        }
        if let Some(timetable) = &timetable {
            check_timetable(timetable)?;
        }
        if let Some(Some(task)) = &patch.task {
            self.check_task(name, task)?;
        }
        let budgets = self.state.rebudgeted(before, &patch.budgets);
        let mut per_job = before.per_job.clone();
        for (resource, each) in &patch.per_job {
            per_job.remove(resource);
            per_job.extend(each.map(|each| (*resource, each)));
        }
        check_promised(&budgets, ("per_job", &per_job))?;
        // Another cadence counts from now on: what was due before belongs to the old one.
        let other =
            timetable.as_ref().zip(old).is_some_and(|(new, old)| new.cadence != old.cadence);
        let anew = other || patch.mode.is_some_and(|mode| mode != before.mode);
        if anew {
            self.close_ledger(name, patch.mode)?;
        }
        if anew || timetable.is_some() {
            self.state.schedules.edit(&mut self.state.rows, &name.to_owned(), |schedule| {
                schedule.timetable = timetable.unwrap_or_else(|| schedule.timetable.clone());
                schedule.degraded = String::new();
            });
        }
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
            orchestrator.budgets = budgets;
            orchestrator.per_job = per_job;
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
    Ok(())
}

/// Refuses a metered limit of what no job is promised: it could not be kept. `field` is where clients say
/// what a job is promised.
pub(super) fn check_promised(
    budgets: &BTreeMap<Resource, Budget>,
    (field, per_job): (&str, &BTreeMap<Resource, u64>),
) -> Result<(), Rejection> {
    Budget::unpromised(budgets, per_job).map_or(Ok(()), |resource| {
        let text = "must be above 0 where there is a limit of it";
        Err(Rejection::InvalidCampaign(format!("{field}.{} {text}", resource.as_str())))
    })
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

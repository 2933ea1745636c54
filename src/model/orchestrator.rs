//! An orchestrator: the named settings and totals of the periodic campaign step (contract 3.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Budget, JobTemplate, Resource, RunId, TimeMs};

/// When an orchestrator's step runs (contract 3.4 "Modes"). Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// When it is asked for.
    Manual,
    /// At the slots of its schedule.
    Scheduled,
    /// Again and again, with a pause between.
    Continuous,
    /// Never.
    Paused,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Manual, Self::Scheduled, Self::Continuous, Self::Paused];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "MANUAL",
            Self::Scheduled => "SCHEDULED",
            Self::Continuous => "CONTINUOUS",
            Self::Paused => "PAUSED",
        }
    }

    /// Reads a client's word, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    }
}

/// How candidates are chosen, for whoever simulates them (contract 3.2). Stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquisition {
    /// Expected improvement.
    Ei,
    /// Probability of improvement.
    Pi,
    /// Upper confidence bound.
    Ucb,
}

impl Acquisition {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ei, Self::Pi, Self::Ucb];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ei => "ei",
            Self::Pi => "pi",
            Self::Ucb => "ucb",
        }
    }

    /// The reverse of [`Acquisition::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.as_str() == word)
    }
}

/// The configuration of a step, with the defaults and ranges of contract 3.2. Numbers that are
/// fractions on the wire are kept in millionths: nothing is decided by floats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepConfig {
    /// Simulations under way at once, 1 to 100.
    pub simulations_max: u32,
    /// Experiments under way at once, 1 to 50.
    pub experiments_max: u32,
    /// Least time between trainings, in millionths of an hour: 1 to 168 hours.
    pub training_frequency_micro: u64,
    /// Labelled samples that make a training worth while, 10 to 10000.
    pub samples_for_retrain: u64,
    /// Experiments per campaign, 1 to 1000.
    pub experiment_budget: u64,
    /// Simulations per campaign, 1 to 100000.
    pub simulation_budget: u64,
    /// 0 to 1 in millionths; handed to whoever simulates.
    pub active_learning_threshold_micro: u64,
    /// Handed to whoever simulates.
    pub acquisition: Acquisition,
    /// Campaigns advanced in one step, 1 to 10.
    pub iterations_per_run: u32,
    /// Score from which a candidate is worth an experiment, 0 to 1 in millionths.
    pub experiment_threshold_micro: u64,
    /// Campaigns by id: higher goes first; 0 for those that are not named. In millionths.
    pub priorities: BTreeMap<String, i64>,
}

impl Default for StepConfig {
    fn default() -> Self {
        Self {
            simulations_max: 10,
            experiments_max: 5,
            training_frequency_micro: 24_000_000,
            samples_for_retrain: 100,
            experiment_budget: 50,
            simulation_budget: 1000,
            active_learning_threshold_micro: 800_000,
            acquisition: Acquisition::Ei,
            iterations_per_run: 3,
            experiment_threshold_micro: 900_000,
            priorities: BTreeMap::new(),
        }
    }
}

impl Orchestrator {
    /// Whether it launches anything now, asked or by its schedule (contract 3.4: nothing runs).
    #[must_use]
    pub fn may_launch(&self) -> bool {
        self.is_active && self.mode != Mode::Paused
    }
}

/// One setting of a [`StepConfig`], as a client changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepSetting {
    /// See [`StepConfig::simulations_max`].
    SimulationsMax(u32),
    /// See [`StepConfig::experiments_max`].
    ExperimentsMax(u32),
    /// See [`StepConfig::training_frequency_micro`].
    TrainingFrequency(u64),
    /// See [`StepConfig::samples_for_retrain`].
    SamplesForRetrain(u64),
    /// See [`StepConfig::experiment_budget`].
    ExperimentBudget(u64),
    /// See [`StepConfig::simulation_budget`].
    SimulationBudget(u64),
    /// See [`StepConfig::active_learning_threshold_micro`].
    ActiveLearningThreshold(u64),
    /// See [`StepConfig::acquisition`].
    Acquisition(Acquisition),
    /// See [`StepConfig::iterations_per_run`].
    IterationsPerRun(u32),
    /// See [`StepConfig::experiment_threshold_micro`].
    ExperimentThreshold(u64),
    /// See [`StepConfig::priorities`]; replaces all of them.
    Priorities(BTreeMap<String, i64>),
}

/// The most campaigns with a priority of their own.
const PRIORITIES_MAX: usize = 1000;

impl StepSetting {
    /// The key on the wire (contract 3.2).
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::SimulationsMax(_) => "max_simultaneous_simulations",
            Self::ExperimentsMax(_) => "max_simultaneous_experiments",
            Self::TrainingFrequency(_) => "training_frequency_hours",
            Self::SamplesForRetrain(_) => "min_new_samples_for_retrain",
            Self::ExperimentBudget(_) => "experiment_budget_per_campaign",
            Self::SimulationBudget(_) => "simulation_budget_per_campaign",
            Self::ActiveLearningThreshold(_) => "active_learning_threshold",
            Self::Acquisition(_) => "bo_acquisition_function",
            Self::IterationsPerRun(_) => "max_iterations_per_run",
            Self::ExperimentThreshold(_) => "experiment_trigger_score_threshold",
            Self::Priorities(_) => "campaign_priorities",
        }
    }

    /// Checks the range of contract 3.2.
    ///
    /// # Errors
    /// What is wrong, for the client.
    pub fn check(&self) -> Result<(), String> {
        const HOUR: u64 = 1_000_000;
        let (value, range, unit) = match self {
            Self::SimulationsMax(value) => (u64::from(*value), 1..=100, 1),
            Self::ExperimentsMax(value) => (u64::from(*value), 1..=50, 1),
            Self::TrainingFrequency(value) => (*value, HOUR..=168 * HOUR, HOUR),
            Self::SamplesForRetrain(value) => (*value, 10..=10_000, 1),
            Self::ExperimentBudget(value) => (*value, 1..=1000, 1),
            Self::SimulationBudget(value) => (*value, 1..=100_000, 1),
            Self::IterationsPerRun(value) => (u64::from(*value), 1..=10, 1),
            Self::ActiveLearningThreshold(value) | Self::ExperimentThreshold(value) => {
                (*value, 0..=1_000_000, 1_000_000)
            }
            Self::Priorities(priorities) if priorities.len() > PRIORITIES_MAX => {
                return Err(format!("{} names at most {PRIORITIES_MAX} campaigns", self.key()));
            }
            Self::Acquisition(_) | Self::Priorities(_) => return Ok(()),
        };
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = (range.start() / unit, range.end() / unit);
        Err(format!("{} must be {least} to {most}", self.key()))
    }
}

impl StepConfig {
    /// Changes one setting.
    pub fn set(&mut self, setting: StepSetting) {
        match setting {
            StepSetting::SimulationsMax(value) => self.simulations_max = value,
            StepSetting::ExperimentsMax(value) => self.experiments_max = value,
            StepSetting::TrainingFrequency(value) => self.training_frequency_micro = value,
            StepSetting::SamplesForRetrain(value) => self.samples_for_retrain = value,
            StepSetting::ExperimentBudget(value) => self.experiment_budget = value,
            StepSetting::SimulationBudget(value) => self.simulation_budget = value,
            StepSetting::ActiveLearningThreshold(value) => {
                self.active_learning_threshold_micro = value;
            }
            StepSetting::Acquisition(value) => self.acquisition = value,
            StepSetting::IterationsPerRun(value) => self.iterations_per_run = value,
            StepSetting::ExperimentThreshold(value) => self.experiment_threshold_micro = value,
            StepSetting::Priorities(value) => self.priorities = value,
        }
    }

    /// Least time between trainings.
    #[must_use]
    pub fn training_gap_ms(&self) -> u64 {
        // A millionth of an hour is 3.6 ms.
        self.training_frequency_micro.saturating_mul(36) / 10
    }
}

/// Figures of the whole at one moment (contract 3.2 "Stats").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStats {
    /// Campaigns that run.
    pub active_campaigns: u64,
    /// Jobs that wait.
    pub pending_jobs: u64,
    /// Jobs on nodes.
    pub running_jobs: u64,
    /// Jobs that gave a result in the last 24 hours.
    pub completed_jobs_24h: u64,
    /// Experiments that wait or run.
    pub pending_experiments: u64,
    /// Structures, registered and derived.
    pub structures: u64,
    /// Structures with a result.
    pub labeled_samples: u64,
    /// Models worth a training, at most 100.
    pub models_ready: Vec<String>,
    /// Campaigns whose newest iteration is older than a day, at most 100.
    pub needing_attention: Vec<String>,
    /// When.
    pub at_ms: TimeMs,
}

/// One orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orchestrator {
    /// What it is asked for by.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// For people.
    pub description: String,
    /// When its step runs.
    pub mode: Mode,
    /// What its step does.
    pub config: StepConfig,
    /// The pause between steps in mode `CONTINUOUS`.
    pub pause_ms: u64,
    /// Limits over all its campaigns.
    pub budgets: BTreeMap<Resource, Budget>,
    /// What one attempt at a job is promised of metered resources whose own task does not say, in
    /// millionths of a unit.
    pub per_job: BTreeMap<Resource, u64>,
    /// Whether steps may run at all.
    pub is_active: bool,
    /// What the newest run failed with; empty when it did not.
    pub error: String,
    /// When its newest run began; 0 before.
    pub last_run_at_ms: TimeMs,
    /// When its newest run ended; 0 before.
    pub last_run_ended_ms: TimeMs,
    /// When it last launched trainings; 0 before.
    pub last_training_at_ms: TimeMs,
    /// While trainings of that time are left for want of room: the name of the first model that waits.
    pub trainings_from: String,
    /// When it last launched experiments; 0 before.
    pub last_experiment_at_ms: TimeMs,
    /// Runs that ended.
    pub runs: u64,
    /// How many of them are not remembered any more.
    pub runs_forgotten: u64,
    /// Launched in all.
    pub simulations: u64,
    /// Launched in all.
    pub experiments: u64,
    /// Launched in all.
    pub trainings: u64,
    /// As of the end of the newest run.
    pub stats: Option<FleetStats>,
    /// The run under way.
    pub open_run: Option<RunId>,
    /// What each of its runs does instead of a step over campaigns: one task of the fleet.
    pub task: Option<Box<JobTemplate>>,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When anything of it last changed.
    pub updated_at_ms: TimeMs,
}

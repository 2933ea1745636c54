//! The deterministic core: commands in, outcomes and events out, rows changed.
//!
//! `apply` sees the state and the entry and nothing else: no clock, no randomness, no environment,
//! no hash-map order, no float. The same log gives the same state digest on every member, however
//! it is cut into batches. `State` is plain tables in memory; what changed is collected as rows
//! ([`Changes`]) that `storage` writes to the durable home in one batch.
//!
//! Invariants, checked by apply itself, by `invariants.rs` in tests, and by the simulation:
//! a task has an execution exactly while it is live; a node's `live` is the number of executions
//! it holds and never above its capacity; an ended task never changes; epochs only grow; a refused
//! command changes nothing.

mod accounts;
mod agent_commands;
mod alerts;
mod apply;
mod attempts;
mod bests;
mod bot_books;
mod bot_command;
mod bot_ends;
mod bot_going;
mod bot_index;
mod bot_invariants;
mod bot_leases;
mod bot_lists;
mod bot_overdue;
mod bot_reads;
mod bot_refound;
mod bot_rows;
mod bot_runs;
mod bot_shares;
mod bot_waves;
mod bot_workflows;
mod bots;
mod budgets;
mod campaign_command;
mod campaign_ends;
mod campaign_invariants;
mod campaign_rows;
mod campaigns;
mod changes;
mod command;
mod deliveries;
mod document;
mod drains;
mod drills;
mod due;
mod event;
mod flows;
mod founding;
mod indexes;
mod instruments;
mod jobs;
mod launches;
mod ledger;
mod losses;
mod mail;
mod members;
mod node_command;
mod nodes;
mod orchestrators;
mod outcome;
mod outward;
mod pipelines;
mod policy;
mod query;
mod ranges;
mod rates;
mod refound;
mod replays;
mod requested;
mod requests;
mod revocations;
mod rows;
mod runs;
mod scaling;
mod singles;
mod structures;
mod swarms;
mod task_table;
mod tasks;
mod thresholds;
mod unmeasured;
mod unread;

#[cfg(test)]
mod bot_accounts;
#[cfg(test)]
mod bot_removal_tests;
#[cfg(test)]
mod bot_tests;
#[cfg(test)]
mod bot_words;
#[cfg(test)]
mod campaign_words;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod script_words;
#[cfg(test)]
mod scripts;

pub use accounts::{
    ACCOUNTS_MAX, AccountCommand, EMAIL_MAX, FULL_NAME_MAX, NewAccount, USERNAME_MAX,
};
pub use agent_commands::{AGENT_COMMANDS_MAX, agent_command_id};
pub use alerts::SUPPRESSED_MAX_MS;
pub use apply::{encode_entry, encode_envelope, is_envelope, join_envelopes};
pub use bot_command::{
    BotCommand, BotFact, BotOutcome, BotRejection, BotReport, BotSpec, BotWork, ExpiredLease,
    LeaseRef, LeaseScope, LeasedRun, Verdict, WorkflowStep,
};
pub use bot_ends::BOT_RESULT_MAX;
pub use bot_index::Figures;
pub use bot_invariants::check_bots;
pub use bot_leases::{
    BOT_ITEMS_MAX, BOTS_PER_LEASE_MAX, HOLDER_MAX, LEASE_MAX_MS, LEASE_TYPES_MAX,
};
pub use bot_lists::AssignmentPage;
pub use bot_reads::{AssignmentView, BotHealth, BotStats, BotView, SwarmView, WaveView};
pub use bot_rows::blob_owner;
pub use bot_workflows::{
    STEP_PARAMS_MAX, STEP_RESULT_MAX, WORKFLOW_BYTES_MAX, WORKFLOW_TASKS_MAX, WORKFLOWS_KEPT,
    WORKFLOWS_MAX,
};
pub use bots::{BOT_CAPABILITIES_MAX, TIER_MAX};
pub use campaign_command::{
    AgentAction, AgentOrder, CampaignCommand, CampaignMove, CampaignPatch, IterationPlan,
    JobRequest, OrchestratorPatch, PutWhen, SlotChoice, SlotPlan, StepAction, StepDuty, StepEffect,
};
pub use campaign_invariants::check_campaigns;
pub use campaigns::CAMPAIGN_LINES_MAX;
pub use changes::{Changes, Digest, TableId, row_hash};
pub use command::{
    AlertChange, Assignment, Command, DeliveryResult, Dispatch, DispatchResult, Envelope,
    ExpiryKind, FlowRequest, LogEntry, NodeObservation, NodeSpec, StepRefusal, TaskExpiry,
    TaskOutcome, TaskReport, TaskSpec,
};
pub use deliveries::{DUE_DELIVERIES_MAX, ENDED_DELIVERIES_MAX};
pub use document::default_document;
pub use drills::{DRILL_LEASE_MAX_MS, DRILL_REPORT_MAX, DRILL_TEXT_MAX, DRILLS_MAX};
pub use event::{CampaignFact, Event, Fact};
pub use flows::{check_steps, is_step_id, step_id};
pub use indexes::{Head, QueueKey};
pub use instruments::INSTRUMENTS_MAX;
pub use launches::{candidate_experiment, candidate_job, candidate_structure, parse_candidate};
pub use ledger::{CLOSINGS_MAX, SLOTS_MAX};
pub use orchestrators::{DEFAULT_ORCHESTRATOR, NAME_MAX, ORCHESTRATORS_MAX, derive_uuid};
pub use outcome::{Fatal, Outcome, Rejection, Reply};
pub use outward::check_channels;
pub use pipelines::{PIPELINES_MAX, built_in};
pub use policy::{Algorithm, Config, Policy};
pub use ranges::EndedKey;
pub use rates::RATE_KEYS_MAX;
pub use refound::{Founding, Refounded};
pub use requests::{
    REQUEST_WINDOW_MS, REQUESTS_MAX, Recorded, TOMBSTONE_WINDOW_MS, TOMBSTONES_MAX,
};
pub use revocations::{REVOCATIONS_MAX, SESSION_ID_MAX};
pub use rows::{BlobPart, blob_keys};
pub use runs::{ACTIONS_MAX, RUNS_MAX};
pub use singles::{Counters, RUN_BOUNDS_MS, RunTotals};
pub use structures::{JOBS_PER_REQUEST_MAX, MODELS_MAX, STRUCTURES_MAX, requested_job};
pub use tasks::derive_task_id;
pub use thresholds::{AdviceLimits, LoadWeights, ScalingRule, Threshold, Thresholds};
pub use unread::{unread, unread_keys};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    AgentCommand, Alert, Bot, BotBlock, Campaign, CampaignId, CampaignLine, CandidateNote,
    DecisionPage, Delivery, DeliveryId, Discovery, Drill, DrillPage, Instrument, Iteration, Member,
    Model, Node, NodeId, Orchestrator, Pipeline, RateLog, Run, ScalingEvent, Schedule, Slot,
    Structure, Swarm, TaskId, TimeMs, Wave, WaveBlock, Workflow,
};
use accounts::Accounts;
use bot_index::BotIndex;
use due::Due;
use indexes::{Indexes, Places};
use requests::{Requests, Tombstones};
use revocations::Revocations;
use rows::{Rows, Table};
use singles::Singles;
use structures::JobMinute;
use task_table::TaskTable;
use unmeasured::Unmeasured;

/// The most commands one log entry carries.
pub const ENVELOPES_PER_ENTRY_MAX: usize = 4096;
/// The most rows one batched command carries.
pub const ROWS_PER_COMMAND_MAX: usize = 10_000;
/// The longest text or JSON of a campaign, a run or a structure, in bytes.
pub const CONTEXT_MAX: usize = 16 * 1024;

/// The longest `override_config` of iterations, in bytes of JSON text.
pub const OVERRIDE_MAX: usize = 2048;

/// Everything the cluster has agreed on.
#[derive(Debug)]
pub struct State {
    rows: Rows,
    singles: Singles,
    members: Table<Member>,
    nodes: Table<Node>,
    tasks: TaskTable,
    requests: Requests,
    tombstones: Tombstones,
    drills: Table<Drill>,
    drill_pages: Table<DrillPage>,
    pipelines: Table<Pipeline>,
    deliveries: Table<Delivery>,
    alerts: Table<Alert>,
    scalings: Table<ScalingEvent>,
    orchestrators: Table<Orchestrator>,
    schedules: Table<Schedule>,
    slots: Table<Slot>,
    runs: Table<Run>,
    decision_pages: Table<DecisionPage>,
    campaigns: Table<Campaign>,
    iterations: Table<Iteration>,
    candidate_notes: Table<CandidateNote>,
    campaign_lines: Table<CampaignLine>,
    structures: Table<Structure>,
    models: Table<Model>,
    job_minutes: Table<JobMinute>,
    agent_commands: Table<AgentCommand>,
    instruments: Table<Instrument>,
    discoveries: Table<Discovery>,
    swarms: Table<Swarm>,
    bots: Table<Bot>,
    bot_blocks: Table<BotBlock>,
    waves: Table<Wave>,
    wave_blocks: Table<WaveBlock>,
    workflows: Table<Workflow>,
    rate_logs: Table<RateLog>,
    /// Task types that pipelines say something of, with their estimates. Derived, as all that
    /// follows; shared with whoever reads submissions.
    estimates: Arc<BTreeMap<String, u64>>,
    /// Those of `nodes` that are agents.
    agents: BTreeSet<NodeId>,
    /// Those of them whose rows are older than they are. Empty between entries.
    changed_nodes: BTreeSet<NodeId>,
    /// Keys of rate limits, by when their starts matter no more.
    rate_ends: BTreeSet<(TimeMs, String)>,
    /// Deliveries to be posted.
    due: Due,
    /// Tasks whose ends are among them.
    untold: BTreeSet<TaskId>,
    /// Deliveries that ended, to be forgotten one day.
    ended_deliveries: BTreeSet<DeliveryId>,
    revocations: Revocations,
    accounts: Accounts,
    /// Campaigns that run, by when they last got an iteration.
    running: BTreeSet<(TimeMs, CampaignId)>,
    /// Those of them that clients asked iterations of, and that have none under way.
    requesting: BTreeSet<CampaignId>,
    /// Campaigns that have ended, by when.
    ended_campaigns: BTreeSet<(TimeMs, CampaignId)>,
    /// Iterations of the others with candidates that nobody measures.
    unmeasured: Unmeasured,
    /// Agent commands without an open job.
    idle_commands: BTreeSet<u64>,
    bot_index: BotIndex,
    indexes: Indexes,
}

/// What applying one entry gave.
#[derive(Debug, Default)]
pub struct Applied {
    /// One answer per envelope, in order.
    pub replies: Vec<Reply>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: Rows::default(),
            singles: Singles::default(),
            members: Table::default(),
            nodes: Table::default(),
            tasks: TaskTable::default(),
            requests: Requests::new(),
            tombstones: Tombstones::new(),
            drills: Table::default(),
            drill_pages: Table::default(),
            pipelines: Table::default(),
            deliveries: Table::default(),
            alerts: Table::default(),
            scalings: Table::default(),
            orchestrators: Table::default(),
            schedules: Table::default(),
            slots: Table::default(),
            runs: Table::default(),
            decision_pages: Table::default(),
            campaigns: Table::default(),
            iterations: Table::default(),
            candidate_notes: Table::default(),
            campaign_lines: Table::default(),
            structures: Table::default(),
            models: Table::default(),
            job_minutes: Table::default(),
            agent_commands: Table::default(),
            instruments: Table::default(),
            discoveries: Table::default(),
            swarms: Table::default(),
            bots: Table::default(),
            bot_blocks: Table::default(),
            waves: Table::default(),
            wave_blocks: Table::default(),
            workflows: Table::default(),
            rate_logs: Table::default(),
            estimates: pipelines::estimates(&Table::default()),
            agents: BTreeSet::new(),
            changed_nodes: BTreeSet::new(),
            rate_ends: BTreeSet::new(),
            due: Due::default(),
            untold: BTreeSet::new(),
            ended_deliveries: BTreeSet::new(),
            revocations: Revocations::default(),
            accounts: Accounts::default(),
            running: BTreeSet::new(),
            requesting: BTreeSet::new(),
            ended_campaigns: BTreeSet::new(),
            unmeasured: Unmeasured::new(),
            idle_commands: BTreeSet::new(),
            bot_index: BotIndex::default(),
            indexes: Indexes::default(),
        }
    }
}

impl State {
    /// Adds one stored row (full key, value) while the home is scanned at start, in key order.
    /// Rows of tables that are not resident count for the digest only.
    ///
    /// # Errors
    /// [`Fatal`] when the row cannot be decoded.
    pub fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fatal> {
        let hash = row_hash(key, value);
        let split = key
            .split_first()
            .and_then(|(first, rest)| TableId::from_byte(*first).map(|table| (table, rest)));
        let Some((table, rest)) = split else {
            return Err(Fatal::new(format!("a row of no known table: {key:02x?}")));
        };
        self.rows.loaded(hash);
        match table {
            TableId::Singles => self.singles.load(rest, value, hash),
            TableId::Members => self.members.load(rest, value, hash),
            TableId::Nodes => {
                self.nodes.load(rest, value, hash)?;
                self.note_agent(rest);
                Ok(())
            }
            TableId::Tasks => {
                let task = self.tasks.load(rest, value, hash)?;
                self.indexes.insert(task.seq, &Places::of(&task, self.policy().aging_ms));
                Ok(())
            }
            TableId::Blobs => Ok(()),
            TableId::Requests => self.requests.load(rest, value, hash),
            TableId::Tombstones => self.tombstones.load(rest, value, hash),
            TableId::Drills => self.drills.load(rest, value, hash),
            TableId::DrillPages => self.drill_pages.load(rest, value, hash),
            TableId::Pipelines => {
                self.pipelines.load(rest, value, hash)?;
                self.estimates = pipelines::estimates(&self.pipelines);
                Ok(())
            }
            TableId::Deliveries => {
                self.deliveries.load(rest, value, hash)?;
                let key = rest.try_into().map(DeliveryId::from_be_bytes);
                let delivery = key.ok().and_then(|key| self.deliveries.get(&key)).cloned();
                if let Some(delivery) = delivery {
                    self.note_delivery(&delivery);
                }
                Ok(())
            }
            TableId::Alerts => self.alerts.load(rest, value, hash),
            TableId::Scalings => self.scalings.load(rest, value, hash),
            TableId::Revocations => self.revocations.load(rest, value, hash),
            TableId::Orchestrators => self.orchestrators.load(rest, value, hash),
            TableId::Schedules => self.schedules.load(rest, value, hash),
            TableId::Slots => self.slots.load(rest, value, hash),
            TableId::Runs => self.runs.load(rest, value, hash),
            TableId::DecisionPages => self.decision_pages.load(rest, value, hash),
            TableId::Campaigns => self.load_campaign(rest, value, hash),
            TableId::Iterations => self.load_iteration(rest, value, hash),
            TableId::CandidateNotes => self.candidate_notes.load(rest, value, hash),
            TableId::CampaignLines => self.campaign_lines.load(rest, value, hash),
            TableId::Structures => self.structures.load(rest, value, hash),
            TableId::Models => self.models.load(rest, value, hash),
            TableId::JobMinutes => self.job_minutes.load(rest, value, hash),
            TableId::Accounts => self.accounts.load(rest, value, hash),
            TableId::AgentCommands => self.load_command(rest, value, hash),
            TableId::Instruments => self.instruments.load(rest, value, hash),
            TableId::Discoveries => self.discoveries.load(rest, value, hash),
            TableId::RateLogs => self.load_rate_log(rest, value, hash),
            TableId::Swarms
            | TableId::Bots
            | TableId::BotBlocks
            | TableId::Waves
            | TableId::WaveBlocks
            | TableId::Workflows => self.load_bot_row(table, rest, value, hash),
        }
    }

    fn load_command(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.agent_commands.load(key, value, hash)?;
        self.note_command(key.try_into().map_or(0, u64::from_be_bytes));
        Ok(())
    }

    fn load_campaign(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.campaigns.load(key, value, hash)?;
        let campaign_id = std::str::from_utf8(key).unwrap_or_default();
        self.note_campaign(&CampaignId::trusted(campaign_id), None);
        Ok(())
    }

    /// Campaigns come before their iterations.
    fn load_iteration(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.iterations.load(key, value, hash)?;
        if let Some(key) = Iteration::key_of(key) {
            self.note_iteration(&key);
        }
        Ok(())
    }

    /// Everything that changed since the last call, for the durable home.
    pub fn take_changes(&mut self) -> Changes {
        self.rows.take_changes()
    }

    /// The digest of all rows as of the last applied entry.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.rows.digest()
    }
}

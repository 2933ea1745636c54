//! The nouns: plain data, newtype ids, legal transitions. No IO, no clock, no floats.
//!
//! Everything here is stored (bincode, behind a format byte), so fields are only appended at the
//! end of a struct together with a new format, and enum variants are only ever appended.

mod account;
mod agent_command;
mod alert;
mod bot;
mod bot_id;
mod bot_shares;
mod bot_wave;
mod bot_workflow;
mod budget;
mod campaign;
mod deal;
mod decimal;
mod delivery;
mod drill;
mod flow;
mod hosts;
mod id;
mod mail;
mod member;
mod moment;
mod networks;
mod node;
mod orchestrator;
mod payload;
mod rate;
mod run;
mod scaling;
mod schedule;
mod service;
mod task;
mod urgency;

pub use account::Account;
pub use agent_command::{AgentCommand, AgentCommandKind, AgentResult};
pub use alert::{Alert, AlertState, Severity};
pub use bot::{
    BOT_BLOCK, Bot, BotBlock, BotPlace, BotRecord, BotTotals, Span, Stretch, Swarm, spans_without,
    tier_urgency,
};
pub use bot_id::{DerivedId, IdOf};
pub use bot_wave::{
    AssignmentPlace, AssignmentState, BotLease, Progress, Wave, WaveBlock, block_slot,
};
pub use bot_workflow::{Workflow, WorkflowStatus, WorkflowTask, workflow_digest, workflow_urgency};
pub use budget::{Budget, MICRO, Resource};
pub use campaign::{
    CANDIDATES_MAX, Campaign, CampaignId, CampaignLine, CampaignPlan, CampaignStatus, Candidate,
    CandidateNote, CandidateState, Discovery, ITERATIONS_MAX, Instrument, Iteration,
    IterationOverride, Job, JobKind, JobTemplate, Model, Score, StopRules, Structure,
};
pub use decimal::scaled;
pub use delivery::{Delivery, DeliveryBody, DeliveryId, DeliveryState, Lane};
pub use drill::{Drill, DrillId, DrillKind, DrillPage, DrillState};
pub use flow::{Flow, FlowMode, Pipeline, STEPS_MAX, Step, StepOf, StepSpec, StepState, Verdict};
pub use hosts::{AllowedHosts, Reach};
pub use id::{Id, IdError, NodeId, RequestId, TaskId};
pub use mail::{
    MAIL_ADDRESS_MAX, MailChannel, MailCredentials, MailEncryption, is_domain, is_loopback,
    is_mail_address,
};
pub use member::{Epoch, Incarnation, Member, MemberId};
pub use moment::iso;
pub use networks::Networks;
pub use node::{AGENT_PREFIX, Agent, LISTED_TYPES_ONLY, Load, Loss, Node, NodeStatus};
pub use orchestrator::{Acquisition, FleetStats, Mode, Orchestrator, StepConfig, StepSetting};
pub use payload::Payload;
pub use rate::{RATE_MAX, RATE_WINDOW_MAX_MS, RateLimit, RateLog};
pub use run::{Decision, DecisionKind, DecisionPage, RUN_RESULT_MAX, Run, RunPhase, StepResult};
pub use scaling::{ScalingAction, ScalingEvent};
pub use schedule::{
    Cadence, CatchUp, Closing, Overlap, RunId, Schedule, Slot, SlotDecision, Timetable,
    TimetablePatch,
};
pub use service::{Service, Services};
pub use task::{Concurrency, Execution, LastTry, Requirements, Task, TaskFailure, TaskStatus};
pub use urgency::Urgency;

/// Milliseconds since the Unix epoch, stamped by the leader before an entry is proposed.
pub type TimeMs = u64;

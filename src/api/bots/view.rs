//! Objects of family B as clients see them (contract 5.2). Where ours say more than the contract
//! asks for, the fields stand behind it.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::pieces::{self, Frame};
use super::shape;
use crate::api::error::ApiError;
use crate::api::fragment::fragment;
use crate::api::reply::encode;
use crate::api::wire_time::iso_micros;
use crate::model::{AssignmentState, DerivedId, IdOf, Payload, Span, TaskId, TimeMs, Wave};
use crate::state::{AssignmentView, BlobPart, BotView, State as Tables, SwarmView};
use crate::storage::{Machine, StorageError};

/// A bot; with its counts when it is asked for itself.
#[derive(Debug, Serialize)]
pub(super) struct BotBody<'a> {
    id: DerivedId,
    name: &'a str,
    tier: &'a str,
    capabilities: &'a [String],
    status: &'static str,
    tasks_completed: u64,
    created_at: String,
    last_active: String,
    swarm_id: Option<DerivedId>,
    #[serde(flatten)]
    counts: Option<BotCounts>,
}

#[derive(Debug, Serialize)]
struct BotCounts {
    total_tasks: u64,
    pending_tasks: u64,
    completed_tasks: u64,
    failed_tasks: u64,
}

impl<'a> BotBody<'a> {
    pub(super) fn of(state: &Tables, view: &'a BotView<'_>, counted: bool) -> Self {
        Self {
            id: view.id,
            name: &view.name,
            tier: view.tier,
            capabilities: view.capabilities,
            status: "active",
            tasks_completed: view.completed,
            created_at: iso_micros(view.created_at_ms),
            last_active: iso_micros(view.last_active_ms),
            swarm_id: swarm_of(state, view.place.swarm),
            counts: counted.then_some(BotCounts {
                total_tasks: view.total,
                pending_tasks: view.pending,
                completed_tasks: view.completed,
                failed_tasks: view.failed,
            }),
        }
    }
}

/// The id of a swarm; `None` of number 0, which stands for no swarm.
pub(super) fn swarm_of(state: &Tables, number: u32) -> Option<DerivedId> {
    (number > 0).then(|| state.swarm_id(number))
}

/// A swarm without the ids of its bots.
#[derive(Debug, Serialize)]
pub(super) struct SwarmBody<'a> {
    id: DerivedId,
    name: &'a str,
    bot_count: u32,
    tier: &'a str,
    status: &'static str,
    created_at: String,
    capabilities: &'a [String],
    active_bots: u32,
    total_tasks_completed: u64,
    average_tasks_per_bot: f64,
    waiting_tasks: u64,
    leased_tasks: u64,
    failed_tasks: u64,
}

impl<'a> SwarmBody<'a> {
    pub(super) fn of(view: &'a SwarmView<'_>) -> Self {
        Self {
            id: view.id,
            name: &view.name,
            bot_count: view.row.count,
            tier: &view.row.tier,
            status: "active",
            created_at: iso_micros(view.row.created_at_ms),
            capabilities: &view.row.capabilities,
            active_bots: view.row.count,
            total_tasks_completed: view.figures.completed,
            average_tasks_per_bot: shape::ratio(view.figures.completed, view.figures.bots),
            waiting_tasks: view.figures.waiting,
            leased_tasks: view.figures.leased,
            failed_tasks: view.figures.failed,
        }
    }
}

/// A swarm as it was at one moment: what its bots' ids are derived from is all that is kept of them.
#[derive(Debug)]
pub(super) struct SwarmShown {
    object: Vec<u8>,
    number: u32,
    seed: u64,
    members: Vec<Span>,
}

impl SwarmShown {
    pub(super) fn of(state: &Tables, number: u32) -> Option<Self> {
        let view = state.swarm_view(number)?;
        Some(Self {
            object: encode(&SwarmBody::of(&view)),
            number,
            seed: state.bot_totals().seed,
            members: view.row.spans(),
        })
    }

    /// The answer, with the ids of all its bots or without.
    pub(super) fn body(self, with_ids: bool) -> Result<Body, ApiError> {
        let Self { object, number, seed, members } = self;
        if !with_ids {
            return Ok(Body::from(object));
        }
        let indexes = members.into_iter().flat_map(|span| span.first..span.end);
        let ids =
            indexes.map(move |index| DerivedId::of(IdOf::Bot, seed, (u64::from(number), index)));
        pieces::body(Frame::of_object(object, "bot_ids"), ids, |to, id| {
            to.extend_from_slice(format!("\"{id}\"").as_bytes());
            Ok(())
        })
    }
}

/// What a wave says of each of its assignments.
#[derive(Debug, Clone)]
pub(super) struct Work {
    wave: u64,
    task_type: Option<String>,
    data: Payload,
    assigned_at_ms: TimeMs,
}

impl Work {
    pub(super) fn of(number: u64, wave: &Wave) -> Self {
        Self {
            wave: number,
            task_type: wave.task_type.clone(),
            data: wave.data.clone(),
            assigned_at_ms: wave.assigned_at_ms,
        }
    }
}

/// An assignment as it was at one moment; its payloads are still to be read.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    work: Arc<Work>,
    task_id: DerivedId,
    bot_id: Option<DerivedId>,
    swarm_id: Option<DerivedId>,
    data_owner: TaskId,
    state: AssignmentState,
    attempt: u32,
    ended_at_ms: TimeMs,
    lease: Option<(String, TimeMs, TimeMs)>,
    result: Option<(TaskId, Payload)>,
}

#[derive(Debug, Serialize)]
struct AssignmentBody<'a> {
    task_id: DerivedId,
    bot_id: Option<DerivedId>,
    task_type: Option<&'a str>,
    task_data: &'a RawValue,
    status: &'static str,
    assigned_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    swarm_id: Option<DerivedId>,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct LeaseBody<'a> {
    holder: &'a str,
    deadline: String,
    last_contact: String,
}

#[derive(Debug, Serialize)]
struct LeasedBody<'a> {
    task_id: DerivedId,
    bot_id: Option<DerivedId>,
    swarm_id: Option<DerivedId>,
    task_type: Option<&'a str>,
    task_data: &'a RawValue,
    attempt: u32,
    deadline: &'a str,
}

/// Assignments with their work: those of a wave share it.
#[derive(Debug, Default)]
pub(super) struct Works(Option<Arc<Work>>);

impl Works {
    /// The assignment of a view. Neighbours in a list are mostly of one wave.
    pub(super) fn assignment(&mut self, state: &Tables, view: &AssignmentView<'_>) -> Assignment {
        let known = self.0.as_ref().filter(|work| work.wave == view.place.wave);
        let fresh = || Arc::new(Work::of(view.place.wave, view.wave));
        let work = known.cloned().unwrap_or_else(fresh);
        self.0 = Some(Arc::clone(&work));
        let lease = view.lease();
        let result = view.result().filter(|(_, payload)| **payload != Payload::Absent);
        Assignment {
            work,
            task_id: view.id,
            bot_id: view.bot_id,
            swarm_id: swarm_of(state, view.wave.swarm),
            data_owner: view.data_owner(),
            state: view.state(),
            attempt: view.progress.map_or(0, |row| row.attempt),
            ended_at_ms: view.progress.map_or(0, |row| row.ended_at_ms),
            lease: lease.map(|row| (row.holder.clone(), state.lease_end_ms(row), row.contact_ms)),
            result: result.map(|(owner, payload)| (owner, payload.clone())),
        }
    }
}

impl Assignment {
    pub(super) fn state(&self) -> AssignmentState {
        self.state
    }

    pub(super) fn times(&self) -> (TimeMs, TimeMs) {
        let contact = self.lease.as_ref().map_or(0, |(_, _, contact)| *contact);
        let assigned = self.work.assigned_at_ms;
        (assigned, assigned.max(contact).max(self.ended_at_ms))
    }

    pub(super) fn bot_id(&self) -> Option<DerivedId> {
        self.bot_id
    }

    pub(super) fn task_type(&self) -> Option<&str> {
        self.work.task_type.as_deref()
    }
}

/// Writes assignments with their payloads.
#[derive(Debug)]
pub(super) struct Writer {
    machine: Arc<Machine>,
    /// The data of the newest wave.
    data: Option<(u64, Bytes)>,
}

/// Stored text.
pub(super) fn text_of(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl Writer {
    pub(super) fn new(machine: &Arc<Machine>) -> Self {
        Self { machine: Arc::clone(machine), data: None }
    }

    /// What an assignment works on, as JSON text; empty for nothing.
    pub(super) fn data(&mut self, row: &Assignment) -> Result<Bytes, StorageError> {
        if let Some((_, data)) = self.data.as_ref().filter(|(wave, _)| *wave == row.work.wave) {
            return Ok(data.clone());
        }
        let loaded =
            self.machine.load_payload(&row.data_owner, BlobPart::WaveData, &row.work.data)?;
        let data = loaded.unwrap_or_default();
        self.data = Some((row.work.wave, data.clone()));
        Ok(data)
    }

    /// What came of an assignment: JSON text, or the text of an error.
    pub(super) fn result(&self, row: &Assignment) -> Result<Option<Bytes>, StorageError> {
        let Some((owner, payload)) = &row.result else { return Ok(None) };
        self.machine.load_payload(owner, BlobPart::BotResult, payload)
    }

    /// An assignment as contract 5.2 has it.
    pub(super) fn assignment(
        &mut self,
        to: &mut Vec<u8>,
        row: &Assignment,
    ) -> Result<(), StorageError> {
        let (data, result) = (self.data(row)?, self.result(row)?);
        let result = result.as_ref().map(text_of);
        let completed = row.state == AssignmentState::Completed;
        let body = AssignmentBody {
            task_id: row.task_id,
            bot_id: row.bot_id,
            task_type: row.task_type(),
            task_data: fragment(text_of(&data), "null"),
            status: row.state.as_str(),
            assigned_at: iso_micros(row.work.assigned_at_ms),
            completed_at: (row.ended_at_ms > 0).then(|| iso_micros(row.ended_at_ms)),
            swarm_id: row.swarm_id,
            attempt: row.attempt,
            lease: row.lease.as_ref().map(|(holder, deadline, contact)| LeaseBody {
                holder,
                deadline: iso_micros(*deadline),
                last_contact: iso_micros(*contact),
            }),
            result: result.filter(|_| completed).map(|text| fragment(text, "null")),
            error: result.filter(|_| !completed),
        };
        to.extend_from_slice(&encode(&body));
        Ok(())
    }

    /// An assignment for whoever took it.
    pub(super) fn leased(
        &mut self,
        to: &mut Vec<u8>,
        row: &Assignment,
        attempt: u32,
        deadline: &str,
    ) -> Result<(), StorageError> {
        let data = self.data(row)?;
        let body = LeasedBody {
            task_id: row.task_id,
            bot_id: row.bot_id,
            swarm_id: row.swarm_id,
            task_type: row.task_type(),
            task_data: fragment(text_of(&data), "null"),
            attempt,
            deadline,
        };
        to.extend_from_slice(&encode(&body));
        Ok(())
    }
}

//! Structures and models, and jobs that clients ask for beside campaigns (contract 3.5, 3.6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::Txn;
use super::campaign_command::JobRequest;
use super::launches::object;
use super::orchestrators::{check_name, derive_uuid};
use super::rows::TableRow;
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State, TableId};
use crate::model::{Job, JobKind, JobTemplate, Model, Structure, TaskId, Urgency};

/// Structures that may be registered.
pub const STRUCTURES_MAX: usize = 1_000_000;
/// Models there may be.
pub const MODELS_MAX: usize = 1000;
/// Jobs of one request.
pub const JOBS_PER_REQUEST_MAX: usize = 1000;

/// Jobs that gave a result in one minute. Its key is the minute since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobMinute {
    pub(super) count: u64,
}

impl TableRow for JobMinute {
    type Key = u64;
    const TABLE: TableId = TableId::JobMinutes;

    fn write_key(&self, key: &u64, to: &mut Vec<u8>) {
        to.extend_from_slice(&key.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<u64> {
        stored.try_into().ok().map(u64::from_be_bytes)
    }
}

/// The task of the *n*th job of a request. Derived, so that a retry names the same ones.
#[must_use]
pub fn requested_job(request_id: crate::model::RequestId, ordinal: u32) -> TaskId {
    let seed = [b"job".as_slice(), &request_id.0.to_be_bytes(), &ordinal.to_be_bytes()];
    TaskId::trusted(&derive_uuid(&seed))
}

impl State {
    /// One structure that was registered.
    #[must_use]
    pub fn structure(&self, structure_id: &str) -> Option<&Structure> {
        self.structures.get(&structure_id.to_owned())
    }

    /// Registered structures by id, after the given one.
    pub fn structures_after(&self, after: Option<&str>) -> impl Iterator<Item = &Structure> {
        let after = after.map(str::to_owned);
        self.structures.after(after).map(|(_, structure)| structure)
    }

    /// How many structures were registered.
    #[must_use]
    pub fn structures_len(&self) -> usize {
        self.structures.len()
    }

    /// One model.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(&name.to_owned())
    }

    /// All models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().map(|(_, model)| model)
    }

    /// Retained jobs of a kind, in the order they were launched.
    pub fn jobs(
        &self,
        kind: JobKind,
    ) -> impl DoubleEndedIterator<Item = std::borrow::Cow<'_, crate::model::Task>> {
        let seqs = self.indexes.jobs.get(&kind).into_iter().flatten();
        seqs.filter_map(|seq| self.tasks.at(*seq))
    }
}

impl Txn<'_> {
    pub(super) fn put_structure(
        &mut self,
        structure_id: String,
        owner: String,
        body: String,
    ) -> Reply {
        check_name("structure_id", &structure_id)?;
        if body.len() > CONTEXT_MAX {
            let text = format!("a structure holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        let known = self.state.structure(&structure_id);
        if known.is_none() && self.state.structures_len() >= STRUCTURES_MAX {
            return Err(too_many("structures", STRUCTURES_MAX));
        }
        let row = Structure {
            structure_id: structure_id.clone(),
            owner: known.map_or(owner, |row| row.owner.clone()),
            body,
            labeled: known.is_some_and(|row| row.labeled),
            created_at_ms: known.map_or(self.now, |row| row.created_at_ms),
            updated_at_ms: self.now,
        };
        self.state.structures.put(&mut self.state.rows, structure_id, row);
        Ok(Outcome::Done)
    }

    pub(super) fn remove_structure(&mut self, structure_id: &str) -> Reply {
        let key = structure_id.to_owned();
        let removed = self.state.structures.remove(&mut self.state.rows, &key);
        let removed = removed.ok_or(Rejection::StructuresNotFound)?;
        if removed.labeled {
            self.state.edit_campaign_totals(|totals| totals.labeled -= 1);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn label_structure(&mut self, structure_id: &str) {
        let news = self.state.structures.edit(
            &mut self.state.rows,
            &structure_id.to_owned(),
            |structure| !std::mem::replace(&mut structure.labeled, true),
        );
        if news == Some(true) {
            self.state.edit_campaign_totals(|totals| totals.labeled += 1);
        }
    }

    pub(super) fn put_model(
        &mut self,
        name: String,
        active: bool,
        trained_on: Option<u64>,
        job: JobTemplate,
    ) -> Reply {
        check_name("name", &name)?;
        check_name("task_type", &job.task_type)?;
        if job.input.len() > CONTEXT_MAX {
            let text = format!("input holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        let known = self.state.model(&name);
        if known.is_none() && self.state.models.len() >= MODELS_MAX {
            return Err(too_many("models", MODELS_MAX));
        }
        let row = Model {
            name: name.clone(),
            active,
            trained_on: trained_on.unwrap_or_else(|| known.map_or(0, |row| row.trained_on)),
            job,
            training: known.and_then(|row| row.training.clone()),
            created_at_ms: known.map_or(self.now, |row| row.created_at_ms),
            updated_at_ms: self.now,
        };
        self.state.models.put(&mut self.state.rows, name, row);
        Ok(Outcome::Done)
    }

    pub(super) fn remove_model(&mut self, name: &str) -> Reply {
        let removed = self.state.models.remove(&mut self.state.rows, &name.to_owned());
        removed.map(|_| Outcome::Done).ok_or(Rejection::ModelNotFound)
    }

    /// A training has ended: only one that gave a result counts.
    pub(super) fn end_training(&mut self, task_id: &TaskId, name: &str, completed: bool) {
        let (labeled, now) = (self.state.labeled_samples(), self.now);
        self.state.models.edit(&mut self.state.rows, &name.to_owned(), |model| {
            if model.training.as_ref() == Some(task_id) {
                model.training = None;
                model.updated_at_ms = now;
                if completed {
                    model.trained_on = labeled;
                }
            }
        });
    }

    /// Makes a job for each structure: all of them or none.
    pub(super) fn request_jobs(&mut self, request: &JobRequest) -> Reply {
        let count = request.structure_ids.len();
        if count == 0 || count > JOBS_PER_REQUEST_MAX {
            let (len, max) = (count as u64, JOBS_PER_REQUEST_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        check_name("task_type", &request.job.task_type)?;
        let mut new = Vec::new();
        for structure_id in &request.structure_ids {
            check_name("structure_id", structure_id)?;
            if !self.state.has_structure(structure_id) {
                new.push(structure_id.clone());
            }
        }
        if !new.is_empty() && !request.register {
            return Err(Rejection::StructuresNotFound);
        }
        if self.state.structures_len() + new.len() > STRUCTURES_MAX {
            return Err(too_many("structures", STRUCTURES_MAX));
        }
        if !self.state.has_room_for(count as u64) {
            let max = self.state.policy().pending_tasks_max;
            return Err(Rejection::QueueFull { max });
        }
        for structure_id in new {
            let row = Structure {
                structure_id: structure_id.clone(),
                owner: request.owner.clone(),
                body: String::new(),
                labeled: false,
                created_at_ms: self.now,
                updated_at_ms: self.now,
            };
            self.state.structures.put(&mut self.state.rows, structure_id, row);
        }
        let kind = if request.experiments { JobKind::Experiment } else { JobKind::Simulation };
        let urgency = Urgency::clamped(u64::from(request.priority.clamp(1, 10)) * 10);
        for (ordinal, structure_id) in (0u32..).zip(&request.structure_ids) {
            let mut input = object(&request.job.input);
            input.insert("structure_id".to_owned(), structure_id.as_str().into());
            let job = Job {
                kind,
                candidate: None,
                subject: structure_id.clone(),
                instrument: request.instrument.clone(),
                owner: request.owner.clone(),
                orchestrator: String::new(),
                reserved: BTreeMap::new(),
            };
            let task_id = requested_job(self.request_id, ordinal);
            self.launch(&task_id, request.job.clone(), input, urgency, job);
        }
        let count = u32::try_from(count).expect("a request is bounded");
        self.tell(CampaignFact::JobsRequested { kind: kind.as_str(), count });
        Ok(Outcome::JobsCreated { count })
    }
}

fn too_many(what: &str, max: usize) -> Rejection {
    Rejection::InvalidCampaign(format!("there are {max} {what} already"))
}

//! Structures and models, and jobs that clients ask for beside campaigns (contract 3.5, 3.6).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::apply::Txn;
use super::campaign_command::{JobRequest, PutWhen};
use super::launches::{object, parse_candidate};
use super::orchestrators::{check_name, check_promised, derive_uuid, unknown};
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State};
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

    /// Places of retained jobs of a kind, the newest first, of those before the place `before`.
    pub fn job_seqs(&self, kind: JobKind, before: Option<u64>) -> impl Iterator<Item = u64> {
        let jobs = self.indexes.jobs.get(&kind).into_iter();
        jobs.flat_map(move |seqs| seqs.range(..before.unwrap_or(u64::MAX)).rev().copied())
    }
}

impl Txn<'_> {
    pub(super) fn put_structure(
        &mut self,
        structure_id: String,
        owner: String,
        body: String,
        when: PutWhen,
    ) -> Reply {
        check_name("structure_id", &structure_id)?;
        self.check_not_derived(&structure_id)?;
        if body.len() > CONTEXT_MAX {
            let text = format!("a structure holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        let known = self.state.structure(&structure_id);
        if known.is_none() && when == PutWhen::Present {
            return Err(Rejection::StructuresNotFound);
        }
        let mut body = body;
        if let Some(known) = known.filter(|_| when == PutWhen::Present) {
            let mut fields = object(&known.body);
            fields.extend(object(&body));
            body = Value::Object(fields).to_string();
            if body.len() > CONTEXT_MAX {
                let text = format!("a structure holds at most {CONTEXT_MAX} bytes");
                return Err(Rejection::InvalidCampaign(text));
            }
        }
        if known.is_some() && when == PutWhen::Absent {
            let what = "Structure".to_owned();
            return Err(Rejection::AlreadyThere { what, id: structure_id });
        }
        if known.is_none() && self.state.structures_len() >= STRUCTURES_MAX {
            return Err(Rejection::too_many("structures", STRUCTURES_MAX));
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
            return Err(Rejection::too_many("models", MODELS_MAX));
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

    /// Refuses ids that candidates of a campaign have, or may get.
    fn check_not_derived(&self, structure_id: &str) -> Result<(), Rejection> {
        let derived = parse_candidate(structure_id)
            .is_some_and(|(campaign_id, _, _)| self.state.campaign(&campaign_id).is_some());
        if derived {
            let text = "structure_id is that of a campaign's candidate".to_owned();
            return Err(Rejection::InvalidCampaign(text));
        }
        Ok(())
    }

    /// Makes a job for each structure: all of them or none. What they may use is promised from the
    /// budgets of the orchestrator, and from those of the agent command that asks, if one does.
    pub(super) fn request_jobs(&mut self, request: &JobRequest, command: u64) -> Reply {
        let count = request.structure_ids.len();
        if count == 0 || count > JOBS_PER_REQUEST_MAX {
            let (len, max) = (count as u64, JOBS_PER_REQUEST_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        if command == 0 && !request.budgets.is_empty() {
            let text = "budget must be that of an agent's request: no other keeps one".to_owned();
            return Err(Rejection::InvalidCampaign(text));
        }
        let template = self.job_of(request)?;
        let new = self.new_structures(&request.structure_ids)?;
        self.check_queue(count)?;
        let name = match request.orchestrator.as_str() {
            "" => self.state.policy().default_orchestrator.clone(),
            name => name.to_owned(),
        };
        let name = name.as_str();
        if self.state.orchestrator(name).is_none() {
            return Err(unknown(name));
        }
        let kind = if request.experiments { JobKind::Experiment } else { JobKind::Simulation };
        let promise = self.state.promise_of(name, &template, kind);
        check_promised(&request.budgets, ("per_job", &promise))?;
        let mut owners = self.state.owners(None, command, name);
        owners.ask(request.budgets.iter().map(|(kind, asked)| (*kind, asked.fresh())));
        owners
            .reserve(&promise, count as u64)
            .map_err(|resource| Rejection::BudgetExceeded { resource })?;
        // From here on nothing is refused.
        self.keep_owners(owners);
        for structure_id in new {
            self.register_structure(structure_id, request.owner.clone());
        }
        let urgency = Urgency::clamped(u64::from(request.priority.clamp(1, 10)) * 10);
        for (ordinal, structure_id) in (0u32..).zip(&request.structure_ids) {
            let mut input = object(&template.input);
            input.insert("structure_id".to_owned(), structure_id.as_str().into());
            let job = Job {
                kind,
                candidate: None,
                subject: structure_id.clone(),
                instrument: request.instrument.clone(),
                owner: request.owner.clone(),
                orchestrator: name.to_owned(),
                command,
                reserved: promise.clone(),
                paid: 0,
                timed_out: false,
            };
            let task_id = requested_job(self.request_id, ordinal);
            self.launch(&task_id, template.clone(), input, urgency, job);
        }
        let count = u32::try_from(count).expect("a request is bounded");
        self.tell(CampaignFact::JobsRequested { kind: kind.as_str(), count });
        Ok(Outcome::JobsCreated { count })
    }

    /// The task of each job of a request. An instrument that is there says how it is done on it.
    fn job_of(&self, request: &JobRequest) -> Result<JobTemplate, Rejection> {
        let mut job = request.job.clone();
        if !request.instrument.is_empty() {
            check_name("instrument_id", &request.instrument)?;
            match self.state.instrument(&request.instrument) {
                Some(instrument) => {
                    let mut input = object(&instrument.job.input);
                    input.extend(object(&job.input));
                    let per_job = std::mem::take(&mut job.per_job);
                    job = instrument.job.clone();
                    job.input = Value::Object(input).to_string();
                    job.per_job.extend(per_job);
                }
                None if self.state.policy().strict_structures => {
                    return Err(Rejection::InstrumentNotFound);
                }
                None => {}
            }
        }
        check_name("task_type", &job.task_type)?;
        if job.input.len() > 2 * CONTEXT_MAX {
            let text = format!("parameters hold at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        Ok(job)
    }

    /// Those that are to be registered because nobody named them before.
    fn new_structures(&self, structure_ids: &[String]) -> Result<BTreeSet<String>, Rejection> {
        let mut new = BTreeSet::new();
        for structure_id in structure_ids {
            check_name("structure_id", structure_id)?;
            if !self.state.has_structure(structure_id) {
                self.check_not_derived(structure_id).map_err(|_| Rejection::StructuresNotFound)?;
                new.insert(structure_id.clone());
            }
        }
        if !new.is_empty() && self.state.policy().strict_structures {
            return Err(Rejection::StructuresNotFound);
        }
        if self.state.structures_len() + new.len() > STRUCTURES_MAX {
            return Err(Rejection::too_many("structures", STRUCTURES_MAX));
        }
        Ok(new)
    }

    fn register_structure(&mut self, structure_id: String, owner: String) {
        let row = Structure {
            structure_id: structure_id.clone(),
            owner,
            body: String::new(),
            labeled: false,
            created_at_ms: self.now,
            updated_at_ms: self.now,
        };
        self.state.structures.put(&mut self.state.rows, structure_id, row);
    }
}

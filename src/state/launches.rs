//! Launches: what campaigns do is done by tasks of the fleet (contract 3.4 `[P]`).
//!
//! What a job may use is promised when it is launched and settled when it ends, in the same entry as
//! the launch and the end: no failover and no retry can spend it twice. Ids of jobs are derived from
//! their place in the campaign, so nothing can be launched twice either.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::apply::Txn;
use super::budgets::Owners;
use super::campaign_command::IterationPlan;
use super::command::TaskSpec;
use super::{CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    CANDIDATES_MAX, Campaign, CampaignId, CampaignStatus, Candidate, CandidateState, Epoch,
    Iteration, Job, JobKind, JobTemplate, Resource, StepResult, TaskId, Urgency,
};

/// Why a launch that was planned is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The campaign, model or candidate has moved on since.
    Stale,
    /// A budget does not hold so much.
    Budget(Resource),
    /// Too much is under way.
    Capacity,
    /// The task queue is full.
    QueueFull,
}

impl Refusal {
    /// As the record of a run has it.
    pub(super) fn told(self) -> (StepResult, String) {
        match self {
            Self::Stale => {
                (StepResult::Skipped, "it changed while the step was planned".to_owned())
            }
            Self::Budget(resource) => {
                let text = format!("the budget of {} is used up", resource.as_str());
                (StepResult::BudgetExceeded, text)
            }
            Self::Capacity => (StepResult::CapacityExceeded, "too much is under way".to_owned()),
            Self::QueueFull => (StepResult::CapacityExceeded, "the task queue is full".to_owned()),
        }
    }
}

/// The structure of a candidate: derived, so it needs no row.
#[must_use]
pub fn candidate_structure(campaign_id: &CampaignId, iteration: u32, candidate: u32) -> String {
    format!("{campaign_id}.{iteration}.{candidate}")
}

/// The reverse of [`candidate_structure`].
#[must_use]
pub fn parse_candidate(structure_id: &str) -> Option<(CampaignId, u32, u32)> {
    let (rest, candidate) = structure_id.rsplit_once('.')?;
    let (campaign_id, iteration) = rest.rsplit_once('.')?;
    Some((CampaignId::parse(campaign_id).ok()?, iteration.parse().ok()?, candidate.parse().ok()?))
}

/// The task that tries a candidate.
#[must_use]
pub fn candidate_job(campaign_id: &CampaignId, iteration: u32, candidate: u32) -> TaskId {
    TaskId::trusted(&format!("job.{}", candidate_structure(campaign_id, iteration, candidate)))
}

/// The task that measures a candidate.
#[must_use]
pub fn candidate_experiment(campaign_id: &CampaignId, iteration: u32, candidate: u32) -> TaskId {
    let structure = candidate_structure(campaign_id, iteration, candidate);
    TaskId::trusted(&format!("experiment.{structure}"))
}

impl State {
    /// Simulations that wait or run (contract 3.4 `running`).
    #[must_use]
    pub fn open_jobs(&self, kind: JobKind) -> u64 {
        self.indexes.open_jobs.get(&kind).map_or(0, |open| open.waiting + open.live)
    }
}

impl State {
    /// Judges the next iteration of a campaign, of so many candidates.
    fn judge_iteration(&self, campaign: &Campaign, candidates: u32) -> Result<Owners, Refusal> {
        let goes_on = campaign.status == CampaignStatus::Running
            && !campaign.iterating
            && !campaign.tripped
            && campaign.iterations < campaign.plan.stop.max_iterations;
        if !goes_on || candidates == 0 || candidates > CANDIDATES_MAX {
            return Err(Refusal::Stale);
        }
        let count = u64::from(candidates);
        let room = self.orchestrator(&campaign.plan.orchestrator).ok_or(Refusal::Stale)?;
        let max = u64::from(room.config.simulations_max);
        if self.open_jobs(JobKind::Simulation) + count > max {
            return Err(Refusal::Capacity);
        }
        if !self.has_room_for(count) {
            return Err(Refusal::QueueFull);
        }
        let each = self.each_job(campaign, JobKind::Simulation);
        self.promise(campaign, &room.name, &each, count).map_err(Refusal::Budget)
    }

    /// Whether the next iteration of a campaign could have so many candidates, as apply judges it: what
    /// it would refuse need not be proposed.
    #[must_use]
    pub fn may_iterate(&self, campaign: &Campaign, candidates: u32) -> bool {
        self.judge_iteration(campaign, candidates).is_ok()
    }
}

impl Txn<'_> {
    pub(super) fn launch_iterations(&mut self, epoch: Epoch, launches: &[IterationPlan]) -> Reply {
        self.check_epoch(epoch)?;
        if launches.len() > super::ACTIONS_MAX {
            let (len, max) = (launches.len() as u64, super::ACTIONS_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        let (mut accepted, mut stale) = (0, 0);
        for plan in launches {
            if self.is_asked_for(&plan.campaign_id) && self.begin_iteration(plan).is_ok() {
                self.edit_campaign(&plan.campaign_id, |campaign| {
                    // An iteration that ended at once may have ended its campaign.
                    campaign.requested = campaign.requested.saturating_sub(1);
                    if campaign.requested == 0 {
                        campaign.requested_with = None;
                    }
                });
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Whether iterations were asked for, and may begin now.
    fn is_asked_for(&self, campaign_id: &CampaignId) -> bool {
        self.state.campaign(campaign_id).filter(|row| row.requested > 0).is_some_and(|row| {
            self.state.orchestrator(&row.plan.orchestrator).is_some_and(|row| row.may_launch())
        })
    }

    /// Begins the next iteration of a campaign; gives how many simulations that launched.
    pub(super) fn begin_iteration(&mut self, plan: &IterationPlan) -> Result<u32, Refusal> {
        let campaign = self.state.campaign(&plan.campaign_id).ok_or(Refusal::Stale)?;
        if campaign.revision != plan.seen_revision {
            return Err(Refusal::Stale);
        }
        let budgets = self.state.judge_iteration(campaign, plan.candidates)?;
        let count = u64::from(plan.candidates);
        let promise = self.state.each_job(campaign, JobKind::Simulation);
        let index = campaign.iterations;
        let strategy = plan.strategy.clone();
        self.keep_owners(budgets);
        let open = Candidate { state: CandidateState::Open, experiment: false };
        let iteration = Iteration {
            campaign_id: plan.campaign_id.clone(),
            index,
            strategy,
            candidates: vec![open; plan.candidates as usize],
            open: plan.candidates,
            best_score: None,
            best_candidate: 0,
            created_at_ms: self.now,
            completed_at_ms: 0,
        };
        let key = (plan.campaign_id.clone(), index);
        self.state.iterations.put(&mut self.state.rows, key, iteration);
        let now = self.now;
        self.edit_campaign(&plan.campaign_id, |campaign| {
            campaign.iterations += 1;
            campaign.iterating = true;
            campaign.structures += count;
            campaign.advanced_at_ms = now;
            campaign.reason.clear();
        });
        self.state.edit_campaign_totals(|totals| totals.structures += count);
        self.tell(CampaignFact::IterationBegun {
            campaign_id: plan.campaign_id.clone(),
            iteration: index,
            simulations: plan.candidates,
        });
        for candidate in 0..plan.candidates {
            self.launch_candidate(plan, index, candidate, &promise);
        }
        Ok(plan.candidates)
    }

    fn launch_candidate(
        &mut self,
        plan: &IterationPlan,
        index: u32,
        candidate: u32,
        promise: &BTreeMap<Resource, u64>,
    ) {
        let Some(campaign) = self.state.campaign(&plan.campaign_id) else { return };
        let structure = candidate_structure(&plan.campaign_id, index, candidate);
        let mut input = object(&campaign.plan.job.input);
        input.extend(object(&plan.context));
        input.insert("campaign_id".to_owned(), plan.campaign_id.as_str().into());
        input.insert("structure_id".to_owned(), structure.clone().into());
        input.insert("iteration".to_owned(), index.into());
        input.insert("candidate".to_owned(), candidate.into());
        // The same for whoever runs it, however often: what is random in a job is to come from it.
        let seed = xxhash_rust::xxh3::xxh3_64(structure.as_bytes()) >> 11;
        input.insert("seed".to_owned(), seed.into());
        let job = Job {
            kind: JobKind::Simulation,
            candidate: Some((plan.campaign_id.clone(), index, candidate)),
            subject: structure,
            instrument: String::new(),
            owner: campaign.plan.owner.clone(),
            orchestrator: campaign.plan.orchestrator.clone(),
            command: 0,
            reserved: promise.clone(),
            paid: 0,
            timed_out: false,
        };
        let template = campaign.plan.job.clone();
        let task_id = candidate_job(&plan.campaign_id, index, candidate);
        self.launch(&task_id, template, input, Urgency::default(), job);
    }

    /// Launches experiments for candidates with a score; gives how many.
    pub(super) fn launch_experiments(
        &mut self,
        name: &str,
        campaign_id: &CampaignId,
        candidates: &[(u32, u32)],
    ) -> Result<u32, Refusal> {
        let campaign = self.state.campaign(campaign_id).ok_or(Refusal::Stale)?;
        if campaign.status != CampaignStatus::Running || campaign.tripped {
            return Err(Refusal::Stale);
        }
        let orchestrator = self.state.orchestrator(name).ok_or(Refusal::Stale)?;
        let max = u64::from(orchestrator.config.experiments_max);
        let count = candidates.len() as u64;
        if count == 0 || count > max {
            return Err(Refusal::Stale);
        }
        if self.state.open_jobs(JobKind::Experiment) + count > max {
            return Err(Refusal::Capacity);
        }
        if !self.state.has_room_for(count) {
            return Err(Refusal::QueueFull);
        }
        for (index, candidate) in candidates {
            let row = self.state.iteration(campaign_id, *index);
            let row = row.and_then(|row| row.candidates.get(*candidate as usize));
            if row.is_none_or(|row| row.experiment) {
                return Err(Refusal::Stale);
            }
        }
        let promise = self.state.each_job(campaign, JobKind::Experiment);
        let budgets = self.state.promise(campaign, name, &promise, count);
        self.keep_owners(budgets.map_err(Refusal::Budget)?);
        for (index, candidate) in candidates {
            self.launch_experiment(name, campaign_id, *index, *candidate, &promise);
        }
        Ok(u32::try_from(candidates.len()).expect("a step launches at most 50 experiments"))
    }

    fn launch_experiment(
        &mut self,
        name: &str,
        campaign_id: &CampaignId,
        index: u32,
        candidate: u32,
        promise: &BTreeMap<Resource, u64>,
    ) {
        let key = (campaign_id.clone(), index);
        let mark = |row: &mut Iteration| {
            if let Some(candidate) = row.candidates.get_mut(candidate as usize) {
                candidate.experiment = true;
            }
        };
        self.state.edit_iteration(&key, mark);
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        let structure = candidate_structure(campaign_id, index, candidate);
        let mut input = Map::new();
        input.insert("campaign_id".to_owned(), campaign_id.as_str().into());
        input.insert("structure_id".to_owned(), structure.clone().into());
        input.insert("iteration".to_owned(), index.into());
        input.insert("candidate".to_owned(), candidate.into());
        if let Some(note) = self.state.candidate_note(campaign_id, index, candidate) {
            let parameters = serde_json::from_str(note).unwrap_or(Value::Null);
            input.insert("parameters".to_owned(), parameters);
        }
        let job = Job {
            kind: JobKind::Experiment,
            candidate: Some((campaign_id.clone(), index, candidate)),
            subject: structure,
            instrument: String::new(),
            owner: campaign.plan.owner.clone(),
            orchestrator: name.to_owned(),
            command: 0,
            reserved: promise.clone(),
            paid: 0,
            timed_out: false,
        };
        let mut template =
            JobTemplate { task_type: "experiment".to_owned(), ..campaign.plan.job.clone() };
        // Who simulates a candidate is not who measures it.
        template.requirements.agent_type = None;
        let task_id = candidate_experiment(campaign_id, index, candidate);
        self.launch(&task_id, template, input, Urgency::default(), job);
    }

    /// Launches the training of a model.
    pub(super) fn launch_training(&mut self, name: &str, model: &str) -> Result<(), Refusal> {
        let row = self.state.model(model).ok_or(Refusal::Stale)?;
        if !row.active || row.training.is_some() {
            return Err(Refusal::Stale);
        }
        if !self.state.has_room_for(1) {
            return Err(Refusal::QueueFull);
        }
        let template = row.job.clone();
        let reserved = self.promise_alone(name, &template, JobKind::Training);
        let reserved = reserved.map_err(Refusal::Budget)?;
        let labeled = self.state.labeled_samples();
        let mut input = object(&template.input);
        input.insert("model".to_owned(), model.into());
        input.insert("labeled_samples".to_owned(), labeled.into());
        let job = Job {
            kind: JobKind::Training,
            candidate: None,
            subject: model.to_owned(),
            instrument: String::new(),
            owner: String::new(),
            orchestrator: name.to_owned(),
            command: 0,
            reserved,
            paid: 0,
            timed_out: false,
        };
        let task_id = TaskId::trusted(&super::derive_uuid(&[
            b"training",
            model.as_bytes(),
            &self.index.to_be_bytes(),
            &self.place.to_be_bytes(),
        ]));
        let now = self.now;
        self.state.models.edit(&mut self.state.rows, &model.to_owned(), |row| {
            row.training = Some(task_id.clone());
            row.updated_at_ms = now;
        });
        self.launch(&task_id, template, input, Urgency::default(), job);
        Ok(())
    }

    /// Makes the task of a job. A task that has the id already is left alone: the job counts as
    /// failed then, as nobody would ever answer for it.
    pub(super) fn launch(
        &mut self,
        task_id: &TaskId,
        template: JobTemplate,
        input: Map<String, Value>,
        urgency: Urgency,
        job: Job,
    ) {
        if self.state.has_task(task_id) || self.state.tombstones.contains(task_id) {
            self.job_ended(task_id, crate::model::TaskStatus::Failed, &job, false, None);
            return;
        }
        let spec = TaskSpec {
            task_type: template.task_type,
            urgency,
            requirements: template.requirements,
            input: Value::Object(input).to_string(),
            timeout_ms: template.timeout_ms,
            max_retries: template.max_retries,
            ..TaskSpec::default()
        };
        self.create_task(task_id, spec, None, Some(Box::new(job)));
    }
}

/// The fields of JSON object text; none of anything else.
pub(super) fn object(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

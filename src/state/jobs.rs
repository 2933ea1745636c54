//! How jobs end: what they used is settled, and their scores go to their campaigns.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::apply::Txn;
use super::campaign_command::JobReading;
use super::{CampaignFact, State};
use crate::model::{
    Campaign, CampaignId, CampaignStatus, CandidateNote, CandidateState, Discovery, FleetStats,
    Job, JobKind, RUN_RESULT_MAX, Resource, Score, TaskId, TaskStatus, TimeMs, scaled,
};

/// The longest parameters of a candidate that are kept, in bytes.
const NOTE_MAX: usize = 1024;
/// Scores are kept in thousand-millionths.
const SCORE_PLACES: i32 = 9;
/// Amounts are kept in millionths.
const AMOUNT_PLACES: i32 = 6;
/// Minutes over which ended jobs are counted: a day.
const MINUTES: u64 = 24 * 60;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 3_600_000;
/// Names in a list of statistics.
const NAMES_MAX: usize = 100;
/// A campaign fails after so many iterations in a row without any result.
const FRUITLESS_MAX: usize = 3;

/// Reads what a result says to the campaign. An agent's is `{type, data}` (contract 4.3).
fn read_result(text: &str, score_field: &str, by_agent: bool) -> JobReading {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return JobReading::default();
    };
    if by_agent && let Some(data) = fields.get("data").map(|data| data.get()) {
        fields = serde_json::from_str(data).unwrap_or_default();
    }
    let parameters = fields.get("parameters").map(|value| value.get());
    let parameters = parameters.filter(|text| *text != "null" && text.len() <= NOTE_MAX);
    let usage = fields.get("usage").map_or("{}", |value| value.get());
    let usage: BTreeMap<String, &RawValue> = serde_json::from_str(usage).unwrap_or_default();
    let used = |resource: &Resource| {
        let amount = scaled(usage.get(resource.as_str())?.get(), AMOUNT_PLACES)?;
        Some((*resource, u64::try_from(amount).ok()?))
    };
    JobReading {
        score: fields.get(score_field).and_then(|value| scaled(value.get(), SCORE_PLACES)),
        parameters: parameters.unwrap_or_default().to_owned(),
        usage: Resource::METERED.iter().filter_map(used).collect(),
        text: String::new(),
    }
}

impl State {
    /// Structures with a result (contract 3.2 `total_labeled_samples`).
    #[must_use]
    pub fn labeled_samples(&self) -> u64 {
        self.campaign_totals().labeled
    }

    /// The figures of the whole, at `now`. Everything is counted as it comes and goes.
    #[must_use]
    pub fn fleet_stats(&self, now: TimeMs) -> FleetStats {
        let jobs = |kind: JobKind| self.indexes.open_jobs.get(&kind).copied().unwrap_or_default();
        let simulations = jobs(JobKind::Simulation);
        let minute = now / MINUTE_MS;
        let minutes = self.job_minutes.range(minute.saturating_sub(MINUTES), minute);
        let labeled = self.labeled_samples();
        let ready = self.models().filter(|model| {
            // More than 1.2 times as many as it was trained on.
            model.active && labeled.saturating_mul(5) > model.trained_on.saturating_mul(6)
        });
        let old = now.saturating_sub(DAY_MS);
        let attention = self.running_campaigns().take_while(|row| row.advanced_at_ms < old);
        FleetStats {
            active_campaigns: self.running_campaigns_len() as u64,
            pending_jobs: simulations.waiting,
            running_jobs: simulations.live,
            completed_jobs_24h: minutes.map(|(_, row)| row.count).sum(),
            pending_experiments: self.open_jobs(JobKind::Experiment),
            structures: self.campaign_totals().structures + self.structures_len() as u64,
            labeled_samples: labeled,
            models_ready: ready.take(NAMES_MAX).map(|model| model.name.clone()).collect(),
            needing_attention: attention
                .take(NAMES_MAX)
                .map(|row| row.campaign_id.as_str().to_owned())
                .collect(),
            at_ms: now,
        }
    }
}

impl State {
    /// Why a campaign whose iteration has ended cannot go on, if it cannot: no job of its last
    /// [`FRUITLESS_MAX`] iterations gave a result, or of all that it may have, when those are fewer.
    fn failure_reason(&self, campaign: &Campaign) -> Option<String> {
        let enough = FRUITLESS_MAX.min(campaign.plan.stop.max_iterations as usize);
        let newest = self.iterations(&campaign.campaign_id).rev().take(enough);
        let fruitless = newest.take_while(|row| {
            row.candidates.iter().all(|candidate| candidate.state == CandidateState::Failed)
        });
        let failed = fruitless.count() >= enough;
        failed.then(|| format!("no job of the last {enough} iterations gave a result"))
    }
}

impl Txn<'_> {
    /// Notes what the result of a job says, before it is stored where apply does not look.
    pub(super) fn read_job_result(&mut self, task_id: &TaskId, result: &str) {
        let Some(task) = self.state.open_task(task_id) else { return };
        let Some(job) = task.job.as_ref() else { return };
        let by_agent = task.requirements.agent_type.is_some();
        let campaign = job.candidate.as_ref().and_then(|(id, _, _)| self.state.campaign(id));
        let field = campaign.map_or("score", |campaign| &campaign.plan.score_field);
        let mut reading = read_result(result, field, by_agent);
        if job.kind == JobKind::Scheduled && result.len() <= RUN_RESULT_MAX {
            result.clone_into(&mut reading.text);
        }
        self.reading = Some(reading);
    }

    /// A job's task has ended.
    pub(super) fn job_ended(
        &mut self,
        task_id: &TaskId,
        status: TaskStatus,
        job: &Job,
        under_way: bool,
        reading: Option<JobReading>,
    ) {
        let reading = reading.unwrap_or_default();
        self.settle(job, status, under_way, &reading);
        self.state.note_command(job.command);
        let completed = status == TaskStatus::Completed;
        // The same kind as those that wait and run (contract 3.2 Stats).
        if completed && job.kind == JobKind::Simulation {
            self.count_minute();
        }
        match job.kind {
            JobKind::Simulation => match &job.candidate {
                Some((campaign_id, index, candidate)) => {
                    if completed {
                        self.state.edit_campaign_totals(|totals| totals.labeled += 1);
                    }
                    self.score_candidate(campaign_id, *index, *candidate, completed, reading);
                }
                None if completed => self.label_structure(&job.subject),
                None => {}
            },
            JobKind::Experiment => {
                let candidate = job.candidate.as_ref();
                if let Some((campaign_id, _, _)) =
                    candidate.filter(|(id, _, _)| self.state.campaign(id).is_some())
                {
                    let text = format!("{}: {}", job.subject, status.as_str());
                    self.log_line(campaign_id, "experiment", text);
                }
            }
            JobKind::Training => self.end_training(task_id, &job.subject, completed),
            JobKind::Scheduled => {
                let error = self.state.task(task_id).and_then(|task| task.error.clone());
                self.end_work(job, status, reading.text, error.unwrap_or_default());
            }
        }
    }

    fn score_candidate(
        &mut self,
        campaign_id: &CampaignId,
        index: u32,
        candidate: u32,
        completed: bool,
        reading: JobReading,
    ) {
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        let minimize = campaign.plan.minimize;
        let score = reading.score.filter(|_| completed);
        let key = (campaign_id.clone(), index);
        let open = self.state.edit_iteration(&key, |row| {
            let place = row.candidates.get_mut(candidate as usize)?;
            if place.state != CandidateState::Open {
                return None;
            }
            place.state = match score {
                Some(score) => CandidateState::Scored(score),
                None if completed => CandidateState::Unscored,
                None => CandidateState::Failed,
            };
            row.open -= 1;
            if let Some(score) = score.filter(|score| is_better(*score, row.best_score, minimize)) {
                row.best_score = Some(score);
                row.best_candidate = candidate;
            }
            Some(row.open)
        });
        let Some(open) = open.flatten() else { return };
        if completed && !reading.parameters.is_empty() {
            let note = CandidateNote { parameters: reading.parameters };
            let key = (campaign_id.clone(), index, candidate);
            self.state.candidate_notes.put(&mut self.state.rows, key, note);
        }
        if score.is_some() {
            self.edit_campaign(campaign_id, |campaign| campaign.evaluated += 1);
        }
        if open == 0 {
            self.end_iteration(campaign_id, index);
        }
    }

    fn end_iteration(&mut self, campaign_id: &CampaignId, index: u32) {
        let now = self.now;
        let key = (campaign_id.clone(), index);
        let ended = self.state.iterations.edit(&mut self.state.rows, &key, |row| {
            row.completed_at_ms = now;
            (row.best_score, row.best_candidate)
        });
        let (Some((best, place)), Some(campaign)) = (ended, self.state.campaign(campaign_id))
        else {
            return;
        };
        let before = campaign.best_score;
        let better = best.filter(|best| is_better(*best, before, campaign.plan.minimize));
        self.edit_campaign(campaign_id, |campaign| {
            campaign.iterating = false;
            if let Some(best) = better {
                campaign.best_score = Some(best);
                campaign.best_structure =
                    Some(super::candidate_structure(campaign_id, index, place));
                campaign.best_iteration = index;
            }
        });
        if let Some(score) = better {
            self.note_discovery(Discovery {
                campaign_id: campaign_id.clone(),
                iteration: index,
                candidate: place,
                score,
                at_ms: now,
            });
        }
        self.tell(CampaignFact::IterationEnded {
            campaign_id: campaign_id.clone(),
            iteration: index,
            improved: better.is_some(),
        });
        self.log_line(campaign_id, "iteration", format!("iteration {} has ended", index + 1));
        self.judge_campaign(campaign_id, before, best.is_some());
    }

    /// Ends a campaign that has found enough, or cannot go on: its newest iteration has ended, with a
    /// score or without any.
    fn judge_campaign(&mut self, campaign_id: &CampaignId, before: Option<Score>, scored: bool) {
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        if campaign.status != CampaignStatus::Running {
            return;
        }
        if let Some(why) = self.state.failure_reason(campaign) {
            self.end_campaign(campaign_id, CampaignStatus::Failed, &why);
        } else if let Some(why) = stop_reason(campaign, before, scored) {
            self.end_campaign(campaign_id, CampaignStatus::Completed, &why);
        }
    }

    /// Judges a campaign that goes on after a rest: its newest iteration may have ended meanwhile, and
    /// its stop rules may be others. An iteration that is under way is judged when it ends.
    pub(super) fn judge_at_rest(&mut self, campaign_id: &CampaignId) {
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        if campaign.iterating || campaign.iterations == 0 {
            return;
        }
        let minimize = campaign.plan.minimize;
        let (mut before, mut scored) = (None, false);
        for iteration in self.state.iterations(campaign_id) {
            scored = iteration.best_score.is_some();
            if iteration.index + 1 < campaign.iterations {
                let better = iteration.best_score.filter(|best| is_better(*best, before, minimize));
                before = better.or(before);
            }
        }
        self.judge_campaign(campaign_id, before, scored);
    }

    fn count_minute(&mut self) {
        let minute = self.now / MINUTE_MS;
        let count = self.state.job_minutes.get(&minute).map_or(0, |row| row.count);
        let row = super::structures::JobMinute { count: count + 1 };
        self.state.job_minutes.put(&mut self.state.rows, minute, row);
        let oldest = |state: &State| state.job_minutes.iter().next().map(|(oldest, _)| *oldest);
        while let Some(old) = oldest(self.state).filter(|old| old + MINUTES < minute) {
            self.state.job_minutes.remove(&mut self.state.rows, &old);
        }
    }
}

/// Whether a score is better than another one, or the first.
pub(super) fn is_better(score: Score, than: Option<Score>, minimize: bool) -> bool {
    than.is_none_or(|than| if minimize { score < than } else { score > than })
}

/// Why a campaign whose iteration has ended, with a score or without any, has found enough, if it has.
fn stop_reason(campaign: &Campaign, before: Option<Score>, scored: bool) -> Option<String> {
    let stop = &campaign.plan.stop;
    if let (Some(target), Some(best)) = (stop.target, campaign.best_score)
        && (best == target || is_better(best, Some(target), campaign.plan.minimize))
    {
        return Some("the target score is reached".to_owned());
    }
    if let (Some(least), Some(before), Some(best)) = (stop.convergence, before, campaign.best_score)
        && scored
        && best.abs_diff(before) < least.unsigned_abs()
    {
        return Some("the best score has converged".to_owned());
    }
    let newest = campaign.iterations.saturating_sub(1);
    if let Some(patience) = stop.patience
        && newest.saturating_sub(campaign.best_iteration) >= patience.max(1)
    {
        return Some(format!("no better score in {patience} iterations"));
    }
    (campaign.iterations >= stop.max_iterations).then(|| "all iterations are done".to_owned())
}

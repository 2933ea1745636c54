//! Lines of golden scripts about orchestrators and campaigns. A campaign is named by the key of the
//! request that made it.

use super::scripts::Words;
use super::{
    AgentAction, AgentOrder, CampaignCommand, CampaignMove, CampaignPatch, Command, IterationPlan,
    JobRequest, OrchestratorPatch, PutWhen, SlotChoice, SlotPlan, State, StepAction, StepDuty,
    StepEffect, candidate_experiment, candidate_job, derive_uuid, requested_job,
};
use crate::model::{
    Budget, Cadence, CampaignId, CampaignPlan, CatchUp, Decision, DecisionKind, IterationOverride,
    JobTemplate, Mode, Overlap, RequestId, Resource, RunPhase, StepResult, StepSetting, StopRules,
    Timetable, TimetablePatch,
};

pub(super) fn campaign_id(key: &str) -> CampaignId {
    let request_id = RequestId::from_key(key).0.to_be_bytes();
    CampaignId::trusted(&derive_uuid(&[b"campaign", &request_id]))
}

/// `@<campaign>.<iteration>.<candidate>` stands for the job of a candidate, and `!...` for its
/// experiment; `%<request>.<n>` for the *n*th job of a request; any other word for itself.
pub(super) fn job_word(word: &str) -> String {
    if let Some((key, ordinal)) = word.strip_prefix('%').and_then(|word| word.rsplit_once('.')) {
        let ordinal = ordinal.parse().unwrap();
        return requested_job(RequestId::from_key(key), ordinal).as_str().to_owned();
    }
    let place = word.strip_prefix(['@', '!']).and_then(|place| {
        let (rest, candidate) = place.rsplit_once('.')?;
        let (key, index) = rest.rsplit_once('.')?;
        Some((campaign_id(key), index.parse().ok()?, candidate.parse().ok()?))
    });
    let Some((campaign_id, index, candidate)) = place else { return word.to_owned() };
    match word.starts_with('@') {
        true => candidate_job(&campaign_id, index, candidate).as_str().to_owned(),
        false => candidate_experiment(&campaign_id, index, candidate).as_str().to_owned(),
    }
}

fn number<T: TryFrom<u64>>(words: &Words<'_>, key: &str, default: u64) -> T {
    T::try_from(words.number(key, default)).ok().unwrap()
}

fn optional<T: std::str::FromStr>(words: &Words<'_>, key: &str) -> Option<T> {
    words.pairs.get(key).map(|text| text.parse().ok().unwrap())
}

fn job(words: &Words<'_>) -> JobTemplate {
    JobTemplate {
        task_type: "simulate".to_owned(),
        timeout_ms: 60_000,
        max_retries: number(words, "retries", 1),
        per_job: each(words),
        ..JobTemplate::default()
    }
}

fn put_when(words: &Words<'_>) -> PutWhen {
    if words.pairs.contains_key("new") { PutWhen::Absent } else { PutWhen::Always }
}

fn job_request(words: &Words<'_>, structure_ids: &[&str]) -> JobRequest {
    JobRequest {
        experiments: words.pairs.contains_key("experiments"),
        structure_ids: structure_ids.iter().map(|id| (*id).to_owned()).collect(),
        owner: "me".to_owned(),
        instrument: words.text("instrument", ""),
        job: job(words),
        priority: 5,
        orchestrator: words.text("by", ""),
        budgets: budgets(words).collect(),
    }
}

/// Whole units of one job, by resource.
fn each(words: &Words<'_>) -> std::collections::BTreeMap<Resource, u64> {
    let each = Resource::METERED.map(|resource| {
        let each: Option<u64> = optional(words, &format!("each_{}", resource.as_str()));
        each.map(|each| (resource, each * crate::model::MICRO))
    });
    each.into_iter().flatten().collect()
}

/// Whole units, by resource.
fn budgets(words: &Words<'_>) -> impl Iterator<Item = (Resource, Budget)> {
    let named = Resource::ALL.map(|resource| {
        let limit: Option<u64> = optional(words, resource.as_str());
        let soft = words.number("soft", 0) * crate::model::MICRO;
        limit.map(|limit| (resource, Budget { soft, ..Budget::of_units(limit) }))
    });
    named.into_iter().flatten()
}

fn plan(words: &Words<'_>) -> CampaignPlan {
    CampaignPlan {
        name: "search".to_owned(),
        orchestrator: words.text("by", ""),
        candidates: number(words, "candidates", 2),
        strategy: "random".to_owned(),
        minimize: words.pairs.contains_key("minimize"),
        score_field: words.text("field", "score"),
        stop: StopRules {
            max_iterations: number(words, "iterations", 3),
            patience: optional(words, "patience"),
            convergence: optional(words, "convergence"),
            target: optional(words, "target"),
        },
        job: job(words),
        budgets: budgets(words).collect(),
        ..CampaignPlan::default()
    }
}

fn orchestrator_patch(words: &Words<'_>) -> OrchestratorPatch {
    let cadence = words
        .pairs
        .contains_key("every")
        .then(|| Cadence::Every { interval_ms: words.number("every", 1000) });
    OrchestratorPatch {
        settings: [
            optional(words, "sims").map(StepSetting::SimulationsMax),
            optional(words, "experiments_max").map(StepSetting::ExperimentsMax),
            optional(words, "budget").map(StepSetting::SimulationBudget),
        ]
        .into_iter()
        .flatten()
        .collect(),
        mode: words.pairs.get("mode").map(|word| Mode::parse(word).unwrap()),
        timetable: cadence
            .map(|cadence| Timetable {
                cadence,
                catch_up: CatchUp::parse(&words.text("catchup", "latest")).unwrap(),
                catch_up_window_ms: words.number("window", 60_000),
                overlap: Overlap::parse(&words.text("overlap", "forbid")).unwrap(),
            })
            .map(TimetablePatch::from)
            .or_else(|| {
                let overlap = Overlap::parse(words.pairs.get("overlap")?).unwrap();
                Some(TimetablePatch { overlap: Some(overlap), ..TimetablePatch::default() })
            }),
        pause_ms: optional(words, "pause"),
        description: None,
        task: words.pairs.get("task").map(|word| {
            (!word.is_empty())
                .then(|| Box::new(JobTemplate { task_type: (*word).to_owned(), ..job(words) }))
        }),
        budgets: budgets(words)
            .map(|(resource, budget)| (resource, Some(budget)))
            .chain(
                optional::<String>(words, "unlimited")
                    .map(|word| (Resource::parse(&word).unwrap(), None)),
            )
            .collect(),
        per_job: each(words)
            .into_iter()
            .map(|(resource, each)| (resource, Some(each)))
            .chain(
                optional::<String>(words, "unpromised")
                    .map(|word| (Resource::parse(&word).unwrap(), None)),
            )
            .collect(),
    }
}

/// The whole plan with `whole`, or its stop rules alone.
fn campaign_patch(state: &State, words: &Words<'_>) -> CampaignPatch {
    let whole = words.places.contains(&"whole");
    let seen = state.campaign(&campaign_id(words.places[0])).map_or(0, |row| row.plan_index);
    CampaignPatch {
        plan: whole.then(|| plan(words)),
        seen_plan: words.number("seen", seen),
        stop: (!whole).then(|| plan(words).stop),
        ..CampaignPatch::default()
    }
}

pub(super) fn campaign_command(state: &State, verb: &str, words: &Words<'_>) -> Option<Command> {
    let name = || words.places[0].to_owned();
    let named = || campaign_id(words.places[0]);
    Some(Command::Campaign(match verb {
        "orchestrator" => CampaignCommand::EnsureOrchestrator { name: name() },
        "set" => CampaignCommand::PatchOrchestrator {
            name: name(),
            patch: Box::new(orchestrator_patch(words)),
        },
        "activate" | "deactivate" => {
            CampaignCommand::SetActive { name: name(), active: verb == "activate" }
        }
        "run" => CampaignCommand::BeginRun {
            name: name(),
            triggered_by: "manual".to_owned(),
            context: "{}".to_owned(),
        },
        "campaign" => CampaignCommand::CreateCampaign(Box::new(plan(words))),
        "patch" => CampaignCommand::PatchCampaign {
            campaign_id: named(),
            patch: Box::new(campaign_patch(state, words)),
        },
        "move" => CampaignCommand::MoveCampaign {
            campaign_id: named(),
            how: match words.places[1] {
                "start" => CampaignMove::Start,
                "pause" => CampaignMove::Pause,
                "resume" => CampaignMove::Resume,
                "cancel" => CampaignMove::Cancel,
                _ => CampaignMove::Trip,
            },
        },
        "discard" => CampaignCommand::RemoveCampaign { campaign_id: named() },
        "iterate" => CampaignCommand::RequestIterations {
            campaign_id: named(),
            count: words.places[1].parse().unwrap(),
            start: words.places.contains(&"start"),
            with: optional(words, "with").map(|candidates| {
                Box::new(IterationOverride {
                    candidates: Some(candidates),
                    strategy: Some("grid".to_owned()),
                    config: "{\"seen\":true}".to_owned(),
                })
            }),
        },
        _ => match laboratory_command(verb, words) {
            Some(command) => command,
            None => return step_command(state, verb, words),
        },
    }))
}

/// What campaigns try and measure, and what agents ask for.
fn laboratory_command(verb: &str, words: &Words<'_>) -> Option<CampaignCommand> {
    let name = || words.places[0].to_owned();
    Some(match verb {
        "structure" => CampaignCommand::PutStructure {
            structure_id: name(),
            owner: "me".to_owned(),
            body: "{}".to_owned(),
            when: put_when(words),
        },
        "unstructure" => CampaignCommand::RemoveStructure { structure_id: name() },
        "model" => CampaignCommand::PutModel {
            name: name(),
            active: true,
            trained_on: optional(words, "on"),
            job: Box::new(job(words)),
        },
        "unmodel" => CampaignCommand::RemoveModel { name: name() },
        "jobs" => CampaignCommand::RequestJobs(Box::new(job_request(words, &words.places))),
        "instrument" => CampaignCommand::PutInstrument {
            instrument_id: name(),
            owner: "me".to_owned(),
            body: "{}".to_owned(),
            job: Box::new(JobTemplate { task_type: "scan".to_owned(), ..job(words) }),
            when: put_when(words),
        },
        "uninstrument" => CampaignCommand::RemoveInstrument { instrument_id: name() },
        "agent" => CampaignCommand::Agent(Box::new(AgentOrder {
            agent_id: "user:a".to_owned(),
            payload: "{}".to_owned(),
            action: match words.places[0] {
                "create" => AgentAction::CreateCampaign(plan(words)),
                "advance" => AgentAction::AdvanceCampaign {
                    campaign_id: campaign_id(words.places[1]),
                    count: words.places[2].parse().unwrap(),
                    with: None,
                },
                "stop" => AgentAction::StopCampaign { campaign_id: campaign_id(words.places[1]) },
                _ => AgentAction::RequestJobs(job_request(words, &words.places[1..])),
            },
        })),
        _ => return None,
    })
}

fn step_command(state: &State, verb: &str, words: &Words<'_>) -> Option<Command> {
    let duty = match verb {
        "slots" => StepDuty::DecideSlots {
            schedule: words.places[1].to_owned(),
            seen_decided_ms: words.number(
                "seen",
                state.schedule(words.places[1]).map_or(0, |schedule| schedule.decided_ms),
            ),
            slots: words.places[2..].iter().map(|text| slot(text)).collect(),
        },
        "close" => StepDuty::CloseLedger {
            schedule: words.places[1].to_owned(),
            seen_decided_ms: words.number(
                "seen",
                state.schedule(words.places[1]).map_or(0, |schedule| schedule.decided_ms),
            ),
            until_ms: words.number("until", 0),
            nominal_ms: words.places[2..].iter().filter_map(|text| text.parse().ok()).collect(),
            done: words.places.contains(&"done"),
        },
        "degrade" => StepDuty::JudgeSchedule {
            schedule: words.places[1].to_owned(),
            degraded: words.text("why", ""),
        },
        "advance" => StepDuty::AdvanceRun {
            run_id: words.places[1].parse().unwrap(),
            seen: match words.places[2] {
                "retraining" => RunPhase::Retraining,
                "campaigns" => RunPhase::Campaigns,
                _ => RunPhase::Experiments,
            },
            actions: words.places[3..].iter().map(|text| action(state, text)).collect(),
        },
        "failrun" => StepDuty::FailRun {
            run_id: words.places[1].parse().unwrap(),
            error: words.text("error", "too_late"),
        },
        "waiting" => StepDuty::NoteWaiting {
            campaigns: words.places[1..].iter().map(|key| campaign_id(key)).collect(),
        },
        "launch" => StepDuty::LaunchIterations {
            launches: words.places[1..].iter().map(|text| iteration(state, text)).collect(),
        },
        _ => return None,
    };
    Some(Command::Step { epoch: words.epoch(), duty })
}

/// `<nominal>:<choice>`.
fn slot(text: &str) -> SlotPlan {
    let (nominal, choice) = text.split_once(':').unwrap();
    SlotPlan {
        nominal_ms: nominal.parse().unwrap(),
        choice: match choice {
            "run" => SlotChoice::Run,
            "catchup" => SlotChoice::CatchUp,
            "overlap" => SlotChoice::SkipOverlap,
            "inactive" => SlotChoice::SkipInactive,
            _ => SlotChoice::Miss,
        },
    }
}

/// `<campaign>:<candidates>`.
fn iteration(state: &State, text: &str) -> IterationPlan {
    let (key, candidates) = text.split_once(':').unwrap();
    let campaign_id = campaign_id(key);
    let seen_revision = state.campaign(&campaign_id).map_or(0, |campaign| campaign.revision);
    let (context, candidates) = ("{\"hint\":1}".to_owned(), candidates.parse().unwrap());
    let strategy = "random".to_owned();
    IterationPlan { campaign_id, seen_revision, context, strategy, candidates }
}

/// `iterate:c:2`, `complete:c`, `measure:c:0.1`, `train:m`, `note`.
fn action(state: &State, text: &str) -> StepAction {
    let (what, rest) = text.split_once(':').unwrap_or((text, ""));
    let (kind, result, effect) = match what {
        "iterate" => {
            let plan = iteration(state, rest);
            (DecisionKind::Iteration, StepResult::Queued, StepEffect::Iterate(plan))
        }
        "complete" => {
            let effect = StepEffect::Complete(campaign_id(rest));
            (DecisionKind::Iteration, StepResult::Completed, effect)
        }
        "measure" => {
            let (key, place) = rest.split_once(':').unwrap();
            let (index, candidate) = place.split_once('.').unwrap();
            let candidates = vec![(index.parse().unwrap(), candidate.parse().unwrap())];
            let effect = StepEffect::Measure { campaign_id: campaign_id(key), candidates };
            (DecisionKind::Experiments, StepResult::Queued, effect)
        }
        "work" => (DecisionKind::Task, StepResult::Queued, StepEffect::Work),
        "train" => {
            let effect = StepEffect::Train { model: rest.to_owned() };
            (DecisionKind::RetrainTriggered, StepResult::Queued, effect)
        }
        _ => (DecisionKind::Advancement, StepResult::Skipped, StepEffect::Nothing),
    };
    let decision = Decision::new(kind, what.to_owned(), result);
    StepAction { decision, effect }
}

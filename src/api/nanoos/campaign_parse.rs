//! What clients send of a campaign (contract 3.6).

use std::collections::BTreeMap;

use super::config::{budget, resource};
use super::merge::merged;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::model::{
    Budget, CANDIDATES_MAX, Campaign, CampaignPlan, ITERATIONS_MAX, IterationOverride, JobTemplate,
    MICRO, Requirements, Resource, Score, StopRules,
};
use crate::state::{CONTEXT_MAX, CampaignPatch, NAME_MAX};

/// A campaign that says nothing (contract 3.6).
const MAX_ITERATIONS: u32 = 10;
const CANDIDATES: u32 = 10;
/// The longest time of one attempt of a job: family N's hard limit.
pub(super) const JOB_TIMEOUT_S: f64 = 3600.0;
/// How candidates are evaluated where nobody says.
pub(super) const EVALUATION: &str = "ml_prediction";
const JOB_TIMEOUT_S_MAX: f64 = 7.0 * 86_400.0;
/// Attempts after the first (contract 3.4: three retries).
pub(super) const JOB_RETRIES: u64 = 3;
const JOB_RETRIES_MAX: u64 = 20;

/// Reads a whole campaign.
pub(in crate::api) fn plan(body: &Object<'_>, owner: &str) -> Result<CampaignPlan, ApiError> {
    let name = body.text("name")?.ok_or_else(|| FieldError::new("name", "a text"))?;
    let generic = match body.text("kind")?.as_deref() {
        None | Some("materials") => false,
        Some("generic") => true,
        Some(_) => return Err(FieldError::new("kind", "materials or generic").into()),
    };
    let config = body.object("config")?;
    let mut plan = configured(&config, generic).map_err(|error| error.within("config"))?;
    plan.owner = owner.to_owned();
    plan.name = name.into_owned();
    plan.description = body.text("description")?.unwrap_or_default().into_owned();
    plan.orchestrator = body.text("orchestrator")?.unwrap_or_default().into_owned();
    plan.config = if config.is_empty() { "{}".to_owned() } else { body.json("config") };
    body.object("metadata")?;
    plan.metadata = body.json("metadata");
    Ok(plan)
}

/// Reads what is to change of one: what is not sent stays, inside `config` as well, and null takes a
/// field of that away.
pub(in crate::api) fn patch(
    body: &Object<'_>,
    campaign: &Campaign,
) -> Result<CampaignPatch, ApiError> {
    let plan = match body.raw("config") {
        None => None,
        Some(sent) if sent.get().len() > CONTEXT_MAX => {
            return Err(FieldError::new("config", "at most 16384 bytes of JSON").into());
        }
        Some(_) => {
            let text = merged(&campaign.plan.config, &body.object("config")?);
            let config = Object::parse(text.as_bytes())?;
            let plan = configured(&config, campaign.plan.generic);
            let plan = plan.map_err(|error| error.within("config"))?;
            if plan.score_field != campaign.plan.score_field && campaign.evaluated > 0 {
                let text = "as it was: scores were read from that field already";
                return Err(FieldError::new("config.score_field", text).into());
            }
            Some(CampaignPlan { config: text.clone(), ..plan })
        }
    };
    body.object("metadata")?;
    Ok(CampaignPatch {
        name: body.text("name")?.map(|text| text.into_owned()),
        description: body.text("description")?.map(|text| text.into_owned()),
        metadata: body.raw("metadata").map(|_| body.json("metadata")),
        plan,
        seen_plan: campaign.plan_index,
        stop: None,
    })
}

/// What a configuration says; the rest of the plan is empty.
pub(super) fn configured(config: &Object<'_>, generic: bool) -> Result<CampaignPlan, ApiError> {
    let bounded = |field: &'static str, usual: u32, max: u32, wanted: &'static str| match config
        .number(field)?
    {
        None => Ok(usual),
        Some(value) if value.fract() == 0.0 && (1.0..=f64::from(max)).contains(&value) => {
            Ok(value as u32)
        }
        Some(_) => Err(FieldError::new(field, wanted)),
    };
    let scored = |field: &'static str| -> Result<Option<Score>, FieldError> {
        match config.number(field)? {
            None => Ok(None),
            Some(value) if value.abs() < 9e9 => Ok(Some((value * 1e9).round() as Score)),
            Some(_) => Err(FieldError::new(field, "a number below 9e9")),
        }
    };
    let patience = match config.count("early_stopping_patience")? {
        None => None,
        Some(value @ 1..=1000) => Some(value as u32),
        Some(_) => return Err(FieldError::new("early_stopping_patience", "1 to 1000").into()),
    };
    let minimize = match config.text("direction")?.as_deref() {
        None | Some("maximize") => false,
        Some("minimize") => true,
        Some(_) => return Err(FieldError::new("direction", "maximize or minimize").into()),
    };
    let evaluation = config.text("evaluation_strategy")?;
    let evaluation = evaluation.as_deref().unwrap_or(EVALUATION);
    let strategy = config.text("generation_strategy")?;
    let score_field = config.text("score_field")?;
    let (job, budgets) = (job(config, generic, evaluation)?, budgets(config)?);
    Ok(CampaignPlan {
        generic,
        candidates: bounded("candidates_per_iteration", CANDIDATES, CANDIDATES_MAX, "1 to 100")?,
        strategy: strategy.as_deref().unwrap_or("random").to_owned(),
        minimize,
        score_field: score_field.as_deref().unwrap_or("score").to_owned(),
        stop: StopRules {
            max_iterations: bounded("max_iterations", MAX_ITERATIONS, ITERATIONS_MAX, "1 to 1000")?,
            patience,
            convergence: scored("convergence_threshold")?,
            target: scored("target_score")?,
        },
        job,
        budgets,
        measured_from: scored("experiment_trigger_score_threshold")?,
        ..CampaignPlan::default()
    })
}

/// The task of a candidate; one of a generic campaign must say its type.
fn job(config: &Object<'_>, generic: bool, evaluation: &str) -> Result<JobTemplate, ApiError> {
    let task = config.object("task")?;
    let named = task.text("task_type")?.is_some_and(|word| !word.is_empty());
    if generic && !named {
        return Err(FieldError::new("task.task_type", "a text in a generic campaign").into());
    }
    let mut job = template(&task, evaluation).map_err(|error| error.within("task"))?;
    job.per_job.extend(per_job(config)?);
    Ok(job)
}

/// A task as clients describe it: `task_type`, `input`, `capabilities`, `timeout`, `max_retries`, and in
/// `per_job` what an attempt may use.
pub(super) fn template(task: &Object<'_>, usual: &str) -> Result<JobTemplate, ApiError> {
    let task_type = task.text("task_type")?.filter(|word| !word.is_empty());
    task.object("input")?;
    let (timeout_ms, max_retries) = job_limits(task, JOB_TIMEOUT_S, JOB_RETRIES)?;
    Ok(JobTemplate {
        task_type: task_type.map_or_else(|| usual.to_owned(), |word| word.into_owned()),
        input: task.json("input"),
        requirements: Requirements {
            capabilities: task.texts("capabilities")?,
            agent_type: agent_type(task)?,
            ..Requirements::default()
        },
        timeout_ms,
        max_retries,
        per_job: per_job(task)?,
    })
}

/// `timeout` in seconds as milliseconds, and `max_retries`.
pub(super) fn job_limits(
    body: &Object<'_>,
    timeout_s: f64,
    retries: u64,
) -> Result<(u64, u32), ApiError> {
    let timeout_s = body.number("timeout")?.unwrap_or(timeout_s);
    if !(0.1..=JOB_TIMEOUT_S_MAX).contains(&timeout_s) {
        return Err(FieldError::new("timeout", "0.1 to 604800 seconds").into());
    }
    let retries = body.count("max_retries")?.unwrap_or(retries).min(JOB_RETRIES_MAX);
    Ok(((timeout_s * 1000.0) as u64, retries as u32))
}

/// `override_config`: what is different in iterations that a client asks for (contract 3.5, 3.6).
pub(super) fn override_config(
    body: &Object<'_>,
) -> Result<Option<Box<IterationOverride>>, ApiError> {
    if body.raw("override_config").is_none() {
        return Ok(None);
    }
    let config = body.object("override_config")?;
    let path = "override_config.candidates_per_iteration";
    let candidates = match config.count("candidates_per_iteration")? {
        None => None,
        Some(count) if (1..=u64::from(CANDIDATES_MAX)).contains(&count) => Some(count as u32),
        Some(_) => return Err(FieldError::new(path, "1 to 100").into()),
    };
    let strategy = config.text("generation_strategy")?.filter(|word| !word.is_empty());
    Ok(Some(Box::new(IterationOverride {
        candidates,
        strategy: strategy.map(|word| word.into_owned()),
        config: body.json("override_config"),
    })))
}

/// Own limits: `simulation_budget`, `experiment_budget`, and `budgets` by resource.
fn budgets(config: &Object<'_>) -> Result<BTreeMap<Resource, Budget>, ApiError> {
    let mut limits = BTreeMap::new();
    let short = [
        ("simulation_budget", Resource::Simulations),
        ("experiment_budget", Resource::Experiments),
    ];
    for (field, resource) in short {
        if let Some(value) = config.raw(field) {
            limits.insert(resource, budget(field, value)?);
        }
    }
    for (name, value) in config.object("budgets")?.fields() {
        let within = |error: ApiError| error.within("budgets");
        let limit = budget(name, value).map_err(within)?;
        limits.insert(resource(name).map_err(within)?, limit);
    }
    Ok(limits)
}

/// `agent_type`: the kind of agents that are to do it, in place of nodes.
pub(super) fn agent_type(task: &Object<'_>) -> Result<Option<String>, ApiError> {
    let word = task.text("agent_type")?.filter(|word| !word.is_empty());
    if word.as_ref().is_some_and(|word| word.len() > NAME_MAX) {
        return Err(FieldError::new("agent_type", "at most 256 bytes").into());
    }
    Ok(word.map(|word| word.into_owned()))
}

/// What one attempt may use of metered resources: `per_job`.
pub(super) fn per_job(task: &Object<'_>) -> Result<BTreeMap<Resource, u64>, ApiError> {
    metered(&task.object("per_job")?).map_err(|error| error.within("per_job"))
}

fn metered(object: &Object<'_>) -> Result<BTreeMap<Resource, u64>, ApiError> {
    let mut each = BTreeMap::new();
    for (name, _) in object.fields().filter(|(_, value)| value.get() != "null") {
        let wanted = || FieldError::new(name, "a number from 0 to 1e9");
        let units = object.number(name)?.filter(|units| (0.0..=1e9).contains(units));
        let micro = (units.ok_or_else(wanted)? * MICRO as f64).round() as u64;
        let resource = resource(name)?;
        if Resource::METERED.contains(&resource) {
            each.insert(resource, micro);
        }
    }
    Ok(each)
}

//! The configuration of a step on the wire (contract 3.2): which fields there are, and their units.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::campaign_parse::{per_job, template};
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::leader::Calendar;
use crate::model::{
    Acquisition, Budget, Cadence, CatchUp, MICRO, Mode, Orchestrator, Overlap, Resource, Schedule,
    StepConfig, StepSetting, Timetable, TimetablePatch,
};
use crate::state::OrchestratorPatch;

const MILLION: f64 = 1e6;

/// A configuration as clients see it.
pub(in crate::api) fn view(config: &StepConfig) -> Value {
    let micro = |value: u64| value as f64 / MILLION;
    let priorities = config.priorities.iter();
    let priorities: Map<String, Value> =
        priorities.map(|(id, micro)| (id.clone(), (*micro as f64 / MILLION).into())).collect();
    json!({
        "max_simultaneous_simulations": config.simulations_max,
        "max_simultaneous_experiments": config.experiments_max,
        "training_frequency_hours": whole_or_not(micro(config.training_frequency_micro)),
        "min_new_samples_for_retrain": config.samples_for_retrain,
        "experiment_budget_per_campaign": config.experiment_budget,
        "simulation_budget_per_campaign": config.simulation_budget,
        "active_learning_threshold": micro(config.active_learning_threshold_micro),
        "bo_acquisition_function": config.acquisition.as_str(),
        "max_iterations_per_run": config.iterations_per_run,
        "experiment_trigger_score_threshold": micro(config.experiment_threshold_micro),
        "campaign_priorities": priorities,
    })
}

/// A number that was sent as a whole one is shown as one.
fn whole_or_not(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as u64) } else { json!(value) }
}

/// A timetable as clients see it.
pub(in crate::api) fn schedule_view(orchestrator: &Orchestrator, schedule: &Schedule) -> Value {
    let timetable = &schedule.timetable;
    let mut view = json!({
        "catch_up": timetable.catch_up.as_str(),
        "catch_up_window_seconds": timetable.catch_up_window_ms as f64 / 1000.0,
        "overlap": timetable.overlap.as_str(),
        "continuous_pause_seconds": orchestrator.pause_ms as f64 / 1000.0,
        "status": if schedule.degraded.is_empty() { "ok" } else { "degraded" },
        "reason": Some(&schedule.degraded).filter(|why| !why.is_empty()),
    });
    match &timetable.cadence {
        Cadence::Every { interval_ms } => {
            view["interval_seconds"] = whole_or_not(*interval_ms as f64 / 1000.0);
        }
        Cadence::Cron { expression, zone } => {
            view["cron"] = json!(expression);
            view["timezone"] = json!(zone);
        }
    }
    view
}

/// Amounts by resource as clients see them, in whole units.
pub(super) fn units_view(amounts: &BTreeMap<Resource, u64>) -> Value {
    let units = |micro: u64| whole_or_not(micro as f64 / MICRO as f64);
    let view = amounts.iter().map(|(kind, micro)| (kind.as_str().to_owned(), units(*micro)));
    Value::Object(view.collect())
}

/// Budgets as clients see them, in whole units.
pub(in crate::api) fn budgets_view<'a>(
    budgets: impl IntoIterator<Item = (&'a Resource, &'a Budget)>,
) -> Value {
    let units = |micro: u64| whole_or_not(micro as f64 / MICRO as f64);
    let view = budgets.into_iter().map(|(resource, budget)| {
        let view = json!({
            "limit": (budget.limit < u64::MAX).then(|| units(budget.limit)),
            "soft": (budget.soft > 0).then(|| units(budget.soft)),
            "reserved": units(budget.reserved),
            "spent": units(budget.spent),
        });
        (resource.as_str().to_owned(), view)
    });
    Value::Object(view.collect())
}

/// Reads what a client wants changed. Fields that are null or unknown are left alone.
pub(in crate::api) fn parse(body: &Object<'_>, now_ms: u64) -> Result<OrchestratorPatch, ApiError> {
    let mode =
        match body.text("mode")? {
            None => None,
            Some(word) => Some(Mode::parse(&word).ok_or_else(|| {
                FieldError::new("mode", "MANUAL, SCHEDULED, CONTINUOUS or PAUSED")
            })?),
        };
    let settings = settings(body)?;
    for setting in &settings {
        setting.check().map_err(|text| ApiError::bad_request("INVALID_FIELD", text))?;
    }
    Ok(OrchestratorPatch {
        settings,
        mode,
        timetable: match body.has("schedule") && body.raw("schedule").is_some() {
            true => Some(
                timetable(&body.object("schedule")?, now_ms)
                    .map_err(|error| error.within("schedule"))?,
            ),
            false => None,
        },
        pause_ms: milliseconds(body, "continuous_pause_seconds")?,
        description: body.text("description")?.map(|text| text.into_owned()),
        task: match body.raw("task") {
            None => None,
            Some(_) => {
                let task = body.object("task")?;
                let within = |error: ApiError| error.within("task");
                let named = task.text("task_type")?.is_some_and(|word| !word.is_empty());
                match (task.is_empty(), named) {
                    (true, _) => Some(None),
                    (false, true) => Some(Some(Box::new(template(&task, "").map_err(within)?))),
                    (false, false) => {
                        return Err(FieldError::new("task.task_type", "a text").into());
                    }
                }
            }
        },
        per_job: promises(body)?,
        budgets: match body.raw("budgets") {
            None => Default::default(),
            Some(_) => {
                let mut changes = BTreeMap::new();
                for (name, value) in body.object("budgets")?.fields() {
                    let within = |error: ApiError| error.within("budgets");
                    let resource = resource(name).map_err(within)?;
                    let taken_away = value.get() == "null";
                    let budget = (!taken_away).then(|| budget(name, value));
                    changes.insert(resource, budget.transpose().map_err(within)?);
                }
                changes
            }
        },
    })
}

/// What each job is promised whose task does not say; null takes one away.
fn promises(body: &Object<'_>) -> Result<BTreeMap<Resource, Option<u64>>, ApiError> {
    let given = body.object("per_job")?;
    let taken = given.fields().filter(|(_, value)| value.get() == "null");
    let taken = taken.map(|(name, _)| Ok((resource(name)?, None)));
    let mut changes: BTreeMap<Resource, Option<u64>> =
        taken.collect::<Result<_, ApiError>>().map_err(|error| error.within("per_job"))?;
    changes.extend(per_job(body)?.into_iter().map(|(resource, each)| (resource, Some(each))));
    Ok(changes)
}

/// A resource by its name.
pub(in crate::api) fn resource(name: &str) -> Result<Resource, ApiError> {
    let words = Resource::ALL.map(Resource::as_str).join(", ");
    let unknown = || {
        let text = format!("{name} must be one of {words}");
        ApiError::bad_request("INVALID_FIELD", text).about(name)
    };
    Resource::parse(name).ok_or_else(unknown)
}

/// A number, or `{"limit": n, "soft": n}`.
pub(in crate::api) fn budget(name: &str, value: &RawValue) -> Result<Budget, ApiError> {
    let wanted =
        || ApiError::from(FieldError::new(name, "a number of at least 0, or limit and soft"));
    let units = |units: f64| {
        let fits = (0.0..=1e12).contains(&units);
        fits.then(|| (units * MICRO as f64).round() as u64).ok_or_else(wanted)
    };
    if let Ok(limit) = value.get().parse::<f64>() {
        return Ok(Budget { limit: units(limit)?, ..Budget::default() });
    }
    let object = Object::of(value).ok_or_else(wanted)?;
    let limit = units(object.number("limit")?.ok_or_else(wanted)?)?;
    let soft = units(object.number("soft")?.unwrap_or(0.0))?;
    Ok(Budget { limit, soft, ..Budget::default() })
}

/// Seconds, as milliseconds.
fn milliseconds(body: &Object<'_>, field: &'static str) -> Result<Option<u64>, ApiError> {
    match body.number(field)? {
        None => Ok(None),
        Some(seconds) if (0.001..=1e9).contains(&seconds) => {
            Ok(Some((seconds * 1000.0).round() as u64))
        }
        Some(_) => Err(FieldError::new(field, "a number of seconds above 0").into()),
    }
}

fn timetable(body: &Object<'_>, now_ms: u64) -> Result<TimetablePatch, ApiError> {
    let text = |field: &'static str| -> Result<Option<String>, ApiError> {
        Ok(body.text(field)?.map(|text| text.into_owned()))
    };
    let (expression, zone) = (text("cron")?, text("timezone")?);
    let interval_ms = milliseconds(body, "interval_seconds")?;
    if expression.is_some() && interval_ms.is_some() {
        return Err(FieldError::new("cron", "left out beside interval_seconds").into());
    }
    if zone.is_some() && interval_ms.is_some() {
        return Err(FieldError::new("timezone", "left out beside interval_seconds").into());
    }
    let catch_up = body.text("catch_up")?.map(|word| {
        CatchUp::parse(&word).ok_or_else(|| FieldError::new("catch_up", "skip, latest or all"))
    });
    let overlap = body.text("overlap")?.map(|word| {
        Overlap::parse(&word).ok_or_else(|| FieldError::new("overlap", "forbid or queue"))
    });
    let patch = TimetablePatch {
        interval_ms,
        expression,
        zone,
        catch_up: catch_up.transpose()?,
        catch_up_window_ms: milliseconds(body, "catch_up_window_seconds")?,
        overlap: overlap.transpose()?,
    };
    // Any expression will do to see whether a zone alone makes sense.
    let any = Cadence::Cron { expression: "* * * * *".to_owned(), zone: "UTC".to_owned() };
    let cadence = patch.onto(&Timetable { cadence: any, ..Timetable::default() }).cadence;
    if let Err(error) = Calendar::new(&cadence, now_ms) {
        let field = match cadence {
            Cadence::Every { .. } => "interval_seconds",
            Cadence::Cron { .. } if patch.expression.is_none() => "timezone",
            Cadence::Cron { .. } => "cron",
        };
        let text = format!("{field}: {error}");
        return Err(ApiError::bad_request("INVALID_FIELD", text).about(field));
    }
    Ok(patch)
}

fn settings(body: &Object<'_>) -> Result<Vec<StepSetting>, ApiError> {
    let count = |field: &'static str| -> Result<Option<u64>, ApiError> {
        match body.number(field)? {
            None => Ok(None),
            Some(value) if value >= 0.0 && value.fract() == 0.0 => Ok(Some(value as u64)),
            Some(_) => Err(FieldError::new(field, "a whole number of at least 0").into()),
        }
    };
    let small = |field: &'static str| -> Result<Option<u32>, ApiError> {
        Ok(count(field)?.map(|value| u32::try_from(value).unwrap_or(u32::MAX)))
    };
    let micro = |field: &'static str| -> Result<Option<u64>, ApiError> {
        match body.number(field)? {
            None => Ok(None),
            Some(value) if (0.0..1e9).contains(&value) => {
                Ok(Some((value * MILLION).round() as u64))
            }
            Some(_) => Err(FieldError::new(field, "a number of at least 0").into()),
        }
    };
    let acquisition = body.text("bo_acquisition_function")?.map(|word| {
        let wanted = || FieldError::new("bo_acquisition_function", "ei, pi or ucb");
        Acquisition::parse(&word).ok_or_else(wanted)
    });
    let priorities = match body.raw("campaign_priorities") {
        None => None,
        Some(_) => {
            let named = body.object("campaign_priorities")?;
            let mut priorities = BTreeMap::new();
            for (id, _) in named.fields() {
                let value = named.number(id)?.unwrap_or(0.0);
                priorities.insert(id.to_owned(), (value.clamp(-1e9, 1e9) * MILLION).round() as i64);
            }
            Some(priorities)
        }
    };
    let given = [
        small("max_simultaneous_simulations")?.map(StepSetting::SimulationsMax),
        small("max_simultaneous_experiments")?.map(StepSetting::ExperimentsMax),
        micro("training_frequency_hours")?.map(StepSetting::TrainingFrequency),
        count("min_new_samples_for_retrain")?.map(StepSetting::SamplesForRetrain),
        count("experiment_budget_per_campaign")?.map(StepSetting::ExperimentBudget),
        count("simulation_budget_per_campaign")?.map(StepSetting::SimulationBudget),
        micro("active_learning_threshold")?.map(StepSetting::ActiveLearningThreshold),
        acquisition.transpose()?.map(StepSetting::Acquisition),
        small("max_iterations_per_run")?.map(StepSetting::IterationsPerRun),
        micro("experiment_trigger_score_threshold")?.map(StepSetting::ExperimentThreshold),
        priorities.map(StepSetting::Priorities),
    ];
    Ok(given.into_iter().flatten().collect())
}

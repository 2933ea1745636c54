//! Jobs as clients ask for them (contract 3.5, 3.6).

use serde_json::{Map, Value};

use super::campaign_parse::{JOB_RETRIES, JOB_TIMEOUT_S, agent_type, job_limits, per_job};
use super::config::{budget, resource};
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::model::{JobTemplate, Requirements};
use crate::state::JobRequest;

/// The task of a simulation or an experiment that says nothing.
const SIMULATION: &str = "dft";
const EXPERIMENT: &str = "experiment";
/// How soon, of 10.
const PRIORITY: u64 = 5;

/// What kind of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Asked {
    Simulations,
    Experiments,
}

impl Asked {
    /// What they are called on the wire.
    pub(in crate::api) fn words(self) -> &'static str {
        match self {
            Self::Simulations => "jobs",
            Self::Experiments => "experiments",
        }
    }
}

/// Reads what is asked for these structures. Beside the contract's fields a client may say
/// `capabilities`, `agent_type`, `timeout`, `max_retries`, `orchestrator`, `per_job` and `budget`.
pub(in crate::api) fn job_request(
    body: &Object<'_>,
    asked: Asked,
    task_type: Option<String>,
    structure_ids: Vec<String>,
    owner: &str,
) -> Result<JobRequest, ApiError> {
    let named = !structure_ids.is_empty() && structure_ids.iter().all(|id| !id.is_empty());
    if !named {
        return Err(FieldError::new("structure_ids", "a list of at least one id").into());
    }
    let priority = body.count("priority")?.unwrap_or(PRIORITY);
    if !(1..=10).contains(&priority) {
        return Err(FieldError::new("priority", "1 to 10").into());
    }
    body.object("parameters")?;
    let mut input = Map::new();
    let parameters = serde_json::from_str(&body.json("parameters")).unwrap_or(Value::Null);
    input.insert("parameters".to_owned(), parameters);
    let mut instrument = String::new();
    let task_type = match asked {
        Asked::Simulations => {
            let said = body.text("simulation_type")?.filter(|word| !word.is_empty());
            let said = task_type.or_else(|| said.map(|word| word.into_owned()));
            let word = said.unwrap_or_else(|| SIMULATION.to_owned());
            input.insert("simulation_type".to_owned(), word.as_str().into());
            word
        }
        Asked::Experiments => {
            let text = |field: &'static str| {
                let text = body.text(field)?.filter(|text| !text.is_empty());
                text.ok_or_else(|| FieldError::new(field, "a text"))
            };
            instrument = text("instrument_id")?.into_owned();
            input.insert("instrument_id".to_owned(), instrument.as_str().into());
            let word = text("experiment_type")?;
            input.insert("experiment_type".to_owned(), word.into());
            EXPERIMENT.to_owned()
        }
    };
    let mut budgets = std::collections::BTreeMap::new();
    for (name, value) in body.object("budget")?.fields() {
        let within = |error: ApiError| error.within("budget");
        let limit = budget(name, value).map_err(within)?;
        budgets.insert(resource(name).map_err(within)?, limit);
    }
    let (timeout_ms, max_retries) = job_limits(body, JOB_TIMEOUT_S, JOB_RETRIES)?;
    Ok(JobRequest {
        experiments: asked == Asked::Experiments,
        structure_ids,
        owner: owner.to_owned(),
        instrument,
        job: JobTemplate {
            task_type,
            input: Value::Object(input).to_string(),
            requirements: Requirements {
                capabilities: body.texts("capabilities")?,
                agent_type: agent_type(body)?,
                ..Requirements::default()
            },
            timeout_ms,
            max_retries,
            per_job: per_job(body)?,
        },
        priority: priority as u8,
        orchestrator: body.text("orchestrator")?.unwrap_or_default().into_owned(),
        budgets,
    })
}

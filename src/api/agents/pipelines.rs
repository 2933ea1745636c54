//! `GET/PUT/DELETE /api/v1/pipelines`: what tasks of one type do (contract 4.4).

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::steps;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::fragment::fragment;
use crate::api::list_query::{ListKind, ListQuery};
use crate::api::listed::{PageView, cut};
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::{FlowMode, Pipeline, StepSpec};
use crate::state::{Command, Outcome};

const TASK_TYPE_BYTES_MAX: usize = 256;
/// What clients are told to expect of a definition that does not say (contract 4.2).
const ESTIMATE_MS: u64 = 1000;
const ESTIMATE_MS_MAX: u64 = 366 * 24 * 3_600_000;

#[derive(Serialize)]
struct PipelineView<'a> {
    task_type: &'a str,
    mode: &'static str,
    estimated_completion_ms: u64,
    builtin: bool,
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct StepView<'a> {
    name: &'a str,
    agent_type: &'a str,
    depends_on: Vec<&'a str>,
    max_retries: u32,
    timeout_ms: Option<u64>,
    parameters: &'a RawValue,
}

fn view(pipeline: &Pipeline, own: bool) -> PipelineView<'_> {
    let name = |place: &u16| pipeline.steps.get(usize::from(*place)).map(|on| on.name.as_str());
    let step = |step| {
        let StepSpec { name: own_name, agent_type, depends_on, .. }: &StepSpec = step;
        StepView {
            name: own_name,
            agent_type,
            depends_on: depends_on.iter().filter_map(name).collect(),
            max_retries: step.max_retries,
            timeout_ms: Some(step.timeout_ms).filter(|ms| *ms > 0),
            parameters: fragment(&step.parameters, "{}"),
        }
    };
    PipelineView {
        task_type: &pipeline.task_type,
        mode: pipeline.mode.as_str(),
        estimated_completion_ms: pipeline.estimate_ms,
        builtin: !own,
        steps: pipeline.steps.iter().map(step).collect(),
    }
}

#[derive(Serialize)]
struct ListReply<'a> {
    success: bool,
    pipelines: Vec<PipelineView<'a>>,
    /// All that match.
    total: usize,
    #[serde(flatten)]
    page: Option<PageView>,
}

const PIPELINES: ListKind = ListKind {
    name: "pipelines",
    sorts: &["task_type"],
    descending: false,
    filters: &["mode", "builtin", "agent_type"],
    own: &[],
};

#[derive(Serialize)]
struct OneReply<'a> {
    success: bool,
    pipeline: PipelineView<'a>,
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
}

/// `GET /api/v1/pipelines`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let query = match PIPELINES.asked(&params) {
        true => Some(ListQuery::parse(&PIPELINES, &params)?.in_cluster(app.cluster().cluster_id())),
        false => None,
    };
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let builtin = said("builtin").map(|_| params.flag("builtin"));
    let all: Vec<(Pipeline, bool)> = app.show(&mut stamp, |state| {
        state.pipelines().into_iter().map(|(one, own)| (one.clone(), own)).collect()
    });
    let wanted = |(pipeline, own): &&(Pipeline, bool)| {
        let does = |kind: &str| pipeline.steps.iter().any(|step| step.agent_type == kind);
        builtin.is_none_or(|builtin| builtin != *own)
            && said("mode").is_none_or(|mode| pipeline.mode.as_str() == mode)
            && said("agent_type").is_none_or(does)
    };
    let place = |pipeline: &Pipeline| (0, pipeline.task_type.clone());
    let mut rows: Vec<_> = all.iter().filter(wanted).map(|row| (place(&row.0), row)).collect();
    let total = rows.len();
    let page = query.as_ref().map(|query| cut(query, &mut rows)).transpose()?;
    let pipelines = rows.into_iter().map(|(_, (pipeline, own))| view(pipeline, *own)).collect();
    let body = ListReply { success: true, pipelines, total, page };
    Ok(reply::read(&stamp, reply::encode(&body)))
}

fn not_found(task_type: &str) -> ApiError {
    ApiError::not_found("PIPELINE_NOT_FOUND", format!("no pipeline for {task_type}"))
}

/// `GET /api/v1/pipelines/{task_type}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(task_type): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let found = app.show(&mut stamp, |state| {
        let mut all = state.pipelines().into_iter();
        let found = all.find(|(pipeline, _)| pipeline.task_type == task_type);
        found.map(|(pipeline, own)| (pipeline.clone(), own))
    });
    let (pipeline, own) = found.ok_or_else(|| not_found(&task_type))?;
    let body = OneReply { success: true, pipeline: view(&pipeline, own) };
    Ok(reply::read(&stamp, reply::encode(&body)))
}

fn parse(task_type: String, body: &Object<'_>) -> Result<Pipeline, ApiError> {
    let invalid = |text: String| ApiError::bad_request("INVALID_PIPELINE", text);
    if task_type.is_empty() || task_type.len() > TASK_TYPE_BYTES_MAX {
        return Err(invalid(format!("task_type is 1 to {TASK_TYPE_BYTES_MAX} bytes")));
    }
    let mode = match body.text("mode")? {
        None => None,
        Some(word) => Some(FlowMode::parse(&word).ok_or_else(|| {
            invalid("mode must be sequential, parallel, hybrid or graph".to_owned())
        })?),
    };
    let estimate_ms = body.count("estimated_completion_ms")?.unwrap_or(ESTIMATE_MS);
    if estimate_ms > ESTIMATE_MS_MAX {
        return Err(invalid("estimated_completion_ms is at most a year".to_owned()));
    }
    let (mode, steps) = steps::parse(&body.list("steps")?, mode, None).map_err(invalid)?;
    Ok(Pipeline { task_type, mode, estimate_ms, steps })
}

/// `PUT /api/v1/pipelines/{task_type}`. Tasks that have begun keep the steps they began with.
pub(in crate::api) async fn put(
    State(app): State<App>,
    Path(task_type): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let pipeline = parse(task_type, &Object::parse(&body)?)?;
    change(&app, ticket, &caller, Command::PutPipeline(pipeline), "Pipeline updated").await
}

/// `DELETE /api/v1/pipelines/{task_type}`: of a built-in type, its built-in definition holds again.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(task_type): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    change(&app, ticket, &caller, Command::RemovePipeline { task_type }, "Pipeline removed").await
}

async fn change(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    command: Command,
    message: &'static str,
) -> Result<Response, ApiError> {
    let Written { index, outcome } = app.write(ticket, caller, command).await?;
    let Outcome::Done = outcome else { return Err(key_reused(ticket.request_id)) };
    Ok(reply::written(ticket, index, &Done { success: true, message }))
}

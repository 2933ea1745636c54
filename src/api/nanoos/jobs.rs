//! The doors of jobs and experiments: tasks of the fleet, in family N's words (contract 3.6).

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};

use super::answers;
use super::job_parse::{Asked, job_request};
use super::job_view::{Loaded, STATUS_WORDS, is_status_word, job_view, status_view, status_word};
use super::paging::Page;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::ReadStamp;
use crate::model::{JobKind, Task, TaskId};
use crate::state::{CampaignCommand, Command, Outcome, State as Tables, requested_job};

/// Jobs that one listing looks at: those that are further back are found by their ids.
const LOOKED_AT_MAX: usize = 20_000;
/// Of them, while the state is held.
const CHUNK: usize = 500;

impl Asked {
    fn kind(self) -> JobKind {
        match self {
            Self::Simulations => JobKind::Simulation,
            Self::Experiments => JobKind::Experiment,
        }
    }

    fn not_found(self, id: &str) -> ApiError {
        match self {
            Self::Simulations => {
                ApiError::not_found("JOB_NOT_FOUND", format!("Job {id} not found"))
            }
            Self::Experiments => {
                ApiError::not_found("EXPERIMENT_NOT_FOUND", format!("Experiment {id} not found"))
            }
        }
    }

    /// The task of that id, if it is such a job. Trainings count as jobs.
    fn find(self, state: &Tables, task_id: &TaskId) -> Option<Task> {
        let task = state.task(task_id)?;
        let is_experiment = task.job.as_ref()?.kind == JobKind::Experiment;
        (is_experiment == (self == Self::Experiments)).then(|| task.into_owned())
    }
}

/// `POST /jobs/dft`, `/jobs/ml-prediction`: of one structure; `/jobs` says its `job_type`.
pub(in crate::api) fn creating(job_type: Option<&'static str>) -> MethodRouter<App> {
    post(
        move |State(app): State<App>,
              ticket: Ticket,
              caller: Caller,
              RequestBody(body): RequestBody| async move {
            create(&app, ticket, &caller, &body, Asked::Simulations, job_type).await
        },
    )
}

/// `POST /experiments`.
pub(in crate::api) async fn create_experiment(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    create(&app, ticket, &caller, &body, Asked::Experiments, None).await
}

async fn create(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    body: &[u8],
    asked: Asked,
    job_type: Option<&str>,
) -> Result<Response, ApiError> {
    let body = Object::parse(body)?;
    let structure_id = body.text("structure_id")?.filter(|id| !id.is_empty());
    let structure_id = structure_id.ok_or_else(|| FieldError::new("structure_id", "a text"))?;
    let said = body.text("job_type")?.filter(|word| !word.is_empty());
    if body.raw("budget").is_some() {
        let wanted = "left out: only what agents ask for has a budget of its own";
        return Err(FieldError::new("budget", wanted).into());
    }
    let job_type = job_type.map(str::to_owned).or_else(|| said.map(|word| word.into_owned()));
    let ids = vec![structure_id.into_owned()];
    let request = job_request(&body, asked, job_type, ids, &caller.0)?;
    let command = Command::Campaign(CampaignCommand::RequestJobs(Box::new(request)));
    let Written { index, outcome } = app.write(ticket, caller, command).await?;
    let Outcome::JobsCreated { .. } = outcome else { return Err(key_reused(ticket.request_id)) };
    let task_id = requested_job(ticket.request_id, 0);
    let mut stamp = app.caught_up(ticket, index).await?;
    let task = app.show(&mut stamp, |state| asked.find(state, &task_id));
    let task = task.ok_or_else(|| asked.not_found(task_id.as_str()))?;
    let loaded = Loaded::of(app, &task, true)?;
    Ok(answers::created(reply::written(ticket, index, &job_view(&task, &loaded))))
}

/// `GET /jobs/{id}` and `/experiments/{id}`.
pub(in crate::api) fn getting(asked: Asked) -> MethodRouter<App> {
    get(move |State(app), Path(id): Path<String>, params| async move {
        show(&app, &id, &params, asked, |task, loaded| Ok(job_view(task, loaded))).await
    })
}

/// `GET /jobs/{id}/status` and `/experiments/{id}/status`.
pub(in crate::api) fn status(asked: Asked) -> MethodRouter<App> {
    get(move |State(app), Path(id): Path<String>, params| async move {
        show(&app, &id, &params, asked, |task, _| Ok(status_view(task))).await
    })
}

/// `GET /jobs/{id}/results` and `/experiments/{id}/results`.
pub(in crate::api) fn results(asked: Asked) -> MethodRouter<App> {
    get(move |State(app), Path(id): Path<String>, params| async move {
        show(&app, &id, &params, asked, |task, loaded| {
            if !task.status.is_terminal() {
                let text = format!("Job {} has not ended yet", task.task_id);
                return Err(ApiError::bad_request("JOB_UNFINISHED", text));
            }
            let view = job_view(task, loaded);
            Ok(json!({"id": view["id"], "status": view["status"], "results": view["results"],
                      "error_message": view["error_message"]}))
        })
        .await
    })
}

async fn show(
    app: &App,
    id: &str,
    params: &Params,
    asked: Asked,
    view: impl FnOnce(&Task, &Loaded) -> Result<Value, ApiError>,
) -> Result<Response, ApiError> {
    let task_id = TaskId::parse(id).map_err(|_| asked.not_found(id))?;
    let mut stamp = app.admit(params).await?;
    let task = app.show(&mut stamp, |state| asked.find(state, &task_id));
    let task = task.ok_or_else(|| asked.not_found(id))?;
    let loaded = Loaded::of(app, &task, true)?;
    Ok(reply::read(&stamp, reply::encode(&view(&task, &loaded)?)))
}

/// `GET /jobs` and `/experiments`: newest first, by `status`, `job_type`, `structure_id`,
/// `campaign_id`; `kind=training` shows those.
pub(in crate::api) fn listing(asked: Asked) -> MethodRouter<App> {
    get(move |State(app), params| async move { list(&app, &params, asked).await })
}

/// The jobs of a page, and how many were looked at for it.
async fn found(
    app: &App,
    stamp: &mut ReadStamp,
    kind: JobKind,
    page: Page,
    wanted: impl Fn(&Task) -> bool,
) -> (Vec<Task>, usize) {
    let (mut rows, mut skipped, mut looked_at, mut before) = (Vec::new(), 0, 0, None);
    loop {
        let is_over = app.show(stamp, |state| {
            let mut seen = 0;
            for seq in state.job_seqs(kind, before).take(CHUNK) {
                if rows.len() == page.size || looked_at == LOOKED_AT_MAX {
                    return true;
                }
                (seen, looked_at, before) = (seen + 1, looked_at + 1, Some(seq));
                match state.task_at(seq).filter(|task| wanted(task)) {
                    Some(_) if skipped < page.skip => skipped += 1,
                    Some(task) => rows.push(task.into_owned()),
                    None => {}
                }
            }
            seen < CHUNK
        });
        if is_over {
            return (rows, looked_at);
        }
        tokio::task::yield_now().await;
    }
}

async fn list(app: &App, params: &Params, asked: Asked) -> Result<Response, ApiError> {
    let page = Page::of(params)?;
    let kind = match (asked, params.get("kind")) {
        (Asked::Simulations, Some("training")) => JobKind::Training,
        (Asked::Simulations, Some("scheduled")) => JobKind::Scheduled,
        (asked, _) => asked.kind(),
    };
    let status = params.get("status").filter(|word| !word.is_empty());
    if let Some(word) = status.filter(|word| !is_status_word(word)) {
        let text = format!("status must be one of {}, not {word}", STATUS_WORDS.join(", "));
        return Err(ApiError::bad_request("INVALID_QUERY", text));
    }
    let wanted = |task: &Task| {
        let Some(job) = &task.job else { return false };
        let campaign = job.candidate.as_ref().map(|(campaign_id, _, _)| campaign_id.as_str());
        let is = |key: &str, value: Option<&str>| {
            params.get(key).is_none_or(|asked| asked.is_empty() || Some(asked) == value)
        };
        status.is_none_or(|word| status_word(task).eq_ignore_ascii_case(word))
            && is("job_type", Some(&task.task_type))
            && is("structure_id", Some(&job.subject))
            && is("instrument_id", Some(&job.instrument))
            && is("campaign_id", campaign)
    };
    let mut stamp = app.admit(params).await?;
    let (tasks, looked_at) = found(app, &mut stamp, kind, page, wanted).await;
    let mut shown = Vec::with_capacity(tasks.len());
    for task in &tasks {
        shown.push(job_view(task, &Loaded::of(app, task, false)?));
    }
    let mut view = page.list(asked.words(), shown);
    // Whether all that are retained were looked at, or the page was filled before.
    view["complete"] = (looked_at < LOOKED_AT_MAX).into();
    Ok(reply::read(&stamp, reply::encode(&view)))
}

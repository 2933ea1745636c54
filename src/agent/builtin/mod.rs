//! The agent types that need no program: each does its work on what its inputs carry.
//!
//! They are functions of inputs, parameters and the time; only two remember something between
//! tasks: `alerting` what it alerted of lately, `api_caller` which endpoints fail. Both are kept by
//! [`Builtins`], per process, in bounded tables. What an input only names is fetched before the work
//! begins, where that is allowed.
//!
//! An input is a task's own, the output of the step before, or a list of outputs (contract 4.5): all
//! types take all three, see `pieces`. In parallel mode every step works on the task's inputs, so a
//! type whose usual input is another's output does that one's work first.

mod alerting;
mod api_caller;
mod breaker;
mod csv;
mod data_analysis;
mod data_ingest;
mod document_reader;
mod fetch;
mod industry_synthesis;
mod pieces;
mod podcast_transcript;
mod rss_feed_monitor;
mod statistics;
mod synthesis;
mod text;
mod transcript_summary;
mod video_detection;

use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::input::InputData;
use super::task::{AgentDone, AgentFailure, AgentTask, FailureCode, OUTPUT_BYTES_MAX};
use crate::clock;
use crate::model::{Reach, TimeMs};
use crate::outward::Clients;
use alerting::Recent;
use api_caller::ApiCaller;
use fetch::Fetcher;

/// Inputs over this size are worked on outside the runtime's threads. Below it the work takes
/// microseconds, and stays where a simulation can order it.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// A built-in type: its name, the type of its output (contract 4.5), its concurrency (contract 4.4).
const TYPES: [(&str, &str, u32); 11] = [
    ("data_ingest", "ingested_data", 20),
    ("data_analysis", "analysis_result", 15),
    ("synthesis", "json_report", 15),
    ("video_detection", "detections", 10),
    ("alerting", "alerts", 20),
    ("api_caller", "api_response", 25),
    ("rss_feed_monitor", "feed_items", 10),
    ("podcast_transcript", "transcripts", 10),
    ("transcript_summary", "summaries", 10),
    ("industry_synthesis", "industry_report", 10),
    ("document_reader", "documents", 10),
];

/// How many tasks an agent of a type takes at once when nobody says.
const CONCURRENCY: u32 = 10;

/// The built-in types, in the order of the contract.
pub fn types() -> impl Iterator<Item = &'static str> {
    TYPES.into_iter().map(|(name, _, _)| name)
}

/// Whether an agent of this type needs no program.
#[must_use]
pub fn knows(agent_type: &str) -> bool {
    types().any(|name| name == agent_type)
}

/// How many tasks an agent of this type takes at once by default (contract 4.4).
#[must_use]
pub fn concurrency(agent_type: &str) -> u32 {
    let found = TYPES.into_iter().find(|(name, _, _)| *name == agent_type);
    found.map_or(CONCURRENCY, |(_, _, concurrency)| concurrency)
}

/// What an agent of this type gives; `result` for types nobody knows.
#[must_use]
pub fn output_type(agent_type: &str) -> &'static str {
    let found = TYPES.into_iter().find(|(name, _, _)| *name == agent_type);
    found.map_or("result", |(_, output, _)| output)
}

/// The built-in agents of one process, with what they remember. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Builtins(Arc<Memory>);

#[derive(Debug, Default)]
struct Memory {
    recent: Recent,
    api: ApiCaller,
    fetcher: Fetcher,
    clients: Clients,
}

impl Builtins {
    /// Agents that remember nothing yet, and reach others by `clients`.
    #[must_use]
    pub fn new(clients: Clients) -> Self {
        Self(Arc::new(Memory { clients, ..Memory::default() }))
    }

    /// Does the work of one step, within its time and what `reach` allows.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for inputs that make no sense or may not be fetched, for types that are not
    /// built in and for outputs over [`OUTPUT_BYTES_MAX`]; `TIMEOUT`; `EXECUTION_FAILED` when no call
    /// of an `api_caller` was answered, or an input could not be fetched.
    pub async fn run(&self, task: AgentTask, reach: &Reach) -> Result<AgentDone, AgentFailure> {
        let started = Instant::now();
        let limit = task.time_limit();
        let output_type = output_type(&task.agent_type).to_owned();
        let late = |_| AgentFailure::new(FailureCode::Timeout, "the step's time is over");
        let data = timeout(limit, self.work(task, reach)).await.map_err(late)??;
        let size = data.to_string().len();
        if size > OUTPUT_BYTES_MAX {
            let message = format!("the output has {size} bytes, at most {OUTPUT_BYTES_MAX}");
            return Err(AgentFailure::invalid(message));
        }
        let execution_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(AgentDone { output_type, data, execution_ms })
    }

    async fn work(&self, mut task: AgentTask, reach: &Reach) -> Result<Value, AgentFailure> {
        let clients = &self.0.clients;
        if task.agent_type == "api_caller" {
            return self.0.api.run(&task, clients, &reach.hosts).await;
        }
        // What was fetched is bounded as long as it is held.
        let _room = self.0.fetcher.fetch(&mut task, clients, reach).await?;
        let now = clock::now_ms();
        if size(&task) <= INLINE_BYTES_MAX {
            return compute(&self.0.recent, &task, now);
        }
        let memory = Arc::clone(&self.0);
        let work = tokio::task::spawn_blocking(move || compute(&memory.recent, &task, now));
        work.await.map_err(|error| {
            AgentFailure::new(FailureCode::ExecutionFailed, format!("the work broke: {error}"))
        })?
    }
}

fn compute(recent: &Recent, task: &AgentTask, now: TimeMs) -> Result<Value, AgentFailure> {
    match task.agent_type.as_str() {
        "data_ingest" => data_ingest::run(task),
        "data_analysis" => data_analysis::run(task),
        "synthesis" => synthesis::run(task, now),
        "video_detection" => video_detection::run(task, now),
        "alerting" => alerting::run(task, now, recent),
        "rss_feed_monitor" => rss_feed_monitor::run(task),
        "podcast_transcript" => podcast_transcript::run(task),
        "transcript_summary" => transcript_summary::run(task),
        "industry_synthesis" => industry_synthesis::run(task, now),
        "document_reader" => document_reader::run(task),
        other => {
            let known = types().collect::<Vec<_>>().join(", ");
            let message = format!(
                "agent type `{other}` needs a program or a model endpoint; built in are {known}"
            );
            Err(AgentFailure::invalid(message))
        }
    }
}

/// Roughly how much there is to work on.
fn size(task: &AgentTask) -> usize {
    let of = |data: &InputData| match data {
        InputData::None => 0,
        InputData::Json(Value::String(text)) => text.len(),
        InputData::Json(value) => value.to_string().len(),
        InputData::Bytes(bytes) => bytes.len(),
    };
    task.inputs.iter().map(|input| of(&input.data)).sum()
}

/// Seconds since the epoch, as outputs carry times (contract 1.7).
fn seconds(now: TimeMs) -> f64 {
    now as f64 / 1000.0
}

/// A parameter as a number, or what it is without one.
fn number(task: &AgentTask, name: &str, fallback: f64) -> Result<f64, AgentFailure> {
    match task.parameter(name) {
        None => Ok(fallback),
        Some(value) => value.as_f64().ok_or_else(|| {
            AgentFailure::invalid(format!("parameter {name} must be a number, not {value}"))
        }),
    }
}

/// A parameter as a count from 1 to `max`, or what it is without one.
fn count(task: &AgentTask, name: &str, fallback: usize, max: usize) -> Result<usize, AgentFailure> {
    let given = number(task, name, fallback as f64)?;
    if !(1.0..=max as f64).contains(&given) {
        let message = format!("parameter {name} must be between 1 and {max}, not {given}");
        return Err(AgentFailure::invalid(message));
    }
    Ok(given as usize)
}

#[cfg(test)]
fn task(
    agent_type: &str,
    inputs: Vec<super::input::AgentInput>,
    parameters: &[(&str, &str)],
) -> AgentTask {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    AgentTask {
        task_id: "task".to_owned(),
        agent_type: agent_type.to_owned(),
        inputs,
        parameters: parameters.iter().map(own).collect(),
        ..AgentTask::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::input::AgentInput;
    use super::*;

    #[tokio::test]
    async fn contract_4_4_every_type_of_the_pipelines_is_built_in() {
        let (builtins, reach) = (Builtins::default(), Reach::default());
        for agent_type in types() {
            let task = task(agent_type, vec![AgentInput::json(json!(3))], &[]);
            let failure = builtins.run(task, &reach).await;
            if let Err(failure) = failure {
                assert_eq!(failure.code, FailureCode::ValidationError, "{agent_type}: {failure}");
            }
        }
        let failure = builtins.run(task("telepathy", Vec::new(), &[]), &reach).await.unwrap_err();
        assert!(failure.message.contains("needs a program"), "{failure}");
        assert_eq!((concurrency("api_caller"), concurrency("telepathy")), (25, 10));
    }

    #[tokio::test]
    async fn large_inputs_are_worked_on_elsewhere_and_large_outputs_refused() {
        let rows = |n: usize| (0..n).map(|n| json!({"value": n})).collect::<Vec<_>>();
        let inputs = || vec![AgentInput::json(json!(rows(5000)))];
        let (builtins, reach) = (Builtins::default(), Reach::default());
        let done = builtins.run(task("data_analysis", inputs(), &[]), &reach).await.unwrap();
        assert_eq!(done.data["summary_statistics"]["count"], 5000);
        let inputs = vec![AgentInput::json(json!(rows(100_000)))];
        let failure = builtins.run(task("data_ingest", inputs, &[]), &reach).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::ValidationError);
        assert!(failure.message.contains("bytes"), "{failure}");
    }

    #[test]
    fn parameters_are_checked() {
        let task = task("x", Vec::new(), &[("a", "3"), ("b", "many"), ("c", "0")]);
        assert_eq!(number(&task, "a", 1.0), Ok(3.0));
        assert_eq!(number(&task, "z", 1.0), Ok(1.0));
        assert!(number(&task, "b", 1.0).is_err());
        assert_eq!(count(&task, "a", 1, 10), Ok(3));
        assert!(count(&task, "c", 1, 10).is_err() && count(&task, "a", 1, 2).is_err());
    }
}

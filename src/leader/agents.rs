//! Calls to agents of family A, and what a step works on (contract 4.5, 4.7, 6 row 10).
//!
//! Behind a small trait, as [`super::http`] is: in a simulation agents are functions.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::seat::{Seat, SeatError};
use crate::model::{AGENT_PREFIX, Flow, Node, Payload, Reach, Task, TaskFailure, TaskId};
use crate::state::{BlobPart, State, step_id};

/// One attempt of a step, as an agent gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCall {
    /// `host:port`; empty for one that the leader serves itself.
    pub endpoint: String,
    /// The task it is a step of.
    pub task_id: String,
    /// Names the attempt: the same whenever the same attempt is handed over again.
    pub agent_task_id: String,
    /// What kind of work.
    pub agent_type: String,
    /// A JSON list of inputs in the form of contract 4.2.
    pub inputs: String,
    /// A JSON object.
    pub parameters: String,
    /// Longest time.
    pub timeout: Duration,
    /// What an agent that the leader serves itself may reach for it.
    pub reach: Arc<Reach>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAnswer {
    /// A result: the JSON text of `{"type": ..., "data": ...}`.
    Completed(String),
    /// None.
    Failed {
        /// Whether another try may help.
        failure: TaskFailure,
        /// For people.
        error: String,
    },
    /// It has no room; it never began.
    Busy,
    /// No connection was made.
    Unreachable(String),
}

/// Calls agents. Dropping the future cancels the call, which reaches the agent.
pub trait AgentCaller: Send + Sync + 'static {
    /// Has one attempt done.
    fn execute(&self, call: AgentCall) -> BoxFuture<'static, AgentAnswer>;

    /// Whether it does the work of agents without an endpoint itself.
    fn serves_builtin(&self) -> bool {
        false
    }
}

/// A caller for programs that have no agents.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAgents;

impl AgentCaller for NoAgents {
    fn execute(&self, call: AgentCall) -> BoxFuture<'static, AgentAnswer> {
        let error = format!("no agent of type {} can be called from here", call.agent_type);
        Box::pin(async move { AgentAnswer::Unreachable(error) })
    }
}

/// The endpoint of an agent; empty for one that the leader serves itself.
pub(super) fn endpoint_of(node: &Node) -> String {
    if node.host.is_empty() { String::new() } else { format!("{}:{}", node.host, node.port) }
}

/// An agent's own id, without what sets it apart from nodes.
#[must_use]
pub fn agent_id_of(node_id: &str) -> &str {
    node_id.strip_prefix(AGENT_PREFIX).unwrap_or(node_id)
}

/// A payload to be loaded, and under which name its agent finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: String,
    owner: TaskId,
    part: BlobPart,
    payload: Payload,
}

impl Source {
    /// What a task came with.
    fn of(task: &Task, part: BlobPart, payload: &Payload) -> Self {
        let (name, owner) = ("input".to_owned(), task.task_id.clone());
        Self { name, owner, part, payload: payload.clone() }
    }
}

/// What a step works on, still without its payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepInputs {
    /// The task's own inputs, when the step depends on no other.
    own: Option<Source>,
    results: Vec<Source>,
    metadata: Source,
    parameters: String,
}

impl StepInputs {
    /// What `step` works on; `None` when its task has ended. A task that is no step works on its own
    /// input.
    pub(super) fn of(view: &State, step: &Task) -> Option<Self> {
        let Some(of) = step.step_of.as_ref() else { return Some(Self::own(step)) };
        let task = view.open_task(&of.task_id)?;
        let flow: &Flow = task.flow.as_ref()?;
        let spec = &flow.steps.get(usize::from(of.step))?.spec;
        let result = |place: &u16| {
            let owner = step_id(&task.task_id, *place);
            let done = view.task(&owner)?;
            let name = flow.steps.get(usize::from(*place))?.spec.name.clone();
            let payload = done.result.clone();
            // A step that failed has none: the others' are enough (hybrid).
            (!payload.is_empty()).then_some(Source { name, owner, part: BlobPart::Result, payload })
        };
        let own = || Source::of(task, BlobPart::Input, &task.input);
        let own = spec.depends_on.is_empty().then(own);
        Some(Self {
            own,
            results: spec.depends_on.iter().filter_map(result).collect(),
            metadata: Source::of(task, BlobPart::Metadata, &task.metadata),
            parameters: spec.parameters.clone(),
        })
    }

    fn own(task: &Task) -> Self {
        Self {
            own: Some(Source::of(task, BlobPart::Input, &task.input)),
            results: Vec::new(),
            metadata: Source::of(task, BlobPart::Metadata, &task.metadata),
            parameters: String::new(),
        }
    }

    /// Whether loading it touches the disk.
    pub(super) fn is_stored(&self) -> bool {
        let sources = self.own.iter().chain(&self.results).chain([&self.metadata]);
        sources.into_iter().any(|source| matches!(source.payload, Payload::Stored { .. }))
    }

    /// Loads the payloads and puts them together: a JSON list of inputs, and the parameters.
    ///
    /// # Errors
    /// When a payload cannot be read.
    pub(super) fn load<S: Seat>(&self, seat: &S) -> Result<(String, String), SeatError> {
        let load = |source: &Source| {
            super::handover::load_text(seat, &source.owner, source.part, &source.payload)
        };
        let mut inputs = Vec::new();
        if let Some(own) = &self.own {
            let text = load(own)?;
            match text.trim_start().chars().next() {
                None => {}
                Some('[') => return Ok((text, self.merged(&load(&self.metadata)?))),
                Some(_) => inputs.push(input(&own.name, &text)),
            }
        }
        for result in &self.results {
            inputs.push(input(&result.name, data_of(&load(result)?)));
        }
        let inputs = format!("[{}]", inputs.join(","));
        Ok((inputs, self.merged(&load(&self.metadata)?)))
    }

    /// What the client said beside its inputs, then its `parameters`, then those of the step.
    fn merged(&self, metadata: &str) -> String {
        let object = |text: &str| match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        };
        let mut all = object(metadata);
        if let Some(Value::Object(own)) = all.remove("parameters") {
            all.extend(own);
        }
        all.extend(object(&self.parameters));
        Value::Object(all).to_string()
    }
}

fn input(name: &str, data: &str) -> String {
    let name = Value::String(name.to_owned());
    format!("{{\"input_id\":{name},\"type\":\"json\",\"data\":{data}}}")
}

/// The `data` of a step's result, as text; the whole of it when it has another form.
fn data_of(result: &str) -> &str {
    #[derive(serde::Deserialize)]
    struct Output<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    if result.is_empty() {
        return "null";
    }
    // A list would pass for the fields of an object in order.
    if !result.trim_start().starts_with('{') {
        return result;
    }
    serde_json::from_str::<Output<'_>>(result).map_or(result, |output| output.data.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_4_5_a_step_works_on_what_the_one_before_it_gave() {
        assert_eq!(data_of(r#"{"type":"t","data":{"a": 1}}"#), r#"{"a": 1}"#);
        assert_eq!(data_of("[1]"), "[1]");
        assert_eq!(data_of(""), "null");
        assert_eq!(input("a\"b", "1"), r#"{"input_id":"a\"b","type":"json","data":1}"#);
    }

    #[test]
    fn parameters_of_the_step_win() {
        let source = Source {
            name: String::new(),
            owner: TaskId::trusted("t"),
            part: BlobPart::Metadata,
            payload: Payload::Absent,
        };
        let inputs = StepInputs {
            own: None,
            results: Vec::new(),
            metadata: source,
            parameters: r#"{"b":3}"#.to_owned(),
        };
        let merged = inputs.merged(r#"{"a":1,"parameters":{"b":2,"c":2}}"#);
        assert_eq!(merged, r#"{"a":1,"b":3,"c":2}"#);
        assert_eq!(inputs.merged("nonsense"), r#"{"b":3}"#);
    }
}

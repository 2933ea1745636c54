//! One step as an agent sees it: what goes in, what comes out, how it may fail (contract 4.5).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::input::AgentInput;

/// The largest output that is taken from an agent, as JSON text. Larger ones have no place in a
/// replicated log.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// How long a step may take when nothing is said.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// One step, as it is sent to an agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentTask {
    /// The task it belongs to.
    pub task_id: String,
    /// Names this try of this step.
    pub agent_task_id: String,
    /// What kind of agent it is for.
    pub agent_type: String,
    /// The task's inputs, the output of the step before, or the outputs of several.
    pub inputs: Vec<AgentInput>,
    /// Settings of the task, as text.
    pub parameters: BTreeMap<String, String>,
    /// How long it may take; zero stands for [`STEP_TIMEOUT`].
    pub timeout: Duration,
}

impl AgentTask {
    /// A step out of JSON texts: `inputs` in the form of contract 4.2, `parameters` an object, of
    /// which values that are no strings are taken as their JSON text. Empty texts are nothing.
    ///
    /// # Errors
    /// `VALIDATION_ERROR`, saying what is wrong with which of them.
    pub fn from_texts(inputs: &str, parameters: &str) -> Result<Self, AgentFailure> {
        let read = |what: &str, text: &str| -> Result<Value, AgentFailure> {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            let value = serde_json::from_str(text);
            value.map_err(|error| AgentFailure::invalid(format!("{what}: {error}")))
        };
        let inputs = AgentInput::list_from_json(&read("inputs", inputs)?);
        let parameters = match read("parameters", parameters)? {
            Value::Null => Map::new(),
            Value::Object(parameters) => parameters,
            _ => return Err(AgentFailure::invalid("parameters must be an object")),
        };
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Self {
            inputs: inputs.map_err(AgentFailure::invalid)?,
            parameters: parameters.into_iter().map(|(key, value)| (key, text(value))).collect(),
            ..Self::default()
        })
    }

    /// [`Self::timeout`], never zero.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        if self.timeout.is_zero() { STEP_TIMEOUT } else { self.timeout }
    }

    /// A parameter read as a JSON scalar, as metadata are (contract 4.9): `"10"` is a number,
    /// `"true"` a boolean, anything else a string.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Value> {
        self.parameters.get(name).map(|text| scalar(text))
    }

    /// The form that external programs and model endpoints get.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "task_id": self.task_id,
            "agent_task_id": self.agent_task_id,
            "agent_type": self.agent_type,
            "inputs": self.inputs.iter().map(AgentInput::to_json).collect::<Vec<_>>(),
            "parameters": self.parameters,
            "timeout_ms": u64::try_from(self.time_limit().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Text that parses as a JSON scalar is that scalar; anything else is a string.
#[must_use]
pub fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(scalar) => scalar,
    }
}

/// The output of a finished step.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentDone {
    /// What `data` is: `ingested_data`, `analysis_result`, `json_report` ... (contract 4.5).
    pub output_type: String,
    /// The output itself.
    pub data: Value,
    /// How long it took, by the agent's clock.
    pub execution_ms: u64,
}

impl AgentDone {
    /// `{type, data}`: the form in which the next step gets it, and clients see it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "type": self.output_type, "data": self.data })
    }
}

/// The error codes of family A (contract 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// No agent could be reached, or none has room.
    AgentUnavailable,
    /// The agent tried and failed.
    ExecutionFailed,
    /// Not in time: it may have been done or not.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
    /// The input makes no sense; another try would fail alike.
    ValidationError,
    /// The step, or what came of it, is larger than the agent takes or sends.
    MessageTooLarge,
}

impl FailureCode {
    const ALL: [Self; 6] = [
        Self::AgentUnavailable,
        Self::ExecutionFailed,
        Self::Timeout,
        Self::Cancelled,
        Self::ValidationError,
        Self::MessageTooLarge,
    ];

    /// Its word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentUnavailable => "AGENT_UNAVAILABLE",
            Self::ExecutionFailed => "EXECUTION_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::ValidationError => "VALIDATION_ERROR",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
        }
    }

    /// Reads the word; what agents of others make up is `EXECUTION_FAILED`.
    #[must_use]
    pub fn read(word: &str) -> Self {
        let found = Self::ALL.into_iter().find(|code| code.as_str() == word);
        found.unwrap_or(Self::ExecutionFailed)
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a step has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AgentFailure {
    /// What kind of failure.
    pub code: FailureCode,
    /// In words.
    pub message: String,
    /// Whether another try may succeed.
    pub retryable: bool,
    /// The agent has no room: nothing was started, so no retry is used up.
    pub busy: bool,
}

impl AgentFailure {
    /// A failure of which the code says whether another try may help.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        let retryable = match code {
            FailureCode::AgentUnavailable | FailureCode::ExecutionFailed | FailureCode::Timeout => {
                true
            }
            FailureCode::Cancelled
            | FailureCode::ValidationError
            | FailureCode::MessageTooLarge => false,
        };
        Self { code, message: message.into(), retryable, busy: false }
    }

    /// The input makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureCode::ValidationError, message)
    }

    /// The agent has no room.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { busy: true, ..Self::new(FailureCode::AgentUnavailable, message) }
    }

    /// Makes it final: no other try.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { retryable: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::InputData;
    use super::*;

    #[test]
    fn contract_4_9_scalars_in_text_are_read_as_such() {
        for (text, value) in [
            ("10", json!(10)),
            ("true", json!(true)),
            ("0.5", json!(0.5)),
            ("null", Value::Null),
            ("\"x\"", json!("x")),
            ("[1]", json!("[1]")),
            ("plain", json!("plain")),
        ] {
            assert_eq!(scalar(text), value, "{text}");
        }
    }

    #[test]
    fn steps_are_read_from_texts() {
        let inputs = r#"[{"input_id": "i", "type": "json", "data": [1]}]"#;
        let task = AgentTask::from_texts(inputs, r#"{"n": 5, "s": "x", "o": {"a": 1}}"#).unwrap();
        assert_eq!(task.inputs[0].data, InputData::Json(json!([1])));
        assert_eq!(task.parameter("n"), Some(json!(5)));
        assert_eq!(
            (task.parameters["s"].as_str(), task.parameters["o"].as_str()),
            ("x", "{\"a\":1}")
        );
        assert_eq!(AgentTask::from_texts("", " "), Ok(AgentTask::default()));
        for (inputs, parameters) in [("[", ""), ("7", ""), ("", "[]"), ("", "{")] {
            let failure = AgentTask::from_texts(inputs, parameters).unwrap_err();
            assert_eq!(failure.code, FailureCode::ValidationError);
        }
    }

    #[test]
    fn failure_codes_are_the_words_of_the_family() {
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::read(code.as_str()), code);
        }
        assert_eq!(FailureCode::read("BOOM"), FailureCode::ExecutionFailed);
        assert!(!AgentFailure::invalid("x").retryable);
        assert!(AgentFailure::busy("x").busy);
    }
}

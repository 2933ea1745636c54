//! One step as an agent sees it: what goes in, what comes out, how it may fail (contract 4.2, 4.5).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The largest output that is taken from an agent, as JSON text. Larger ones have no place in a
/// replicated log.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// The most inputs of one task.
pub const INPUTS_MAX: usize = 1000;
/// How long a step may take when nothing is said.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// What an input is (contract 4.9, `InputType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InputKind {
    /// Plain text, CSV, XML, HTML.
    #[default]
    Text,
    /// A picture.
    Image,
    /// A film, or its frames as JSON.
    Video,
    /// Sound.
    Audio,
    /// A JSON value.
    Json,
    /// Anything else.
    Binary,
}

impl InputKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Text, Self::Image, Self::Video, Self::Audio, Self::Json, Self::Binary];

    /// Its word over HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }

    /// Whether its data are bytes, which JSON carries as base64.
    fn is_bytes(self) -> bool {
        matches!(self, Self::Image | Self::Video | Self::Audio | Self::Binary)
    }
}

/// What an input carries.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum InputData {
    /// Nothing; perhaps there is a URL.
    #[default]
    None,
    /// A JSON value. Text is a string.
    Json(Value),
    /// Bytes.
    Bytes(Bytes),
}

/// One input of a task or step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentInput {
    /// May be empty.
    pub input_id: String,
    /// What it is.
    pub kind: InputKind,
    /// What it carries.
    pub data: InputData,
    /// Where more of it is; may be empty.
    pub url: String,
    /// More about it, values as JSON.
    pub metadata: BTreeMap<String, Value>,
}

impl AgentInput {
    /// An input of kind JSON.
    #[must_use]
    pub fn json(value: Value) -> Self {
        Self { kind: InputKind::Json, data: InputData::Json(value), ..Self::default() }
    }

    /// An input of kind text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { data: InputData::Json(Value::String(text.into())), ..Self::default() }
    }

    /// Reads the `inputs` of a submission over HTTP (contract 4.2): an array of objects. A bare
    /// string stands for a text, any other value for a JSON input, so `null` is no inputs at all.
    ///
    /// # Errors
    /// Says in words what is wrong, for a 400.
    pub fn list_from_json(inputs: &Value) -> Result<Vec<Self>, String> {
        let inputs = match inputs {
            Value::Null => return Ok(Vec::new()),
            Value::Array(inputs) => inputs,
            Value::Object(_) | Value::String(_) => return Ok(vec![Self::from_json(inputs)?]),
            Value::Bool(_) | Value::Number(_) => return Err("inputs must be an array".to_owned()),
        };
        if inputs.len() > INPUTS_MAX {
            return Err(format!("inputs has {} items, at most {INPUTS_MAX}", inputs.len()));
        }
        let read = |(n, input)| Self::from_json(input).map_err(|why| format!("inputs[{n}]: {why}"));
        inputs.iter().enumerate().map(read).collect()
    }

    /// Reads one input. An object without `data`, `url` and `type` is itself the data.
    ///
    /// # Errors
    /// Says in words what is wrong.
    pub fn from_json(input: &Value) -> Result<Self, String> {
        let fields = match input {
            Value::Object(fields) => fields,
            Value::String(text) => return Ok(Self::text(text.as_str())),
            other => return Ok(Self::json(other.clone())),
        };
        if !["data", "url", "type"].iter().any(|key| fields.contains_key(*key)) {
            return Ok(Self::json(input.clone()));
        }
        let kind = read_kind(fields.get("type"), fields.get("data"))?;
        Ok(Self {
            input_id: text_field(fields, "input_id")?,
            kind,
            data: read_data(kind, fields.get("data"))?,
            url: text_field(fields, "url")?,
            metadata: match fields.get("metadata") {
                None | Some(Value::Null) => BTreeMap::new(),
                Some(Value::Object(metadata)) => metadata.clone().into_iter().collect(),
                Some(_) => return Err("metadata must be an object".to_owned()),
            },
        })
    }

    /// The form that [`Self::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let data = match &self.data {
            InputData::None => Value::Null,
            InputData::Json(value) => value.clone(),
            InputData::Bytes(bytes) => Value::String(STANDARD.encode(bytes)),
        };
        json!({
            "input_id": self.input_id, "type": self.kind.as_str(), "data": data, "url": self.url,
            "metadata": self.metadata,
        })
    }

    /// The data as text: a string as it is, bytes when they are UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            InputData::None => None,
            InputData::Json(value) => value.as_str(),
            InputData::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        }
    }

    /// How it is called in a message.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.input_id.is_empty() { self.kind.as_str() } else { &self.input_id }
    }
}

fn text_field(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("{name} must be a string")),
    }
}

/// A missing type is read off the data: text for strings, JSON for anything else.
fn read_kind(kind: Option<&Value>, data: Option<&Value>) -> Result<InputKind, String> {
    match kind {
        None | Some(Value::Null) => match data {
            None | Some(Value::Null | Value::String(_)) => Ok(InputKind::Text),
            Some(_) => Ok(InputKind::Json),
        },
        Some(kind) => {
            let word = kind.as_str().unwrap_or_default().to_ascii_lowercase();
            let found = InputKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            let words = || InputKind::ALL.map(InputKind::as_str).join(", ");
            found.ok_or_else(|| format!("type must be one of {}, not {kind}", words()))
        }
    }
}

fn read_data(kind: InputKind, data: Option<&Value>) -> Result<InputData, String> {
    match data {
        None | Some(Value::Null) => Ok(InputData::None),
        Some(Value::String(text)) if kind.is_bytes() => {
            // Browsers hand out `data:image/png;base64,...`.
            let coded = match text.strip_prefix("data:") {
                Some(url) => url.split_once(";base64,").map_or(url, |(_, coded)| coded),
                None => text,
            };
            let bytes = STANDARD.decode(coded.trim());
            let bytes = bytes.map_err(|error| format!("data is not base64: {error}"))?;
            Ok(InputData::Bytes(bytes.into()))
        }
        // JSON that somebody has written into a string; a string it is when it is nothing else.
        Some(Value::String(text)) if kind == InputKind::Json => {
            let value = serde_json::from_str(text);
            Ok(InputData::Json(value.unwrap_or_else(|_| Value::String(text.clone()))))
        }
        Some(value) => Ok(InputData::Json(value.clone())),
    }
}

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
}

impl FailureCode {
    const ALL: [Self; 5] = [
        Self::AgentUnavailable,
        Self::ExecutionFailed,
        Self::Timeout,
        Self::Cancelled,
        Self::ValidationError,
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
            FailureCode::Cancelled | FailureCode::ValidationError => false,
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
    use super::*;

    fn read(input: &Value) -> AgentInput {
        AgentInput::from_json(input).unwrap()
    }

    #[test]
    fn contract_4_2_inputs_are_read() {
        let input = read(&json!({
            "input_id": "i", "type": "json", "data": {"a": [1]}, "metadata": {"k": 1}
        }));
        assert_eq!(input.data, InputData::Json(json!({"a": [1]})));
        assert_eq!((input.kind, &input.metadata["k"]), (InputKind::Json, &json!(1)));
        assert_eq!(read(&input.to_json()), input);
        let input = read(&json!({"type": "binary", "data": "AAH/"}));
        assert_eq!(input.data, InputData::Bytes(Bytes::from_static(&[0, 1, 255])));
        assert_eq!(read(&input.to_json()), input);
        assert_eq!(read(&json!({"data": "a,b"})), AgentInput::text("a,b"));
        assert_eq!(read(&json!({"type": "json", "data": "[1]"})), AgentInput::json(json!([1])));
        let picture = read(&json!({"type": "image", "data": "data:image/png;base64,AAH/"}));
        assert_eq!(picture.data, InputData::Bytes(Bytes::from_static(&[0, 1, 255])));
        let frames = json!({"type": "video", "data": {"frames": []}});
        assert_eq!(read(&frames).data, InputData::Json(json!({"frames": []})));
    }

    #[test]
    fn short_forms_of_inputs_are_understood() {
        assert_eq!(AgentInput::list_from_json(&Value::Null), Ok(Vec::new()));
        let inputs = AgentInput::list_from_json(&json!(["text", [1, 2], {"sales": 3}])).unwrap();
        let wanted = [
            AgentInput::text("text"),
            AgentInput::json(json!([1, 2])),
            AgentInput::json(json!({"sales": 3})),
        ];
        assert_eq!(inputs, wanted);
    }

    #[test]
    fn nonsense_is_named() {
        for (inputs, word) in [
            (json!(3), "array"),
            (json!([{"type": "film", "data": 1}]), "inputs[0]: type must be one of text"),
            (json!([{"type": 5, "data": 1}]), "type must be"),
            (json!([{"type": "image", "data": "%%"}]), "base64"),
            (json!([{"data": 1, "metadata": 2}]), "metadata"),
            (json!([{"data": 1, "url": {}}]), "url"),
            (json!(vec![1; INPUTS_MAX + 1]), "at most"),
        ] {
            let error = AgentInput::list_from_json(&inputs).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

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
    fn failure_codes_are_the_words_of_the_family() {
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::read(code.as_str()), code);
        }
        assert_eq!(FailureCode::read("BOOM"), FailureCode::ExecutionFailed);
        assert!(!AgentFailure::invalid("x").retryable);
        assert!(AgentFailure::busy("x").busy);
    }
}

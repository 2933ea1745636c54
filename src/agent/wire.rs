//! Between an agent's nouns and the messages of `proto/` (contract 4.9).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::input::{AgentInput, INPUTS_MAX, InputData, InputKind};
use super::proto;
use super::task::{AgentDone, AgentFailure, AgentTask, FailureCode, scalar};

/// The longest time that can be asked for, so that no arithmetic on it can overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Under this key the metadata of an output name its type, which the enum is too poor for.
const TYPE_KEY: &str = "type";

impl From<InputKind> for proto::InputType {
    fn from(kind: InputKind) -> Self {
        match kind {
            InputKind::Text => Self::Text,
            InputKind::Image => Self::Image,
            InputKind::Video => Self::Video,
            InputKind::Audio => Self::Audio,
            InputKind::Json => Self::Json,
            InputKind::Binary => Self::Binary,
        }
    }
}

impl From<proto::InputType> for InputKind {
    fn from(kind: proto::InputType) -> Self {
        match kind {
            proto::InputType::Text => Self::Text,
            proto::InputType::Image => Self::Image,
            proto::InputType::Video => Self::Video,
            proto::InputType::Audio => Self::Audio,
            proto::InputType::Json => Self::Json,
            proto::InputType::Binary => Self::Binary,
        }
    }
}

impl From<&AgentInput> for proto::Input {
    fn from(input: &AgentInput) -> Self {
        // JSON in anything but a text is said to be JSON, or the other side could not tell.
        let (kind, data) = match &input.data {
            InputData::None => (input.kind, Vec::new()),
            InputData::Json(Value::String(text)) if input.kind != InputKind::Json => {
                (InputKind::Text, text.clone().into_bytes())
            }
            InputData::Json(value) => (InputKind::Json, value.to_string().into_bytes()),
            InputData::Bytes(bytes) => (input.kind, bytes.to_vec()),
        };
        Self {
            input_id: input.input_id.clone(),
            r#type: proto::InputType::from(kind).into(),
            data,
            url: input.url.clone(),
            metadata: input
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), word(value)))
                .collect(),
        }
    }
}

impl TryFrom<proto::Input> for AgentInput {
    type Error = String;

    fn try_from(input: proto::Input) -> Result<Self, String> {
        let kind = proto::InputType::try_from(input.r#type)
            .map_err(|_| format!("unknown input type {}", input.r#type))?;
        let kind = InputKind::from(kind);
        let data = match (kind, Bytes::from(input.data)) {
            (_, bytes) if bytes.is_empty() => InputData::None,
            (InputKind::Json, bytes) => InputData::Json(
                serde_json::from_slice(&bytes).map_err(|error| format!("data: {error}"))?,
            ),
            (InputKind::Text, bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => InputData::Json(Value::String(text.to_owned())),
                Err(_) => InputData::Bytes(bytes),
            },
            (_, bytes) => InputData::Bytes(bytes),
        };
        Ok(Self {
            input_id: input.input_id,
            kind,
            data,
            url: input.url,
            metadata: scalars(input.metadata),
        })
    }
}

/// A value of metadata as text.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Metadata whose texts are read as scalars (contract 4.9), but for those that would not come back as they
/// were: `1.10` is a version and no number.
#[must_use]
pub fn scalars(metadata: BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let read = |text: String| {
        let scalar = scalar(&text);
        if word(&scalar) == text { scalar } else { Value::String(text) }
    };
    metadata.into_iter().map(|(key, text)| (key, read(text))).collect()
}

/// Reads the inputs of a request.
///
/// # Errors
/// Says in words what is wrong.
pub fn inputs(inputs: Vec<proto::Input>) -> Result<Vec<AgentInput>, String> {
    if inputs.len() > INPUTS_MAX {
        return Err(format!("{} inputs, at most {INPUTS_MAX}", inputs.len()));
    }
    let read = |(n, input)| {
        AgentInput::try_from(input).map_err(|why: String| format!("inputs[{n}]: {why}"))
    };
    inputs.into_iter().enumerate().map(read).collect()
}

impl From<&AgentTask> for proto::AgentTaskRequest {
    fn from(task: &AgentTask) -> Self {
        Self {
            task_id: task.task_id.clone(),
            agent_task_id: task.agent_task_id.clone(),
            agent_type: task.agent_type.clone(),
            inputs: task.inputs.iter().map(proto::Input::from).collect(),
            parameters: task.parameters.clone(),
            timeout_ms: millis(task.time_limit().as_millis()),
        }
    }
}

impl TryFrom<proto::AgentTaskRequest> for AgentTask {
    type Error = String;

    fn try_from(request: proto::AgentTaskRequest) -> Result<Self, String> {
        let timeout = match u64::try_from(request.timeout_ms) {
            Ok(ms) => Duration::from_millis(ms).min(TIMEOUT_MAX),
            Err(_) => return Err("timeout_ms is negative".to_owned()),
        };
        Ok(Self {
            task_id: request.task_id,
            agent_task_id: request.agent_task_id,
            agent_type: request.agent_type,
            inputs: inputs(request.inputs)?,
            parameters: request.parameters,
            timeout,
        })
    }
}

fn millis(ms: u128) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

impl From<&AgentDone> for proto::Output {
    fn from(done: &AgentDone) -> Self {
        output(&done.output_type, &done.data)
    }
}

/// An output as a message: always as JSON, with the enum's nearest word and the real type in the
/// metadata; text and bytes also as such.
#[must_use]
pub fn output(output_type: &str, data: &Value) -> proto::Output {
    let kind = match output_type {
        "alerts" | "alert" => proto::OutputType::Alert,
        "binary_data" => proto::OutputType::BinaryData,
        "text_result" => proto::OutputType::TextResult,
        _ => proto::OutputType::JsonReport,
    };
    let bytes = match (kind, data.as_str()) {
        (proto::OutputType::BinaryData, Some(coded)) => STANDARD.decode(coded).unwrap_or_default(),
        (proto::OutputType::TextResult, Some(text)) => text.as_bytes().to_vec(),
        (_, _) => Vec::new(),
    };
    proto::Output {
        r#type: kind.into(),
        data: bytes,
        json_data: data.to_string(),
        metadata: BTreeMap::from([(TYPE_KEY.to_owned(), output_type.to_owned())]),
    }
}

/// The answer of an agent that is done.
#[must_use]
pub fn response(agent_task_id: &str, done: &AgentDone) -> proto::AgentTaskResponse {
    proto::AgentTaskResponse {
        agent_task_id: agent_task_id.to_owned(),
        status: proto::TaskStatus::Completed.into(),
        output: Some(done.into()),
        error: None,
        execution_time_ms: millis(done.execution_ms.into()),
    }
}

/// The answer of an agent that failed.
#[must_use]
pub fn failed(
    agent_task_id: &str,
    failure: &AgentFailure,
    took: Duration,
) -> proto::AgentTaskResponse {
    let cancelled = failure.code == FailureCode::Cancelled;
    let status = if cancelled { proto::TaskStatus::Cancelled } else { proto::TaskStatus::Failed };
    proto::AgentTaskResponse {
        agent_task_id: agent_task_id.to_owned(),
        status: status.into(),
        output: None,
        error: Some(proto::Error {
            error_code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
            stack_trace: String::new(),
            retryable: failure.retryable,
        }),
        execution_time_ms: millis(took.as_millis()),
    }
}

/// What an agent's answer says. Agents of others may leave out nearly everything.
///
/// # Errors
/// The agent's failure, or that of an answer which says nothing.
pub fn read_response(response: proto::AgentTaskResponse) -> Result<AgentDone, AgentFailure> {
    let status = proto::TaskStatus::try_from(response.status);
    if status != Ok(proto::TaskStatus::Completed) {
        return Err(read_error(status.ok(), response.error));
    }
    let Some(output) = response.output else {
        let message = "the agent completed the step without an output";
        return Err(AgentFailure::new(FailureCode::ExecutionFailed, message));
    };
    let (output_type, data) = read_output(output);
    let execution_ms = u64::try_from(response.execution_time_ms).unwrap_or_default();
    Ok(AgentDone { output_type, data, execution_ms })
}

fn read_error(status: Option<proto::TaskStatus>, error: Option<proto::Error>) -> AgentFailure {
    let cancelled = status == Some(proto::TaskStatus::Cancelled);
    let Some(error) = error else {
        let code = if cancelled { FailureCode::Cancelled } else { FailureCode::ExecutionFailed };
        let word = status.map_or("an unknown status", |status| status.as_str_name());
        return AgentFailure::new(code, format!("the agent answered {word} without an error"));
    };
    let code = match FailureCode::read(&error.error_code) {
        FailureCode::ExecutionFailed if cancelled => FailureCode::Cancelled,
        code => code,
    };
    AgentFailure { code, message: error.message, retryable: error.retryable, busy: false }
}

/// The type and data of an output message.
#[must_use]
pub fn read_output(output: proto::Output) -> (String, Value) {
    let kind = proto::OutputType::try_from(output.r#type);
    let fallback = match kind {
        Ok(proto::OutputType::Alert) => "alerts",
        Ok(proto::OutputType::BinaryData) => "binary_data",
        Ok(proto::OutputType::TextResult) => "text_result",
        Ok(proto::OutputType::JsonReport) | Err(_) => "json_report",
    };
    let named = output.metadata.get(TYPE_KEY).filter(|name| !name.is_empty());
    let output_type = named.map_or_else(|| fallback.to_owned(), Clone::clone);
    let data = match serde_json::from_str(&output.json_data) {
        Ok(value) => value,
        Err(_) if !output.json_data.is_empty() => Value::String(output.json_data),
        Err(_) => match String::from_utf8(output.data) {
            Ok(text) if kind != Ok(proto::OutputType::BinaryData) => json!(text),
            Ok(text) => json!(STANDARD.encode(text)),
            Err(error) => json!(STANDARD.encode(error.as_bytes())),
        },
    };
    (output_type, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(input: &AgentInput) -> AgentInput {
        AgentInput::try_from(proto::Input::from(input)).unwrap()
    }

    /// Version 1.10 became 1.1.
    #[test]
    fn metadata_that_would_not_come_back_as_it_was_stays_text() {
        for (text, value) in [
            ("1.10", json!("1.10")),
            ("1.1", json!(1.1)),
            ("007", json!("007")),
            ("1e5", json!("1e5")),
            ("12345678901234567890123", json!("12345678901234567890123")),
            ("true", json!(true)),
            ("\"x\"", json!("\"x\"")),
        ] {
            let read = scalars(BTreeMap::from([("k".to_owned(), text.to_owned())]));
            assert_eq!((&read["k"], &word(&read["k"])[..]), (&value, text));
        }
    }

    #[test]
    fn inputs_go_there_and_back() {
        let mut json = AgentInput::json(json!({"a": [1, "x"]}));
        json.metadata = BTreeMap::from([("n".to_owned(), json!(10)), ("s".to_owned(), json!("x"))]);
        let bytes = AgentInput {
            kind: InputKind::Image,
            data: InputData::Bytes(Bytes::from_static(&[0, 255])),
            url: "http://a/b".to_owned(),
            ..AgentInput::default()
        };
        for input in [json, bytes, AgentInput::text("ä"), AgentInput::json(json!("text"))] {
            assert_eq!(there_and_back(&input), input);
        }
        let frames = AgentInput {
            kind: InputKind::Video,
            data: InputData::Json(json!({"frames": []})),
            ..AgentInput::default()
        };
        assert_eq!(there_and_back(&frames), AgentInput::json(json!({"frames": []})));
    }

    #[test]
    fn tasks_go_there_and_back_and_nonsense_is_named() {
        let task = AgentTask {
            task_id: "t".to_owned(),
            agent_task_id: "t/0/1".to_owned(),
            agent_type: "synthesis".to_owned(),
            inputs: vec![AgentInput::text("x")],
            parameters: BTreeMap::from([("report_title".to_owned(), "R".to_owned())]),
            timeout: Duration::from_millis(1500),
        };
        let request = proto::AgentTaskRequest::from(&task);
        assert_eq!(AgentTask::try_from(request.clone()), Ok(task));
        let late = proto::AgentTaskRequest { timeout_ms: -1, ..request.clone() };
        assert!(AgentTask::try_from(late).unwrap_err().contains("timeout_ms"));
        let mut odd = request.clone();
        odd.inputs[0].r#type = 77;
        assert!(AgentTask::try_from(odd).unwrap_err().contains("inputs[0]: unknown input type"));
        let mut broken = request;
        broken.inputs[0].r#type = proto::InputType::Json.into();
        assert!(AgentTask::try_from(broken).unwrap_err().contains("inputs[0]: data"));
    }

    #[test]
    fn answers_are_read_as_they_were_given() {
        for (output_type, data) in [
            ("ingested_data", json!({"records": []})),
            ("alerts", json!({"alerts": [1]})),
            ("text_result", json!("words")),
            ("binary_data", json!("AAH/")),
        ] {
            let done = AgentDone { output_type: output_type.to_owned(), data, execution_ms: 12 };
            assert_eq!(read_response(response("a", &done)), Ok(done));
        }
        let failure = AgentFailure::invalid("no records");
        let answer = failed("a", &failure, Duration::from_millis(3));
        assert_eq!(read_response(answer), Err(failure));
    }

    #[test]
    fn poor_answers_of_other_agents_are_understood() {
        let completed = || proto::AgentTaskResponse {
            status: proto::TaskStatus::Completed.into(),
            ..proto::AgentTaskResponse::default()
        };
        assert!(read_response(completed()).unwrap_err().retryable);
        let output = proto::Output { json_data: "not json".to_owned(), ..Default::default() };
        let done = read_response(proto::AgentTaskResponse { output: Some(output), ..completed() });
        let done = done.unwrap();
        assert_eq!((done.output_type.as_str(), done.data), ("json_report", json!("not json")));
        let silent = proto::AgentTaskResponse::default();
        let failure = read_response(silent).unwrap_err();
        assert!(failure.message.contains("PENDING"), "{failure}");
    }
}

//! What the inputs of a step carry, whichever way they came: a task's own inputs, `{type, data}` of
//! the step before, its bare data, or a list of either (contract 4.5).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::super::input::{AgentInput, InputData, InputKind};
use super::super::task::{AgentFailure, AgentTask};

/// Keys by which a bare output is known.
const MARKS: [(&str, &str); 11] = [
    ("records", "ingested_data"),
    ("summary_statistics", "analysis_result"),
    ("report_id", "json_report"),
    ("detections", "detections"),
    ("alerts", "alerts"),
    ("responses", "api_response"),
    ("items", "feed_items"),
    ("transcripts", "transcripts"),
    ("summaries", "summaries"),
    ("documents", "documents"),
    ("themes", "industry_report"),
];

/// One thing to work on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// How it is called in outputs and messages.
    pub(super) name: String,
    /// What the input said it is.
    pub(super) kind: InputKind,
    /// The output type, for an output of another step.
    pub(super) output_type: Option<String>,
    pub(super) body: Body,
    pub(super) metadata: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Text(String),
    Value(Value),
    /// A picture, a film, a sound: for a model.
    Media(Bytes),
}

impl Piece {
    /// Whether it is an output of that type.
    pub(super) fn is(&self, output_type: &str) -> bool {
        self.output_type.as_deref() == Some(output_type)
    }

    /// The array under `key` of its value; empty when there is none.
    pub(super) fn array(&self, key: &str) -> &[Value] {
        match &self.body {
            Body::Value(value) => value[key].as_array().map_or(&[], Vec::as_slice),
            Body::Text(_) | Body::Media(_) => &[],
        }
    }

    /// The refusal of what only a model can read.
    pub(super) fn needs_model(&self, agent_type: &str) -> AgentFailure {
        let (name, kind) = (&self.name, self.kind.as_str());
        AgentFailure::invalid(format!(
            "input {name} is {kind}: {agent_type} needs a model for that; run \
             `quorate agent --agent-type {agent_type}` with --exec or --model-url"
        ))
    }
}

/// Opens all inputs of a task.
///
/// # Errors
/// `VALIDATION_ERROR` for an input that only names a URL and was not fetched.
pub(super) fn pieces(task: &AgentTask) -> Result<Vec<Piece>, AgentFailure> {
    let mut pieces = Vec::new();
    for (n, input) in task.inputs.iter().enumerate() {
        let name =
            if input.input_id.is_empty() { format!("input_{n}") } else { input.input_id.clone() };
        match &input.data {
            InputData::None if input.url.is_empty() => {}
            InputData::None => {
                let message = format!(
                    "input {name} names {} but carries no data, and nothing is fetched unless \
                     agents.fetch_inputs (of members) or --fetch-inputs (of an agent) says so",
                    input.url
                );
                return Err(AgentFailure::invalid(message));
            }
            InputData::Json(Value::String(text)) => pieces.extend(from_text(name, input, text)),
            InputData::Json(value) => pieces.extend(from_value(&name, input, value.clone())),
            InputData::Bytes(bytes) => pieces.extend(from_bytes(name, input, bytes)),
        }
    }
    Ok(pieces)
}

fn piece(name: String, input: &AgentInput, body: Body) -> Piece {
    Piece { name, kind: input.kind, output_type: None, body, metadata: input.metadata.clone() }
}

fn from_text(name: String, input: &AgentInput, text: &str) -> Vec<Piece> {
    match json_in(text) {
        Some(value) => from_value(&name, input, value),
        None => vec![piece(name, input, Body::Text(text.to_owned()))],
    }
}

fn from_bytes(name: String, input: &AgentInput, bytes: &Bytes) -> Vec<Piece> {
    // A PDF may be all ASCII, and is no text for that.
    let media = matches!(input.kind, InputKind::Image | InputKind::Video | InputKind::Audio)
        || bytes.starts_with(b"%PDF-");
    match std::str::from_utf8(bytes) {
        Ok(text) if !media || json_in(text).is_some() => from_text(name, input, text),
        Ok(_) | Err(_) => vec![piece(name, input, Body::Media(bytes.clone()))],
    }
}

/// Objects and arrays that came as text.
fn json_in(text: &str) -> Option<Value> {
    let looks_so = text.trim_start().starts_with(['{', '[']);
    looks_so.then(|| serde_json::from_str(text).ok()).flatten()
}

fn from_value(name: &str, input: &AgentInput, value: Value) -> Vec<Piece> {
    if let Value::Array(items) = &value
        && !items.is_empty()
        && items.iter().all(|item| type_of(item).is_some())
    {
        let items = items.iter().enumerate();
        return items
            .flat_map(|(n, item)| from_value(&format!("{name}.{n}"), input, item.clone()))
            .collect();
    }
    let output_type = type_of(&value);
    let value = match value {
        Value::Object(mut fields) if is_envelope(&fields) => {
            fields.remove("data").unwrap_or_default()
        }
        other => other,
    };
    let body = match value {
        Value::String(text) => Body::Text(text),
        other => Body::Value(other),
    };
    vec![Piece { output_type, ..piece(name.to_owned(), input, body) }]
}

/// The output type of `value`, when it is an output.
fn type_of(value: &Value) -> Option<String> {
    let fields = value.as_object()?;
    if is_envelope(fields) {
        return fields["type"].as_str().map(str::to_owned);
    }
    let mark = MARKS.into_iter().find(|(key, _)| fields.contains_key(*key));
    mark.map(|(_, output_type)| output_type.to_owned())
}

fn is_envelope(fields: &serde_json::Map<String, Value>) -> bool {
    fields.len() == 2
        && fields.contains_key("data")
        && fields.get("type").is_some_and(Value::is_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::task;
    use super::*;

    fn open(inputs: Vec<AgentInput>) -> Vec<Piece> {
        pieces(&task("x", inputs, &[])).unwrap()
    }

    #[test]
    fn contract_4_5_outputs_of_earlier_steps_are_opened() {
        let data = json!({"records": [1], "count": 1});
        let envelope = json!({"type": "ingested_data", "data": data});
        for value in [data, envelope.clone(), json!([envelope])] {
            let pieces = open(vec![AgentInput::json(value)]);
            assert!(pieces[0].is("ingested_data"));
            assert_eq!(pieces[0].array("records"), [json!(1)]);
        }
        let list = json!([envelope, {"alerts": []}, {"type": "custom", "data": "text"}]);
        let pieces = open(vec![AgentInput::json(list)]);
        assert_eq!(pieces.len(), 3);
        assert!(pieces[1].is("alerts") && pieces[2].is("custom"));
        assert_eq!(pieces[2].body, Body::Text("text".to_owned()));
    }

    /// It was taken for the text that it is made of.
    #[test]
    fn a_pdf_of_ascii_is_no_text() {
        let of = |bytes: &'static [u8]| {
            let data = InputData::Bytes(Bytes::from_static(bytes));
            let input = AgentInput { kind: InputKind::Binary, data, ..AgentInput::text("") };
            open(vec![input]).remove(0).body
        };
        assert!(matches!(of(b"%PDF-1.4 (Hello) Tj"), Body::Media(_)));
        assert!(matches!(of(b"Hello"), Body::Text(_)));
    }

    #[test]
    fn a_list_of_records_is_one_piece() {
        let pieces = open(vec![AgentInput::json(json!([{"sales": 1}, {"sales": 2}]))]);
        assert_eq!((pieces.len(), pieces[0].output_type.as_deref()), (1, None));
    }

    #[test]
    fn text_and_bytes_may_hold_json() {
        let film = |bytes: &'static [u8]| AgentInput {
            kind: InputKind::Video,
            data: InputData::Bytes(Bytes::from_static(bytes)),
            ..AgentInput::default()
        };
        let pieces = open(vec![AgentInput::text(" {\"a\": 1}"), film(b"[1]"), film(b"plain")]);
        assert_eq!(pieces[0].body, Body::Value(json!({"a": 1})));
        assert_eq!(pieces[1].body, Body::Value(json!([1])));
        assert_eq!(pieces[2].body, Body::Media(Bytes::from_static(b"plain")));
    }

    #[test]
    fn a_url_alone_is_refused() {
        let input = AgentInput { url: "http://a".to_owned(), ..AgentInput::default() };
        let failure = pieces(&task("data_ingest", vec![input], &[])).unwrap_err();
        assert!(failure.message.contains("nothing is fetched"), "{failure}");
    }
}

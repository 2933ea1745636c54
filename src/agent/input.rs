//! What a task or step works on (contract 4.2).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The most inputs of one task.
pub const INPUTS_MAX: usize = 1000;

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
    #[must_use]
    pub fn is_bytes(self) -> bool {
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
}

//! `data_ingest`: records out of text, CSV and JSON (contract 4.5, `ingested_data`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::csv;
use super::pieces::{Body, Piece, pieces};

/// Under these keys an object may hold its records.
const LISTS: [&str; 5] = ["records", "rows", "data", "items", "values"];

/// Records and what they came from: `json`, `csv`, `text`, or the kind of a medium.
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    let mut types = BTreeSet::new();
    let mut records = Vec::new();
    for piece in pieces(task)? {
        types.insert(ingest(&piece, &mut records));
    }
    Ok(json!({ "count": records.len(), "records": records, "types": types }))
}

/// All records that the inputs hold, for the types that usually get them from this one.
pub(super) fn records(pieces: &[Piece]) -> Vec<Value> {
    let mut records = Vec::new();
    for piece in pieces {
        ingest(piece, &mut records);
    }
    records
}

fn ingest(piece: &Piece, into: &mut Vec<Value>) -> &'static str {
    match &piece.body {
        Body::Value(value) => {
            take_value(value, into);
            "json"
        }
        Body::Text(text) => match csv::guess(text) {
            Some(table) => {
                into.extend(table);
                "csv"
            }
            None => {
                into.push(prose(piece, text));
                "text"
            }
        },
        Body::Media(bytes) => {
            into.push(json!({
                "input_id": piece.name, "type": piece.kind.as_str(), "bytes": bytes.len(),
                "metadata": piece.metadata,
            }));
            piece.kind.as_str()
        }
    }
}

fn take_value(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(items) => {
            let record = |item: &Value| match item {
                Value::Object(_) => item.clone(),
                other => json!({ "value": other }),
            };
            into.extend(items.iter().map(record));
        }
        Value::Object(fields) => {
            let list = LISTS.iter().find_map(|key| fields.get(*key)?.as_array());
            match list {
                Some(items) => take_value(&Value::Array(items.clone()), into),
                None => into.push(value.clone()),
            }
        }
        Value::Null => {}
        other => into.push(json!({ "value": other })),
    }
}

fn prose(piece: &Piece, text: &str) -> Value {
    json!({
        "input_id": piece.name,
        "text": text,
        "lines": text.lines().filter(|line| !line.trim().is_empty()).count(),
        "words": text.split_whitespace().count(),
        "metadata": piece.metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    fn ingest(inputs: Vec<AgentInput>) -> Value {
        run(&task("data_ingest", inputs, &[])).unwrap()
    }

    #[test]
    fn contract_4_5_text_csv_and_json_become_records() {
        let data = ingest(vec![
            AgentInput::text("region,sales\nnorth,3\nsouth,4\n"),
            AgentInput::json(json!([{"region": "east", "sales": 5}, 6])),
            AgentInput::json(json!({"rows": [{"sales": 7}]})),
            AgentInput::json(json!({"region": "west"})),
            AgentInput::text("Two lines.\n\nOf text."),
        ]);
        assert_eq!(data["count"], 7);
        assert_eq!(data["types"], json!(["csv", "json", "text"]));
        assert_eq!(data["records"][0], json!({"region": "north", "sales": 3}));
        assert_eq!(data["records"][3], json!({"value": 6}));
        assert_eq!(data["records"][4], json!({"sales": 7}));
        assert_eq!(
            (&data["records"][6]["lines"], &data["records"][6]["words"]),
            (&json!(2), &json!(4))
        );
    }

    #[test]
    fn nothing_gives_no_records() {
        assert_eq!(ingest(Vec::new()), json!({"records": [], "count": 0, "types": []}));
    }
}

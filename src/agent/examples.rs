//! The use cases of the contract, from their checked-in inputs to their checked-in outputs
//! (`docs/examples`), step by step as the sequential mode does it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{AgentTask, Builtins};

/// A file of an example.
fn file(example: &str, name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let path = root.join(example).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_file(example: &str, name: &str) -> Value {
    serde_json::from_str(&file(example, name)).unwrap()
}

/// Runs the steps one after the other on the example's request.
async fn run(example: &str, pipeline: &[&str]) -> Value {
    let request = json_file(example, "request.json");
    let (builtins, reach) = (Builtins::default(), crate::model::Reach::default());
    let mut inputs = request["inputs"].clone();
    let mut output = Value::Null;
    for agent_type in pipeline {
        let texts = AgentTask::from_texts(&inputs.to_string(), &request["metadata"].to_string());
        let task = AgentTask {
            task_id: request["task_id"].as_str().unwrap().to_owned(),
            agent_type: (*agent_type).to_owned(),
            ..texts.unwrap()
        };
        let done = builtins
            .run(task, &reach)
            .await
            .unwrap_or_else(|error| panic!("{agent_type}: {error}"));
        output = done.to_json();
        inputs = json!([{"input_id": agent_type, "type": "json", "data": output}]);
    }
    output
}

/// Where `found` is not what is expected; `<number>`, `<text>` and `<id>` stand for any of them.
fn differences(place: &str, expected: &Value, found: &Value, into: &mut Vec<String>) {
    let differs = match (expected, found) {
        (Value::String(word), found) if word == "<number>" => !found.is_number(),
        (Value::String(word), found) if word == "<text>" => !found.is_string(),
        (Value::String(word), found) if word == "<id>" => {
            !found.as_str().is_some_and(|id| id.starts_with("report_") && id.len() > 10)
        }
        (Value::Object(a), Value::Object(b)) => {
            for (key, expected) in a {
                let found = b.get(key).unwrap_or(&Value::Null);
                differences(&format!("{place}/{key}"), expected, found, into);
            }
            b.keys().any(|key| !a.contains_key(key))
        }
        (Value::Array(a), Value::Array(b)) => {
            for (n, (expected, found)) in a.iter().zip(b).enumerate() {
                differences(&format!("{place}/{n}"), expected, found, into);
            }
            a.len() != b.len()
        }
        (a, b) => a != b,
    };
    if differs {
        into.push(format!("{place}: expected {expected}, found {found}"));
    }
}

#[track_caller]
fn check(example: &str, found: &Value) {
    let mut faults = Vec::new();
    differences("", &json_file(example, "expected.json"), found, &mut faults);
    let whole = serde_json::to_string_pretty(found).unwrap();
    assert!(faults.is_empty(), "{}\nin\n{whole}", faults.join("\n"));
}

#[tokio::test]
async fn contract_4_4_a_report_from_sales_data() {
    let example = "sales-report";
    let request = json_file(example, "request.json");
    assert_eq!(request["inputs"][0]["data"].as_str().unwrap(), file(example, "sales.csv"));
    let found = run(example, &["data_ingest", "data_analysis", "synthesis"]).await;
    check(example, &found);
}

#[tokio::test]
async fn contract_4_4_alerts_from_monitoring() {
    let example = "monitoring-alerts";
    let request = json_file(example, "request.json");
    assert_eq!(request["inputs"][0]["data"], json_file(example, "frames.json"));
    let found = run(example, &["video_detection", "alerting"]).await;
    check(example, &found);
}

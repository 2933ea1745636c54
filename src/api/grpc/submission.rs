//! `SubmitTask`: the body that HTTP clients would send, with gRPC's own defaults (contract 4.9).

use serde_json::{Map, Value, json};

use crate::agent::proto::{ExecutionMode, TaskRequest};
use crate::agent::{AgentInput, inputs, scalars};

/// What an unset priority and an unset time-out stand for.
const PRIORITY: i32 = 5;
const TIMEOUT_MS: i64 = 30_000;

/// The body of `POST /api/v1/tasks`.
///
/// # Errors
/// In words, for `INVALID_ARGUMENT`: numbers that no enum has, inputs that are none.
pub(super) fn body(request: TaskRequest) -> Result<Value, String> {
    let mode = ExecutionMode::try_from(request.execution_mode)
        .map_err(|_| format!("unknown execution_mode {}", request.execution_mode))?;
    let inputs = inputs(request.inputs)?;
    let mut body = json!({
        "task_type": request.task_type,
        "inputs": inputs.iter().map(AgentInput::to_json).collect::<Vec<_>>(),
        // Unset is 0, which is parallel; over HTTP it would be sequential.
        "execution_mode": mode.as_str_name().to_ascii_lowercase(),
        "priority": if request.priority == 0 { PRIORITY } else { request.priority },
        "timeout_ms": if request.timeout_ms == 0 { TIMEOUT_MS } else { request.timeout_ms },
        "metadata": scalars(request.metadata).into_iter().collect::<Map<_, _>>(),
    });
    if !request.task_id.is_empty() {
        body["task_id"] = request.task_id.into();
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::agent::proto::{Input, InputType};

    #[test]
    fn contract_4_9_unset_fields_have_their_defaults() {
        let request = TaskRequest { task_type: "api_call".to_owned(), ..TaskRequest::default() };
        let wanted = json!({
            "task_type": "api_call", "inputs": [], "execution_mode": "parallel", "priority": 5,
            "timeout_ms": 30_000, "metadata": {},
        });
        assert_eq!(body(request), Ok(wanted));
    }

    #[test]
    fn contract_4_9_everything_that_is_set_is_kept() {
        let text = |text: &str| text.to_owned();
        let request = TaskRequest {
            task_id: text("t"),
            task_type: text("report_generation"),
            metadata: BTreeMap::from([
                (text("max_persons"), text("10")),
                (text("restricted_area"), text("true")),
                (text("report_title"), text("Q3")),
            ]),
            inputs: vec![
                Input { r#type: InputType::Json.into(), data: b"[1]".to_vec(), ..Input::default() },
                Input {
                    r#type: InputType::Image.into(),
                    data: vec![0, 1, 255],
                    ..Input::default()
                },
            ],
            execution_mode: ExecutionMode::Hybrid.into(),
            priority: 8,
            timeout_ms: 500,
        };
        let body = body(request).unwrap();
        assert_eq!((&body["task_id"], &body["execution_mode"]), (&json!("t"), &json!("hybrid")));
        assert_eq!((&body["priority"], &body["timeout_ms"]), (&json!(8), &json!(500)));
        let metadata = json!({"max_persons": 10, "restricted_area": true, "report_title": "Q3"});
        assert_eq!(body["metadata"], metadata);
        assert_eq!(
            (&body["inputs"][0]["type"], &body["inputs"][0]["data"]),
            (&json!("json"), &json!([1]))
        );
        assert_eq!(
            (&body["inputs"][1]["type"], &body["inputs"][1]["data"]),
            (&json!("image"), &json!("AAH/"))
        );
    }

    #[test]
    fn nonsense_is_named() {
        let odd_mode = TaskRequest { execution_mode: 7, ..TaskRequest::default() };
        assert!(body(odd_mode).unwrap_err().contains("execution_mode 7"));
        let odd = Input { r#type: 9, ..Input::default() };
        let odd_input = TaskRequest { inputs: vec![odd], ..TaskRequest::default() };
        assert!(body(odd_input).unwrap_err().contains("inputs[0]"));
    }
}

//! What a task that was done in steps shows for its result (contract 4.5): the summary of its mode, with
//! the type and data of the final output, and for reports and alerts their fields beside them.

use serde_json::{Map, Value, json};

use crate::model::{Flow, FlowMode, StepState, Task};

/// One step with its task's row, as far as it was ever opened, and its result as JSON text.
#[derive(Debug)]
pub(in crate::api) struct StepRow {
    pub(in crate::api) name: String,
    pub(in crate::api) agent_type: String,
    pub(in crate::api) state: StepState,
    pub(in crate::api) task: Option<Task>,
    pub(in crate::api) result: String,
}

impl StepRow {
    /// Who does it or did it.
    pub(in crate::api) fn agent_id(&self) -> Option<&str> {
        let task = self.task.as_ref()?;
        let holder = task.live_on();
        let holder = holder.or(task.node_id.as_ref()).or_else(|| task.assigned_nodes.last())?;
        Some(crate::leader::agent_id_of(holder.as_str()))
    }

    pub(in crate::api) fn execution_ms(&self) -> u64 {
        self.task.as_ref().map_or(0, |task| task.execution_ms)
    }

    pub(in crate::api) fn error(&self) -> Option<&str> {
        self.task.as_ref()?.error.as_deref()
    }

    fn output(&self) -> Value {
        serde_json::from_str(&self.result).unwrap_or(Value::Null)
    }
}

/// Types whose fields stand beside the summary, too.
const SPREAD: [&str; 2] = ["json_report", "alerts"];

/// The output of a flow; `None` while no step has given anything.
pub(in crate::api) fn compose(task: &Task, flow: &Flow, steps: &[StepRow]) -> Option<String> {
    if flow.mode == FlowMode::Copies {
        let winner = steps.iter().find(|step| step.state == StepState::Completed)?;
        return Some(winner.result.clone()).filter(|result| !result.is_empty());
    }
    let outputs: Vec<Value> = steps.iter().map(StepRow::output).collect();
    let last = outputs.iter().rev().find(|output| !output.is_null())?;
    let mut all = summary(task, flow, steps, &outputs);
    let data = last.get("data").cloned().unwrap_or_else(|| last.clone());
    let kind = last.get("type").and_then(Value::as_str).unwrap_or("text_result").to_owned();
    if SPREAD.contains(&kind.as_str())
        && let Value::Object(fields) = &data
    {
        for (key, value) in fields {
            all.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    all.insert("type".to_owned(), Value::String(kind));
    all.insert("data".to_owned(), data);
    Some(Value::Object(all).to_string())
}

fn data_of(output: &Value) -> Value {
    output.get("data").cloned().unwrap_or_else(|| output.clone())
}

fn summary(task: &Task, flow: &Flow, steps: &[StepRow], outputs: &[Value]) -> Map<String, Value> {
    let ended_ms = task.completed_at_ms.max(task.started_at_ms);
    let execution_ms = ended_ms.saturating_sub(task.started_at_ms);
    let count = |state: StepState| steps.iter().filter(|step| step.state == state).count();
    let completed = count(StepState::Completed);
    let given = |range: std::ops::Range<usize>| -> Vec<Value> {
        outputs[range].iter().filter(|output| !output.is_null()).map(data_of).collect()
    };
    let last = outputs.iter().rev().find(|output| !output.is_null()).map(data_of);
    let last = last.unwrap_or(Value::Null);
    let len = steps.len();
    let value = match flow.mode {
        FlowMode::Sequential => json!({
            "agents_executed": steps.iter().filter(|step| step.state.is_over() && step.task.is_some()).count(),
            "pipeline_successful": completed == len,
            "final_output": last,
            "pipeline_results": steps.iter().filter(|step| step.task.is_some()).map(|step| json!({
                "agent_type": step.agent_type, "status": step.state.as_str(),
                "execution_time_ms": step.execution_ms(),
            })).collect::<Vec<_>>(),
        }),
        FlowMode::Parallel | FlowMode::Copies => json!({
            "successful_agents": completed,
            "failed_agents": count(StepState::Failed),
            "results": given(0..len),
            "errors": steps.iter().filter(|step| step.state == StepState::Failed).map(|step| json!({
                "agent_id": step.agent_id(), "error": step.error(),
            })).collect::<Vec<_>>(),
        }),
        FlowMode::Hybrid => {
            let stage = Flow::first_stage(len);
            let first = given(0..stage);
            let last = if stage < len { last } else { json!(first) };
            json!({
                "stage1_results": first, "stage2_results": given(stage..len), "final_output": last,
            })
        }
        FlowMode::Graph => {
            let by_name = steps.iter().zip(outputs).filter(|(_, output)| !output.is_null());
            let by_name = by_name.map(|(step, output)| (step.name.clone(), data_of(output)));
            json!({ "steps": by_name.collect::<Map<_, _>>(), "final_output": last })
        }
    };
    let mut all = match value {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    all.insert("execution_mode".to_owned(), json!(flow.mode.as_str()));
    all.insert("execution_time_ms".to_owned(), json!(execution_ms));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::web4ai::task_view::tests::waiting;
    use crate::model::{StepSpec, TaskStatus};

    fn flow(mode: FlowMode, steps: &[(&str, StepState, &str)]) -> (Flow, Vec<StepRow>) {
        let spec = |name: &&str| StepSpec {
            name: (*name).to_owned(),
            agent_type: (*name).to_owned(),
            ..StepSpec::default()
        };
        let specs = steps.iter().map(|(name, _, _)| spec(name)).collect();
        let rows = steps.iter().map(|(name, state, result)| StepRow {
            name: (*name).to_owned(),
            agent_type: (*name).to_owned(),
            state: *state,
            task: Some(Task { execution_ms: 5, ..waiting() }),
            result: (*result).to_owned(),
        });
        (Flow::new(mode, specs), rows.collect())
    }

    fn composed(mode: FlowMode, steps: &[(&str, StepState, &str)]) -> Value {
        let (flow, rows) = flow(mode, steps);
        let task = Task {
            status: TaskStatus::Completed,
            started_at_ms: 1000,
            completed_at_ms: 1250,
            ..waiting()
        };
        serde_json::from_str(&compose(&task, &flow, &rows).unwrap()).unwrap()
    }

    const DONE: StepState = StepState::Completed;

    #[test]
    fn contract_4_5_sequential() {
        let output = composed(
            FlowMode::Sequential,
            &[
                ("data_ingest", DONE, r#"{"type":"ingested_data","data":{"count":2}}"#),
                ("synthesis", DONE, r#"{"type":"json_report","data":{"title":"T","type":"x"}}"#),
            ],
        );
        assert_eq!(output["execution_mode"], "sequential");
        assert_eq!(output["execution_time_ms"], 250);
        assert_eq!(
            (&output["agents_executed"], &output["pipeline_successful"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(output["pipeline_results"][0]["agent_type"], "data_ingest");
        assert_eq!(output["final_output"]["title"], "T");
        assert_eq!(output["type"], "json_report", "a field of the report does not hide it");
        assert_eq!(output["title"], "T", "a report's fields stand at the top, too");
        assert_eq!(output["data"]["title"], "T");
    }

    #[test]
    fn contract_4_5_parallel_hybrid_and_graph() {
        let one = r#"{"type":"a","data":1}"#;
        let two = r#"{"type":"b","data":2}"#;
        let output = composed(
            FlowMode::Parallel,
            &[("x", DONE, one), ("y", StepState::Failed, ""), ("z", DONE, two)],
        );
        assert_eq!(output["results"], json!([1, 2]));
        assert_eq!(
            (&output["successful_agents"], &output["failed_agents"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(output["errors"].as_array().unwrap().len(), 1);
        let output = composed(FlowMode::Hybrid, &[("x", DONE, one), ("y", DONE, two)]);
        assert_eq!(
            (&output["stage1_results"], &output["stage2_results"]),
            (&json!([1]), &json!([2]))
        );
        assert_eq!(output["final_output"], 2);
        let output = composed(FlowMode::Hybrid, &[("x", DONE, one)]);
        assert_eq!(output["final_output"], json!([1]), "with no second stage it is the first's");
        let output = composed(FlowMode::Graph, &[("x", DONE, one), ("y", DONE, two)]);
        assert_eq!(output["steps"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn copies_show_the_result_that_counts() {
        let (flow, rows) =
            flow(FlowMode::Copies, &[("a", StepState::Failed, ""), ("b", DONE, "[7]")]);
        assert_eq!(compose(&waiting(), &flow, &rows).as_deref(), Some("[7]"));
    }
}

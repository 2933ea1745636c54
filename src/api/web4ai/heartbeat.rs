//! A heartbeat: from a node's body to what the liveness book records (contract 2.3, 2.6).

use serde_json::value::RawValue;

use super::{load, register, report};
use crate::api::object::{FieldError, Object};
use crate::model::{Load, NodeId, NodeStatus, TaskId};
use crate::state::{LoadWeights, ROWS_PER_COMMAND_MAX, TaskReport};

/// A heartbeat that was understood.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// What the node says it is; `active` when it says nothing.
    pub(super) status: NodeStatus,
    /// Its figures, if it sent any.
    pub(super) load: Option<Load>,
    /// Ends of attempts that it reports along the way.
    pub(super) reports: Vec<TaskReport>,
}

/// Reads a heartbeat of `node_id`. `weights` are asked for only when it has figures and no score.
///
/// # Errors
/// [`FieldError`] naming what cannot be used.
pub(super) fn parse(
    node_id: &NodeId,
    body: &Object<'_>,
    weights: impl FnOnce() -> LoadWeights,
) -> Result<Heartbeat, FieldError> {
    let status = register::status(body)?;
    check_agents_status(body)?;
    let load = load::parse(body, &Object::default(), weights)?;
    let reports = body.list("completed_tasks")?;
    if reports.len() > ROWS_PER_COMMAND_MAX {
        return Err(FieldError::new("completed_tasks", "a list of at most 10000 reports"));
    }
    let read = |raw: &RawValue| report_of(node_id, raw);
    Ok(Heartbeat {
        status,
        load,
        reports: reports.into_iter().map(read).collect::<Result<_, _>>()?,
    })
}

/// Both shapes of contract 2.6 are objects, one of counts and one with a list in it. Neither
/// decides anything here: what agents there are was said at registration.
fn check_agents_status(body: &Object<'_>) -> Result<(), FieldError> {
    let agents = body.object("agents_status")?;
    agents.count("total_agents")?;
    agents.list("agent_list")?;
    Ok(())
}

fn report_of(node_id: &NodeId, raw: &RawValue) -> Result<TaskReport, FieldError> {
    let wanted = || FieldError::new("completed_tasks", "a list of objects with a task_id");
    let body = Object::of(raw).ok_or_else(wanted)?;
    let task_id = body.text("task_id")?.ok_or_else(wanted)?;
    let task_id = TaskId::parse(&task_id).map_err(|_| wanted())?;
    report::parse(task_id, Some(node_id), &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TaskOutcome;

    fn read(body: &str) -> Result<Heartbeat, FieldError> {
        let body = Object::parse(body.as_bytes()).unwrap();
        parse(&NodeId::trusted("n1"), &body, || crate::state::Policy::default().load_weights)
    }

    #[test]
    fn contract_2_6_both_shapes_of_agents_status() {
        let one = r#"{"node_id":"n1","status":"active","timestamp":"2026-01-01T00:00:00",
            "cpu_usage":3.0,"memory_usage":10.0,"load_score":0.63,"active_tasks":0,
            "agents_status":{"total_agents":2,"online_agents":2,"offline_agents":0,
                             "busy_agents":0,"error_agents":0},
            "performance_metrics":{"requests_per_minute":1},"health_status":"healthy"}"#;
        let heartbeat = read(one).unwrap();
        assert_eq!(heartbeat.status, NodeStatus::Active);
        assert_eq!(heartbeat.load.unwrap().score_milli, 6);
        let two = r#"{"status":"busy","cpu_usage":50,"memory_usage":50,"load_score":0.5,
            "tasks_running":3,"agents_status":{"total_agents":1,"active_agents":1,
            "agent_list":[{"agent_id":"a"}]}}"#;
        let load = read(two).unwrap().load.unwrap();
        assert_eq!((load.score_milli, load.active_tasks), (500, 3));
    }

    #[test]
    fn contract_2_3_everything_is_optional_but_not_anything() {
        let heartbeat = read("").unwrap();
        assert_eq!((heartbeat.status, heartbeat.load), (NodeStatus::Active, None));
        for body in [
            r#"{"status":"sleepy"}"#,
            r#"{"agents_status":3}"#,
            r#"{"completed_tasks":[{"status":"completed"}]}"#,
            r#"{"completed_tasks":{}}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn contract_2_7_completed_tasks_are_reports_of_this_node() {
        let body = r#"{"completed_tasks":[
            {"task_id":"t1","status":"completed","result":1,"execution_time":0.5},
            {"task_id":"t2","status":"failed","error":"e","attempt":2}]}"#;
        let reports = read(body).unwrap().reports;
        assert_eq!(reports.len(), 2);
        assert!(reports.iter().all(|report| report.node_id == Some(NodeId::trusted("n1"))));
        assert_eq!(reports[0].outcome, TaskOutcome::Completed { result: "1".to_owned() });
        assert_eq!(reports[1].attempt, Some(2));
    }
}

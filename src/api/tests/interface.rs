//! The gRPC interface against the table of contract 4.9, which clients and agents were generated from
//! before this program was there: names, numbers, types, streams, package.

const PROTO: &str = include_str!("../../../proto/orchestrator.proto");

/// Messages, and their fields in the order of their numbers, from 1.
const MESSAGES: [(&str, &str); 21] = [
    (
        "TaskRequest",
        "string task_id, string task_type, map<string, string> metadata, repeated Input inputs, \
         ExecutionMode execution_mode, int32 priority, int64 timeout_ms",
    ),
    (
        "Input",
        "string input_id, InputType type, bytes data, string url, map<string, string> metadata",
    ),
    (
        "TaskResponse",
        "string task_id, TaskStatus status, string message, int64 estimated_completion_ms",
    ),
    ("TaskStatusRequest", "string task_id"),
    (
        "TaskStatusResponse",
        "string task_id, TaskStatus status, repeated AgentExecution agent_executions, \
         Output output, Error error, TaskMetrics metrics",
    ),
    (
        "AgentExecution",
        "string agent_id, string agent_type, TaskStatus status, int64 start_time_ms, \
         int64 end_time_ms, string error_message",
    ),
    (
        "TaskUpdate",
        "string task_id, TaskStatus status, string agent_id, string message, \
         int32 progress_percent, int64 timestamp_ms",
    ),
    ("TaskCancelRequest", "string task_id, string reason"),
    ("TaskCancelResponse", "bool success, string message"),
    ("Output", "OutputType type, bytes data, string json_data, map<string, string> metadata"),
    ("Error", "string error_code, string message, string stack_trace, bool retryable"),
    (
        "TaskMetrics",
        "int64 total_duration_ms, int64 queue_time_ms, int64 execution_time_ms, \
         int32 retry_count, int32 agents_used",
    ),
    (
        "AgentTaskRequest",
        "string task_id, string agent_task_id, string agent_type, repeated Input inputs, \
         map<string, string> parameters, int64 timeout_ms",
    ),
    (
        "AgentTaskResponse",
        "string agent_task_id, TaskStatus status, Output output, Error error, \
         int64 execution_time_ms",
    ),
    (
        "AgentTaskUpdate",
        "string agent_task_id, TaskStatus status, string message, int32 progress_percent",
    ),
    (
        "AgentRegistration",
        "string agent_id, string agent_type, repeated string capabilities, string endpoint, \
         int32 max_concurrent_tasks, map<string, string> metadata",
    ),
    ("AgentRegistrationResponse", "bool success, string message, string registration_token"),
    ("HealthCheckRequest", "string service_id"),
    (
        "HealthCheckResponse",
        "bool healthy, string version, int64 uptime_seconds, map<string, string> stats",
    ),
    ("AgentHealthRequest", "string agent_id"),
    (
        "AgentHealthResponse",
        "bool healthy, int32 active_tasks, int32 completed_tasks, int32 failed_tasks, \
         float cpu_usage, float memory_usage",
    ),
];

/// Enumerations, and their words in the order of their numbers, from 0.
const ENUMS: [(&str, &str); 4] = [
    ("InputType", "TEXT, IMAGE, VIDEO, AUDIO, JSON, BINARY"),
    ("ExecutionMode", "PARALLEL, SEQUENTIAL, HYBRID"),
    ("TaskStatus", "PENDING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED, RETRYING"),
    ("OutputType", "JSON_REPORT, ALERT, BINARY_DATA, TEXT_RESULT"),
];

const SERVICES: [(&str, &str); 2] = [
    (
        "OrchestratorService",
        "SubmitTask(TaskRequest) returns (TaskResponse), \
         GetTaskStatus(TaskStatusRequest) returns (TaskStatusResponse), \
         StreamTaskUpdates(TaskStatusRequest) returns (stream TaskUpdate), \
         CancelTask(TaskCancelRequest) returns (TaskCancelResponse), \
         HealthCheck(HealthCheckRequest) returns (HealthCheckResponse)",
    ),
    (
        "AgentService",
        "ExecuteTask(AgentTaskRequest) returns (AgentTaskResponse), \
         StreamExecution(AgentTaskRequest) returns (stream AgentTaskUpdate), \
         RegisterAgent(AgentRegistration) returns (AgentRegistrationResponse), \
         AgentHealthCheck(AgentHealthRequest) returns (AgentHealthResponse)",
    ),
];

/// The statements of every block of one kind, without comments.
fn blocks(kind: &str) -> Vec<(String, Vec<String>)> {
    let lines = PROTO.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    let (mut found, mut open): (Vec<(String, Vec<String>)>, bool) = (Vec::new(), false);
    for line in lines.filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix(kind).and_then(|rest| rest.strip_suffix('{')) {
            found.push((name.trim().to_owned(), Vec::new()));
            open = true;
        } else if line == "}" {
            open = false;
        } else if open {
            let statement = line.strip_suffix(';').unwrap_or_else(|| panic!("{line}"));
            found.last_mut().unwrap().1.push(statement.to_owned());
        }
    }
    found
}

/// Checks that every block of `kind` is in the table, with these statements.
fn check(kind: &str, table: &[(&str, &str)], written: impl Fn(usize, &str) -> String) {
    let blocks = blocks(kind);
    assert_eq!(blocks.len(), table.len(), "{kind}");
    for (name, wanted) in table {
        let found = blocks.iter().find(|(its, _)| its == name);
        let (_, found) = found.unwrap_or_else(|| panic!("no {kind} {name}"));
        // A comma stands between the types of a map as well.
        let wanted = wanted.replace("map<string, string>", "map<string,string>");
        let wanted: Vec<_> = wanted
            .split(", ")
            .enumerate()
            .map(|(place, one)| {
                written(place, &one.replace("map<string,string>", "map<string, string>"))
            })
            .collect();
        assert_eq!(*found, wanted, "{kind} {name}");
    }
}

#[test]
fn contract_4_9_the_interface_is_what_existing_stubs_were_generated_from() {
    assert!(PROTO.contains("syntax = \"proto3\";") && PROTO.contains("\npackage orchestrator;\n"));
    check("message ", &MESSAGES, |place, field| format!("{field} = {}", place + 1));
    check("enum ", &ENUMS, |place, word| format!("{word} = {place}"));
    check("service ", &SERVICES, |_, method| format!("rpc {method}"));
}

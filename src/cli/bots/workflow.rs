//! `quorate workflow ...`: tasks for the services outside, one after another.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Page, print_line, print_page};
use crate::cli::Exit;
use crate::cli::exit::Failure;
use crate::cli::input::read_raw;
use crate::cli::output::{self, Output, Table, cell};
use crate::cli::progress;
use crate::client::{Answer, Call, Client, segment};

/// How often is looked whether it has ended.
const PERIOD: Duration = Duration::from_millis(500);
/// What a table shows of one result, in letters.
const RESULT_MAX: usize = 90;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Subcommand {
    /// Runs a workflow and waits for its end; Ctrl-C leaves it running
    Run {
        /// A task; may be repeated: TYPE, or TYPE=PARAMS with parameters as JSON, `@FILE` or `-`
        #[arg(long = "task", short = 't', value_name = "TYPE[=JSON]")]
        tasks: Vec<String>,
        /// All tasks as a list of {type, params}: JSON, `@FILE`, or `-` for standard input
        #[arg(long = "tasks", value_name = "JSON", conflicts_with = "tasks")]
        list: Option<String>,
        /// critical, high, normal or low: which of several is done first
        #[arg(long, default_value = "normal")]
        priority: String,
        /// Prints its id instead of waiting
        #[arg(long = "async")]
        at_once: bool,
        /// Shows how far it is while it runs
        #[arg(long, conflicts_with = "at_once")]
        watch: bool,
    },
    /// Lists workflows, the newest first
    List {
        /// running, completed or cancelled
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Shows a workflow and what came of its tasks
    Show {
        /// Its id
        id: String,
        /// Follows it until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Ends a workflow; the call that is under way is dropped
    Cancel {
        /// Its id
        id: String,
    },
}

fn path(id: &str) -> String {
    format!("/api/v1/workflows/{}", segment(id))
}

impl Subcommand {
    pub(in crate::cli) async fn run(
        self,
        client: Client,
        output: Output,
    ) -> Result<ExitCode, Failure> {
        match self {
            Self::Run { tasks, list, priority, at_once, watch } => {
                let tasks = read_tasks(&tasks, list.as_deref())?;
                let body = Wanted { tasks: &tasks, priority: &priority };
                // Waited for here, over any member: the call itself may end long before.
                let call = Call::post("/api/v1/orchestrate?async=true", &body);
                let made = client.call(call).await?;
                let id = cell(&made.body, "/workflow_id");
                if at_once {
                    print_line(output, &made, &id);
                    return Ok(ExitCode::SUCCESS);
                }
                if watch {
                    let code = progress::workflow(&client, output, &id).await?;
                    if output != Output::Json {
                        output::line("");
                        show(output, &client.call(Call::get(path(&id))).await?);
                    }
                    return Ok(code);
                }
                finish(&client, output, &id).await
            }
            Self::List { status, page } => {
                let status =
                    status.map_or_else(String::new, |word| format!("&status={}", segment(&word)));
                let query = format!("/api/v1/workflows?{}{status}", page.query());
                let columns = [
                    ("ID", "/workflow_id"),
                    ("STATUS", "/status"),
                    ("DONE", "/tasks_executed"),
                    ("TASKS", "/total_tasks"),
                    ("PRIORITY", "/priority"),
                    ("CREATED", "/created_at"),
                    ("ENDED", "/completed_at"),
                ];
                let answer = client.call(Call::get(query)).await?;
                print_page(output, &answer, "workflows", &columns);
                Ok(ExitCode::SUCCESS)
            }
            Self::Show { id, watch: true } => progress::workflow(&client, output, &id).await,
            Self::Show { id, watch: false } => {
                show(output, &client.call(Call::get(path(&id))).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Cancel { id } => {
                let ended = client.call(Call::delete(path(&id))).await?;
                let line = format!("{id} is {}", cell(&ended.body, "/status"));
                print_line(output, &ended, &line);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// A workflow that is to be made.
#[derive(Debug, Serialize)]
struct Wanted<'a> {
    tasks: &'a RawValue,
    priority: &'a str,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    r#type: &'a str,
    params: Box<RawValue>,
}

/// The tasks as a JSON list, with parameters as they were given.
fn read_tasks(given: &[String], list: Option<&str>) -> Result<Box<RawValue>, Failure> {
    if let Some(list) = list {
        let tasks = read_raw(list)?;
        return match tasks.get().starts_with('[') {
            true => Ok(tasks),
            false => Err(Failure::usage("--tasks must be a JSON list of {type, params}")),
        };
    }
    let task = |given| {
        let (r#type, params) = str::split_once(given, '=').unwrap_or((given, "{}"));
        Ok(Task { r#type, params: read_raw(params)? })
    };
    let tasks = given.iter().map(String::as_str).map(task).collect::<Result<Vec<_>, Failure>>()?;
    let tasks = serde_json::value::to_raw_value(&tasks);
    Ok(tasks.expect("texts and JSON are always JSON"))
}

/// Waits for the end and prints it.
async fn finish(client: &Client, output: Output, id: &str) -> Result<ExitCode, Failure> {
    let ended = async {
        loop {
            let answer = client.call(Call::get(path(id))).await?;
            if cell(&answer.body, "/status") != "running" {
                return Ok::<_, Failure>(answer);
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::select! {
        answer = ended => {
            let answer = answer?;
            show(output, &answer);
            Ok(end_of(&answer.body).unwrap_or(ExitCode::SUCCESS))
        }
        _ = tokio::signal::ctrl_c() => {
            output::talk(&format!("{id} goes on"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// How the program ends when a workflow has; `None` while it runs.
pub(in crate::cli) fn end_of(body: &Value) -> Option<ExitCode> {
    match cell(body, "/status").as_str() {
        "running" => None,
        "completed" => Some(ExitCode::SUCCESS),
        _ => Some(Exit::Failed.into()),
    }
}

/// Its tasks: number, type, where it stands, what came of it.
pub(in crate::cli) fn tasks(body: &Value) -> Vec<[String; 4]> {
    let tasks = body.get("tasks").and_then(Value::as_array);
    let row = |(place, task): (usize, &Value)| {
        let result = cell(body, &format!("/results/{place}/result"));
        let result: String = result.chars().take(RESULT_MAX).collect();
        let failed = body.pointer(&format!("/results/{place}/result/error")).is_some();
        let status = if failed { "error".to_owned() } else { cell(task, "/status") };
        [(place + 1).to_string(), cell(task, "/task_type"), status, result]
    };
    tasks.into_iter().flatten().enumerate().map(row).collect()
}

fn show(output: Output, answer: &Answer) {
    if output == Output::Json {
        output::json_text(&answer.text);
        return;
    }
    let body = &answer.body;
    let fields = [
        ("workflow", "/workflow_id"),
        ("status", "/status"),
        ("tasks done", "/tasks_executed"),
        ("priority", "/priority"),
        ("created", "/created_at"),
        ("ended", "/completed_at"),
    ];
    output::print_fields(output::cells(body, &fields));
    let tasks = tasks(body);
    if !tasks.is_empty() {
        let mut table = Table::new(&["TASK", "TYPE", "STATUS", "RESULT"]);
        tasks.into_iter().for_each(|row| table.row(row));
        output::line("");
        table.print();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tasks_are_types_with_parameters() {
        let given = ["a".to_owned(), r#"b={"x":"y=z"}"#.to_owned()];
        let wanted = r#"[{"type":"a","params":{}},{"type":"b","params":{"x":"y=z"}}]"#;
        assert_eq!(read_tasks(&given, None).unwrap().get(), wanted);
        assert_eq!(read_tasks(&[], Some("[]")).unwrap().get(), "[]");
        let long = ["a=[123456789012345678901234567890, 0.10]".to_owned()];
        let wanted = r#"[{"type":"a","params":[123456789012345678901234567890, 0.10]}]"#;
        assert_eq!(read_tasks(&long, None).unwrap().get(), wanted);
        for (given, list) in [("a=x", None), ("a", Some("{}")), ("a", Some("["))] {
            let said = read_tasks(&[given.to_owned()], list).unwrap_err();
            assert_eq!(said.exit(), Exit::Usage);
        }
    }

    #[test]
    fn a_dead_service_is_seen_beside_the_others() {
        let body = json!({
            "status": "completed",
            "tasks": [{"task_type": "a", "status": "completed"},
                {"task_type": "b", "status": "completed"}],
            "results": [{"task_type": "a", "result": {"ok": 1}},
                {"task_type": "b", "result": {"error": "dead"}}],
        });
        let rows = tasks(&body);
        assert_eq!(rows[0], ["1", "a", "completed", r#"{"ok":1}"#].map(str::to_owned));
        assert_eq!(rows[1][2], "error");
        assert_eq!(format!("{:?}", end_of(&body)), format!("{:?}", Some(ExitCode::SUCCESS)));
        assert!(end_of(&json!({"status": "running"})).is_none());
    }
}

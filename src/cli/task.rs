//! `quorate task ...`: work.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::exit::Failure;
use super::input::{read_raw, read_text};
use super::output::{self, Output, Table, cell, cells, time};
use crate::client::{Answer, Call, Client, segment};

/// The most tasks one request may carry.
const BATCH_MAX: usize = 10_000;
/// What they may have in all, in bytes, unless one has more: well below what members take.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a waiting command looks: at first, and at last.
const POLL_MIN: Duration = Duration::from_millis(50);
const POLL_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Submits a task
    Submit(Box<SubmitArgs>),
    /// Submits many tasks: a JSON array, or one JSON object per line
    Batch {
        /// A file; `-` for standard input
        #[arg(default_value = "-")]
        file: String,
    },
    /// Lists tasks
    List {
        /// pending, active, completed or failed
        #[arg(long)]
        status: Option<String>,
        /// The most rows per list
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Rows to pass over
        #[arg(long, default_value_t = 0)]
        offset: u32,
    },
    /// Shows a task
    Get {
        /// Its id
        task_id: String,
    },
    /// Cancels a task
    Cancel {
        /// Its id
        task_id: String,
    },
    /// Prints a task's result; with --complete or --fail, reports one in a node's place
    Result(ResultArgs),
    /// Waits until a task ends; exit code 1 unless it completed
    Wait {
        /// Its id
        task_id: String,
        /// Gives up after so many seconds
        #[arg(long, default_value_t = 300.0)]
        timeout: f64,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct SubmitArgs {
    /// What to do
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    task_type: String,
    /// What to work on: JSON, `@FILE`, or `-` for standard input
    #[arg(long, short, default_value = "null")]
    input: String,
    /// What the first agents of a pipeline work on: a list of {type, data or url}, as --input
    #[arg(long, conflicts_with = "input")]
    inputs: Option<String>,
    /// How its agents go about it: sequential, parallel or hybrid [default: the pipeline's]
    #[arg(long)]
    mode: Option<String>,
    /// Its id; submitting an id twice creates one task
    #[arg(long)]
    id: Option<String>,
    /// 1 to 5, or critical, high, normal, low, background
    #[arg(long, default_value = "normal")]
    priority: String,
    /// A capability its node must have; may be repeated
    #[arg(long = "require", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Seconds one attempt may take
    #[arg(long)]
    timeout: Option<f64>,
    /// Attempts after the first
    #[arg(long)]
    max_retries: Option<u32>,
    /// Waits for its end and prints the result
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResultArgs {
    /// Its id
    task_id: String,
    /// Reports that it completed, with this result: JSON, `@FILE` or `-`
    #[arg(long, value_name = "JSON", conflicts_with = "fail")]
    complete: Option<String>,
    /// Reports that it failed, and why
    #[arg(long, value_name = "TEXT")]
    fail: Option<String>,
    /// The node that worked on it
    #[arg(long)]
    node: Option<String>,
    /// Which attempt
    #[arg(long)]
    attempt: Option<u32>,
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Submit(args) => submit(&client, output, *args).await,
            Self::Batch { file } => batch(&client, output, &file).await,
            Self::List { status, limit, offset } => {
                let status =
                    status.map_or_else(String::new, |s| format!("&status={}", segment(&s)));
                let query = format!("/api/v1/tasks?limit={limit}&offset={offset}{status}");
                list(output, &client.call(Call::get(query)).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Get { task_id } => {
                let shown = client.call(Call::get(path(&task_id, ""))).await?;
                match output {
                    Output::Json => output::json_text(&shown.text),
                    Output::Table => output::print_fields(cells(&shown.body, &TASK_FIELDS)),
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Cancel { task_id } => {
                let body = client.call(Call::delete(path(&task_id, ""))).await?.body;
                done(output, &body, &format!("{task_id} is cancelled"));
                Ok(ExitCode::SUCCESS)
            }
            Self::Result(args) => result(&client, output, args).await,
            Self::Wait { task_id, timeout } => wait(&client, output, &task_id, timeout).await,
        }
    }
}

const TASK_FIELDS: [(&str, &str); 15] = [
    ("task", "/task/task_id"),
    ("type", "/task/task_type"),
    ("status", "/task/status"),
    ("priority", "/task/priority"),
    ("node", "/task/node_id"),
    ("assigned", "/task/assigned_nodes"),
    ("retries", "/task/retry_count"),
    ("max retries", "/task/max_retries"),
    ("timeout s", "/task/timeout"),
    ("created", "/task/created_at"),
    ("started", "/task/started_at"),
    ("ended", "/task/completed_at"),
    ("ran s", "/task/execution_time"),
    ("result", "/task/result_data"),
    ("error", "/task/error_message"),
];

fn path(task_id: &str, rest: &str) -> String {
    format!("/api/v1/tasks/{}{rest}", segment(task_id))
}

fn done(output: Output, body: &Value, text: &str) {
    match output {
        Output::Json => output::json(body),
        Output::Table => output::line(text),
    }
}

/// A task as family W reads it; what it works on goes on as it was given.
#[derive(Debug, Serialize)]
struct Submission {
    task_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_mode: Option<String>,
    priority: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requirements: Option<Value>,
}

async fn submit(client: &Client, output: Output, args: SubmitArgs) -> Result<ExitCode, Failure> {
    // A number stays a number: family W reads both.
    let priority = args.priority.parse().map_or_else(|_| json!(args.priority), |n: i64| json!(n));
    let needs =
        (!args.capabilities.is_empty()).then(|| json!({ "capabilities": args.capabilities }));
    let inputs = args.inputs.as_deref().map(read_raw).transpose()?;
    let body = Submission {
        task_type: args.task_type,
        input_data: if inputs.is_none() { Some(read_raw(&args.input)?) } else { None },
        inputs,
        execution_mode: args.mode,
        priority,
        task_id: args.id,
        timeout: args.timeout,
        max_retries: args.max_retries,
        requirements: needs,
    };
    let reply = client.call(Call::post("/api/v1/tasks", &body)).await?.body;
    let task_id = cell(&reply, "/task_id");
    if args.wait {
        output::talk(&format!("submitted {task_id}"));
        return wait(client, output, &task_id, 300.0).await;
    }
    done(output, &reply, &task_id);
    Ok(ExitCode::SUCCESS)
}

async fn batch(client: &Client, output: Output, file: &str) -> Result<ExitCode, Failure> {
    let tasks = parse_batch(&read_text(file)?)?;
    let (mut replies, mut submitted) = (Vec::new(), 0);
    // Each part is taken whole or not at all; parts before a refused one stay submitted.
    for part in parts(&tasks) {
        let body = BTreeMap::from([("tasks", part)]);
        let reply = client.call(Call::post("/api/v1/tasks/batch", &body)).await;
        if reply.is_err() && submitted > 0 {
            output::talk(&format!("{submitted} tasks were submitted before"));
        }
        replies.push(reply?.body);
        submitted += part.len();
    }
    match output {
        Output::Json if replies.len() == 1 => output::json(&replies[0]),
        Output::Json => output::json(&Value::from(replies)),
        Output::Table => output::line(&format!("submitted {} tasks", tasks.len())),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is sent with one request each.
fn parts(mut tasks: &[Box<RawValue>]) -> Vec<&[Box<RawValue>]> {
    let mut parts = Vec::new();
    while !tasks.is_empty() {
        let mut bytes = 0;
        let mut fits = |text: &str| {
            bytes += text.len() + 1;
            bytes <= BATCH_BYTES_MAX
        };
        let count = tasks.iter().take(BATCH_MAX).take_while(|task| fits(task.get())).count();
        let count = count.max(1);
        let (part, rest) = tasks.split_at(count);
        parts.push(part);
        tasks = rest;
    }
    parts
}

fn parse_batch(text: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    let tasks: Vec<Box<RawValue>> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| Failure::usage(format!("not JSON: {error}")))?
    } else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(n, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| Failure::usage(format!("line {}: {error}", n + 1)))
        };
        lines.map(parse).collect::<Result<_, _>>()?
    };
    if tasks.is_empty() {
        return Err(Failure::usage("there are no tasks"));
    }
    Ok(tasks)
}

fn list(output: Output, answer: &Answer) {
    if output == Output::Json {
        output::json_text(&answer.text);
        return;
    }
    let body = &answer.body;
    let mut table = Table::new(&["TASK", "TYPE", "STATUS", "PRIORITY", "NODE", "AT", "ERROR"]);
    for bucket in ["pending", "active", "completed", "failed"] {
        let rows = body.pointer(&format!("/tasks/{bucket}")).and_then(Value::as_array);
        for task in rows.into_iter().flatten() {
            // Rows of waiting tasks have no status of their own: the list is their status.
            let status = task.get("status").and_then(Value::as_str).unwrap_or(bucket);
            let node = [cell(task, "/node_id"), cell(task, "/assigned_nodes")];
            let ended = task.get("completed_at").is_some_and(|at| !at.is_null());
            table.row([
                cell(task, "/task_id"),
                cell(task, "/task_type"),
                status.to_owned(),
                cell(task, "/priority"),
                node.into_iter().find(|node| node != "-").unwrap_or_else(|| "-".to_owned()),
                time(task, if ended { "/completed_at" } else { "/created_at" }),
                cell(task, "/error_message").chars().take(60).collect(),
            ]);
        }
    }
    table.print();
    let count = |name: &str| cell(body, &format!("/summary/{name}_count"));
    output::talk(&format!(
        "{} pending, {} active, {} completed, {} failed",
        count("pending"),
        count("active"),
        count("completed"),
        count("failed"),
    ));
}

/// What came of a task, told in a node's place.
#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

async fn result(client: &Client, output: Output, args: ResultArgs) -> Result<ExitCode, Failure> {
    let (status, result) = match (&args.complete, &args.fail) {
        (Some(result), _) => ("completed", Some(read_raw(result)?)),
        (None, Some(_)) => ("failed", None),
        (None, None) => {
            let ended = client.call(Call::get(path(&args.task_id, ""))).await?;
            return Ok(print_end(output, &args.task_id, &ended));
        }
    };
    let (error, node_id, attempt) = (args.fail, args.node, args.attempt);
    let report = Report { status, result, error, node_id, attempt };
    let body = client.call(Call::post(path(&args.task_id, "/result"), &report)).await?.body;
    done(output, &body, "recorded");
    Ok(ExitCode::SUCCESS)
}

async fn wait(
    client: &Client,
    output: Output,
    task_id: &str,
    timeout: f64,
) -> Result<ExitCode, Failure> {
    let timeout = Duration::try_from_secs_f64(timeout)
        .map_err(|error| Failure::usage(format!("--timeout: {error}")))?;
    let until = Instant::now() + timeout;
    let mut pause = POLL_MIN;
    loop {
        let shown = client.call(Call::get(path(task_id, ""))).await?;
        let body = &shown.body;
        if is_over(body) {
            return Ok(print_end(output, task_id, &shown));
        }
        if Instant::now() + pause > until {
            let status = cell(body, "/task/status");
            return Err(Failure::failed(format!("{task_id} is still {status}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

fn is_over(body: &Value) -> bool {
    let status = body.pointer("/task/status").and_then(Value::as_str).unwrap_or_default();
    ["completed", "failed", "timeout", "cancelled"].contains(&status)
}

/// Prints the result alone, so that it can be piped on; the rest is talk.
fn print_end(output: Output, task_id: &str, ended: &Answer) -> ExitCode {
    let body = &ended.body;
    let status = cell(body, "/task/status");
    let completed = status == "completed";
    match output {
        Output::Json => output::json_text(&ended.text),
        Output::Table if completed => output::json_text(result_of(&ended.text).as_bytes()),
        Output::Table => {
            let error = cell(body, "/task/error_message");
            output::talk(&format!("{task_id} is {status}: {error}"));
        }
    }
    if completed { ExitCode::SUCCESS } else { super::Exit::Failed.into() }
}

/// The result in the text of a task, as it is there; null when there is none.
fn result_of(text: &[u8]) -> &str {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        task: Task<'a>,
    }
    #[derive(Deserialize)]
    struct Task<'a> {
        #[serde(borrow)]
        result_data: Option<&'a RawValue>,
    }
    let body = serde_json::from_slice::<Body<'_>>(text).ok();
    body.and_then(|body| body.task.result_data).map_or("null", RawValue::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_arrays_or_lines() {
        assert_eq!(parse_batch("[{}, {}]").unwrap().len(), 2);
        assert_eq!(parse_batch("{\"a\":1}\n\n{\"a\":2}\n").unwrap()[1].get(), r#"{"a":2}"#);
        let exact = r#"{"a":123456789012345678901234567890.50}"#;
        assert_eq!(parse_batch(&format!(" [{exact}]")).unwrap()[0].get(), exact);
        assert!(parse_batch("{}\nx\n").unwrap_err().to_string().starts_with("line 2"));
        assert!(parse_batch(" ").is_err());
    }

    #[test]
    fn batches_are_sent_in_parts_that_members_take() {
        let counts = |sizes: &[usize]| {
            let task = |size: &usize| RawValue::from_string("1".repeat(*size)).unwrap();
            let tasks: Vec<_> = sizes.iter().map(task).collect();
            parts(&tasks).iter().map(|part| part.len()).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[1; 3]), [3]);
        assert_eq!(counts(&vec![1; BATCH_MAX + 1]), [BATCH_MAX, 1]);
        let half = BATCH_BYTES_MAX / 2;
        assert_eq!(counts(&[half - 1, half - 1, half, BATCH_BYTES_MAX + 1, 1]), [2, 1, 1, 1]);
    }

    #[test]
    fn a_result_is_printed_with_all_its_digits() {
        let text =
            br#"{"success":true,"task":{"a":1,"result_data":[12345678901234567890123, 0.10]}}"#;
        assert_eq!(result_of(text), "[12345678901234567890123, 0.10]");
        for text in [&b"{}"[..], br#"{"task":{}}"#, br#"{"task":{"result_data":null}}"#, b""] {
            assert_eq!(result_of(text), "null");
        }
    }

    #[test]
    fn only_ended_tasks_are_over() {
        for (status, over) in
            [("pending", false), ("queued", false), ("running", false), ("timeout", true)]
        {
            assert_eq!(is_over(&json!({"task": {"status": status}})), over, "{status}");
        }
    }
}

//! `quorate node ...`: the fleet that executes tasks.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{self, Output, Table, answer, cell, time};
use crate::client::{Call, Client, segment};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Lists nodes
    List {
        /// Only nodes of this status
        #[arg(long)]
        status: Option<String>,
    },
    /// Shows a node
    Get {
        /// Its id
        node_id: String,
    },
    /// Registers a node, or registers it again
    Register {
        /// Its id
        node_id: String,
        /// Where it is dispatched to
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
        /// Port beside --host
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// What kind of node it is
        #[arg(long = "type", default_value = "worker")]
        node_type: String,
        /// What it can do; may be repeated
        #[arg(long = "capability", value_delimiter = ',')]
        capabilities: Vec<String>,
        /// The most tasks it takes at once
        #[arg(long)]
        capacity: Option<u32>,
    },
    /// Sets a node's status
    Status {
        /// Its id
        node_id: String,
        /// active, degraded, maintenance, offline or error
        status: String,
    },
    /// Takes a node out; its tasks run elsewhere
    Remove {
        /// Its id
        node_id: String,
    },
    /// Sends a heartbeat in a node's name
    Heartbeat {
        /// Its id
        node_id: String,
        /// What it says of itself
        #[arg(long, default_value = "active")]
        status: String,
    },
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        let path = |node_id: &str, rest: &str| format!("/api/v1/nodes/{}{rest}", segment(node_id));
        let call = match self {
            Self::List { status } => return list(&client, output, status.as_deref()).await,
            Self::Get { node_id } => return get(&client, output, &path(&node_id, "")).await,
            Self::Register { node_id, host, port, node_type, capabilities, capacity } => {
                let mut body = json!({
                    "host": host, "port": port, "node_type": node_type,
                    "capabilities": capabilities,
                });
                if let Some(capacity) = capacity {
                    body["capacity"] = json!(capacity);
                }
                Call::post(path(&node_id, "/register"), &body)
            }
            Self::Status { node_id, status } => {
                Call::put(path(&node_id, "/status"), &json!({ "status": status }))
            }
            Self::Remove { node_id } => Call::delete(path(&node_id, "")),
            Self::Heartbeat { node_id, status } => {
                Call::post(path(&node_id, "/heartbeat"), &json!({ "status": status }))
            }
        };
        let body = client.call(call).await?.body;
        match output {
            Output::Json => output::json(&body),
            Output::Table => output::line(&cell(&body, "/message")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(client: &Client, output: Output, status: Option<&str>) -> Result<ExitCode, Failure> {
    let mut body = client.get("/api/v1/nodes").await?;
    if let (Some(status), Some(nodes)) =
        (status, body.get_mut("nodes").and_then(Value::as_object_mut))
    {
        nodes.retain(|_, node| node.get("status").is_some_and(|word| word == status));
    }
    if output == Output::Json {
        output::json(&body);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "NODE",
        "STATUS",
        "ADDRESS",
        "TYPE",
        "CAPABILITIES",
        "LOAD",
        "CPU",
        "HEARTBEAT",
    ]);
    for node in body.get("nodes").and_then(Value::as_object).into_iter().flat_map(|n| n.values()) {
        table.row([
            cell(node, "/node_id"),
            cell(node, "/status"),
            format!("{}:{}", cell(node, "/host"), cell(node, "/port")),
            cell(node, "/node_type"),
            cell(node, "/capabilities"),
            cell(node, "/load_score"),
            cell(node, "/cpu_usage"),
            time(node, "/last_heartbeat"),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn get(client: &Client, output: Output, path: &str) -> Result<ExitCode, Failure> {
    let body = client.get(path).await?;
    let fields = [
        ("node", "/node/node_id"),
        ("status", "/node/status"),
        ("host", "/node/host"),
        ("port", "/node/port"),
        ("type", "/node/node_type"),
        ("capabilities", "/node/capabilities"),
        ("capacity", "/node/capacity"),
        ("load", "/node/load_score"),
        ("cpu %", "/node/cpu_usage"),
        ("memory %", "/node/memory_usage"),
        ("reliability", "/node/reliability_score"),
        ("completed", "/node/tasks_completed"),
        ("failed", "/node/tasks_failed"),
        ("uptime s", "/node/uptime"),
        ("version", "/node/version"),
    ];
    answer(output, &body, &fields);
    Ok(ExitCode::SUCCESS)
}

//! `quorate cluster ...`: the members and their leader.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{self, Output, Table, cell};
use crate::client::{Call, Client};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Makes the member at --url found a cluster, once
    Init {
        /// `host:port` of waiting members that found it together with that one; may be repeated
        #[arg(long = "peer", value_delimiter = ',')]
        peers: Vec<String>,
    },
    /// Shows members, roles and how far each has come
    Status,
    /// Lists members
    Members,
    /// Makes the member at --url join a cluster, as a learner; it votes once it has caught up
    Join {
        /// `host:port` of peers that belong to the cluster
        #[arg(required = true, value_delimiter = ',')]
        peers: Vec<String>,
    },
    /// Makes a learner a voter
    Promote {
        /// Its number
        member: u64,
    },
    /// Makes a voter a learner
    Demote {
        /// Its number
        member: u64,
    },
    /// Takes a member out for good; its number is never used again
    Remove {
        /// Its number
        member: u64,
    },
    /// Hands leadership over
    TransferLeader {
        /// Who shall lead; without, the most advanced voter
        #[arg(long)]
        to: Option<u64>,
    },
    /// Makes the member at --url take a snapshot now
    Snapshot,
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        let base = "/api/v1/cluster";
        let call = match self {
            Self::Status => return status(&client, output).await,
            Self::Members => return members(&client, output).await,
            Self::Init { peers } => Call::post(format!("{base}/init"), &json!({ "peers": peers })),
            Self::Join { peers } => Call::post(format!("{base}/join"), &json!({ "peers": peers })),
            Self::Promote { member } => {
                Call::post(format!("{base}/members/{member}/promote"), &json!({}))
            }
            Self::Demote { member } => {
                Call::post(format!("{base}/members/{member}/demote"), &json!({}))
            }
            Self::Remove { member } => Call::delete(format!("{base}/members/{member}")),
            Self::TransferLeader { to } => {
                let to = to.map(|member| member.to_string());
                Call::post(format!("{base}/transfer-leader"), &json!({ "to": to }))
            }
            Self::Snapshot => Call::post(format!("{base}/snapshot"), &json!({})),
        };
        let answer = client.call(call).await?;
        match output {
            Output::Json => output::json(&answer.body),
            Output::Table => output::line(&cell(&answer.body, "/message")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn status(client: &Client, output: Output) -> Result<ExitCode, Failure> {
    let status = client.get("/api/v1/cluster").await?;
    if output == Output::Json {
        output::json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let leader = match status.get("leader").filter(|leader| !leader.is_null()) {
        Some(leader) => format!("member {leader} leads"),
        None => "nobody leads".to_owned(),
    };
    output::line(&format!(
        "cluster {}: {leader}, term {}, epoch {}; quorum {}, {} may fail",
        cell(&status, "/cluster_id"),
        cell(&status, "/term"),
        cell(&status, "/epoch"),
        cell(&status, "/quorum"),
        cell(&status, "/failure_tolerance"),
    ));
    let mut table = Table::new(&[
        "ID",
        "ROLE",
        "STATE",
        "APPLIED",
        "LAG",
        "LAST LOG",
        "CONTACT MS",
        "DIGEST",
        "HTTP",
    ]);
    for member in members_of(&status) {
        let fields = ["id", "role", "state", "applied", "lag", "last_log", "last_contact_ms"];
        let mut row: Vec<String> =
            fields.iter().map(|field| cell(member, &format!("/{field}"))).collect();
        row.push(short_digest(member));
        row.push(cell(member, "/http"));
        table.row(row);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn members(client: &Client, output: Output) -> Result<ExitCode, Failure> {
    let status = client.get("/api/v1/cluster").await?;
    if output == Output::Json {
        output::json(status.get("members").unwrap_or(&Value::Null));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["ID", "NAME", "ROLE", "STATE", "PEER", "HTTP", "GRPC", "VERSION"]);
    for member in members_of(&status) {
        let fields = ["id", "name", "role", "state", "peer", "http", "grpc", "version"];
        table.row(fields.iter().map(|field| cell(member, &format!("/{field}"))));
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

fn members_of(status: &Value) -> impl Iterator<Item = &Value> {
    status.get("members").and_then(Value::as_array).into_iter().flatten()
}

/// Enough of the digest to see whether two members differ.
fn short_digest(member: &Value) -> String {
    cell(member, "/digest").chars().take(10).collect()
}

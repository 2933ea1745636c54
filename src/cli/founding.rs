//! What `recover apply` and `backup restore` share: the first member of a new cluster, in words and
//! figures.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{self, Output};
use crate::storage::{FirstSeat, Founded, LogId};

/// The first member of the new cluster.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Seat {
    /// Where its data directory is made; must be empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Its name, as `cluster.name` in its file will say
    #[arg(long, value_name = "NAME")]
    member: String,
    /// `host:port` at which other members will reach it
    #[arg(long, value_name = "ADDR", value_parser = address)]
    peer: String,
    /// `host:port` of its REST API
    #[arg(long, value_name = "ADDR", value_parser = address)]
    http: String,
    /// `host:port` of its gRPC API, if it has one
    #[arg(long, value_name = "ADDR", value_parser = address)]
    grpc: Option<String>,
    /// Does it; without this, it is only said what would be done
    #[arg(long)]
    pub(super) yes: bool,
}

fn address(text: &str) -> Result<String, String> {
    let whole = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if whole { Ok(text.to_owned()) } else { Err("must be host:port".to_owned()) }
}

impl Seat {
    pub(super) fn first(&self) -> FirstSeat {
        FirstSeat {
            name: self.member.clone(),
            peer_addr: self.peer.clone(),
            http_addr: self.http.clone(),
            grpc_addr: self.grpc.clone().unwrap_or_default(),
        }
    }

    /// Ends without having done anything, because `--yes` was not given.
    pub(super) fn not_done(&self) -> Failure {
        Failure::failed(format!(
            "nothing was written; the same command with --yes makes {}",
            self.to.display()
        ))
    }
}

/// Prints what was made and what comes next.
pub(super) fn founded(output: Output, seat: &Seat, founded: &Founded) -> ExitCode {
    if output == Output::Json {
        output::json(&json!({
            "data_dir": seat.to,
            "cluster_id": format!("{:032x}", founded.cluster_id),
            "old_cluster_id": format!("{:032x}", founded.old_cluster_id),
            "member_id": founded.member_id,
            "incarnation": format!("{:016x}", founded.incarnation),
            "term": founded.term,
            "index": founded.index,
            "old_end": { "term": founded.old_end.0, "index": founded.old_end.1 },
            "tasks": founded.tasks,
            "open": founded.refounded.open,
            "requeued": founded.refounded.requeued,
            "digest": founded.digest.to_string(),
        }));
        return ExitCode::SUCCESS;
    }
    output::line(&format!(
        "{}: member {} of the new cluster {:032x}",
        seat.to.display(),
        founded.member_id,
        founded.cluster_id
    ));
    output::line(&format!(
        "state of cluster {:032x} up to term {}, index {}: {} tasks, {} of them open, {} executions \
         taken back",
        founded.old_cluster_id,
        founded.old_end.0,
        founded.old_end.1,
        founded.tasks,
        founded.refounded.open,
        founded.refounded.requeued
    ));
    output::line(&format!(
        "goes on in term {}, at index {}; digest {}",
        founded.term, founded.index, founded.digest
    ));
    output::talk(&format!(
        "Next: start it with cluster.name: {} and cluster.data_dir: {}. Start every other member on \
         an empty directory with bootstrap_expect: 0, join: true, peers: [\"{}\"]; members on old \
         directories are refused.",
        seat.member,
        seat.to.display(),
        seat.peer
    ));
    ExitCode::SUCCESS
}

/// A place in a log.
pub(super) fn place(id: Option<LogId>) -> Value {
    match id {
        None => Value::Null,
        Some(id) => json!({ "term": id.leader_id.term, "index": id.index }),
    }
}

/// As [`place`], for people: `term/index`.
pub(super) fn short(id: Option<LogId>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("{}/{}", id.leader_id.term, id.index))
}

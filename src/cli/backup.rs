//! `quorate backup ...`: copies of the whole state, made from a running cluster, checked and
//! restored without one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::founding::{self, Seat};
use super::output::{self, Output, Table, cell};
use crate::client::{Client, ClientError};
use crate::storage::{BackupDir, BackupInfo, BackupReceiver, Rehearsal, rehearse, restore_into};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Reads a backup from a member into a file; needs the admin key
    Create {
        /// The file; must not be there yet
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Takes what the member has, also when nobody leads; it may be behind
        #[arg(long)]
        local: bool,
    },
    /// Lists the backups that the schedule wrote on the member at --url
    List,
    /// Says what a backup is of; reads its headers only
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Checks every byte of a backup, loads it into a scratch state and compares digests
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Verifies the newest backup in a directory that the schedule writes into
    Rehearse {
        /// The directory
        dir: PathBuf,
    },
    /// Makes the data directory of the first member of a new cluster from a backup
    Restore {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        seat: Seat,
    },
}

impl Subcommand {
    pub(super) fn needs_cluster(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::List)
    }

    pub(super) fn run_here(self, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Inspect { file } => {
                let info = BackupInfo::read(&file).map_err(Failure::failed)?;
                show(output, &describe(&info));
            }
            Self::Verify { file } => verify(output, &file)?,
            Self::Rehearse { dir } => {
                let kept = BackupDir::look(&dir);
                let names = kept.names().map_err(Failure::failed)?;
                let newest = names.last();
                let none = || Failure::failed(format!("no backup in {}", dir.display()));
                verify(output, &kept.path(newest.ok_or_else(none)?))?;
            }
            Self::Restore { file, seat } if !seat.yes => {
                verify(output, &file)?;
                return Err(seat.not_done());
            }
            Self::Restore { file, seat } => {
                let founded = restore_into(&file, &seat.first(), &seat.to);
                return Ok(founding::founded(output, &seat, &founded.map_err(Failure::failed)?));
            }
            Self::Create { .. } | Self::List => {
                return Err(Failure::usage("this needs a member: name one with --url"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Create { file, local } => create(&client, output, &file, local).await,
            Self::List => list(&client, output).await,
            Self::Inspect { .. }
            | Self::Verify { .. }
            | Self::Rehearse { .. }
            | Self::Restore { .. } => self.run_here(output),
        }
    }
}

async fn create(
    client: &Client,
    output: Output,
    file: &Path,
    local: bool,
) -> Result<ExitCode, Failure> {
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already", file.display())));
    }
    let mut receiver = BackupReceiver::create(file).map_err(Failure::failed)?;
    let path = if local { "/api/v1/backup?consistency=local" } else { "/api/v1/backup" };
    let received = client.download(path, |piece| receiver.write(piece)).await;
    received.map_err(explain)?;
    let info = receiver.finish().map_err(Failure::failed)?;
    show(output, &describe(&info));
    Ok(ExitCode::SUCCESS)
}

/// Without the key, say where it goes.
fn explain(error: ClientError) -> Failure {
    let code = error.problem().map(|problem| problem.code.clone()).unwrap_or_default();
    let exit = Failure::from(error);
    if code == "ADMIN_KEY_REQUIRED" {
        return Failure::failed(format!("{exit}; give it with --admin-key or QUORATE_ADMIN_KEY"));
    }
    exit
}

fn verify(output: Output, file: &Path) -> Result<(), Failure> {
    let Rehearsal { info, tasks, open, nodes, took } =
        rehearse(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let mut value = describe(&info);
    if let Value::Object(fields) = &mut value {
        fields.insert("file".to_owned(), json!(file));
        fields.insert("verified".to_owned(), json!(true));
        fields.insert("tasks".to_owned(), json!(tasks));
        fields.insert("open".to_owned(), json!(open));
        fields.insert("nodes".to_owned(), json!(nodes));
        fields.insert("took_ms".to_owned(), json!(took.as_millis() as u64));
    }
    show(output, &value);
    Ok(())
}

fn describe(info: &BackupInfo) -> Value {
    let at = i64::try_from(info.head.created_at_ms).ok();
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let members: Vec<&str> =
        info.membership.nodes().map(|(_, member)| member.name.as_str()).collect();
    json!({
        "created_at": at.map(|at| format!("{at:.3}")),
        "cluster_id": format!("{:032x}", info.head.cluster_id),
        "member": info.head.member_name,
        "member_id": info.head.member_id,
        "version": info.head.version,
        "members": members,
        "term": info.last.leader_id.term,
        "index": info.last.index,
        "digest": info.digest.to_string(),
        "rows": info.digest.rows,
        "bytes": info.bytes,
    })
}

/// One `name value` line per field, or the document.
fn show(output: Output, value: &Value) {
    match (output, value) {
        (Output::Table, Value::Object(fields)) => {
            let row = |name: &String| (name.clone(), cell(value, &format!("/{name}")));
            output::print_fields(fields.keys().map(row));
        }
        (Output::Table | Output::Json, value) => output::json(value),
    }
}

async fn list(client: &Client, output: Output) -> Result<ExitCode, Failure> {
    let body = client.get("/api/v1/backups").await?;
    if output == Output::Json {
        output::json(&body);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["NAME", "INDEX", "ROWS", "BYTES", "REHEARSED", "ERROR"]);
    for file in body.get("backups").and_then(Value::as_array).into_iter().flatten() {
        let rehearsed = match file.pointer("/rehearsal/passed").and_then(Value::as_bool) {
            None => "not since the start",
            Some(true) => "passed",
            Some(false) => "FAILED",
        };
        let error = ["/error", "/rehearsal/error"].map(|at| cell(file, at));
        let error = error.into_iter().find(|text| text != "-").unwrap_or_else(|| "-".to_owned());
        table.row([
            cell(file, "/name"),
            cell(file, "/index"),
            cell(file, "/rows"),
            cell(file, "/bytes"),
            rehearsed.to_owned(),
            error,
        ]);
    }
    table.print();
    if let Some(fault) = body.get("fault").filter(|fault| !fault.is_null()) {
        output::talk(&format!(
            "the last try failed at {}: {}",
            cell(fault, "/at"),
            cell(fault, "/error")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

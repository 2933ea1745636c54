//! `quorate recover ...`: a new cluster from the data directories that are left.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::founding::{self, Seat, place, short};
use super::output::{self, Output, Table};
use crate::storage::{
    Assessment, DirReport, HomeReport, SnapshotReport, VoterReport, assess, inspect, recover_into,
};

#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    /// What to print: text for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    /// Where logs and states are copied to while they are read [default: the system's directory for
    /// temporary files]
    #[arg(long, global = true, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Looks into the data directories that are left, and says which is best and what may be lost;
    /// changes nothing
    Plan {
        /// Data directories of one cluster, or copies of them; their members must not run
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
    },
    /// Makes the data directory of the first member of a new cluster from one that is left
    Apply {
        /// The directory to begin from, as `plan` says; it is left as it is
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        seat: Seat,
    },
}

impl RecoverArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let scratch = self.scratch.unwrap_or_else(std::env::temp_dir);
        match self.subcommand {
            Subcommand::Plan { dirs } => {
                let looked = dirs.iter().map(|dir| inspect(dir, &scratch));
                let reports = looked.collect::<Result<Vec<_>, _>>().map_err(Failure::failed)?;
                plan(self.output, &reports)
            }
            Subcommand::Apply { from, seat } if !seat.yes => {
                let report = inspect(&from, &scratch).map_err(Failure::failed)?;
                plan(self.output, &[report])?;
                Err(seat.not_done())
            }
            Subcommand::Apply { from, seat } => {
                let founded = recover_into(&from, &scratch, &seat.first(), &seat.to);
                let founded = founded.map_err(Failure::failed)?;
                Ok(founding::founded(self.output, &seat, &founded))
            }
        }
    }
}

/// What to type for the directory that was found best.
fn command(best: &DirReport) -> String {
    let from = Value::from(best.dir.display().to_string());
    format!(
        "quorate recover apply --from {from} --to NEWDIR --member NAME --peer HOST:PORT --http \
         HOST:PORT --yes"
    )
}

fn plan(output: Output, reports: &[DirReport]) -> Result<ExitCode, Failure> {
    let assessed = assess(reports);
    match output {
        Output::Json => output::json(&document(reports, assessed.as_ref())),
        Output::Table => {
            table(reports).print();
            for report in reports {
                for damage in &report.damage {
                    output::line(&format!("{}: {damage}", report.dir.display()));
                }
            }
            if let Ok(assessment) = &assessed {
                tell(reports, assessment);
            }
        }
    }
    assessed.map(|_| ExitCode::SUCCESS).map_err(Failure::failed)
}

fn table(reports: &[DirReport]) -> Table {
    let titles =
        ["DIR", "MEMBER", "VOTE", "LOG", "COMMITTED", "SNAPSHOT", "STATE", "ENDS AT", "TASKS"];
    let mut table = Table::new(&titles);
    for report in reports {
        let end = report.end.as_ref();
        let member = report.identity.as_ref().map(|identity| identity.member_id);
        let whole = |found: &&SnapshotReport| found.last.is_some();
        let home = match &report.home {
            HomeReport::Empty => "-".to_owned(),
            HomeReport::At { applied, .. } => short(*applied),
            HomeReport::Unusable(_) => "damaged".to_owned(),
        };
        let log = format!("{}..{}", report.log_first, short(report.log_last));
        table.row([
            report.dir.display().to_string(),
            member.map_or_else(|| "-".to_owned(), |member| member.to_string()),
            report.vote.map_or_else(
                || "-".to_owned(),
                |vote| format!("{} for {}", vote.leader_id.term, vote.leader_id.voted_for),
            ),
            if report.log_last.is_some() { log } else { "-".to_owned() },
            short(end.and_then(|end| end.committed).or(report.log_committed)),
            short(report.snapshots.iter().find(whole).and_then(|found| found.last)),
            home,
            short(end.map(|end| end.last)),
            end.map_or_else(|| "-".to_owned(), |end| format!("{} ({} open)", end.tasks, end.open)),
        ]);
    }
    table
}

fn tell(reports: &[DirReport], assessment: &Assessment) {
    let Some(best) = reports.get(assessment.best) else { return };
    output::line("");
    output::line(&format!("best: {}, because {}", best.dir.display(), assessment.why));
    let names = |at_hand: bool| {
        let voters = assessment.voters.iter().filter(|voter| voter.at_hand.is_some() == at_hand);
        let names: Vec<String> =
            voters.map(|voter| format!("{} ({})", voter.id, voter.name)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    output::line(&format!(
        "voters at hand: {}; missing: {}; quorum {}",
        names(true),
        names(false),
        assessment.quorum
    ));
    for sentence in &assessment.said {
        output::line(&format!("* {sentence}."));
    }
    output::line("");
    output::line(&command(best));
}

fn document(reports: &[DirReport], assessed: Result<&Assessment, &String>) -> Value {
    let directories: Vec<Value> = reports.iter().map(directory).collect();
    let assessment = match assessed {
        Err(why) => return json!({ "directories": directories, "error": why }),
        Ok(assessment) => assessment,
    };
    let best = reports.get(assessment.best);
    let voter = |voter: &VoterReport| json!({ "id": voter.id, "name": voter.name, "at_hand": voter.at_hand });
    json!({
        "directories": directories,
        "best": best.map(|best| &best.dir),
        "why": assessment.why,
        "voters": assessment.voters.iter().map(voter).collect::<Vec<_>>(),
        "quorum": assessment.quorum,
        "quorum_at_hand": assessment.quorum_at_hand,
        "may_have_lost": assessment.may_have_lost,
        "uncommitted": assessment.uncommitted,
        "said": assessment.said,
        "apply": best.map(command),
    })
}

fn directory(report: &DirReport) -> Value {
    let snapshot = |found: &SnapshotReport| {
        json!({
            "name": found.name,
            "bytes": found.bytes,
            "rows": found.rows,
            "last": place(found.last),
        })
    };
    let home = match &report.home {
        HomeReport::Empty => json!({ "found": "nothing" }),
        HomeReport::At { applied, rows } => {
            json!({ "found": "state", "applied": place(*applied), "rows": rows })
        }
        HomeReport::Unusable(why) => json!({ "found": "damage", "why": why }),
    };
    let identity = report.identity.as_ref().map(|identity| {
        json!({
            "cluster_id": format!("{:032x}", identity.cluster_id),
            "member_id": identity.member_id,
            "incarnation": format!("{:016x}", identity.incarnation),
        })
    });
    let end = report.end.as_ref().map(|end| {
        json!({
            "last": place(Some(end.last)),
            "committed": place(end.committed),
            "epoch": end.epoch.to_string(),
            "digest": end.digest.to_string(),
            "tasks": end.tasks,
            "open": end.open,
            "live": end.live,
            "nodes": end.nodes,
            "at_ms": end.at_ms,
        })
    });
    json!({
        "dir": report.dir,
        "identity": identity,
        "vote": report.vote.map(|vote| {
            json!({ "term": vote.leader_id.term, "for": vote.leader_id.voted_for })
        }),
        "log": {
            "first": report.log_first,
            "last": place(report.log_last),
            "committed": place(report.log_committed),
            "whole": report.log_whole,
        },
        "snapshots": report.snapshots.iter().map(snapshot).collect::<Vec<_>>(),
        "home": home,
        "end": end,
        "damage": report.damage,
    })
}

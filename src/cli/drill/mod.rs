//! `quorate drill ...`: faults on purpose, and the record of them.

mod args;
mod local;
mod records;
mod scheduled;

use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::{Common, Keyed};
use self::local::Local;
use super::Reach;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use crate::client;
use crate::drill::{self, Admin, Error, Hands, Options, Plan, Refusal, Seen};
use crate::model::{DrillKind, DrillState};

pub(super) use self::args::DrillLine;

/// What goes round on this thread.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}

impl DrillLine {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Self { reach, output, subcommand } = self;
        let options = reach.options()?;
        match subcommand {
            // A worker brings a runtime of its own.
            args::Subcommand::Serve(args) => scheduled::serve(args, &options),
            other => runtime()?.block_on(other.run(options, output)),
        }
    }
}

impl args::Subcommand {
    async fn run(self, reach: client::Options, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::List => records::list(reach, output).await,
            Self::Show { id, html } => records::show(reach, output, id, html).await,
            Self::Heal { key } => heal(reach, output, &key).await,
            Self::Schedule(args) => scheduled::schedule(reach, output, args).await,
            Self::Conduct { key, task_id, place } => {
                scheduled::conduct(reach, &key, &task_id, &place).await
            }
            other => match other.planned() {
                Some((common, options)) => run(reach, output, &common, &options).await,
                None => Err(Failure::usage("this is no drill")),
            },
        }
    }

    /// What is to be drilled; `None` when it is no drill.
    fn planned(self) -> Option<(Common, Options)> {
        Some(match self {
            Self::List
            | Self::Show { .. }
            | Self::Heal { .. }
            | Self::Schedule(_)
            | Self::Serve(_)
            | Self::Conduct { .. } => return None,
            Self::Failover { common } => {
                let options = common.options(DrillKind::Failover);
                (common, options)
            }
            Self::Transfer { common, to } => {
                let options = Options { to, ..common.options(DrillKind::Transfer) };
                (common, options)
            }
            Self::Pause { common, member } => {
                let members = member.into_iter().collect();
                let options = Options { members, ..common.options(DrillKind::Pause) };
                (common, options)
            }
            Self::Partition { common, members, way } => {
                let way = way.into();
                let options = Options { members, way, ..common.options(DrillKind::Partition) };
                (common, options)
            }
            Self::RestartAll { common, at_once } => {
                let options = Options { at_once, ..common.options(DrillKind::RestartAll) };
                (common, options)
            }
            Self::DiskSlow { common, member, delay } => {
                let members = member.into_iter().collect();
                let options = Options { members, delay, ..common.options(DrillKind::DiskSlow) };
                (common, options)
            }
            Self::Restore { common, member } => {
                let members = member.into_iter().collect();
                let options = Options { members, ..common.options(DrillKind::Restore) };
                (common, options)
            }
        })
    }
}

/// Told to end: once to end in order, healing what is broken; a second time at once.
fn ended_by_signals() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let token = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                output::talk("ended at once; members heal by themselves within seconds");
                std::process::exit(Exit::Failed as i32);
            }
            output::talk("stopping: healing first");
            token.cancel();
        }
    });
    Ok(stop)
}

async fn run(
    mut reach: client::Options,
    output: Output,
    common: &Common,
    options: &Options,
) -> Result<ExitCode, Failure> {
    let stop = ended_by_signals()?;
    let mut local = None;
    if common.local {
        let cluster = Local::start(common.local_members, &stop).await?;
        reach.urls = cluster.urls();
        reach.admin_key = Some(cluster.key().to_owned());
        local = Some(cluster);
    } else {
        reach.admin_key = Some(common.key.read(reach.admin_key.as_deref())?);
    }
    let result = drill_on(reach, output, common, options, local.as_ref(), stop).await;
    if let Some(local) = local {
        local.stop().await;
    }
    result
}

async fn drill_on(
    reach: client::Options,
    output: Output,
    common: &Common,
    options: &Options,
    local: Option<&Local>,
    stop: CancellationToken,
) -> Result<ExitCode, Failure> {
    let Seen { admin, facts } = Admin::look(&reach, local.is_some()).await?;
    let plan = match drill::plan(&facts, options) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(refused(output, &refusal)),
    };
    if common.dry_run {
        return Ok(would_do(output, &plan));
    }
    let hands = local.map(|local| Box::new(local.hands()) as Box<dyn Hands>);
    let tell = |text: &str| output::talk(text);
    let conducted = drill::conduct(options, &plan, &admin, &facts.view, hands, stop, &tell).await;
    let (report, state) = conducted.map_err(failure)?;
    if let Some(path) = &common.html {
        records::write_page(path, &report)?;
    }
    match output {
        Output::Json => output::json(&report),
        Output::Table => output::line(&drill::text(&report)),
    }
    Ok(match state {
        DrillState::Passed => ExitCode::SUCCESS,
        DrillState::Inconclusive => Exit::Unknown.into(),
        DrillState::Running | DrillState::Failed | DrillState::Aborted | DrillState::Abandoned => {
            Exit::Failed.into()
        }
    })
}

/// A drill that was carried through.
struct Conducted {
    report: Value,
    state: DrillState,
}

/// Conducts a drill on a cluster that serves, unless it is refused.
async fn conducted(
    reach: &client::Options,
    options: &Options,
    stop: CancellationToken,
) -> Result<Result<Conducted, Refusal>, Failure> {
    let Seen { admin, facts } = Admin::look(reach, false).await?;
    let plan = match drill::plan(&facts, options) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let tell = |text: &str| output::talk(text);
    let conducted = drill::conduct(options, &plan, &admin, &facts.view, None, stop, &tell).await;
    let (report, state) = conducted.map_err(failure)?;
    Ok(Ok(Conducted { report, state }))
}

fn refused(output: Output, refusal: &Refusal) -> ExitCode {
    match output {
        Output::Json => {
            output::json(&json!({ "refused": true, "code": refusal.code, "error": refusal.text }));
        }
        Output::Table => output::talk(&format!("refused: {refusal}")),
    }
    Exit::Failed.into()
}

fn would_do(output: Output, plan: &Plan) -> ExitCode {
    if output == Output::Json {
        let mut json = plan.json();
        json["dry_run"] = true.into();
        output::json(&json);
        return ExitCode::SUCCESS;
    }
    output::line(&format!("{} of {} by {}", plan.kind.as_str(), plan.target, plan.method.as_str()));
    for step in &plan.steps {
        output::line(&format!("  - {step}"));
    }
    let margin = plan.margin;
    let during = match margin.during {
        short if short < 0 => "the cluster does not serve meanwhile".to_owned(),
        left => format!("{left} during the drill"),
    };
    output::line(&format!(
        "quorum {} of {} voters; {} may fail now, {during}. Nothing was done.",
        margin.quorum, margin.voters, margin.before
    ));
    ExitCode::SUCCESS
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => error.into(),
        Error::Listen(_)
        | Error::Hands(_)
        | Error::Probes(_)
        | Error::NotBack(_)
        | Error::NotWhole => Failure::failed(error),
    }
}

/// Ends every fault on every member, and the drill that is under way.
async fn heal(
    mut reach: client::Options,
    output: Output,
    key: &Keyed,
) -> Result<ExitCode, Failure> {
    reach.admin_key = Some(key.read(reach.admin_key.as_deref())?);
    let Seen { admin, facts } = Admin::look(&reach, false).await?;
    let mut missed = false;
    let mut rows = Vec::new();
    for (member, healed) in admin.heal(None).await {
        missed |= healed.is_err();
        let (count, error) = match healed {
            Ok(count) => (Some(count), None),
            Err(error) => (None, Some(error.to_string())),
        };
        rows.push(json!({ "member": member, "healed": count, "error": error }));
    }
    let running = facts.accounts.values().flatten().find_map(|account| account.running);
    if let Some(drill_id) = running {
        let text = "ended by `quorate drill heal`";
        admin.end(drill_id, DrillState::Aborted, text, &Value::Null).await?;
    }
    match output {
        Output::Json => output::json(&json!({ "members": rows, "ended": running })),
        Output::Table => {
            let mut table = output::Table::new(&["MEMBER", "HEALED", "ERROR"]);
            for row in &rows {
                table.row(["/member", "/healed", "/error"].map(|field| output::cell(row, field)));
            }
            table.print();
            if let Some(drill_id) = running {
                output::line(&format!("drill {drill_id} is ended as aborted"));
            }
        }
    }
    Ok(if missed { Exit::Failed.into() } else { ExitCode::SUCCESS })
}

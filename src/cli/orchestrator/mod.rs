//! `quorate orchestrator ...`: what advances campaigns, when, and what it decided.

mod config;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::Exit;
use super::exit::Failure;
use super::output::{self, Output};
use super::progress;
use crate::client::{Call, Client, segment};

pub(super) use config::Cadence;
pub(super) use show::{cadence, decisions_about};

/// How often a run under way is looked at.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct OrchestratorName {
    /// Which orchestrator [default: the cluster's orchestrator.default_name]
    #[arg(long)]
    name: Option<String>,
}

/// `quorate orchestrator`, its orchestrator and what is done with it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Shows an orchestrator; one that is missing is made
    State {
        #[command(flatten)]
        name: OrchestratorName,
        /// Follows it until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Changes settings, mode and schedule; without any, shows them
    Config {
        #[command(flatten)]
        name: OrchestratorName,
        #[command(flatten)]
        args: config::ConfigArgs,
    },
    /// Runs one step now and prints what it decided; exit code 1 when it failed
    RunOnce {
        #[command(flatten)]
        name: OrchestratorName,
    },
    /// Lets it run steps
    Activate {
        #[command(flatten)]
        name: OrchestratorName,
    },
    /// Keeps it from running steps
    Deactivate {
        #[command(flatten)]
        name: OrchestratorName,
    },
    /// Lists the slots of its schedule, newest first: each has one decision
    Slots {
        #[command(flatten)]
        name: OrchestratorName,
        #[command(flatten)]
        filter: SlotFilter,
    },
    /// Lists its steps, newest first
    Runs {
        #[command(flatten)]
        name: OrchestratorName,
        #[command(flatten)]
        page: RunPage,
    },
    /// Shows what there is of campaigns, jobs and structures
    Stats,
}

/// Which slots.
#[derive(Debug, clap::Args)]
pub(super) struct SlotFilter {
    /// From this time on: 2026-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// ran, skipped_overlap, skipped_inactive, missed_outage or caught_up
    #[arg(long)]
    decision: Option<String>,
    /// The most rows
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// Which steps.
#[derive(Debug, clap::Args)]
pub(super) struct RunPage {
    /// The most steps that are looked at
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Steps to pass over
    #[arg(long, default_value_t = 0)]
    offset: u32,
}

impl OrchestratorName {
    pub(super) fn of(name: &str) -> Self {
        Self { name: Some(name.to_owned()) }
    }

    /// A path below `/orchestrator`, with the name in its query; `more` begins with `&`.
    pub(super) fn path(&self, door: &str, more: &str) -> String {
        let name = self.name.as_ref().map(|name| format!("&name={}", segment(name)));
        let query = format!("{}{more}", name.unwrap_or_default());
        format!("/api/v1/orchestrator/{door}?{}", query.trim_start_matches('&'))
    }
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::State { name, watch: true } => {
                progress::orchestrator(&client, output, &name).await
            }
            Self::State { name, watch: false } => {
                show::state(output, &client.get(name.path("state", "")).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Config { name, args } => {
                let body = args.body()?;
                let state = if body.as_object().is_some_and(serde_json::Map::is_empty) {
                    client.get(name.path("state", "")).await?
                } else {
                    client.call(Call::post(name.path("config", ""), &body)).await?.body
                };
                show::settings(output, &state);
                Ok(ExitCode::SUCCESS)
            }
            Self::RunOnce { name } => {
                let call = Call::post(name.path("run_once", ""), &json!({}));
                let run = client.call(call).await?.body;
                let run = ended(&client, run).await?;
                show::run(output, &run);
                let went_well = run.get("success").is_some_and(|success| success == true);
                Ok(if went_well { ExitCode::SUCCESS } else { Exit::Failed.into() })
            }
            Self::Activate { name } => switch(&client, output, &name, "activate").await,
            Self::Deactivate { name } => switch(&client, output, &name, "deactivate").await,
            Self::Slots { name, filter } => slots(&client, output, &name, &filter).await,
            Self::Runs { name, page } => runs(&client, output, &name, &page, None).await,
            Self::Stats => {
                show::stats(output, &client.get("/api/v1/orchestrator/stats").await?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Waits for the end of a run that does a task: it ends when the task does, which the cluster sees to.
async fn ended(client: &Client, mut run: Value) -> Result<Value, Failure> {
    let path = format!("/api/v1/orchestrator/runs/{}", segment(&output::cell(&run, "/id")));
    while run.get("completed_at").is_none_or(Value::is_null) {
        tokio::time::sleep(PERIOD).await;
        run = client.get(&path).await?;
    }
    Ok(run)
}

async fn switch(
    client: &Client,
    output: Output,
    name: &OrchestratorName,
    how: &str,
) -> Result<ExitCode, Failure> {
    let body = client.call(Call::post(name.path(how, ""), &json!({}))).await?.body;
    match output {
        Output::Json => output::json(&body),
        Output::Table => output::line(&format!("{} is {how}d", output::cell(&body, "/name"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the ledger of an orchestrator.
pub(super) async fn slots(
    client: &Client,
    output: Output,
    name: &OrchestratorName,
    filter: &SlotFilter,
) -> Result<ExitCode, Failure> {
    let mut more = format!("&limit={}", filter.limit);
    let given = [("from", &filter.from), ("until", &filter.until), ("decision", &filter.decision)];
    for (key, value) in given {
        if let Some(value) = value {
            more.push_str(&format!("&{key}={}", segment(value)));
        }
    }
    show::slots(output, &client.get(name.path("slots", &more)).await?);
    Ok(ExitCode::SUCCESS)
}

/// Prints steps of an orchestrator; with a campaign, those that decided about it.
pub(super) async fn runs(
    client: &Client,
    output: Output,
    name: &OrchestratorName,
    page: &RunPage,
    campaign: Option<&str>,
) -> Result<ExitCode, Failure> {
    let more = format!("&limit={}&offset={}", page.limit, page.offset);
    let mut runs = client.get(name.path("runs", &more)).await?;
    if let (Some(campaign), Some(rows)) = (campaign, runs.as_array_mut()) {
        rows.retain(|run| decisions_about(run, campaign).next().is_some());
    }
    match campaign {
        Some(campaign) if output == Output::Table => show::decisions(&runs, campaign),
        Some(_) | None => show::runs(output, &runs),
    }
    Ok(ExitCode::SUCCESS)
}

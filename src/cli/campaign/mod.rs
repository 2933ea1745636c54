//! `quorate campaign ...`: searches in iterations, and what became of them.

mod create;
mod plot;
mod show;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::figures::figure;
use super::input::read_object;
use super::orchestrator::{self, OrchestratorName};
use super::output::{self, Output, cell};
use super::progress;
use crate::client::{Call, Client, segment};

/// Rows in one answer of the doors, at most.
const PAGE: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Creates a campaign; it begins when it is started
    Create {
        #[command(flatten)]
        args: Box<create::CreateArgs>,
        /// Follows it until it ends; with --start
        #[arg(long, requires = "start")]
        watch: bool,
    },
    /// Lists campaigns
    List {
        /// created, running, paused, completed, failed or cancelled
        #[arg(long)]
        status: Option<String>,
        /// The most rows, up to 100
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Rows to pass over
        #[arg(long, default_value_t = 0)]
        offset: u32,
    },
    /// Shows a campaign
    Show(Watched),
    /// Starts a campaign: its orchestrator's steps advance it
    Start(Watched),
    /// Pauses a campaign: what runs goes on, nothing more is launched
    Pause {
        /// Its id
        id: String,
    },
    /// Lets a paused campaign go on
    Resume(Watched),
    /// Ends a campaign; what runs is cancelled
    Cancel {
        /// Its id
        id: String,
    },
    /// Runs iterations of a campaign beside the steps of its orchestrator
    Step {
        #[command(flatten)]
        which: Watched,
        /// How many, one after another
        #[arg(short = 'n', long, default_value_t = 1)]
        iterations: u32,
        /// What is different in them: JSON, @FILE, or - for standard input
        #[arg(long = "override", value_name = "JSON")]
        with: Option<String>,
    },
    /// Pulls the kill switch: nothing more is launched, what runs is cancelled, for good
    Stop {
        /// Its id
        id: String,
    },
    /// Takes a campaign that has ended out of the cluster, with its iterations and its log
    Delete {
        /// Its id
        id: String,
    },
    /// Prints what happened to a campaign
    Log {
        /// Its id
        id: String,
    },
    /// Lists the iterations of a campaign
    Iterations {
        /// Its id
        id: String,
        /// Lists each candidate with its score and parameters
        #[arg(long)]
        candidates: bool,
    },
    /// Draws scores over iterations: as SVG, or as text
    Plot(plot::PlotArgs),
    /// Lists the slots of its orchestrator's schedule, newest first
    Slots {
        /// Its id; without, --name tells the orchestrator
        id: Option<String>,
        #[command(flatten)]
        name: OrchestratorName,
        #[command(flatten)]
        filter: orchestrator::SlotFilter,
    },
    /// Lists the steps that decided about a campaign, newest first
    Runs {
        /// Its id; without, all steps of the orchestrator --name
        id: Option<String>,
        #[command(flatten)]
        name: OrchestratorName,
        #[command(flatten)]
        page: orchestrator::RunPage,
    },
}

/// A campaign that may be followed.
#[derive(Debug, clap::Args)]
pub(super) struct Watched {
    /// Its id
    id: String,
    /// Follows it until it ends; exit code 1 unless it completed
    #[arg(long)]
    watch: bool,
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Create { args, watch } => create(&client, output, &args, watch).await,
            Self::List { status, limit, offset } => {
                let status =
                    status.map_or_else(String::new, |s| format!("&status={}", segment(&s)));
                let query = format!("/api/v1/campaigns?limit={limit}&skip={offset}{status}");
                show::list(output, &client.get(query).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Show(which) if which.watch => {
                progress::campaign(&client, output, &which.id, false).await
            }
            Self::Show(which) => {
                show::one(output, &client.get(path(&which.id, "")).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Start(which) => moved(&client, output, &which, "start").await,
            Self::Pause { id } => {
                moved(&client, output, &Watched { id, watch: false }, "pause").await
            }
            Self::Resume(which) => moved(&client, output, &which, "resume").await,
            Self::Cancel { id } => {
                moved(&client, output, &Watched { id, watch: false }, "cancel").await
            }
            Self::Step { which, iterations, with } => {
                let mut body = json!({ "num_iterations": iterations });
                if let Some(given) = with {
                    body["override_config"] = read_object("--override", &given)?.into();
                }
                step(&client, output, &which, &body).await
            }
            Self::Stop { id } => {
                let path = format!("/api/v1/agent/campaigns/{}/stop", segment(&id));
                let body = client.call(Call::post(path, &json!({}))).await?.body;
                done(output, &body, &cell(&body, "/message"));
                Ok(ExitCode::SUCCESS)
            }
            Self::Delete { id } => {
                let path = format!("/api/v1/campaigns/{}", segment(&id));
                let body = client.call(Call::delete(path)).await?.body;
                done(output, &body, &format!("{id} deleted"));
                Ok(ExitCode::SUCCESS)
            }
            Self::Log { id } => {
                let path = format!("/api/v1/agent/campaigns/{}/log", segment(&id));
                show::log(output, &client.get(path).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Iterations { id, candidates } => {
                let all = iterations(&client, &id).await?;
                show::iterations(output, all, candidates);
                Ok(ExitCode::SUCCESS)
            }
            Self::Plot(args) => plot::run(&client, output, &args).await,
            Self::Slots { id, name, filter } => {
                let name = of_campaign(&client, id.as_deref(), name).await?;
                orchestrator::slots(&client, output, &name, &filter).await
            }
            Self::Runs { id, name, page } => {
                let name = of_campaign(&client, id.as_deref(), name).await?;
                orchestrator::runs(&client, output, &name, &page, id.as_deref()).await
            }
        }
    }
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/campaigns/{}{rest}", segment(id))
}

fn done(output: Output, body: &Value, text: &str) {
    match output {
        Output::Json => output::json(body),
        Output::Table => output::line(text),
    }
}

async fn create(
    client: &Client,
    output: Output,
    args: &create::CreateArgs,
    watch: bool,
) -> Result<ExitCode, Failure> {
    let made = client.call(Call::post("/api/v1/campaigns", &args.body()?)).await?.body;
    let id = cell(&made, "/id");
    if !args.start {
        done(output, &made, &id);
        return Ok(ExitCode::SUCCESS);
    }
    if watch {
        output::talk(&format!("created {id}"));
    }
    let started = client.call(Call::post(path(&id, "/start"), &json!({}))).await;
    if started.is_err() {
        output::talk(&format!("{id} is created, but not started"));
    }
    let started = started?.body;
    if watch {
        return progress::campaign(client, output, &id, false).await;
    }
    done(output, &started, &id);
    Ok(ExitCode::SUCCESS)
}

async fn moved(
    client: &Client,
    output: Output,
    which: &Watched,
    how: &str,
) -> Result<ExitCode, Failure> {
    let call = Call::post(path(&which.id, &format!("/{how}")), &json!({}));
    let body = client.call(call).await?.body;
    if which.watch {
        return progress::campaign(client, output, &which.id, false).await;
    }
    done(output, &body, &format!("{} is {}", which.id, cell(&body, "/status")));
    Ok(ExitCode::SUCCESS)
}

async fn step(
    client: &Client,
    output: Output,
    which: &Watched,
    body: &Value,
) -> Result<ExitCode, Failure> {
    let body = client.call(Call::post(path(&which.id, "/step"), body)).await?.body;
    if which.watch {
        output::talk(&cell(&body, "/message"));
        return progress::campaign(client, output, &which.id, true).await;
    }
    done(output, &body, &cell(&body, "/message"));
    Ok(ExitCode::SUCCESS)
}

/// All iterations of a campaign.
async fn iterations(client: &Client, id: &str) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    loop {
        let query = format!("/iterations?limit={PAGE}&skip={}", all.len());
        let page = client.get(path(id, &query)).await?;
        let Value::Array(rows) = page else {
            return Err(Failure::failed("the member's list of iterations is none"));
        };
        let last = rows.len() < PAGE;
        all.extend(rows);
        if last {
            return Ok(all);
        }
    }
}

/// The orchestrator of a campaign, or the one that was named.
async fn of_campaign(
    client: &Client,
    id: Option<&str>,
    name: OrchestratorName,
) -> Result<OrchestratorName, Failure> {
    let Some(id) = id else { return Ok(name) };
    let campaign = client.get(path(id, "")).await?;
    let name = campaign.get("orchestrator").and_then(Value::as_str).unwrap_or_default();
    Ok(OrchestratorName::of(name))
}

pub(super) use show::status;

/// A score at a JSON pointer.
pub(super) fn score(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), figure)
}

/// Budgets as people read them: what is spent, promised, and how much there may be.
pub(super) fn budgets(value: &Value) -> Vec<(String, String)> {
    let all = value.get("budgets").and_then(Value::as_object);
    let row = |(name, budget): (&String, &Value)| {
        let mut text = format!("{} used", score(budget, "/spent"));
        if budget.pointer("/limit").is_some_and(Value::is_number) {
            text = format!("{} of {} used", score(budget, "/spent"), score(budget, "/limit"));
        }
        if budget.pointer("/reserved").and_then(Value::as_f64).is_some_and(|some| some > 0.0) {
            text.push_str(&format!(", {} promised", score(budget, "/reserved")));
        }
        (name.clone(), text)
    };
    all.into_iter().flatten().map(row).collect()
}

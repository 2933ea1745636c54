//! `quorate bot ...`: single bots, and the figures of all of them.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Page, SpecArgs, WorkArgs, print_line, print_page};
use crate::cli::exit::Failure;
use crate::cli::input::read_raw;
use crate::cli::output::{self, Output, answer, cell};
use crate::client::{Call, Client, segment};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Subcommand {
    /// Creates a bot that belongs to no swarm; prints its id
    Create(SpecArgs),
    /// Lists bots: those of no swarm, then swarm by swarm
    List {
        /// Only the bots of a swarm
        #[arg(long, value_name = "ID")]
        swarm: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Shows a bot, and how it does
    Show {
        /// Its id
        id: String,
    },
    /// Gives a bot something to do; prints the id of the task
    Assign {
        /// The bot
        id: String,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// Lists what a bot has to do and has done, the newest first
    Tasks {
        /// The bot
        id: String,
        /// assigned, waiting, leased, completed or failed
        #[arg(long)]
        status: Option<String>,
        /// asc for the oldest first
        #[arg(long)]
        order: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Says that a task of a bot is done
    Complete {
        /// The bot
        id: String,
        /// The task
        task: String,
        /// What came of it: JSON, `@FILE`, or `-` for standard input
        #[arg(long, value_name = "JSON")]
        result: Option<String>,
        /// The try that is meant, for those who hold a lease
        #[arg(long, value_name = "N")]
        attempt: Option<u32>,
    },
    /// Removes a bot; what a member of a swarm had to do is done by the others
    Delete {
        /// Its id
        id: String,
    },
    /// Shows the figures of all bots
    Stats,
}

/// What is said of a task that is done.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/bots/{}{rest}", segment(id))
}

impl Subcommand {
    pub(in crate::cli) async fn run(
        self,
        client: Client,
        output: Output,
    ) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(spec) => {
                let made = client.call(Call::post("/api/v1/bots", &spec.body())).await?;
                print_line(output, &made, &cell(&made.body, "/id"));
            }
            Self::List { swarm, page } => {
                let swarm =
                    swarm.map_or_else(String::new, |id| format!("&swarm_id={}", segment(&id)));
                let call = Call::get(format!("/api/v1/bots?{}{swarm}", page.query()));
                let columns = [
                    ("ID", "/id"),
                    ("NAME", "/name"),
                    ("TIER", "/tier"),
                    ("COMPLETED", "/tasks_completed"),
                    ("LAST ACTIVE", "/last_active"),
                    ("SWARM", "/swarm_id"),
                ];
                print_page(output, &client.call(call).await?, "bots", &columns);
            }
            Self::Show { id } => show(&client, output, &id).await?,
            Self::Assign { id, work } => {
                let given = client.call(work.call(path(&id, "/tasks"))?).await?;
                print_line(output, &given, &cell(&given.body, "/task_id"));
            }
            Self::Tasks { id, status, order, page } => {
                let said = |key: &str, word: Option<String>| {
                    word.map_or_else(String::new, |word| format!("&{key}={}", segment(&word)))
                };
                let (status, order) = (said("status", status), said("order", order));
                let query = format!("/tasks?{}{status}{order}", page.query());
                let call = Call::get(path(&id, &query));
                let columns = [
                    ("TASK", "/task_id"),
                    ("TYPE", "/task_type"),
                    ("STATUS", "/status"),
                    ("ATTEMPT", "/attempt"),
                    ("ASSIGNED", "/assigned_at"),
                    ("ENDED", "/completed_at"),
                    ("HOLDER", "/lease/holder"),
                ];
                print_page(output, &client.call(call).await?, "tasks", &columns);
            }
            Self::Complete { id, task, result, attempt } => {
                let result = result.as_deref().map(read_raw).transpose()?;
                let rest = format!("/tasks/{}/complete", segment(&task));
                let done =
                    client.call(Call::post(path(&id, &rest), &Done { result, attempt })).await?;
                let line = format!("{task} is {}", cell(&done.body, "/status"));
                print_line(output, &done, &line);
            }
            Self::Delete { id } => {
                let gone = client.call(Call::delete(path(&id, ""))).await?;
                print_line(output, &gone, &format!("{id} is removed"));
            }
            Self::Stats => stats(output, &client.get("/api/v1/bots/stats").await?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn show(client: &Client, output: Output, id: &str) -> Result<(), Failure> {
    let mut body = client.get(path(id, "")).await?;
    body["health"] = client.get(path(id, "/health")).await?;
    let fields = [
        ("bot", "/id"),
        ("name", "/name"),
        ("tier", "/tier"),
        ("capabilities", "/capabilities"),
        ("swarm", "/swarm_id"),
        ("health", "/health/health"),
        ("tasks", "/total_tasks"),
        ("pending", "/pending_tasks"),
        ("leased", "/health/leased_tasks"),
        ("completed", "/completed_tasks"),
        ("failed", "/failed_tasks"),
        ("created", "/created_at"),
        ("last active", "/last_active"),
        ("last contact", "/health/last_contact"),
    ];
    answer(output, &body, &fields);
    Ok(())
}

fn stats(output: Output, body: &Value) {
    if output == Output::Json {
        output::json(body);
        return;
    }
    let fields = [
        ("active bots", "/active_bots"),
        ("room for", "/capacity_remaining"),
        ("used %", "/utilization_percent"),
        ("swarms", "/swarm_count"),
        ("ever created", "/total_created"),
        ("tasks done", "/tasks_executed"),
    ];
    let tiers = body.get("tier_distribution").and_then(Value::as_object).into_iter().flatten();
    let tiers = tiers.map(|(tier, count)| (format!("of tier {tier}"), count.to_string()));
    output::print_fields(output::cells(body, &fields).chain(tiers));
}

//! `quorate swarm ...`: many bots at once.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Page, SpecArgs, WorkArgs, print_line, print_page};
use crate::cli::exit::Failure;
use crate::cli::output::{self, Output, answer, cell};
use crate::client::{Call, Client, segment};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Subcommand {
    /// Creates a swarm; prints its id
    Create {
        /// How many bots; as many as there is room for, if that is less
        #[arg(long, short, default_value_t = 100)]
        count: u32,
        #[command(flatten)]
        spec: SpecArgs,
    },
    /// Lists swarms
    List(Page),
    /// Shows a swarm
    Show {
        /// Its id
        id: String,
        /// Prints the ids of its bots instead, one on each line
        #[arg(long)]
        ids: bool,
    },
    /// Gives every bot of a swarm the same to do
    Assign {
        /// The swarm
        id: String,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// Changes how many bots a swarm has; what removed ones had to do is done by the others
    Scale {
        /// The swarm
        id: String,
        /// How many bots
        count: u32,
    },
    /// Removes a swarm, its bots and all they had to do
    Delete {
        /// Its id
        id: String,
    },
    /// Says how a swarm does; exit code 1 when leases are overdue
    Health {
        /// Its id
        id: String,
    },
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/swarms/{}{rest}", segment(id))
}

impl Subcommand {
    pub(in crate::cli) async fn run(
        self,
        client: Client,
        output: Output,
    ) -> Result<ExitCode, Failure> {
        match self {
            Self::Create { count, spec } => {
                let mut body = spec.body();
                body["count"] = count.into();
                let call = Call::post("/api/v1/swarms?bot_ids=false", &body);
                let swarm = client.call(call).await?;
                print_line(output, &swarm, &cell(&swarm.body, "/id"));
                let made = swarm.body.get("bot_count").and_then(Value::as_u64).unwrap_or_default();
                if made < u64::from(count) {
                    output::talk(&format!("there was room for {made} bots only"));
                }
            }
            Self::List(page) => {
                let call = Call::get(format!("/api/v1/swarms?{}", page.query()));
                let columns = [
                    ("ID", "/id"),
                    ("NAME", "/name"),
                    ("TIER", "/tier"),
                    ("BOTS", "/bot_count"),
                    ("WAITING", "/waiting_tasks"),
                    ("LEASED", "/leased_tasks"),
                    ("COMPLETED", "/total_tasks_completed"),
                    ("FAILED", "/failed_tasks"),
                    ("CREATED", "/created_at"),
                ];
                print_page(output, &client.call(call).await?, "swarms", &columns);
            }
            Self::Show { id, ids } => {
                let query = format!("?bot_ids={ids}");
                show(output, &client.get(path(&id, &query)).await?, ids);
            }
            Self::Assign { id, work } => {
                let given = client.call(work.call(path(&id, "/tasks"))?).await?;
                let count = cell(&given.body, "/assignments");
                print_line(output, &given, &format!("{count} assignments"));
            }
            Self::Scale { id, count } => {
                let call = Call::patch(path(&id, "?bot_ids=false"), &json!({ "count": count }));
                let swarm = client.call(call).await?;
                let line = format!("{id} has {} bots", cell(&swarm.body, "/bot_count"));
                print_line(output, &swarm, &line);
            }
            Self::Delete { id } => {
                let gone = client.call(Call::delete(path(&id, ""))).await?;
                print_line(output, &gone, &format!("{id} is removed"));
            }
            Self::Health { id } => {
                let body = client.get(path(&id, "/health")).await?;
                health(output, &body);
                if cell(&body, "/overdue_leases") != "0" {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(output: Output, body: &Value, ids: bool) {
    if ids && output == Output::Table {
        let ids = body.get("bot_ids").and_then(Value::as_array);
        for id in ids.into_iter().flatten().filter_map(Value::as_str) {
            output::line(id);
        }
        return;
    }
    let fields = [
        ("swarm", "/id"),
        ("name", "/name"),
        ("tier", "/tier"),
        ("capabilities", "/capabilities"),
        ("bots", "/bot_count"),
        ("waiting", "/waiting_tasks"),
        ("leased", "/leased_tasks"),
        ("completed", "/total_tasks_completed"),
        ("failed", "/failed_tasks"),
        ("per bot", "/average_tasks_per_bot"),
        ("created", "/created_at"),
    ];
    answer(output, body, &fields);
}

fn health(output: Output, body: &Value) {
    let fields = [
        ("swarm", "/swarm_id"),
        ("health", "/health"),
        ("bots", "/bot_count"),
        ("waiting", "/waiting_tasks"),
        ("leased", "/leased_tasks"),
        ("overdue", "/overdue_leases"),
        ("completed", "/completed_tasks"),
        ("failed", "/failed_tasks"),
        ("last contact", "/last_contact"),
        ("seconds ago", "/seconds_since_contact"),
    ];
    answer(output, body, &fields);
}

//! `quorate bot ...`, `quorate swarm ...`, `quorate workflow ...`: family B from the command line.

pub(super) mod bot;
pub(super) mod swarm;
pub(super) mod workflow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::exit::Failure;
use super::input::read_raw;
use super::output::{self, Output, Table, cell};
use crate::client::{Answer, Call, segment};

/// What a bot, or every bot of a swarm, shall be.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SpecArgs {
    /// What it is called [default: made of its id]
    #[arg(long)]
    name: Option<String>,
    /// standard, advanced, L20 or any other; how soon its work wants to be done
    #[arg(long, default_value = "standard")]
    tier: String,
    /// Something it can do; may be repeated
    #[arg(long = "capability", value_delimiter = ',')]
    capabilities: Vec<String>,
}

impl SpecArgs {
    fn body(&self) -> Value {
        let mut body = json!({ "tier": self.tier, "capabilities": self.capabilities });
        if let Some(name) = &self.name {
            body["name"] = name.as_str().into();
        }
        body
    }
}

/// What shall be done.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WorkArgs {
    /// Its type
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    task_type: Option<String>,
    /// What to work on: JSON, `@FILE`, or `-` for standard input
    #[arg(long, short, value_name = "JSON")]
    data: Option<String>,
}

#[derive(Debug, Serialize)]
struct Work<'a> {
    r#type: Option<&'a str>,
    data: Option<Box<RawValue>>,
}

impl WorkArgs {
    fn call(&self, path: String) -> Result<Call, Failure> {
        let data = self.data.as_deref().map(read_raw).transpose()?;
        Ok(Call::post(path, &Work { r#type: self.task_type.as_deref(), data }))
    }
}

/// A page of a list.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Page {
    /// The most rows
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Where the list goes on, as the end of its last page said
    #[arg(long)]
    cursor: Option<String>,
}

impl Page {
    fn query(&self) -> String {
        let cursor = self.cursor.as_deref().map(segment);
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        format!("limit={}{cursor}", self.limit)
    }
}

/// Prints a page: as it is, or the rows under `name` in columns.
fn print_page(output: Output, answer: &Answer, name: &str, columns: &[(&str, &str)]) {
    if output == Output::Json {
        output::json_text(&answer.text);
        return;
    }
    let body = &answer.body;
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let mut table = Table::new(&titles);
    let rows = body.get(name).and_then(Value::as_array);
    for row in rows.into_iter().flatten() {
        table.row(columns.iter().map(|(_, pointer)| cell(row, pointer)));
    }
    table.print();
    if let Some(total) = body.get("total").and_then(Value::as_u64) {
        output::talk(&format!("{} of {total} {name}", cell(body, "/count")));
    }
    if let Some(cursor) = body.get("next_cursor").and_then(Value::as_str) {
        output::talk(&format!("more with --cursor {cursor}"));
    }
}

/// Prints an answer of which people want one line.
fn print_line(output: Output, answer: &Answer, line: &str) {
    match output {
        Output::Json => output::json_text(&answer.text),
        Output::Table => output::line(line),
    }
}

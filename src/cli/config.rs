//! `quorate config ...`: the replicated configuration, and configuration files.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{self, Output, cell};
use crate::client::{Call, Client, segment};
use crate::config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Prints the replicated configuration, or the value at a path
    Get {
        /// Keys with dots between them, as in network.max_nodes
        path: Option<String>,
    },
    /// Changes a value of the replicated configuration
    Set {
        /// Keys with dots between them
        path: String,
        /// JSON; anything else is taken as text
        value: String,
    },
    /// Prints a configuration file with every key, its meaning and its default
    Generate,
    /// Checks a configuration file as `quorate server` would read it here
    Check {
        /// The file
        file: PathBuf,
    },
}

impl Subcommand {
    pub(super) fn needs_cluster(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Set { .. })
    }

    pub(super) fn run_here(self, output: Output) -> Result<ExitCode, Failure> {
        let file = match self {
            Self::Check { file } => file,
            Self::Generate | Self::Get { .. } | Self::Set { .. } => {
                output::line(config::generate().trim_end());
                return Ok(ExitCode::SUCCESS);
            }
        };
        let environment = config::environment();
        let loaded = config::load(Some(&file), &environment, &config::Flags::default());
        let config = loaded.map_err(Failure::usage)?;
        for warning in &config.warnings {
            output::talk(&format!("warning: {warning}"));
        }
        match output {
            Output::Json => output::json(&json!({ "ok": true, "warnings": config.warnings })),
            Output::Table => output::line(&format!("{}: ok", file.display())),
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Set { path, value } => {
                let value: Value =
                    serde_json::from_str(&value).unwrap_or_else(|_| Value::from(value));
                let call = Call::put(
                    format!("/api/v1/config/{}", segment(&path)),
                    &json!({ "value": value }),
                );
                let body = client.call(call).await?.body;
                match output {
                    Output::Json => output::json(&body),
                    Output::Table => output::line(&cell(&body, "/message")),
                }
            }
            Self::Get { path } => {
                let body = client.get("/api/v1/config").await?;
                let document = body.get("config").unwrap_or(&body);
                let path = path.unwrap_or_default();
                let mut keys = path.split('.').filter(|key| !key.is_empty());
                let Some(value) = keys.try_fold(document, |value, key| value.get(key)) else {
                    return Err(Failure::failed(format!("there is no `{path}`")));
                };
                match (output, value) {
                    (Output::Table, Value::String(text)) => output::line(text),
                    (Output::Table | Output::Json, value) => output::json(value),
                }
            }
            Self::Generate | Self::Check { .. } => return self.run_here(output),
        }
        Ok(ExitCode::SUCCESS)
    }
}

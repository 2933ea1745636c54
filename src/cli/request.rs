//! `quorate request get`: what became of a request whose answer was lost.

use std::process::ExitCode;

use super::exit::Failure;
use super::output::{Output, answer};
use crate::client::{Client, segment};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Says whether a request was committed, rejected or never seen
    Get {
        /// Its `Idempotency-Key`, or the id a member gave it
        key: String,
    },
}

impl Subcommand {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<ExitCode, Failure> {
        let Self::Get { key } = self;
        let body = client.get(format!("/api/v1/requests/{}", segment(&key))).await?;
        let fields = [
            ("request", "/request_id"),
            ("state", "/state"),
            ("index", "/index"),
            ("outcome", "/outcome/type"),
            ("task", "/outcome/task_id"),
            ("refused as", "/rejection/code"),
            ("because", "/rejection/error"),
        ];
        answer(output, &body, &fields);
        Ok(ExitCode::SUCCESS)
    }
}

//! `quorate campaign plot`: scores over iterations.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::chart::Chart;
use crate::cli::exit::Failure;
use crate::cli::output::{self, Output};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PlotArgs {
    /// Its id
    id: String,
    /// Writes the picture to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Draws with letters instead, for a terminal
    #[arg(long)]
    text: bool,
    /// Draws scores by orders of magnitude; all must be above zero
    #[arg(long)]
    log_scale: bool,
}

pub(super) async fn run(
    client: &Client,
    output: Output,
    args: &PlotArgs,
) -> Result<ExitCode, Failure> {
    let campaign = client.get(super::path(&args.id, "")).await?;
    let chart = Chart::read(&campaign, &super::iterations(client, &args.id).await?);
    if chart.is_empty() {
        return Err(Failure::failed(format!("{} has no scores yet", args.id)));
    }
    if args.log_scale && !chart.has_orders() {
        return Err(Failure::failed("--log-scale needs scores above zero"));
    }
    let drawn = match output {
        Output::Json => format!("{:#}", chart.json()),
        Output::Table if args.text => chart.text(args.log_scale),
        Output::Table => chart.svg(args.log_scale).trim_end().to_owned(),
    };
    match &args.file {
        None => output::line(&drawn),
        Some(file) => {
            let failed = |error| Failure::failed(format!("{}: {error}", file.display()));
            std::fs::write(file, drawn + "\n").map_err(failed)?;
            output::talk(&format!("{} is written", file.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

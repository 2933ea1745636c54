//! `quorate orchestrator config`: what is typed becomes the body that changes an orchestrator.

use serde_json::{Map, Value, json};

use crate::cli::exit::Failure;
use crate::cli::input::{budget, pair, read_object};
use crate::clock;
use crate::leader::Calendar;
use crate::model;

/// What may be set by `NAME=VALUE`. The doors pass over what they do not know, so a slip would look
/// like success.
const SETTINGS: [&str; 18] = [
    "max_simultaneous_simulations",
    "max_simultaneous_experiments",
    "training_frequency_hours",
    "min_new_samples_for_retrain",
    "experiment_budget_per_campaign",
    "simulation_budget_per_campaign",
    "active_learning_threshold",
    "bo_acquisition_function",
    "max_iterations_per_run",
    "experiment_trigger_score_threshold",
    "campaign_priorities",
    "mode",
    "schedule",
    "continuous_pause_seconds",
    "budgets",
    "per_job",
    "description",
    "task",
];

/// When an orchestrator runs its steps.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Cadence {
    /// Every so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "cron")]
    every: Option<f64>,
    /// By a cron expression, like '0 3 * * 0'
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// The time zone of --cron, like Europe/Berlin
    #[arg(long, value_name = "ZONE", requires = "cron")]
    timezone: Option<String>,
}

impl Cadence {
    /// The settings of a schedule that were given.
    pub(in crate::cli) fn settings(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let settings = [
            ("interval_seconds", self.every.map(|seconds| json!(seconds))),
            ("cron", self.cron.as_ref().map(|expression| json!(expression))),
            ("timezone", self.timezone.as_ref().map(|zone| json!(zone))),
        ];
        settings.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)))
    }

    /// Whether there is such an interval, expression or zone.
    pub(in crate::cli) fn check(&self) -> Result<(), Failure> {
        let cadence = match (self.every, &self.cron) {
            (Some(seconds), _) => model::Cadence::Every { interval_ms: (seconds * 1000.0) as u64 },
            (None, Some(expression)) => model::Cadence::Cron {
                expression: expression.clone(),
                zone: self.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
            },
            (None, None) => return Ok(()),
        };
        Calendar::new(&cadence, clock::now_ms()).map(drop).map_err(Failure::usage)
    }
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConfigArgs {
    /// Settings, like max_iterations_per_run=5 or schedule.overlap=queue; none shows them all
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Settings as a JSON object, `@FILE`, or `-` for standard input; the others go before it
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// manual, scheduled, continuous or paused [default with --every or --cron: scheduled]
    #[arg(long)]
    mode: Option<String>,
    #[command(flatten)]
    cadence: Cadence,
    /// What all its campaigns together may use, like tokens=1000 or tokens=1000:900; may be repeated
    #[arg(long = "budget", value_name = "RESOURCE=LIMIT")]
    budgets: Vec<String>,
    /// What one job is promised of a resource unless its own task says, like tokens=50; may be repeated
    #[arg(long = "per-job", value_name = "RESOURCE=AMOUNT")]
    per_job: Vec<String>,
}

impl ConfigArgs {
    /// The body; empty when nothing is to change.
    pub(super) fn body(&self) -> Result<Value, Failure> {
        let mut body = match &self.config {
            None => Map::new(),
            Some(given) => read_object("--config", given)?,
        };
        for given in &self.settings {
            let (name, value) = pair(given)?;
            let first = name.split('.').next().unwrap_or_default();
            if !SETTINGS.contains(&first) {
                let all = SETTINGS.join(", ");
                return Err(Failure::usage(format!("`{first}` is no setting; there are {all}")));
            }
            put(&mut body, name, value)?;
        }
        for (name, value) in self.cadence.settings() {
            put(&mut body, &format!("schedule.{name}"), value)?;
            body.entry("mode").or_insert_with(|| json!("SCHEDULED"));
        }
        if let Some(mode) = &self.mode {
            body.insert("mode".to_owned(), json!(mode.to_uppercase()));
        }
        for given in &self.budgets {
            let (resource, value) = budget(given)?;
            put(&mut body, &format!("budgets.{resource}"), value)?;
        }
        for given in &self.per_job {
            let (resource, value) = pair(given)?;
            put(&mut body, &format!("per_job.{resource}"), value)?;
        }
        Ok(body.into())
    }
}

/// Puts a value where a name with a dot says.
fn put(body: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), Failure> {
    let Some((outer, inner)) = name.split_once('.') else {
        body.insert(name.to_owned(), value);
        return Ok(());
    };
    let object = body.entry(outer).or_insert_with(|| json!({})).as_object_mut();
    let wanted = || Failure::usage(format!("`{outer}` must be an object to hold `{inner}`"));
    object.ok_or_else(wanted)?.insert(inner.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn body(words: &[&str]) -> Result<Value, String> {
        let definition = ConfigArgs::augment_args(clap::Command::new("config"));
        let line = ["config"].iter().chain(words);
        let matches = definition.try_get_matches_from(line).map_err(|error| error.to_string())?;
        let args = ConfigArgs::from_arg_matches(&matches).unwrap();
        args.body().map_err(|error| error.to_string())
    }

    #[test]
    fn bodies_are_what_was_typed() {
        let cases: [(&[&str], Value); 8] = [
            (&[], json!({})),
            (
                &["max_iterations_per_run=5", "bo_acquisition_function=ucb"],
                json!({"max_iterations_per_run": 5, "bo_acquisition_function": "ucb"}),
            ),
            (
                &["--every", "1"],
                json!({"mode": "SCHEDULED", "schedule": {"interval_seconds": 1.0}}),
            ),
            (
                &[
                    "--cron",
                    "0 4 * * *",
                    "--timezone",
                    "Europe/Berlin",
                    "--mode",
                    "paused",
                    "schedule.overlap=queue",
                ],
                json!({"mode": "PAUSED", "schedule": {
                    "cron": "0 4 * * *", "timezone": "Europe/Berlin", "overlap": "queue"}}),
            ),
            (
                &["--config", r#"{"mode":"MANUAL","x":1}"#, "--every", "2"],
                json!({"mode": "MANUAL", "x": 1, "schedule": {"interval_seconds": 2.0}}),
            ),
            (
                &["campaign_priorities.a-b.c=2", "--budget", "tokens=10", "budgets.money=null"],
                json!({"campaign_priorities": {"a-b.c": 2},
                       "budgets": {"tokens": 10.0, "money": null}}),
            ),
            (&["--mode", "manual"], json!({"mode": "MANUAL"})),
            (
                &["task.task_type=backup", "task.timeout=60"],
                json!({"task": {"task_type": "backup", "timeout": 60}}),
            ),
        ];
        for (words, wanted) in cases {
            assert_eq!(body(words).unwrap(), wanted, "{words:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases: [(&[&str], &str); 6] = [
            (&["max_iterations=5"], "`max_iterations` is no setting"),
            (&["mode"], "NAME=VALUE"),
            (&["mode=PAUSED", "mode.x=1"], "`mode` must be an object"),
            (&["--every", "1", "--cron", "* * * * *"], "cannot be used with"),
            (&["--timezone", "UTC"], "--cron"),
            (&["--config", "7"], "--config must be a JSON object"),
        ];
        for (words, wanted) in cases {
            let said = body(words).unwrap_err();
            assert!(said.contains(wanted), "{words:?}: {said}");
        }
    }
}

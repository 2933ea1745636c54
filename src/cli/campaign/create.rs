//! `quorate campaign create`: what is typed becomes the body that creates a campaign.

use serde_json::{Map, Value, json};

use crate::cli::exit::Failure;
use crate::cli::input::{budget, pair, read_json, read_object};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreateArgs {
    /// What it is called
    name: String,
    /// Its configuration: JSON, `@FILE`, or `-` for standard input; the options below go before it
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// generic, or materials [default: generic when a task type is given]
    #[arg(long)]
    kind: Option<String>,
    /// The type of the tasks that try candidates
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    task_type: Option<String>,
    /// What every task is told: JSON, `@FILE` or `-`
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// A capability the nodes must have; may be repeated
    #[arg(long = "require", value_name = "CAPABILITY", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Seconds one attempt of a task may take
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Attempts of a task after the first
    #[arg(long, value_name = "N")]
    max_retries: Option<u32>,
    /// Iterations, at most
    #[arg(long, value_name = "N")]
    iterations: Option<u32>,
    /// Candidates of each iteration
    #[arg(long, value_name = "N")]
    candidates: Option<u32>,
    /// The lower a score, the better
    #[arg(long)]
    minimize: bool,
    /// The field of a result that is its score
    #[arg(long, value_name = "FIELD")]
    score_field: Option<String>,
    /// Ends it when the best score is as good
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    target_score: Option<f64>,
    /// Ends it after so many iterations without a better score
    #[arg(long, value_name = "N")]
    patience: Option<u32>,
    /// Ends it when the best score moves by less
    #[arg(long, value_name = "SCORE")]
    convergence: Option<f64>,
    /// What it may use of a resource, like tokens=1000, or tokens=1000:900 to be warned; may be repeated
    #[arg(long = "budget", value_name = "RESOURCE=LIMIT")]
    budgets: Vec<String>,
    /// What one task is promised of a resource, like tokens=50; may be repeated
    #[arg(long = "per-job", value_name = "RESOURCE=AMOUNT")]
    per_job: Vec<String>,
    /// The orchestrator that advances it
    #[arg(long, value_name = "NAME")]
    orchestrator: Option<String>,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Starts it as well
    #[arg(long)]
    pub(super) start: bool,
}

impl CreateArgs {
    /// The body.
    pub(super) fn body(&self) -> Result<Value, Failure> {
        let mut config = match &self.config {
            None => Map::new(),
            Some(given) => read_object("--config", given)?,
        };
        self.task(&mut config)?;
        self.rules(&mut config);
        for (field, given, read) in [
            ("budgets", &self.budgets, budget as fn(&str) -> Result<(&str, Value), Failure>),
            ("per_job", &self.per_job, pair),
        ] {
            let object = within(&mut config, field)?;
            for given in given {
                let (resource, value) = read(given)?;
                object.insert(resource.to_owned(), value);
            }
            if object.is_empty() {
                config.remove(field);
            }
        }
        let typed = config.get("task").is_some_and(|task| task.get("task_type").is_some());
        let kind = self.kind.as_deref().unwrap_or(if typed { "generic" } else { "materials" });
        let mut body = json!({ "name": self.name, "kind": kind, "config": config });
        for (key, value) in
            [("orchestrator", &self.orchestrator), ("description", &self.description)]
        {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        Ok(body)
    }

    /// The task of a candidate.
    fn task(&self, config: &mut Map<String, Value>) -> Result<(), Failure> {
        let input = self.input.as_deref().map(read_json).transpose()?;
        let needs = (!self.capabilities.is_empty()).then(|| json!(self.capabilities));
        let given = [
            ("task_type", self.task_type.as_ref().map(|word| json!(word))),
            ("input", input),
            ("capabilities", needs),
            ("timeout", self.timeout.map(|seconds| json!(seconds))),
            ("max_retries", self.max_retries.map(|count| json!(count))),
        ];
        let task = within(config, "task")?;
        for (key, value) in given {
            if let Some(value) = value {
                task.insert(key.to_owned(), value);
            }
        }
        if task.is_empty() {
            config.remove("task");
        }
        Ok(())
    }

    /// How far it goes, and what counts.
    fn rules(&self, config: &mut Map<String, Value>) {
        let given = [
            ("max_iterations", self.iterations.map(|count| json!(count))),
            ("candidates_per_iteration", self.candidates.map(|count| json!(count))),
            ("direction", self.minimize.then(|| json!("minimize"))),
            ("score_field", self.score_field.as_ref().map(|field| json!(field))),
            ("target_score", self.target_score.map(|score| json!(score))),
            ("early_stopping_patience", self.patience.map(|count| json!(count))),
            ("convergence_threshold", self.convergence.map(|score| json!(score))),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                config.insert(key.to_owned(), value);
            }
        }
    }
}

/// The object at `field`, which is made when it is missing.
fn within<'a>(
    config: &'a mut Map<String, Value>,
    field: &str,
) -> Result<&'a mut Map<String, Value>, Failure> {
    let value = config.entry(field).or_insert_with(|| json!({}));
    value
        .as_object_mut()
        .ok_or_else(|| Failure::usage(format!("--config: `{field}` must be an object")))
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn body(words: &[&str]) -> Result<Value, String> {
        let definition = CreateArgs::augment_args(clap::Command::new("create"));
        let line = ["create"].iter().chain(words);
        let matches = definition.try_get_matches_from(line).map_err(|error| error.to_string())?;
        let args = CreateArgs::from_arg_matches(&matches).unwrap();
        args.body().map_err(|error| error.to_string())
    }

    fn check(words: &[&str], kind: &str, config: &Value) {
        let body = body(&[&["c"], words].concat()).unwrap();
        assert_eq!((&body["name"], &body["kind"]), (&json!("c"), &json!(kind)), "{words:?}");
        assert_eq!(&body["config"], config, "{words:?}");
    }

    #[test]
    fn configurations_are_what_was_typed() {
        check(&[], "materials", &json!({}));
        let rules = ["-t", "tune", "--iterations", "3", "--candidates", "2", "--minimize"];
        let ends = ["--target-score", "-1.5", "--patience", "4", "--convergence", "0.1"];
        let config = json!({
            "task": {"task_type": "tune"}, "max_iterations": 3, "candidates_per_iteration": 2,
            "direction": "minimize", "target_score": -1.5, "early_stopping_patience": 4,
            "convergence_threshold": 0.1,
        });
        check(&[&rules[..], &ends].concat(), "generic", &config);
        let budgets =
            ["--budget", "tokens=1000:900", "--budget", "money=5", "--per-job", "tokens=50"];
        let config = json!({
            "budgets": {"tokens": {"limit": 1000.0, "soft": 900.0}, "money": 5.0},
            "per_job": {"tokens": 50},
        });
        check(&budgets, "materials", &config);
    }

    #[test]
    fn what_is_typed_goes_before_the_configuration() {
        let given = r#"{"task": {"task_type": "a", "timeout": 9}, "max_iterations": 5, "x": 1}"#;
        let words = ["--config", given, "--input", r#"{"f": 1}"#, "--iterations", "7"];
        let config = json!({
            "task": {"task_type": "a", "timeout": 9, "input": {"f": 1}}, "max_iterations": 7, "x": 1,
        });
        check(&words, "generic", &config);
        let words = ["--kind", "materials", "-t", "x", "--require", "gpu,lab"];
        let config = json!({"task": {"task_type": "x", "capabilities": ["gpu", "lab"]}});
        check(&words, "materials", &config);
        let named = body(&["c", "--orchestrator", "o", "--description", "d"]).unwrap();
        assert_eq!((&named["orchestrator"], &named["description"]), (&json!("o"), &json!("d")));
    }

    #[test]
    fn mistakes_are_named() {
        let cases: [(&[&str], &str); 5] = [
            (&[], "NAME"),
            (&["c", "--config", "[]"], "--config must be a JSON object"),
            (&["c", "--config", r#"{"task":7}"#], "`task` must be an object"),
            (&["c", "--budget", "tokens"], "tokens=1000"),
            (&["c", "--input", "{"], "not JSON"),
        ];
        for (words, wanted) in cases {
            let said = body(words).unwrap_err();
            assert!(said.contains(wanted), "{words:?}: {said}");
        }
    }
}

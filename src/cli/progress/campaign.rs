//! A campaign on its way.

use std::process::ExitCode;

use futures::future::try_join4;
use serde_json::{Value, json};

use super::{BAR, Look, or_nothing, row, time_of_day};
use crate::cli::Exit;
use crate::cli::campaign::{budgets, score, status};
use crate::cli::exit::Failure;
use crate::cli::figures::{bar, figure};
use crate::cli::orchestrator::{OrchestratorName, decisions_about};
use crate::cli::output::{Output, cell};
use crate::client::{Client, segment};

/// Lines of the log that are shown.
const LOG_LINES: usize = 5;
/// Steps that are looked through for what was decided about it.
const RUNS: usize = 5;

/// What the doors say of a campaign at one moment.
#[derive(Debug, Default)]
struct Seen {
    campaign: Value,
    /// The newest one; null before the first.
    iteration: Value,
    log: Value,
    runs: Value,
    stats: Value,
}

/// Follows a campaign until it ends; with `asked`, until the iterations that were asked for have ended.
pub(in crate::cli) async fn follow(
    client: &Client,
    output: Output,
    id: &str,
    asked: bool,
) -> Result<ExitCode, Failure> {
    super::follow(output, || async {
        let seen = look(client, id).await?;
        Ok(Look { end: seen.end(asked), ..seen.shown() })
    })
    .await
}

async fn look(client: &Client, id: &str) -> Result<Seen, Failure> {
    let base = format!("/api/v1/campaigns/{}", segment(id));
    let campaign = client.get(&base).await?;
    let begun = campaign.get("current_iteration").and_then(Value::as_u64).unwrap_or_default();
    let name = campaign.get("orchestrator").and_then(Value::as_str).unwrap_or_default();
    let name = OrchestratorName::of(name);
    let newest = format!("{base}/iterations?limit=1&skip={}", begun.saturating_sub(1));
    let log = format!("/api/v1/agent/campaigns/{}/log", segment(id));
    let runs = name.path("runs", &format!("&limit={RUNS}"));
    let (iterations, log, runs, stats) = try_join4(
        async { Ok(client.get(newest).await?) },
        async { or_nothing(client.get(log).await) },
        async { or_nothing(client.get(runs).await) },
        async { or_nothing(client.get("/api/v1/orchestrator/stats").await) },
    )
    .await?;
    let iteration = iterations.get(0).cloned().unwrap_or_default();
    Ok(Seen { campaign, iteration, log, runs, stats })
}

impl Seen {
    fn count(&self, pointer: &str) -> u64 {
        self.campaign.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Whether an iteration is under way.
    fn iterating(&self) -> bool {
        self.iteration.is_object() && self.iteration.get("completed_at").is_none_or(Value::is_null)
    }

    /// Iterations that have ended.
    fn ended(&self) -> u64 {
        self.count("/current_iteration").saturating_sub(u64::from(self.iterating()))
    }

    /// How the program ends, if what is followed has.
    fn end(&self, asked: bool) -> Option<ExitCode> {
        let stopped = self.campaign.get("tripped").is_some_and(|tripped| tripped == true);
        match cell(&self.campaign, "/status").as_str() {
            "COMPLETED" => Some(ExitCode::SUCCESS),
            "FAILED" | "CANCELLED" => Some(Exit::Failed.into()),
            _ if stopped => Some(Exit::Failed.into()),
            _ if asked && self.count("/requested_iterations") == 0 && !self.iterating() => {
                Some(ExitCode::SUCCESS)
            }
            _ => None,
        }
    }

    fn shown(&self) -> Look {
        Look { frame: self.frame(), line: self.line(), value: self.value(), end: None }
    }

    /// Its status, with the reason if there is one.
    fn status(&self) -> String {
        let reason = self.campaign.get("reason").and_then(Value::as_str);
        // The kill switch is in the status already.
        let reason = reason.filter(|reason| *reason != "stopped");
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{}{reason}", status(&self.campaign))
    }

    /// What its candidates are doing; empty between iterations.
    fn candidates(&self) -> String {
        if !self.iterating() {
            return String::new();
        }
        let count = |name: &str| cell(&self.iteration, &format!("/metrics/{name}"));
        let mut text = format!("{} of {} open", count("open"), count("candidates"));
        if count("failed") != "0" {
            text.push_str(&format!(", {} failed", count("failed")));
        }
        text
    }

    fn frame(&self) -> Vec<String> {
        let campaign = &self.campaign;
        let (ended, all) = (self.ended(), self.count("/max_iterations"));
        let way = cell(campaign, "/config/direction");
        let mut aims = vec![if way == "minimize" { way } else { "maximize".to_owned() }];
        if let Some(target) = campaign.pointer("/config/target_score").and_then(Value::as_f64) {
            aims.push(format!("target {}", figure(target)));
        }
        let candidates = self.candidates();
        let mut frame = vec![
            format!("{}  {}", cell(campaign, "/name"), self.status()),
            row("iterations", &format!("{} {ended} of {all}", bar(ended as f64, all as f64, BAR))),
            row("best score", &format!("{} ({})", score(campaign, "/best_score"), aims.join(", "))),
            row("candidates", if self.iterating() { &candidates } else { "-" }),
        ];
        let fleet = |name: &str| cell(&self.stats, name);
        let jobs = format!("{} wait, {} run", fleet("/pending_jobs"), fleet("/running_jobs"));
        frame.push(row("all jobs", &jobs));
        frame.extend(budgets(campaign).iter().map(|(name, text)| row(name, text)));
        frame.push(row("newest step", &self.newest_decision()));
        for (place, line) in self.newest_lines().enumerate() {
            frame.push(row(if place == 0 { "log" } else { "" }, &line));
        }
        frame
    }

    fn newest_decision(&self) -> String {
        let id = cell(&self.campaign, "/id");
        let runs = self.runs.as_array().into_iter().flatten();
        let mut about = runs.flat_map(|run| decisions_about(run, &id).map(move |one| (run, one)));
        about.next().map_or_else(
            || "-".to_owned(),
            |(run, decision)| {
                let at = time_of_day(&cell(run, "/started_at"));
                format!("{at} {}: {}", cell(decision, "/result"), cell(decision, "/reason"))
            },
        )
    }

    /// The newest lines of its log, the newest first.
    fn newest_lines(&self) -> impl Iterator<Item = String> {
        let entries = self.log.get("entries").and_then(Value::as_array).into_iter().flatten();
        entries.rev().take(LOG_LINES).map(|entry| {
            let text = [cell(entry, "/event"), cell(entry, "/message")];
            let text: Vec<String> = text.into_iter().filter(|text| text != "-").collect();
            format!("{} {}", time_of_day(&cell(entry, "/at")), text.join(": "))
        })
    }

    fn line(&self) -> String {
        let mut parts = vec![
            self.status(),
            format!("{} of {} iterations", self.ended(), self.count("/max_iterations")),
            format!("best {}", score(&self.campaign, "/best_score")),
        ];
        parts.extend(Some(self.candidates()).filter(|text| !text.is_empty()));
        parts.extend(budgets(&self.campaign).iter().map(|(name, text)| format!("{name}: {text}")));
        super::clean(&parts.join("; "))
    }

    fn value(&self) -> Value {
        json!({ "campaign": self.campaign, "iteration": self.iteration, "stats": self.stats })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let campaign = json!({
            "id": "c1", "name": "branin", "status": "RUNNING", "reason": null, "tripped": false,
            "current_iteration": 4, "max_iterations": 12, "best_score": 0.412_345_678,
            "config": {"direction": "minimize", "target_score": 0.4}, "requested_iterations": 1,
            "budgets": {"simulations": {"limit": 48, "spent": 14, "reserved": 2}}});
        let iteration = json!({"completed_at": null,
            "metrics": {"candidates": 4, "open": 2, "failed": 1}});
        let log = json!({"entries": [
            {"at": "2026-01-31T12:00:00.000Z", "event": "running", "message": ""},
            {"at": "2026-01-31T12:00:03.500Z", "event": "iteration", "message": "iteration 3 has ended"}]});
        let runs = json!([
            {"started_at": "2026-01-31T12:00:05.000Z", "actions": {"decisions": [{"campaign_id": "other"}]}},
            {"started_at": "2026-01-31T12:00:04.000Z", "actions": {"decisions": [
                {"campaign_id": "c1", "result": "queued", "reason": "4 candidates to evaluate"}]}}]);
        let stats = json!({"pending_jobs": 1, "running_jobs": 2});
        Seen { campaign, iteration, log, runs, stats }
    }

    #[test]
    fn a_frame_says_how_far_it_is() {
        let wanted = "\
branin  RUNNING
iterations   [########........................] 3 of 12
best score   0.412346 (minimize, target 0.4)
candidates   2 of 4 open, 1 failed
all jobs     1 wait, 2 run
simulations  14 of 48 used, 2 promised
newest step  12:00:04 queued: 4 candidates to evaluate
log          12:00:03 iteration: iteration 3 has ended
             12:00:00 running";
        assert_eq!(seen().frame().join("\n"), wanted);
    }

    #[test]
    fn a_line_has_no_times_in_it() {
        let wanted = "RUNNING; 3 of 12 iterations; best 0.412346; 2 of 4 open, 1 failed; \
                      simulations: 14 of 48 used, 2 promised";
        assert_eq!(seen().line(), wanted);
    }

    #[test]
    fn a_campaign_that_says_little_can_be_shown() {
        let seen = Seen { campaign: json!({"name": "a\u{1b}[31m"}), ..Seen::default() };
        assert!(seen.frame().len() > 4 && !seen.line().contains('\u{1b}'));
    }

    #[test]
    fn it_ends_when_what_is_followed_ends() {
        let (good, bad) = (Some(ExitCode::SUCCESS), Some(ExitCode::from(Exit::Failed)));
        // status, tripped, asked for, under way, without and with `asked`
        let cases = [
            ("CREATED", false, 0, false, None, good),
            ("RUNNING", false, 1, true, None, None),
            ("RUNNING", false, 1, false, None, None),
            ("RUNNING", false, 0, true, None, None),
            ("RUNNING", false, 0, false, None, good),
            ("PAUSED", false, 1, false, None, None),
            ("PAUSED", true, 0, false, bad, bad),
            ("COMPLETED", false, 0, false, good, good),
            ("FAILED", false, 0, false, bad, bad),
            ("CANCELLED", false, 0, false, bad, bad),
        ];
        for case in cases {
            let (status, tripped, requested, iterating, plain, asked) = case;
            let mut seen = seen();
            seen.campaign["status"] = status.into();
            seen.campaign["tripped"] = tripped.into();
            seen.campaign["requested_iterations"] = requested.into();
            seen.iteration["completed_at"] =
                if iterating { Value::Null } else { "2026-01-31T12:00:00.000Z".into() };
            assert_eq!(seen.end(false), plain, "{case:?}");
            assert_eq!(seen.end(true), asked, "{case:?}");
        }
    }
}

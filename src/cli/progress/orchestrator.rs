//! An orchestrator at its work.

use std::process::ExitCode;

use futures::future::try_join4;
use serde_json::{Value, json};

use super::{Look, or_nothing, row, time_of_day};
use crate::cli::campaign::{budgets, score};
use crate::cli::exit::Failure;
use crate::cli::figures::bar;
use crate::cli::orchestrator::{OrchestratorName, cadence};
use crate::cli::output::{Output, cell};
use crate::client::Client;

/// Running campaigns that are shown.
const CAMPAIGNS: usize = 8;
/// Decisions that are shown.
const DECISIONS: usize = 6;
/// Letters of a campaign's bar and name.
const BAR: usize = 16;
const NAME: usize = 24;

#[derive(Debug, Default)]
struct Seen {
    state: Value,
    campaigns: Value,
    runs: Value,
    stats: Value,
}

/// Follows an orchestrator until Ctrl-C.
pub(in crate::cli) async fn follow(
    client: &Client,
    output: Output,
    name: &OrchestratorName,
) -> Result<ExitCode, Failure> {
    super::follow(output, || async {
        let running = "/api/v1/campaigns?status=RUNNING&limit=100";
        let (state, campaigns, runs, stats) = try_join4(
            async { Ok(client.get(name.path("state", "")).await?) },
            async { or_nothing(client.get(running).await) },
            async { or_nothing(client.get(name.path("runs", "&limit=1")).await) },
            async { or_nothing(client.get("/api/v1/orchestrator/stats").await) },
        )
        .await?;
        let seen = Seen { state, campaigns, runs, stats };
        let value = json!({"orchestrator": seen.state, "newest_run": seen.runs.get(0), "stats": seen.stats});
        Ok(Look { frame: seen.frame(), line: seen.line(), value, end: None })
    })
    .await
}

impl Seen {
    fn launched(&self) -> String {
        let count = |what: &str| cell(&self.state, &format!("/total_{what}_launched"));
        format!(
            "{} simulations, {} experiments, {} trainings",
            count("simulations"),
            count("experiments"),
            count("trainings")
        )
    }

    fn jobs(&self) -> String {
        let count = |name: &str| cell(&self.stats, name);
        format!("{} wait, {} run", count("/pending_jobs"), count("/running_jobs"))
    }

    /// Its campaigns that run.
    fn running(&self) -> Vec<&Value> {
        let all = self.campaigns.get("campaigns").and_then(Value::as_array);
        let name = self.state.get("name");
        all.into_iter().flatten().filter(|one| one.get("orchestrator") == name).collect()
    }

    fn frame(&self) -> Vec<String> {
        let state = &self.state;
        let last = time_of_day(&cell(state, "/last_run_at"));
        let mut frame = vec![
            format!("{}  {}", cell(state, "/name"), cadence(state)),
            row("steps", &format!("{}, the newest at {last}", cell(state, "/run_count"))),
            row("launched", &self.launched()),
            row("all jobs", &self.jobs()),
        ];
        if let Some(error) = state.get("error_message").and_then(Value::as_str) {
            frame.push(row("error", error));
        }
        frame.extend(budgets(state).iter().map(|(name, text)| row(name, text)));
        let running = self.running();
        for (place, campaign) in running.iter().take(CAMPAIGNS).enumerate() {
            frame.push(row(if place == 0 { "campaigns" } else { "" }, &of_campaign(campaign)));
        }
        if running.len() > CAMPAIGNS {
            frame.push(row("", &format!("and {} more", running.len() - CAMPAIGNS)));
        }
        let decisions = self.runs.pointer("/0/actions/decisions").and_then(Value::as_array);
        for (place, decision) in decisions.into_iter().flatten().take(DECISIONS).enumerate() {
            let parts = ["/type", "/result", "/reason"].map(|pointer| cell(decision, pointer));
            let text = format!("{} {}: {}", parts[0], parts[1], parts[2]);
            frame.push(row(if place == 0 { "newest step" } else { "" }, &text));
        }
        frame
    }

    fn line(&self) -> String {
        let text = format!(
            "{}; {} steps; {} launched; jobs: {}; {} campaigns run",
            cadence(&self.state),
            cell(&self.state, "/run_count"),
            self.launched(),
            self.jobs(),
            self.running().len()
        );
        super::clean(&text)
    }
}

fn of_campaign(campaign: &Value) -> String {
    let count =
        |pointer: &str| campaign.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (begun, all) = (count("/current_iteration"), count("/max_iterations"));
    let name: String = cell(campaign, "/name").chars().take(NAME).collect();
    let best = score(campaign, "/best_score");
    format!("{name:<NAME$} {} {begun} of {all}, best {best}", bar(begun as f64, all as f64, BAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let state = json!({"name": "default", "mode": "SCHEDULED", "is_active": true,
            "schedule": {"interval_seconds": 1}, "run_count": 7, "total_simulations_launched": 8,
            "total_experiments_launched": 0, "total_trainings_launched": 0,
            "last_run_at": "2026-01-31T12:00:03.500Z", "error_message": null});
        let campaign = |name: &str, orchestrator: &str| {
            json!({"name": name, "orchestrator": orchestrator, "current_iteration": 2,
                   "max_iterations": 8, "best_score": 0.5})
        };
        let all: Vec<Value> = (0..9).map(|n| campaign(&format!("c{n}"), "default")).collect();
        let all = [all, vec![campaign("x", "other")]].concat();
        let runs = json!([{"actions": {"decisions": [
            {"type": "campaign_iteration", "result": "queued", "reason": "4 candidates to evaluate"}]}}]);
        let stats = json!({"pending_jobs": 1, "running_jobs": 3});
        Seen { state, campaigns: json!({"campaigns": all}), runs, stats }
    }

    #[test]
    fn a_frame_says_what_it_does() {
        let frame = seen().frame().join("\n");
        for part in [
            "default  SCHEDULED every 1 s\n",
            "steps        7, the newest at 12:00:03\n",
            "launched     8 simulations, 0 experiments, 0 trainings\n",
            "all jobs     1 wait, 3 run\n",
            "campaigns    c0                       [####............] 2 of 8, best 0.5\n",
            "             and 1 more\n",
            "newest step  campaign_iteration queued: 4 candidates to evaluate",
        ] {
            assert!(frame.contains(part), "`{part}` is missing:\n{frame}");
        }
        assert!(!frame.contains("other"), "{frame}");
    }

    #[test]
    fn a_line_says_it_in_short() {
        let wanted = "SCHEDULED every 1 s; 7 steps; 8 simulations, 0 experiments, 0 trainings \
                      launched; jobs: 1 wait, 3 run; 9 campaigns run";
        assert_eq!(seen().line(), wanted);
    }
}

//! The autoscaler: decides how many nodes there shall be (contract 2.10). Every decision is a
//! replicated event, one per rule and cool-down, whoever leads.
//!
//! What a decision brings about is the provider's business: `manual` tells a webhook; `command` has the
//! leader run the program that the operator named in the members' own configuration files.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command as Program;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::fleet_figures::{Figures, SAMPLE_EVERY_MS, Samples};
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::{NodeId, NodeStatus, ScalingAction, ScalingEvent, TimeMs};
use crate::state::{Command, ScalingRule, State};

/// How often it looks: with every sample, which is more often than contract 2.10 asks for.
const PERIOD: Duration = Duration::from_millis(SAMPLE_EVERY_MS);
/// Nothing is decided by fewer samples.
const SAMPLES_MIN: usize = 3;
/// The longest the operator's program may run.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);
/// What is kept of what it said.
const OUTPUT_BYTES_MAX: usize = 1024;
/// The most nodes that one decision names.
const NAMED_MAX: u32 = 256;

fn metric_of(rule: &ScalingRule, figures: &Figures) -> Option<u64> {
    match rule.metric.as_str() {
        "network_utilization" => figures.utilization_milli,
        "pending_tasks_ratio" => figures.pending_milli,
        "average_response_time" => figures.response_milli,
        _ => None,
    }
}

/// What `rule` asks for, if anything.
#[must_use]
pub(super) fn decide(rule: &ScalingRule, figures: &Figures) -> Option<ScalingEvent> {
    if figures.samples < SAMPLES_MIN || !figures.whole {
        return None;
    }
    let value = metric_of(rule, figures)?;
    let nodes = figures.active_nodes;
    let (action, target, threshold) = if value > rule.up_milli && nodes < rule.nodes_max {
        (ScalingAction::Up, nodes.saturating_add(rule.step_up).min(rule.nodes_max), rule.up_milli)
    } else if value < rule.down_milli && nodes > rule.nodes_min {
        let target = nodes.saturating_sub(rule.step_down).max(rule.nodes_min);
        (ScalingAction::Down, target, rule.down_milli)
    } else {
        return None;
    };
    let side = if action == ScalingAction::Up { "above" } else { "below" };
    Some(ScalingEvent {
        number: 0,
        at_ms: 0,
        action,
        rule: rule.name.clone(),
        current_nodes: nodes,
        target_nodes: target,
        metric_milli: value,
        threshold_milli: threshold,
        reason: format!("{} is {side} its threshold over {} s", rule.metric, rule.window_ms / 1000),
        provider: String::new(),
        outcome: None,
        nodes: Vec::new(),
    })
}

/// The nodes that are to go first when there shall be `fewer`: those with the least load, then with
/// the least work (contract 2.10).
fn least_loaded(view: &State, fewer: u32) -> Vec<NodeId> {
    let active = view.nodes().filter(|node| node.status == NodeStatus::Active);
    let mut nodes: Vec<_> =
        active.map(|node| (node.load.score_milli, node.live, &node.node_id)).collect();
    nodes.sort();
    let first = nodes.into_iter().take(fewer.min(NAMED_MAX) as usize);
    first.map(|(_, _, node_id)| node_id.clone()).collect()
}

/// The decisions that are due at `now`, each with its cool-down.
#[must_use]
pub(super) fn plan(view: &State, samples: &Samples, now: TimeMs) -> Vec<(ScalingEvent, u64)> {
    let policy = view.policy();
    if !policy.scaling_enabled {
        return Vec::new();
    }
    let provider = if policy.scaling_by_command { "command" } else { "manual" };
    let due = policy.scaling_rules.iter().filter_map(|rule| {
        let last = view.last_scaling(&rule.name).map_or(0, |last| last.at_ms);
        if last > 0 && last.saturating_add(rule.cooldown_ms) > now {
            return None;
        }
        let event = decide(rule, &samples.over(rule.window_ms))?;
        let nodes = match event.action {
            ScalingAction::Up => Vec::new(),
            ScalingAction::Down => least_loaded(view, event.current_nodes - event.target_nodes),
        };
        Some((ScalingEvent { provider: provider.to_owned(), nodes, ..event }, rule.cooldown_ms))
    });
    due.collect()
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub(super) struct Autoscaler {
    samples: Samples,
}

impl<S: Seat> Duty<S> for Autoscaler {
    const NAME: DutyName = DutyName::Autoscaler;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (due, open) = reign.seat.read(|view| {
            let now = state_now(&*reign.seat, view);
            self.samples.take(view, now, SAMPLE_EVERY_MS);
            let open = view
                .scalings()
                .find(|event| event.outcome.is_none() && event.provider == "command");
            (plan(view, &self.samples, now), open.cloned())
        });
        for (event, cooldown_ms) in due {
            let epoch = reign.epoch;
            reign.propose(Command::RecordScaling { epoch, event, cooldown_ms }).await?;
        }
        if let Some(event) = open {
            let outcome = run(reign.scaling_program.clone(), &event).await;
            info!(number = event.number, outcome, "the scaling program ended");
            let (epoch, number) = (reign.epoch, event.number);
            reign.propose(Command::RecordScalingOutcome { epoch, number, outcome }).await?;
            return Ok(Next::Again(Duration::ZERO));
        }
        Ok(Next::Wait(PERIOD))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.autoscaler
    }
}

/// Runs the operator's program: `PROGRAM scale_up|scale_down CURRENT TARGET`. It may run again for the
/// same decision when the leader changes in the middle, so it gets the number that is wanted, not a
/// difference.
async fn run(program: Option<PathBuf>, event: &ScalingEvent) -> String {
    let Some(program) = program else {
        return "no program is configured on the leading member".to_owned();
    };
    let nodes: Vec<&str> = event.nodes.iter().map(NodeId::as_str).collect();
    let mut command = Program::new(&program);
    command
        .arg(event.action.as_str())
        .arg(event.current_nodes.to_string())
        .arg(event.target_nodes.to_string())
        .env("QUORATE_SCALING_NUMBER", event.number.to_string())
        .env("QUORATE_SCALING_RULE", &event.rule)
        .env("QUORATE_SCALING_NODES", nodes.join("\n"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match tokio::time::timeout(PROGRAM_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => {
            let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            let mut said = String::from_utf8_lossy(&said).trim().to_owned();
            let cut = (0..=said.len().min(OUTPUT_BYTES_MAX)).rev();
            said.truncate(cut.into_iter().find(|at| said.is_char_boundary(*at)).unwrap_or(0));
            format!("{}: {said}", output.status)
        }
        Ok(Err(error)) => {
            warn!(program = %program.display(), %error, "the scaling program cannot be run");
            format!("cannot be run: {error}")
        }
        Err(_elapsed) => format!("killed after {} s", PROGRAM_TIMEOUT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;

    fn rule(up: u64, down: u64) -> ScalingRule {
        ScalingRule {
            name: "r".to_owned(),
            metric: "network_utilization".to_owned(),
            up_milli: up,
            down_milli: down,
            window_ms: 1000,
            cooldown_ms: 1000,
            nodes_min: 2,
            nodes_max: 6,
            step_up: 3,
            step_down: 2,
        }
    }

    #[test]
    fn contract_2_10_up_and_down_within_the_bounds_of_the_rule() {
        let figures = |value, nodes| Figures {
            samples: 3,
            whole: true,
            utilization_milli: Some(value),
            active_nodes: nodes,
            ..Figures::default()
        };
        let target = |value, nodes| {
            decide(&rule(800, 300), &figures(value, nodes))
                .map(|event| (event.action, event.target_nodes))
        };
        assert_eq!(target(900, 2), Some((ScalingAction::Up, 5)));
        assert_eq!(target(900, 5), Some((ScalingAction::Up, 6)), "not beyond the most");
        assert_eq!(target(900, 6), None);
        assert_eq!(target(800, 2), None, "at the threshold is not above it");
        assert_eq!(target(100, 3), Some((ScalingAction::Down, 2)), "not below the least");
        assert_eq!(target(100, 2), None);
        let few = Figures { samples: 2, ..figures(900, 2) };
        assert_eq!(decide(&rule(800, 300), &few), None);
        let short = Figures { whole: false, ..figures(900, 2) };
        assert_eq!(decide(&rule(800, 300), &short), None);
    }

    #[test]
    fn contract_2_10_the_least_loaded_nodes_go_first() {
        let solo = Solo::new();
        for (name, score) in [("a", 500), ("b", 100), ("c", 300), ("d", 100), ("out", 0)] {
            solo.register(name, |spec| spec.load.score_milli = score);
        }
        let node_id = NodeId::trusted("out");
        solo.commit(Command::SetNodeStatus { node_id, status: NodeStatus::Offline }).unwrap();
        let names = |fewer| least_loaded(&solo.state.read(), fewer);
        assert_eq!(names(3), ["b", "d", "c"].map(NodeId::trusted));
        assert_eq!(names(0), []);
        assert_eq!(names(9).len(), 4, "only those that are in service");
    }

    #[tokio::test]
    async fn the_program_is_told_what_is_wanted() {
        let event = ScalingEvent {
            current_nodes: 2,
            target_nodes: 5,
            ..decide(
                &rule(0, 0),
                &Figures {
                    samples: 3,
                    whole: true,
                    utilization_milli: Some(1),
                    active_nodes: 2,
                    ..Figures::default()
                },
            )
            .unwrap()
        };
        let said = run(Some("/bin/echo".into()), &event).await;
        assert!(said.ends_with("scale_up 2 5"), "{said}");
        assert!(run(None, &event).await.contains("no program"));
        assert!(run(Some("/does/not/exist".into()), &event).await.contains("cannot be run"));
    }
}

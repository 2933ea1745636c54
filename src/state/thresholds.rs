//! What the configuration says of alerts and scaling (contract 2.10 to 2.12), in thousandths: no
//! float enters the replicated state.

use serde_json::Value;

use super::document::flag;
use crate::model::TimeMs;

/// The most scaling rules that are read.
const RULES_MAX: usize = 32;
/// A window must hold the three samples that a decision takes, of one each ten seconds,
const WINDOW_MIN_MS: TimeMs = 30_000;
/// and no more than are kept.
const WINDOW_MAX_MS: TimeMs = 4_800_000;

/// Two limits of one figure, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// From here on it is a warning.
    pub warning_milli: u64,
    /// From here on it is critical.
    pub critical_milli: u64,
}

/// The thresholds of contract 2.11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Share of the fleet in use; too high.
    pub network_utilization: Threshold,
    /// Nodes lost within the window; too many.
    pub node_failure_rate: Threshold,
    /// Share of tasks that completed; too low.
    pub task_success_rate: Threshold,
    /// Milliseconds from acceptance to result; too long.
    pub average_response_time: Threshold,
    /// Mean percent of CPU in use, where a limit is set; too high.
    pub cpu_usage: Threshold,
    /// As `cpu_usage`, of memory.
    pub memory_usage: Threshold,
}

/// Where advice to operators begins (contract 2.10, 2.12), in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdviceLimits {
    /// `performance.performance_threshold`: share of the fleet in use.
    pub utilization_milli: u64,
    /// `performance.cpu_threshold`: percent of a node's CPU.
    pub cpu_milli: u64,
    /// `performance.memory_threshold`: percent of a node's memory.
    pub memory_milli: u64,
    /// `performance.latency_threshold`: milliseconds to a node; without one, no advice is given.
    pub latency_milli: Option<u64>,
}

/// What a load score is made of that a node does not tell itself (contract 2.8):
/// `performance.load_balancing.weight_*`, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadWeights {
    /// Of the CPU in use.
    pub cpu_milli: u64,
    /// Of the memory in use.
    pub memory_milli: u64,
    /// Of the tasks that run, ten of which are all.
    pub tasks_milli: u64,
}

/// One rule of the autoscaler (contract 2.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalingRule {
    /// Its name.
    pub name: String,
    /// `network_utilization`, `pending_tasks_ratio` or `average_response_time`.
    pub metric: String,
    /// More nodes when the mean is above this, in thousandths.
    pub up_milli: u64,
    /// Fewer nodes when the mean is below this, in thousandths.
    pub down_milli: u64,
    /// The mean is taken over this time.
    pub window_ms: TimeMs,
    /// It decides again after this time.
    pub cooldown_ms: TimeMs,
    /// It never asks for fewer nodes.
    pub nodes_min: u32,
    /// It never asks for more nodes.
    pub nodes_max: u32,
    /// Nodes added at once.
    pub step_up: u32,
    /// Nodes taken out at once.
    pub step_down: u32,
}

/// A decimal number in thousandths; `None` for what is no plain number of at most 12 digits.
pub(super) fn milli(value: &Value) -> Option<u64> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if whole.len() > 12 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + thousandths.parse::<u64>().ok()?)
}

fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key)).filter(|value| !value.is_null())
}

fn milli_at(document: &Value, path: &str, default: u64) -> Result<u64, String> {
    let Some(value) = at(document, path) else { return Ok(default) };
    milli(value).ok_or_else(|| format!("{path} must be a number, not {value}"))
}

impl Thresholds {
    /// Reads `alerts.thresholds`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn of(document: &Value) -> Result<Self, String> {
        let limit = |key: &str, default: u64| {
            milli_at(document, &format!("alerts.thresholds.{key}"), default)
        };
        let failures = limit("node_failure_count", 2000)?;
        let success = limit("low_success_rate", 900)?;
        let response = limit("high_response_time", 5_000_000)?;
        // What no limit is set for is never beyond it.
        let never = u64::MAX;
        let one = |warning_milli| Threshold { warning_milli, critical_milli: never };
        Ok(Self {
            cpu_usage: one(limit("high_cpu_threshold", never)?),
            memory_usage: one(limit("high_memory_threshold", never)?),
            network_utilization: Threshold {
                warning_milli: limit("medium_utilization", 800)?,
                critical_milli: limit("high_utilization", 900)?,
            },
            node_failure_rate: Threshold {
                warning_milli: failures,
                critical_milli: failures.saturating_add(1000),
            },
            task_success_rate: Threshold {
                warning_milli: success,
                critical_milli: success.saturating_sub(100),
            },
            average_response_time: Threshold {
                warning_milli: response / 5 * 3,
                critical_milli: response,
            },
        })
    }
}

impl AdviceLimits {
    /// Reads `performance`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn of(document: &Value) -> Result<Self, String> {
        let limit = |key: &str, default| milli_at(document, &format!("performance.{key}"), default);
        let latency = limit("latency_threshold", u64::MAX)?;
        Ok(Self {
            utilization_milli: limit("performance_threshold", 800)?,
            cpu_milli: limit("cpu_threshold", 90_000)?,
            memory_milli: limit("memory_threshold", 90_000)?,
            latency_milli: (latency < u64::MAX).then_some(latency),
        })
    }
}

impl LoadWeights {
    /// Reads `performance.load_balancing`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn of(document: &Value) -> Result<Self, String> {
        let weight = |key: &str, default| {
            milli_at(document, &format!("performance.load_balancing.{key}"), default)
        };
        Ok(Self {
            cpu_milli: weight("weight_cpu", 400)?,
            memory_milli: weight("weight_memory", 300)?,
            tasks_milli: weight("weight_tasks", 300)?,
        })
    }

    /// The score in thousandths of a node that uses so many thousandths of a percent of its CPU and
    /// memory, and runs so many tasks; what adds up to more than all counts as all.
    #[must_use]
    pub fn score_milli(&self, cpu_milli: u32, memory_milli: u32, tasks: u32) -> u32 {
        const ALL: u64 = 100_000;
        let part = |weight: u64, used: u64| weight.min(1000) * used.min(ALL);
        let sum = part(self.cpu_milli, u64::from(cpu_milli))
            + part(self.memory_milli, u64::from(memory_milli))
            + part(self.tasks_milli, u64::from(tasks) * (ALL / 10));
        ((sum + ALL / 2) / ALL).min(1000) as u32
    }
}

/// Reads `auto_scaling.scaling_rules`; without any, the three of contract 2.10, with the bounds and
/// thresholds that `auto_scaling` or `performance.auto_scaling` set for all of them.
///
/// # Errors
/// What is wrong with which rule.
pub(super) fn scaling_rules(document: &Value) -> Result<Vec<ScalingRule>, String> {
    match at(document, "auto_scaling.scaling_rules") {
        None => default_rules(document),
        Some(Value::Array(rules)) if rules.is_empty() => default_rules(document),
        Some(Value::Array(rules)) if rules.len() <= RULES_MAX => {
            rules.iter().enumerate().map(|(place, rule)| read_rule(place, rule)).collect()
        }
        Some(_) => Err(format!("auto_scaling.scaling_rules must be a list of at most {RULES_MAX}")),
    }
}

fn default_rules(document: &Value) -> Result<Vec<ScalingRule>, String> {
    const MINUTE_MS: u64 = 60_000;
    let rule = |name: &str, metric: &str, limits: [u64; 4], nodes: [u32; 2], steps: [u32; 2]| {
        ScalingRule {
            name: name.to_owned(),
            metric: metric.to_owned(),
            up_milli: limits[0],
            down_milli: limits[1],
            window_ms: limits[2] * MINUTE_MS,
            cooldown_ms: limits[3] * MINUTE_MS,
            nodes_min: nodes[0],
            nodes_max: nodes[1],
            step_up: steps[0],
            step_down: steps[1],
        }
    };
    let mut rules = vec![
        rule("high_utilization", "network_utilization", [800, 300, 5, 10], [2, 20], [2, 1]),
        rule("high_task_queue", "pending_tasks_ratio", [500, 100, 3, 5], [1, 15], [3, 1]),
        rule(
            "response_time",
            "average_response_time",
            [3_000_000, 1_000_000, 2, 8],
            [1, 10],
            [1, 1],
        ),
    ];
    for section in ["performance.auto_scaling", "auto_scaling"] {
        let number = |key: &str| -> Result<Option<u64>, String> {
            let path = format!("{section}.{key}");
            let Some(value) = at(document, &path) else { return Ok(None) };
            let milli = milli(value).ok_or_else(|| format!("{path} must be a number"))?;
            Ok(Some(milli))
        };
        let nodes = |key: &str| -> Result<Option<u32>, String> {
            Ok(number(key)?.map(|milli| u32::try_from(milli / 1000).unwrap_or(u32::MAX)))
        };
        let (least, most) = (nodes("min_nodes")?, nodes("max_nodes")?);
        let cooldown = number("cooldown_period")?;
        let window = number("metrics_window")?;
        if window.is_some_and(|ms| !(WINDOW_MIN_MS..=WINDOW_MAX_MS).contains(&ms)) {
            let (least, most) = (WINDOW_MIN_MS / 1000, WINDOW_MAX_MS / 1000);
            return Err(format!("{section}.metrics_window must be {least} to {most} seconds"));
        }
        let (up, down) = (number("scale_up_threshold")?, number("scale_down_threshold")?);
        for rule in &mut rules {
            rule.nodes_min = least.unwrap_or(rule.nodes_min);
            rule.nodes_max = most.unwrap_or(rule.nodes_max);
            // Seconds in thousandths are milliseconds.
            rule.window_ms = window.unwrap_or(rule.window_ms);
            rule.cooldown_ms = cooldown.unwrap_or(rule.cooldown_ms);
            if rule.metric == "network_utilization" {
                rule.up_milli = up.unwrap_or(rule.up_milli);
                rule.down_milli = down.unwrap_or(rule.down_milli);
            }
        }
    }
    Ok(rules)
}

/// Whether the autoscaler decides anything: what stands nearest to its rules counts (contract 2.12).
pub(super) fn scaling_enabled(document: &Value) -> Result<bool, String> {
    let paths = [
        "auto_scaling.enabled",
        "performance.auto_scaling.enabled",
        "network.auto_scaling_enabled",
    ];
    for path in paths {
        if let Some(enabled) = flag(document, path)? {
            return Ok(enabled);
        }
    }
    Ok(true)
}

fn read_rule(place: usize, rule: &Value) -> Result<ScalingRule, String> {
    let wrong =
        |key: &str, what: &str| format!("auto_scaling.scaling_rules[{place}].{key} must be {what}");
    let text = |key: &str| {
        let text = rule.get(key).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| wrong(key, "a text"))
    };
    let number = |key: &str, default: Option<u64>| {
        let value = rule.get(key).filter(|value| !value.is_null());
        match (value.map(milli), default) {
            (Some(Some(milli)), _) | (None, Some(milli)) => Ok(milli),
            _ => Err(wrong(key, "a number")),
        }
    };
    let count = |key: &str, default: u64| -> Result<u32, String> {
        Ok(u32::try_from(number(key, Some(default * 1000))? / 1000).unwrap_or(u32::MAX))
    };
    let metric = text("metric")?;
    let known = ["network_utilization", "pending_tasks_ratio", "average_response_time"];
    if !known.contains(&metric.as_str()) {
        return Err(wrong("metric", &format!("one of {}", known.join(", "))));
    }
    Ok(ScalingRule {
        name: text("name")?,
        metric,
        up_milli: number("scale_up_threshold", None)?,
        down_milli: number("scale_down_threshold", None)?,
        window_ms: number("window_minutes", Some(5000))? * 60,
        cooldown_ms: number("cooldown_minutes", Some(10_000))? * 60,
        nodes_min: count("min_nodes", 1)?,
        nodes_max: count("max_nodes", 20)?,
        step_up: count("scale_up_step", 1)?.max(1),
        step_down: count("scale_down_step", 1)?.max(1),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decimals_become_thousandths() {
        for (value, expected) in [
            (json!(0.8), Some(800)),
            (json!(2), Some(2000)),
            (json!("0.8505"), Some(850)),
            (json!(5000), Some(5_000_000)),
            (json!(-1), None),
            (json!(1e300), None),
            (json!("x"), None),
            (json!(null), None),
        ] {
            assert_eq!(milli(&value), expected, "{value}");
        }
    }

    #[test]
    fn contract_2_10_the_three_rules_and_what_overrides_them() {
        let rules = scaling_rules(&json!({})).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["high_utilization", "high_task_queue", "response_time"]);
        assert_eq!(
            (rules[0].nodes_min, rules[0].nodes_max, rules[0].cooldown_ms),
            (2, 20, 600_000)
        );
        let document = json!({"performance": {"auto_scaling": {"scale_up_threshold": 0.85,
            "max_nodes": 50, "cooldown_period": 300}}});
        let rules = scaling_rules(&document).unwrap();
        assert_eq!(
            (rules[0].up_milli, rules[1].nodes_max, rules[2].cooldown_ms),
            (850, 50, 300_000)
        );
        let own = json!({"auto_scaling": {"scaling_rules": [{"name": "mine",
            "metric": "pending_tasks_ratio", "scale_up_threshold": 2, "scale_down_threshold": 0.5}]}});
        let rules = scaling_rules(&own).unwrap();
        assert_eq!((rules.len(), rules[0].up_milli, rules[0].window_ms), (1, 2000, 300_000));
        let wrong = json!({"auto_scaling": {"scaling_rules": [{"name": "m", "metric": "moon"}]}});
        assert!(scaling_rules(&wrong).unwrap_err().contains("scaling_rules[0].metric"));
    }

    #[test]
    fn contract_2_12_the_switch_and_the_window_of_performance_auto_scaling() {
        let with = |document: Value| (scaling_enabled(&document), scaling_rules(&document));
        assert_eq!(with(json!({})).0, Ok(true));
        let off = json!({"network": {"auto_scaling_enabled": true},
            "performance": {"auto_scaling": {"enabled": false, "metrics_window": 600}}});
        let (enabled, rules) = with(off);
        assert_eq!(enabled, Ok(false));
        assert!(rules.unwrap().iter().all(|rule| rule.window_ms == 600_000));
        let nearest = json!({"auto_scaling": {"enabled": true},
            "performance": {"auto_scaling": {"enabled": false}}});
        assert_eq!(with(nearest).0, Ok(true));
        for window in [0, 29, 4801] {
            let wrong = json!({"performance": {"auto_scaling": {"metrics_window": window}}});
            assert!(with(wrong).1.unwrap_err().contains("metrics_window must be 30 to 4800"));
        }
    }

    #[test]
    fn contract_2_11_thresholds() {
        let thresholds = Thresholds::of(&json!({})).unwrap();
        assert_eq!(thresholds.task_success_rate.critical_milli, 800);
        assert_eq!(thresholds.average_response_time.warning_milli, 3_000_000);
        assert_eq!(thresholds.node_failure_rate.critical_milli, 3000);
        let wrong = json!({"alerts": {"thresholds": {"low_success_rate": []}}});
        assert!(Thresholds::of(&wrong).unwrap_err().contains("low_success_rate"));
        assert_eq!(thresholds.cpu_usage.warning_milli, u64::MAX, "no limit is set");
    }

    #[test]
    fn contract_2_12_where_advice_begins_can_be_set() {
        let usual = AdviceLimits::of(&json!({})).unwrap();
        assert_eq!((usual.utilization_milli, usual.cpu_milli), (800, 90_000));
        assert_eq!((usual.memory_milli, usual.latency_milli), (90_000, None));
        let document = json!({"performance": {"performance_threshold": 0.7, "cpu_threshold": 80,
            "memory_threshold": "85", "latency_threshold": 1000}});
        let set = AdviceLimits::of(&document).unwrap();
        assert_eq!((set.utilization_milli, set.cpu_milli), (700, 80_000));
        assert_eq!((set.memory_milli, set.latency_milli), (85_000, Some(1_000_000)));
        let wrong = json!({"performance": {"cpu_threshold": []}});
        assert!(AdviceLimits::of(&wrong).unwrap_err().contains("performance.cpu_threshold"));
    }

    #[test]
    fn contract_2_8_a_load_score_is_weighed_as_the_configuration_says() {
        let usual = LoadWeights::of(&json!({})).unwrap();
        assert_eq!(usual.score_milli(50_000, 20_000, 2), 320);
        assert_eq!(usual.score_milli(100_000, 100_000, 99), 1000);
        assert_eq!(usual.score_milli(0, 0, 0), 0);
        let weights = json!({"weight_cpu": 1, "weight_memory": 0, "weight_tasks": 0.5});
        let document = json!({"performance": {"load_balancing": weights}});
        let set = LoadWeights::of(&document).unwrap();
        assert_eq!(set.score_milli(30_500, 90_000, 4), 505);
        assert_eq!(set.score_milli(90_000, 0, 10), 1000, "more than all is all");
    }
}

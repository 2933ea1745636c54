//! What the figures of the fleet say an operator should do (contract 2.10), beside the figures
//! themselves (contract 2.3, `metrics/performance`). Both are computed from what the cluster knows;
//! where it knows nothing, no advice is given.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::figures::{Means, NetworkMetrics, means, network_metrics};
use super::nodes::Book;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::wire_time::iso;
use crate::model::{Load, Node, NodeStatus};
use crate::state::{AdviceLimits, State as Tables};

/// Utilization below which fewer nodes would do.
const UTILIZATION_LOW: f64 = 0.2;
/// Mean response time above which work should be spread otherwise, in milliseconds.
const RESPONSE_SLOW_MS: f64 = 5000.0;
/// How far a node's load score must be from the mean of all to count as out of balance.
const IMBALANCE: f64 = 0.2;
/// Nodes that one piece of advice names; the number of all is beside them.
const NAMED_MAX: usize = 20;

/// One piece of advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::api) struct Recommendation {
    #[serde(rename = "type")]
    kind: &'static str,
    priority: &'static str,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Details {
    Imbalance {
        mean_load_score: f64,
        overloaded: Vec<String>,
        overloaded_count: usize,
        underloaded: Vec<String>,
        underloaded_count: usize,
    },
    Short {
        resource: &'static str,
        nodes: Vec<String>,
        node_count: usize,
    },
}

/// What of one node the advice depends on.
#[derive(Debug, Clone, PartialEq)]
struct NodeFigures<'a> {
    node_id: &'a str,
    load_score: f64,
    cpu: f64,
    memory: f64,
    /// Milliseconds.
    latency: f64,
}

impl<'a> NodeFigures<'a> {
    fn of(node: &'a Node, load: Load) -> Self {
        let milli = |value: u32| f64::from(value) / 1000.0;
        Self {
            node_id: node.node_id.as_str(),
            load_score: milli(load.score_milli),
            cpu: milli(load.cpu_milli),
            memory: milli(load.memory_milli),
            latency: milli(load.latency_us),
        }
    }
}

/// All advice that the figures of `state` give, the most urgent first.
pub(in crate::api) fn recommendations(
    metrics: &NetworkMetrics,
    state: &Tables,
    book: &Book,
) -> Vec<Recommendation> {
    // Nodes that are away report nothing, and their last figures would speak for them.
    let here = state.nodes().filter(|node| node.status != NodeStatus::Offline);
    let nodes: Vec<_> =
        here.map(|node| NodeFigures::of(node, book.of(node).load.unwrap_or(node.load))).collect();
    let limits = Limits::of(&state.policy().advice);
    advise((metrics.network_utilization, metrics.average_response_time), &nodes, limits)
}

/// Where advice begins, in the units of the figures.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Utilization above which more nodes are wanted, 0 to 1.
    utilization: f64,
    /// CPU and memory above which a node is short of it, in percent.
    cpu: f64,
    memory: f64,
    /// Milliseconds above which a node is far away, if that matters.
    latency: Option<f64>,
}

impl Limits {
    fn of(limits: &AdviceLimits) -> Self {
        let milli = |value: u64| value as f64 / 1000.0;
        Self {
            utilization: milli(limits.utilization_milli),
            cpu: milli(limits.cpu_milli),
            memory: milli(limits.memory_milli),
            latency: limits.latency_milli.map(milli),
        }
    }
}

fn advise(
    (utilization, response_ms): (f64, f64),
    nodes: &[NodeFigures<'_>],
    limits: Limits,
) -> Vec<Recommendation> {
    let mut advice = Vec::new();
    let scaling = || scaling(utilization, limits.utilization);
    advice.extend(scaling().filter(|advice| advice.priority == "high"));
    advice.extend(short_of("cpu", nodes, limits.cpu, |node| node.cpu));
    advice.extend(short_of("memory", nodes, limits.memory, |node| node.memory));
    advice.extend(limits.latency.and_then(|limit| far_away(nodes, limit)));
    advice.extend(slow_answers(response_ms));
    advice.extend(imbalance(nodes));
    advice.extend(scaling().filter(|advice| advice.priority == "low"));
    advice
}

fn scaling(utilization: f64, limit: f64) -> Option<Recommendation> {
    let percent = utilization * 100.0;
    let (priority, what) = if utilization > limit {
        ("high", "add nodes")
    } else if utilization < UTILIZATION_LOW {
        ("low", "fewer nodes would do")
    } else {
        return None;
    };
    let description = format!("Network utilization is {percent:.1} %: {what}");
    Some(Recommendation { kind: "auto_scaling", priority, description, details: None })
}

fn slow_answers(response_ms: f64) -> Option<Recommendation> {
    let description =
        format!("The average response time is {response_ms:.0} ms: spread the work otherwise");
    let advice =
        Recommendation { kind: "load_rebalancing", priority: "medium", description, details: None };
    (response_ms > RESPONSE_SLOW_MS).then_some(advice)
}

/// Some node is well above the mean load while another is well below it.
fn imbalance(nodes: &[NodeFigures<'_>]) -> Option<Recommendation> {
    let mean = nodes.iter().map(|node| node.load_score).sum::<f64>() / nodes.len().max(1) as f64;
    let those = |wanted: &dyn Fn(f64) -> bool| -> Vec<&str> {
        nodes.iter().filter(|node| wanted(node.load_score)).map(|node| node.node_id).collect()
    };
    let above = those(&|score| score > mean + IMBALANCE);
    let below = those(&|score| score < mean - IMBALANCE);
    if above.is_empty() || below.is_empty() {
        return None;
    }
    let description = format!(
        "{} nodes carry far more than the mean load of {mean:.2} and {} far less: rebalance",
        above.len(),
        below.len()
    );
    let details = Details::Imbalance {
        mean_load_score: mean,
        overloaded: named(&above),
        overloaded_count: above.len(),
        underloaded: named(&below),
        underloaded_count: below.len(),
    };
    let (kind, priority) = ("load_rebalancing", "medium");
    Some(Recommendation { kind, priority, description, details: Some(details) })
}

fn short_of(
    resource: &'static str,
    nodes: &[NodeFigures<'_>],
    limit: f64,
    usage: impl Fn(&NodeFigures<'_>) -> f64,
) -> Option<Recommendation> {
    let short: Vec<&str> =
        nodes.iter().filter(|node| usage(node) > limit).map(|node| node.node_id).collect();
    let description = format!("{} nodes use more than {limit} % of their {resource}", short.len());
    of_nodes(resource, "high", &short, description)
}

/// Nodes that take longer than `limit` milliseconds to answer.
fn far_away(nodes: &[NodeFigures<'_>], limit: f64) -> Option<Recommendation> {
    let far: Vec<&str> =
        nodes.iter().filter(|node| node.latency > limit).map(|node| node.node_id).collect();
    let description = format!("{} nodes are more than {limit} ms away", far.len());
    of_nodes("network", "medium", &far, description)
}

fn of_nodes(
    resource: &'static str,
    priority: &'static str,
    node_ids: &[&str],
    description: String,
) -> Option<Recommendation> {
    if node_ids.is_empty() {
        return None;
    }
    let details = Details::Short { resource, nodes: named(node_ids), node_count: node_ids.len() };
    let kind = "resource_optimization";
    Some(Recommendation { kind, priority, description, details: Some(details) })
}

fn named(node_ids: &[&str]) -> Vec<String> {
    node_ids.iter().take(NAMED_MAX).map(|node_id| (*node_id).to_owned()).collect()
}

#[derive(Serialize)]
struct PerformanceReply {
    success: bool,
    performance_analysis: Analysis,
    recommendations: Vec<Recommendation>,
    performance: Performance,
}

/// The shape of the new generation.
#[derive(Serialize)]
struct Analysis {
    timestamp: String,
    network_utilization: f64,
    avg_response_time: f64,
    task_throughput: f64,
    recommendations: Vec<Recommendation>,
}

/// The shape of the old generation.
#[derive(Serialize)]
struct Performance {
    network_utilization: f64,
    average_cpu_usage: f64,
    average_memory_usage: f64,
    average_network_latency: f64,
    total_nodes: usize,
    active_nodes: usize,
    /// Per minute.
    task_throughput: f64,
    /// Percent here, and a fraction elsewhere (contract C19).
    success_rate: f64,
}

impl Performance {
    fn of(metrics: &NetworkMetrics, means: Means) -> Self {
        Self {
            network_utilization: metrics.network_utilization,
            average_cpu_usage: means.cpu,
            average_memory_usage: means.memory,
            average_network_latency: means.latency,
            total_nodes: metrics.total_nodes,
            active_nodes: metrics.active_nodes,
            task_throughput: metrics.throughput_per_minute,
            success_rate: metrics.success_rate * 100.0,
        }
    }
}

/// `GET /api/v1/metrics/performance`, in the shapes of both generations.
pub(in crate::api) async fn performance(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let (metrics, means, recommendations) = app.show(&mut stamp, |state| {
        let metrics = network_metrics(&app, state, &book);
        let recommendations = recommendations(&metrics, state, &book);
        (metrics, means(state, &book), recommendations)
    });
    let body = reply::encode(&PerformanceReply {
        success: true,
        performance_analysis: Analysis {
            timestamp: iso(book.now()),
            network_utilization: metrics.network_utilization,
            avg_response_time: metrics.average_response_time,
            task_throughput: metrics.throughput_per_minute,
            recommendations: recommendations.clone(),
        },
        recommendations,
        performance: Performance::of(&metrics, means),
    });
    Ok(reply::read(&stamp, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: &str, load_score: f64, cpu: f64, memory: f64) -> NodeFigures<'_> {
        NodeFigures { node_id, load_score, cpu, memory, latency: 1500.0 }
    }

    fn kinds(utilization: f64, response_ms: f64, nodes: &[NodeFigures<'_>]) -> Vec<String> {
        let advice = advise((utilization, response_ms), nodes, usual());
        advice.iter().map(|advice| format!("{} {}", advice.kind, advice.priority)).collect()
    }

    #[test]
    fn contract_2_10_the_thresholds() {
        let calm = [node("n1", 0.5, 50.0, 50.0)];
        assert_eq!(kinds(0.5, 5000.0, &calm), [""; 0]);
        assert_eq!(kinds(0.8, 0.0, &calm), [""; 0], "only above it");
        assert_eq!(kinds(0.81, 0.0, &calm), ["auto_scaling high"]);
        assert_eq!(kinds(0.2, 0.0, &calm), [""; 0]);
        assert_eq!(kinds(0.19, 0.0, &calm), ["auto_scaling low"]);
        assert_eq!(kinds(0.5, 5001.0, &calm), ["load_rebalancing medium"]);
        assert_eq!(kinds(0.5, 0.0, &[node("n1", 0.5, 90.1, 0.0)]), ["resource_optimization high"]);
        assert_eq!(kinds(0.5, 0.0, &[node("n1", 0.5, 90.0, 90.1)]), ["resource_optimization high"]);
    }

    fn usual() -> Limits {
        Limits::of(&crate::state::Policy::default().advice)
    }

    #[test]
    fn contract_2_12_advice_begins_where_the_configuration_says() {
        let nodes = [node("n1", 0.75, 85.0, 50.0)];
        assert_eq!(kinds(0.75, 0.0, &nodes), [""; 0]);
        let limits = Limits { utilization: 0.7, cpu: 80.0, memory: 85.0, latency: Some(1000.0) };
        let advice = serde_json::to_value(advise((0.75, 0.0), &nodes, limits)).unwrap();
        let kinds: Vec<_> = advice.as_array().unwrap().iter().map(|one| &one["type"]).collect();
        assert_eq!(kinds, ["auto_scaling", "resource_optimization", "resource_optimization"]);
        assert_eq!(advice[1]["description"], "1 nodes use more than 80 % of their cpu");
        assert_eq!(advice[2]["details"]["resource"], "network");
    }

    #[test]
    fn contract_2_10_rebalancing_needs_a_node_on_either_side() {
        let one_sided = [node("a", 0.9, 0.0, 0.0), node("b", 0.6, 0.0, 0.0)];
        assert_eq!(kinds(0.75, 0.0, &one_sided), [""; 0]);
        let apart = [node("a", 0.9, 0.0, 0.0), node("b", 0.5, 0.0, 0.0), node("c", 0.1, 0.0, 0.0)];
        let advice = serde_json::to_value(advise((0.5, 0.0), &apart, usual())).unwrap();
        assert_eq!(advice[0]["type"], "load_rebalancing");
        assert_eq!(advice[0]["details"]["overloaded"], serde_json::json!(["a"]));
        assert_eq!(advice[0]["details"]["underloaded"], serde_json::json!(["c"]));
    }

    #[test]
    fn advice_names_a_bounded_number_of_nodes() {
        let ids: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
        let nodes: Vec<_> = ids.iter().map(|id| node(id, 0.95, 99.0, 1.0)).collect();
        let advice = serde_json::to_value(advise((0.95, 0.0), &nodes, usual())).unwrap();
        assert_eq!(advice[0]["type"], "auto_scaling", "the most urgent first");
        let details = &advice[1]["details"];
        assert_eq!(details["nodes"].as_array().unwrap().len(), NAMED_MAX);
        assert_eq!((&details["node_count"], &details["resource"]), (&100.into(), &"cpu".into()));
    }
}

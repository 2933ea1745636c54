//! Tasks in steps, drawn by chance: how the steps hang together, who does them, and how the first
//! try of each goes.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::checker::pipelines::Plan;

/// Kinds of agents.
pub(super) const AGENT_TYPES: [&str; 3] = ["jepsen-red", "jepsen-green", "jepsen-blue"];
const MODES: [&str; 4] = ["sequential", "parallel", "hybrid", "graph"];
/// How the first try of a step goes.
const FATES: [&str; 12] = [
    "goes", "goes", "goes", "goes", "goes", "goes", "goes", "goes", "fails", "fails", "busy",
    "hangs",
];
/// One task in so many has a step that its agent refuses for good.
const REFUSES: f64 = 0.12;
/// Milliseconds for one try: a lost call is noticed soon.
const TRY_MS: u64 = 2500;
/// Milliseconds for a whole task: longer than any run.
const TASK_MS: u64 = 1_800_000;

/// Draws one.
pub(super) fn draw(rng: &mut StdRng) -> Plan {
    let mode = MODES[rng.random_range(0..MODES.len())];
    let len = rng.random_range(2..=5);
    let mut fates: Vec<String> =
        (0..len).map(|_| FATES[rng.random_range(0..FATES.len())].to_owned()).collect();
    if rng.random_bool(REFUSES) {
        let place = rng.random_range(0..len);
        "refuses".clone_into(&mut fates[place]);
    }
    let waits = (0..len).map(|place| waits_for(rng, mode, place, len)).collect();
    Plan { mode: mode.to_owned(), waits, fates }
}

/// The steps that the one at `place` works on the results of.
fn waits_for(rng: &mut StdRng, mode: &str, place: usize, len: usize) -> Vec<usize> {
    let stage = Plan::first_stage(len);
    match mode {
        "sequential" => (place.saturating_sub(1)..place).collect(),
        "hybrid" if place == stage => (0..stage).collect(),
        "hybrid" if place > stage => vec![place - 1],
        "graph" => {
            let (before, count): (Vec<usize>, _) =
                ((0..place).collect(), rng.random_range(0..=place.min(3)));
            let mut some: Vec<usize> = before.sample(rng, count).copied().collect();
            some.sort_unstable();
            some
        }
        _ => Vec::new(),
    }
}

fn name(place: usize) -> String {
    format!("s{place}")
}

/// The steps as clients write them.
pub(super) fn steps(plan: &Plan, rng: &mut StdRng) -> Vec<Value> {
    let step = |(place, fate): (usize, &String)| {
        let kind = AGENT_TYPES[rng.random_range(0..AGENT_TYPES.len())];
        let mut step = json!({"name": name(place), "agent_type": kind, "max_retries": 1000,
            "timeout_ms": TRY_MS, "parameters": {"fate": fate, "ms": rng.random_range(5..150)}});
        if plan.mode == "graph" {
            let waits = plan.waits[place].iter().map(|on| name(*on));
            step["depends_on"] = waits.collect();
        }
        step
    };
    plan.fates.iter().enumerate().map(step).collect()
}

/// The task. Without `steps` it does what the pipeline of its own name says.
pub(super) fn task(id: &str, plan: &Plan, steps: Option<Vec<Value>>) -> Value {
    let mut body = json!({"task_id": id, "task_type": id, "timeout_ms": TASK_MS,
        "inputs": [{"input_id": "own", "type": "json", "data": {"token": id}}]});
    if let Some(steps) = steps {
        body["execution_mode"] = json!(plan.mode);
        body["steps"] = json!(steps);
    }
    body
}

/// Every token in an output, wherever it stands.
pub(super) fn tokens(output: &Value) -> Vec<String> {
    let mut all = Vec::new();
    gather(output, &mut all);
    all.sort_unstable();
    all.dedup();
    all
}

fn gather(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, all)),
        Value::Object(fields) => {
            all.extend(fields.get("token").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| gather(field, all));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn plans_are_of_every_kind_and_only_wait_for_what_stands_before() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut modes = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let plan = draw(&mut rng);
            let waits = plan.waits.iter().enumerate();
            for (place, on) in waits {
                assert!(on.iter().all(|on| *on < place), "{plan:?}");
            }
            assert_eq!(steps(&plan, &mut rng).len(), plan.fates.len());
            modes.insert((plan.mode.clone(), plan.expected().0.to_owned()));
        }
        // One step that is refused is not enough to make a parallel task fail.
        assert_eq!(modes.len(), 7, "every other mode ends well and badly: {modes:?}");
    }

    #[test]
    fn tokens_are_found_wherever_they_stand() {
        let output = json!({"data": {"token": "b"}, "steps": {"x": {"token": "a"}},
            "results": [{"token": "b"}, 7]});
        assert_eq!(tokens(&output), ["a", "b"]);
    }
}

//! Campaigns on a schedule, with real programs as their simulations, while leaders die.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::agents;
use crate::house::House;
use crate::http::{CALL, PATIENCE, number, text, until};
use crate::process::Process;

/// Leaders killed in every build; the variable asks for more.
const KILLS: u64 = 3;
const KILLS_ENV: &str = "QUORATE_E2E_KILLS";
const CANDIDATES: u64 = 3;

/// A small real computation: draws a point from the seed, and says how near it is to 0.3.
const TUNE: &str = r#"tune=seed=$(sed 's/.*"seed":\([0-9]*\).*/\1/'); awk -v s="$seed" 'BEGIN {
    x = (s % 1000) / 1000; printf "{\"score\": %.6f, \"parameters\": {\"x\": %.3f}}\n", 1 - (x - 0.3) ^ 2, x }'"#;

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no setting")]
fn kills() -> u64 {
    std::env::var(KILLS_ENV).map_or(KILLS, |kills| kills.parse().unwrap())
}

async fn post(house: &House, path: &str, body: &Value) -> Value {
    let url = house.url(house.running()[0], path);
    let reply = house.http.send(Method::POST, &url, Some(body), None, CALL).await.unwrap();
    assert!((200..300).contains(&reply.status), "{path}: {}", reply.body);
    reply.body
}

/// Every slot got one decision, none was left out, and every run it began has ended.
async fn the_ledger_is_whole(house: &House, place: usize) -> usize {
    let page = house.http.read(&house.url(place, "/api/v1/orchestrator/slots?limit=1000")).await;
    let mut runs: Vec<Value> = Vec::new();
    loop {
        let path = format!("/api/v1/orchestrator/runs?limit=100&offset={}", runs.len());
        let page = house.http.read(&house.url(place, &path)).await;
        let page = page.as_array().unwrap();
        runs.extend(page.iter().cloned());
        if page.len() < 100 {
            break;
        }
    }
    let ended: BTreeSet<String> = runs
        .iter()
        .filter(|run| run["completed_at"].is_string())
        .map(|run| text(run, "/id"))
        .collect();
    assert_eq!(ended.len(), runs.len(), "no run is open for ever: {runs:?}");
    let slots = page["slots"].as_array().unwrap();
    let at = |slot: &Value| text(slot, "/slot").parse::<jiff::Timestamp>().unwrap();
    for pair in slots.windows(2) {
        let gap = at(&pair[0]).as_millisecond() - at(&pair[1]).as_millisecond();
        assert_eq!(gap, 1000, "every slot stands in the ledger once: {pair:?}");
    }
    let begun: Vec<String> =
        slots.iter().map(|slot| text(slot, "/run_id")).filter(|id| !id.is_empty()).collect();
    let distinct: BTreeSet<&String> = begun.iter().collect();
    assert_eq!(distinct.len(), begun.len(), "no run stands for two slots");
    assert!(begun.iter().all(|run_id| ended.contains(run_id)), "{begun:?} {ended:?}");
    slots.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_campaign_survives_its_leaders() {
    let kills = kills();
    // There is work until the last leader has died.
    let iterations = 2 * kills;
    let mut house = House::found(3).await;
    let urls = house.urls().join(",");
    let words = ["worker", "--node-id", "w", "--url", &urls, "--heartbeat", "1", "--exec", TUNE];
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    let config = json!({
        "max_iterations": iterations, "candidates_per_iteration": CANDIDATES,
        "simulation_budget": iterations * CANDIDATES, "task": {"task_type": "tune"},
    });
    let campaign = json!({"name": "tune", "kind": "generic", "config": config});
    let id = text(&post(&house, "/campaigns", &campaign).await, "/id");
    post(&house, &format!("/campaigns/{id}/start"), &json!({})).await;
    let schedule = json!({"mode": "SCHEDULED", "schedule": {"interval_seconds": 1}});
    post(&house, "/orchestrator/config", &schedule).await;
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(1700)).await;
        let leader = house.leader().await;
        house.kill(leader);
        house.start(leader);
        house.ready(leader).await;
    }
    let path = format!("/campaigns/{id}");
    let ended = until("the campaign's end", PATIENCE, || async {
        let reply = house.http.get(&house.url(0, &path)).await.ok()?;
        (text(&reply.body, "/status") == "COMPLETED").then_some(reply.body)
    })
    .await;
    assert_eq!(number(&ended, "/current_iteration"), iterations);
    let budget = &ended["budgets"]["simulations"];
    assert_eq!(
        (number(budget, "/spent"), number(budget, "/reserved")),
        (iterations * CANDIDATES, 0)
    );
    assert!(ended["best_score"].as_f64().unwrap() > 0.5, "{ended}");
    post(&house, "/orchestrator/config", &json!({"mode": "MANUAL"})).await;
    until("the last run's end", PATIENCE, || async {
        let runs = house.http.get(&house.url(1, "/orchestrator/runs")).await.ok()?.body;
        runs.as_array()?.iter().all(|run| run["completed_at"].is_string()).then_some(())
    })
    .await;
    let mut seen = 0;
    for place in 0..3 {
        let slots = the_ledger_is_whole(&house, place).await;
        assert!(slots as u64 >= iterations, "{slots}");
        seen = slots;
        let rows = house.http.read(&house.url(place, &format!("{path}/iterations"))).await;
        for iteration in rows.as_array().unwrap() {
            let scored = iteration["evaluated_structures"].as_array().unwrap();
            assert_eq!(scored.len() as u64, CANDIDATES, "{iteration}");
        }
    }
    let own = house.agree().await;
    println!("{kills} leaders killed, {seen} slots, {iterations} iterations: {own:?}");
}

/// Ends well, with what it is told to say.
fn says(task_type: &str, result: &Value) -> String {
    format!("{task_type}=cat > /dev/null; echo '{result}'")
}

/// Candidates are tried by agents, measured and learned from by workers, and each draws on its budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_and_workers_do_every_kind_of_job() {
    let house = agents::found(1).await;
    let urls = house.urls().join(",");
    let experiment = says("experiment", &json!({"measured": 1}));
    let training = says("train_model", &json!({"usage": {"tokens": 7}}));
    let words = ["worker", "--node-id", "w", "--url", &urls, "--heartbeat", "1", "--exec"];
    let words: Vec<&str> = words.into_iter().chain([&*experiment, "--exec", &training]).collect();
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    let program = r#"cat > /dev/null; echo '{"score": 0.95, "usage": {"tokens": 3}}'"#;
    let words = ["--agent-type", "simulator", "--exec", program];
    let _agent = agents::agent(&house, &words, &house.dir().join("agent.log")).await;

    let settings = json!({"min_new_samples_for_retrain": 10, "max_simultaneous_simulations": 20,
        "budgets": {"tokens": 1000}, "per_job": {"tokens": 1}});
    post(&house, "/orchestrator/config", &settings).await;
    let model = json!({"per_job": {"tokens": 8}});
    let url = house.url(0, "/models/m");
    let reply = house.http.send(Method::PUT, &url, Some(&model), None, CALL).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    let config = json!({"max_iterations": 2, "candidates_per_iteration": 10,
        "task": {"agent_type": "simulator"}, "per_job": {"tokens": 5}});
    let campaign = json!({"name": "search", "config": config});
    let id = text(&post(&house, "/campaigns", &campaign).await, "/id");
    post(&house, &format!("/campaigns/{id}/start"), &json!({})).await;
    let path = format!("/campaigns/{id}");
    for wanted in 1..=2 {
        post(&house, "/orchestrator/run_once", &json!({})).await;
        until("an iteration's end", PATIENCE, || async {
            let rows =
                house.http.get(&house.url(0, &format!("{path}/iterations"))).await.ok()?.body;
            let ended = rows.as_array()?.iter().filter(|row| row["completed_at"].is_string());
            (ended.count() == wanted).then_some(())
        })
        .await;
    }
    let measured = until("all experiments and trainings", PATIENCE, || async {
        let url = house.url(0, "/experiments?status=COMPLETED");
        let measured = house.http.get(&url).await.ok()?.body["experiments"].as_array()?.len();
        let model = house.http.get(&house.url(0, "/models/m")).await.ok()?.body;
        (measured == 5 && number(&model, "/training_samples_count") >= 10).then_some(measured)
    })
    .await;
    let ended = house.http.read(&house.url(0, &path)).await;
    assert_eq!((text(&ended, "/status"), &ended["best_score"]), ("COMPLETED".into(), &json!(0.95)));
    let state = house.http.read(&house.url(0, "/orchestrator/state")).await;
    let tokens = &state["budgets"]["tokens"];
    // Simulations and the training said what they used; experiments used what was promised.
    let due = 20 * 3 + 7 + measured as u64 * 5;
    assert_eq!((number(tokens, "/spent"), number(tokens, "/reserved")), (due, 0), "{tokens}");
}

//! The example `docs/examples/tune-a-function`, in short: a campaign from the command line whose
//! candidates are computed by a worker, followed to its end while the leader dies.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::command_line::{Ran, run};
use crate::house::House;
use crate::http::{PATIENCE, number, until};
use crate::process::{Process, quorate};

const CONFIG: &str =
    concat!("@", env!("CARGO_MANIFEST_DIR"), "/docs/examples/tune-a-function/campaign.json");
const ITERATIONS: u64 = 8;
const CANDIDATES: u64 = 4;
/// Branin's function is nowhere lower.
const MINIMUM: f64 = 0.397_887;
/// How near the best of so few candidates comes at the least; on average it comes a hundred times nearer.
const NEAR: f64 = 0.5;

/// `quorate` with the members' URLs; must end with 0.
fn said(urls: &str, words: &[&str]) -> Ran {
    run(&[words, &["--url", urls]].concat()).with(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_tuned_from_the_command_line() {
    let mut house = House::found(3).await;
    let urls = house.urls().join(",");
    let exec = format!("tune=exec '{}' sample tune", env!("CARGO_BIN_EXE_quorate"));
    let words = ["worker", "--node-id", "w", "--url", &urls, "--heartbeat", "1", "--exec", &exec];
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    said(&urls, &["orchestrator", "config", "--every", "1"]).says(&["SCHEDULED every 1 s"]);
    let iterations = ITERATIONS.to_string();
    let create = ["campaign", "create", "branin <1>", "--config", CONFIG, "-o", "json"];
    let created = said(&urls, &[&create[..], &["--iterations", &iterations]].concat()).json();
    assert_eq!((&created["kind"], &created["status"]), (&json!("generic"), &json!("CREATED")));
    let id = created["id"].as_str().unwrap();
    said(&urls, &["campaign", "list"]).says(&["branin <1>", "CREATED", "0 of 8"]);

    let mut watch = quorate();
    watch.args(["campaign", "start", id, "--watch", "--url", &urls]);
    let watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let url = house.url(0, &format!("/campaigns/{id}"));
    let other = house.url(1, &format!("/campaigns/{id}"));
    until("the third iteration", PATIENCE, || async {
        let reply = house.http.get(&url).await.ok()?;
        (number(&reply.body, "/current_iteration") >= 3).then_some(())
    })
    .await;
    let leader = house.leader().await;
    house.kill(leader);
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.start(leader);
    house.ready(leader).await;
    let watched = tokio::task::spawn_blocking(|| watch.wait_with_output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8(watched.stdout).unwrap(), watched.stderr);
    assert!(watched.status.success(), "{out}{}", String::from_utf8_lossy(&err));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains("RUNNING; 0 of 8 iterations; best -"), "{out}");
    let last = lines[lines.len() - 1];
    assert!(last.contains("COMPLETED: all iterations are done; 8 of 8 iterations"), "{out}");
    assert!(
        lines.windows(2).all(|pair| pair[0][8..] != pair[1][8..]),
        "one line per change: {out}"
    );

    let reply = house.http.get(&other).await.unwrap().body;
    let best = reply["best_score"].as_f64().unwrap();
    println!("best score {best} after {} candidates", ITERATIONS * CANDIDATES);
    assert!((MINIMUM - 1e-6..MINIMUM + NEAR).contains(&best), "{best}");
    what_is_left_can_be_looked_at(&house, &urls, id, best);
}

/// Every list and the plot, after the end.
fn what_is_left_can_be_looked_at(house: &House, urls: &str, id: &str, best: f64) {
    let shown = said(urls, &["campaign", "show", id]).says(&["COMPLETED", "32 of 48 used"]);
    let score: f64 = shown.field("best score").parse().unwrap();
    assert!((score - best).abs() < 1e-5, "{score} is shown for {best}");
    said(urls, &["campaign", "log", id]).says(&["iteration 8 has ended", "completed"]);
    said(urls, &["campaign", "iterations", id, "--candidates"]).says(&["scored", "x1"]);
    said(urls, &["campaign", "runs", id]).says(&["queued", "4 candidates to evaluate"]);
    said(urls, &["campaign", "slots", id]).says(&["ran", "SCHEDULED every 1 s"]);
    said(urls, &["orchestrator", "state"]).says(&["default", "simulations launched  32"]);
    said(urls, &["orchestrator", "stats"]).says(&["structures", "32"]);
    said(urls, &["campaign", "plot", id, "--text"]).says(&["best so far"]);
    let file = house.dir().join("best.svg");
    said(urls, &["campaign", "plot", id, "--log-scale", "--file", file.to_str().unwrap()]);
    let picture = std::fs::read_to_string(&file).unwrap();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let dots = document.descendants().filter(|node| node.has_tag_name("circle")).count();
    assert_eq!(dots as u64, ITERATIONS * CANDIDATES + 1, "one of them is in the legend");
    assert!(picture.contains("branin &lt;1&gt;"), "{picture}");

    // What may not be done is said with its field and its code.
    run(&["campaign", "start", id, "--url", urls]).with(1).says(&["CAMPAIGN_STATE"]);
    run(&["campaign", "create", "x", "--iterations", "5000", "--url", urls])
        .with(1)
        .says(&["max_iterations must be 1 to 1000", "422"]);
    run(&["campaign", "show", "nobody", "--url", urls]).with(1).says(&["CAMPAIGN_NOT_FOUND"]);
    run(&["orchestrator", "config", "speed=9", "--url", urls]).with(2).says(&["no setting"]);
    // Known keys take what they may, and nothing takes the place of a whole section.
    for (key, value) in [("orchestrator", "x"), ("auto_scaling.provider", "odd")] {
        run(&["config", "set", key, value, "--url", urls]).with(1).says(&[key, "must be"]);
    }
    said(urls, &["orchestrator", "config", "--mode", "manual"]).says(&["MANUAL"]);
    said(urls, &["orchestrator", "run-once"]).says(&["no active campaigns", "step"]);
    said(urls, &["orchestrator", "deactivate"]).says(&["deactivated"]);
    run(&["orchestrator", "run-once", "--url", urls]).with(1).says(&["is not active"]);
}

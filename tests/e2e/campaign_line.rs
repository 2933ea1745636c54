//! Campaigns and orchestrators that are moved from the command line, against a real cluster.

use serde_json::{Value, json};

use crate::command_line::{Ran, run};
use crate::house::House;
use crate::http::{PATIENCE, number, text, until};
use crate::process::Process;

/// `quorate` with the members' URLs; must end with `code`.
fn ran(urls: &str, code: i32, words: &[&str]) -> Ran {
    run(&[words, &["--url", urls]].concat()).with(code)
}

/// A campaign as each member knows it.
async fn seen(house: &House, id: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for place in 0..3 {
        all.push(house.http.read(&house.url(place, &format!("/campaigns/{id}"))).await);
    }
    all
}

async fn all_say(house: &House, id: &str, status: &str) {
    for row in seen(house, id).await {
        assert_eq!(text(&row, "/status"), status, "{row}");
    }
}

fn created(urls: &str, task_type: &str) -> String {
    // Workers have what they can do as capabilities.
    let words = ["campaign", "create", "search", "-t", task_type, "--require", task_type];
    let words = [&words[..], &["--iterations", "6"]].concat();
    let made =
        ran(urls, 0, &[&words[..], &["--candidates", "2", "--start", "-o", "json"]].concat());
    text(&made.json(), "/id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_pauses_resumes_steps_and_stops_campaigns() {
    let house = House::found(3).await;
    let urls = house.urls().join(",");
    let exec = r#"tune=cat > /dev/null; echo '{"score": 0.5}'"#;
    let words = ["worker", "--node-id", "w", "--url", &urls, "--heartbeat", "1", "--exec", exec];
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    let id = created(&urls, "tune");
    let id = id.as_str();
    ran(&urls, 0, &["campaign", "pause", id]).says(&["is PAUSED"]);
    all_say(&house, id, "PAUSED").await;
    ran(&urls, 1, &["campaign", "pause", id]).says(&["CAMPAIGN_STATE"]);
    ran(&urls, 1, &["campaign", "step", id]).says(&["cannot be advanced while it is PAUSED"]);
    let resumed = ran(&urls, 0, &["campaign", "resume", id, "-o", "json"]).json();
    assert_eq!((text(&resumed, "/id"), text(&resumed, "/status")), (id.into(), "RUNNING".into()));
    ran(&urls, 1, &["campaign", "resume", id]).says(&["CAMPAIGN_STATE"]);

    ran(&urls, 0, &["campaign", "step", id, "-n", "2", "--watch"]).says(&["2 of 6 iterations"]);
    let with = r#"{"candidates_per_iteration":1}"#;
    ran(&urls, 0, &["campaign", "step", id, "--override", with, "--watch"]);
    for row in seen(&house, id).await {
        assert_eq!(number(&row, "/current_iteration"), 3, "{row}");
        assert_eq!(number(&row, "/budgets/simulations/spent"), 2 + 2 + 1, "{row}");
    }
    ran(&urls, 1, &["campaign", "step", id, "-n", "0"]).says(&["num_iterations"]);

    // The kill switch, while jobs wait that nobody takes.
    let id = created(&urls, "nobody");
    let id = id.as_str();
    ran(&urls, 0, &["campaign", "step", id]);
    let open = |status: &'static str| {
        let url = house.url(1, &format!("/jobs?campaign_id={id}&status={status}"));
        async { house.http.read(&{ url }).await["jobs"].as_array().map_or(0, Vec::len) }
    };
    until("its jobs", PATIENCE, || async { (open("PENDING").await == 2).then_some(()) }).await;
    for _ in 0..2 {
        ran(&urls, 0, &["campaign", "stop", id]).says(&["is stopped: nothing more is launched"]);
    }
    assert_eq!((open("PENDING").await, open("CANCELLED").await), (0, 2));
    for row in seen(&house, id).await {
        assert_eq!((text(&row, "/status"), &row["tripped"]), ("PAUSED".into(), &json!(true)));
    }
    ran(&urls, 1, &["campaign", "resume", id]).says(&["stopped by its kill switch"]);
    ran(&urls, 1, &["campaign", "stop", "nobody"]).says(&["CAMPAIGN_NOT_FOUND"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_switches_an_orchestrator_off_and_on_over_a_failover() {
    let mut house = House::found(3).await;
    let urls = house.urls().join(",");
    let night = ["--name", "night"];
    let of_night = |words: &[&'static str]| [words, &night[..]].concat();
    ran(&urls, 1, &of_night(&["orchestrator", "deactivate"])).says(&["ORCHESTRATOR_NOT_FOUND"]);
    ran(&urls, 0, &of_night(&["orchestrator", "state"]));
    ran(&urls, 0, &of_night(&["orchestrator", "deactivate"])).says(&["night is deactivated"]);
    let leader = house.leader().await;
    house.kill(leader);
    house.start(leader);
    house.ready(leader).await;
    ran(&urls, 1, &of_night(&["orchestrator", "run-once"])).says(&["'night' is not active"]);
    ran(&urls, 0, &["orchestrator", "run-once"]).says(&["no active campaigns"]);
    for place in 0..3 {
        let url = house.url(place, "/orchestrator/state?name=night");
        assert_eq!(house.http.read(&url).await["is_active"], false);
    }
    let on = ran(&urls, 0, &of_night(&["orchestrator", "activate", "-o", "json"])).json();
    assert_eq!((text(&on, "/name"), &on["is_active"]), ("night".into(), &json!(true)));
    ran(&urls, 0, &of_night(&["orchestrator", "activate"])).says(&["night is activated"]);
    ran(&urls, 0, &of_night(&["orchestrator", "run-once"])).says(&["no active campaigns"]);
}

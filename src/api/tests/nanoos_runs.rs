//! Runs that are asked for and listed (contract 3.3).

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::nanoos::{campaign, refused};
use crate::model::CampaignId;
use crate::state::{CampaignCommand, Command, Outcome, StepDuty};

/// A run that nobody goes on with.
async fn open_run(world: &World) -> u64 {
    let command = CampaignCommand::BeginRun {
        name: "default".to_owned(),
        triggered_by: "manual".to_owned(),
        context: "{}".to_owned(),
    };
    match world.commit(Command::Campaign(command)).await {
        Outcome::RunBegun { run_id } => run_id,
        other => panic!("{other:?}"),
    }
}

/// Whoever waited for the run before its own wrote an entry every 50 ms.
#[tokio::test]
async fn contract_3_3_waiting_for_a_run_writes_nothing() {
    let world = World::new().await;
    let run_id = open_run(&world).await;
    let index = || world.cluster.view().read_at(|_| ()).0;
    let before = index();
    let asked = world.post("/orchestrator/run_once", "");
    let ends = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(index() <= before + 2, "{} entries", index() - before);
        let duty = StepDuty::FailRun { run_id, error: "enough".to_owned() };
        world.commit(Command::Step { epoch: world.epoch, duty }).await;
        world.play_steps();
    };
    let (answer, ()) = tokio::join!(asked, ends);
    assert_eq!(answer.ok()["success"], true);
}

#[tokio::test]
async fn contract_3_3_a_run_that_does_a_task_is_not_waited_for() {
    let world = World::new().await;
    world.play_steps();
    world.get("/orchestrator/state?name=nightly").await.ok();
    let task = json!({"task": {"task_type": "backup", "timeout": 60}}).to_string();
    world.post("/orchestrator/config?name=nightly", &task).await.ok();
    let begun = world.post("/orchestrator/run_once?name=nightly", "").await.ok();
    assert!(begun["completed_at"].is_null() && begun["task_id"].is_string(), "{begun}");
    let again = world.post("/orchestrator/run_once?name=nightly", "");
    let again = tokio::time::timeout(Duration::from_secs(5), again).await.expect("at once");
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    assert_eq!(again.json()["code"], "RUN_OPEN");
}

/// A thousand runs with all their decisions were made into one answer under the lock of the state.
#[tokio::test]
async fn contract_3_3_a_page_of_runs_is_bounded() {
    let world = World::new().await;
    for _ in 0..105 {
        let run_id = open_run(&world).await;
        let duty = StepDuty::FailRun { run_id, error: "enough".to_owned() };
        world.commit(Command::Step { epoch: world.epoch, duty }).await;
    }
    let page = world.get("/orchestrator/runs?limit=1000").await.ok();
    let ids: Vec<&str> =
        page.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 100 && ids[0] == "105" && ids[99] == "6", "{ids:?}");
    let next = world.get("/orchestrator/runs?limit=2&offset=48").await.ok();
    assert_eq!((&next[0]["id"], &next[1]["id"]), (&json!("57"), &json!("56")));
    let wrong = world.get("/orchestrator/runs?limit=1001").await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
}

/// A campaign ran under an orchestrator that does a task, and nothing ever advanced it.
#[tokio::test]
async fn contract_3_6_a_campaign_does_not_run_where_nothing_advances_it() {
    let world = World::new().await;
    world.get("/orchestrator/state?name=o").await.ok();
    let made = json!({"name": "c", "orchestrator": "o"});
    let ids = [campaign(&world, made.clone()).await, campaign(&world, made).await];
    world.post(&format!("/campaigns/{}/start", ids[1]), "").await.ok();
    world.post(&format!("/campaigns/{}/pause", ids[1]), "").await.ok();
    let task = |task: Value| json!({"task": task}).to_string();
    let backup = task(json!({"task_type": "backup"}));
    world.post("/orchestrator/config?name=o", &backup).await.ok();
    let text = "Orchestrator 'o' does a task of its own";
    for (id, how) in [(&ids[0], "start"), (&ids[1], "resume")] {
        let answer = world.post(&format!("/campaigns/{id}/{how}"), "").await;
        refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", text);
    }
    let advance = json!({"campaign_id": ids[0]}).to_string();
    let answer = world.post("/agent/advance_campaign", &advance).await;
    refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", text);
    world.post("/orchestrator/config?name=o", &task(json!({}))).await.ok();
    world.post(&format!("/campaigns/{}/start", ids[0]), "").await.ok();
}

/// 200 characters of any script are a name (contract 3.5).
#[tokio::test]
async fn contract_3_5_a_name_has_characters_and_not_bytes() {
    let world = World::new().await;
    let name = "\u{6750}".repeat(200);
    let body = json!({"name": name, "goal": "g", "target_properties": {}});
    let made = world.post("/agent/create_design_campaign", &body.to_string()).await.ok();
    let id = made["result"]["campaign_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/campaigns/{id}")).await.ok()["name"], name);
    campaign(&world, json!({"name": name})).await;
    let long = json!({"name": "x".repeat(801)}).to_string();
    assert_eq!(world.post("/campaigns", &long).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// A hundred thousand campaigns were looked at, and a page of them shown, in one hold of the state.
#[tokio::test]
async fn contract_3_6_a_page_of_campaigns_is_found_in_parts() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..520 {
        let plan = Box::new(crate::model::CampaignPlan::plain(1, 1));
        let made = world.commit(Command::Campaign(CampaignCommand::CreateCampaign(plan))).await;
        let Outcome::CampaignCreated { campaign_id } = made else { panic!("{made:?}") };
        ids.push(campaign_id.as_str().to_owned());
    }
    // The newest first, and by their ids where the clock does not tell.
    let list = world.get("/campaigns?limit=1").await.ok();
    assert_eq!(list["total"], 520);
    world.cluster.view().read(|state| {
        let made = |id: &String| state.campaign(&CampaignId::trusted(id)).unwrap().created_at_ms;
        ids.sort_by_key(|id| (std::cmp::Reverse(made(id)), id.clone()));
    });
    let page = |list: &Value| {
        let rows = list["campaigns"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (query, wanted) in [
        ("limit=3", &ids[..3]),
        ("skip=495&limit=10", &ids[495..505]),
        ("skip=510&limit=100", &ids[510..]),
        ("skip=600", &ids[520..]),
    ] {
        let list = world.get(&format!("/campaigns?{query}")).await.ok();
        assert_eq!((page(&list).as_slice(), &list["total"]), (wanted, &json!(520)), "{query}");
    }
    let running = [&ids[3], &ids[502], &ids[519]];
    for id in running {
        world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    }
    let list = world.get("/campaigns?status=running&skip=1&limit=1").await.ok();
    assert_eq!((page(&list).as_slice(), &list["total"]), (&ids[502..503], &json!(3)));
    let list = world.get("/campaigns?status=created&skip=515").await.ok();
    assert_eq!((page(&list).as_slice(), &list["total"]), (&ids[517..519], &json!(517)));
}

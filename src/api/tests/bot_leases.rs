//! Work of bots that somebody attaches to: leases with attempts, waiting, batches, health.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::World;
use super::bots::{made, refused};
use crate::api::ApiOptions;
use crate::clock;
use crate::model::{DerivedId, RequestId};
use crate::state::{BotCommand, Command, LeaseScope};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    pub(super) async fn lease(&self, path: &str, body: Value) -> Vec<Value> {
        let answer = timeout(PATIENCE, self.post(path, &body.to_string())).await.unwrap().ok();
        answer["assignments"].as_array().unwrap().clone()
    }

    async fn judged(&self, path: &str, body: Value) -> Vec<String> {
        let answer = self.post(path, &body.to_string()).await.ok();
        serde_json::from_value(answer["verdicts"].clone()).unwrap()
    }

    async fn give(&self, swarm: &str, body: &str) {
        made(&self.post(&format!("/swarms/{swarm}/tasks"), body).await);
    }

    /// Takes back what leases ran out of, as the leader does.
    pub(super) async fn expire(&self) {
        let due = || {
            self.cluster.view().read(|state| state.due_leases(clock::now_ms()).collect::<Vec<_>>())
        };
        while due().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let command = BotCommand::ExpireLeases { epoch: self.epoch, leases: due() };
        self.commit(Command::Bot(Box::new(command))).await;
    }
}

fn key(row: &Value) -> Value {
    json!({"task_id": row["task_id"], "attempt": row["attempt"]})
}

#[tokio::test]
async fn what_one_worker_has_no_other_gets() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(5).await;
    world.give(&swarm, r#"{"type":"scan","data":{"a":1}}"#).await;
    let asked = |holder: &str, max| {
        json!({"swarms": [swarm], "holder": holder, "max": max,
        "lease_seconds": 60, "wait_seconds": 0})
    };
    let first = world.lease("/api/v1/bots/leases", asked("w1", 3)).await;
    let second = world.lease("/bots/leases", asked("w2", 3)).await;
    let third = world.lease("/bots/leases", asked("w3", 3)).await;
    assert_eq!((first.len(), second.len(), third.len()), (3, 2, 0));
    let of = |rows: &[Value]| rows.iter().map(|row| row["bot_id"].clone()).collect::<Vec<_>>();
    assert_eq!(json!([of(&first), of(&second)].concat()), json!(bots));
    let row = &first[0];
    assert_eq!((&row["task_type"], &row["task_data"]), (&json!("scan"), &json!({"a": 1})));
    assert_eq!((&row["swarm_id"], &row["attempt"]), (&json!(swarm), &json!(1)));
    assert!(row["deadline"].as_str().unwrap().ends_with('Z') && row["task_id"].is_string());
    let listed = world.get(&format!("/bots/{}/tasks?status=leased", bots[0])).await.ok();
    assert_eq!(listed["tasks"][0]["lease"]["holder"], "w1");
    assert_eq!(listed["tasks"][0]["status"], "assigned", "the family's word");
    let stats = world.get("/bots/stats").await.ok();
    assert_eq!((&stats["tasks_waiting"], &stats["tasks_leased"]), (&json!(0), &json!(5)));
}

#[tokio::test]
async fn leases_of_one_bot_and_of_one_swarm() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let (swarm, bots) = world.swarm(2).await;
    let own = world.assign(&bot, "{}").await;
    world.give(&swarm, "{}").await;
    let rows = world.lease(&format!("/bots/{bot}/tasks/lease"), json!({"holder": "w"})).await;
    assert_eq!((rows.len(), &rows[0]["task_id"]), (1, &json!(own)));
    assert!(rows[0]["swarm_id"].is_null());
    let body = json!({"max": 10});
    let rows = world.lease(&format!("/api/v1/swarms/{swarm}/tasks/lease"), body).await;
    assert_eq!(rows.len(), 2);
    let world = World::new().await;
    let (swarm, others) = world.swarm(3).await;
    world.give(&swarm, "{}").await;
    let asked = json!({"bots": [others[2], others[0]], "max": 10});
    let rows = world.lease("/bots/leases", asked).await;
    let of: Vec<_> = rows.iter().map(|row| row["bot_id"].as_str().unwrap()).collect();
    assert_eq!(of, [others[0].as_str(), others[2].as_str()]);
    assert_ne!(bots, others);
}

#[tokio::test]
async fn contract_5_3_tiers_order_what_competes() {
    let world = World::new().await;
    let mut swarms = Vec::new();
    for tier in ["standard", "advanced", "L20"] {
        let body = format!(r#"{{"count":1,"tier":"{tier}"}}"#);
        let swarm = made(&world.post("/swarms", &body).await);
        let id = swarm["id"].as_str().unwrap().to_owned();
        world.give(&id, &format!(r#"{{"type":"{tier}"}}"#)).await;
        swarms.push(id);
    }
    let rows = world.lease("/bots/leases", json!({"swarms": swarms, "max": 3})).await;
    let types: Vec<_> = rows.iter().map(|row| row["task_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["L20", "advanced", "standard"]);
}

#[tokio::test]
async fn batches_judge_each_item_on_its_own() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(4).await;
    world.give(&swarm, "{}").await;
    let body = json!({"swarms": [swarm], "holder": "w", "max": 3});
    let rows = world.lease("/bots/leases", body).await;
    let done = |row: &Value| {
        json!({"task_id": row["task_id"], "attempt": row["attempt"],
        "result": {"ok": true}})
    };
    let mut stale = done(&rows[1]);
    stale["attempt"] = 9.into();
    let held = json!({"task_id": rows[1]["task_id"], "result": 1});
    let elsewhere = json!({"task_id": "12345678-1234-4234-8234-123456789abc", "attempt": 1});
    let nothing = json!({"task_id": "nothing", "attempt": 1});
    let items = [nothing, done(&rows[0]), done(&rows[0]), stale, held, elsewhere];
    let path = "/api/v1/assignments/complete";
    let verdicts = world.judged(path, json!({"items": items})).await;
    let wanted = ["not_found", "accepted", "repeated", "stale", "held", "not_found"];
    assert_eq!(verdicts, wanted);
    let leases = [key(&rows[0]), key(&rows[1]), key(&rows[2])];
    let body = json!({"leases": leases, "lease_seconds": 600});
    let verdicts = world.judged("/api/v1/bots/leases/renew", body).await;
    assert_eq!(verdicts, ["ended", "accepted", "accepted"]);
    let body = json!({"leases": [key(&rows[1])]});
    assert_eq!(world.judged("/api/v1/bots/leases/release", body.clone()).await, ["accepted"]);
    assert_eq!(world.judged("/bots/leases/release", body).await, ["stale"]);
    let failed = json!({"items": [{"task_id": rows[2]["task_id"], "attempt": 1, "error": "no"}]});
    assert_eq!(world.judged("/assignments/fail", failed).await, ["accepted"]);
    let again = world.lease("/bots/leases", json!({"swarms": [swarm], "max": 9})).await;
    let of = |attempt: u64| {
        let rows = again.iter().filter(|row| row["attempt"] == attempt);
        rows.map(|row| row["bot_id"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((of(2), of(1)), (vec![bots[1].as_str(), &bots[2]], vec![bots[3].as_str()]));
    let only = world.judged("/assignments/complete", json!({"items": [{"task_id": "x"}]})).await;
    assert_eq!(only, ["not_found"]);
    assert_eq!(world.get("/bots/stats").await.ok()["tasks_executed"], 1);
}

#[tokio::test]
async fn an_assignment_is_given_up_after_its_tries_with_its_error() {
    let world = World::new().await;
    let body = json!({"value": 0}).to_string();
    world.put("/api/v1/config/orchestrator.max_retries", &body).await.ok();
    let bot = world.bot("{}").await;
    let task = world.assign(&bot, "{}").await;
    let rows = world.lease(&format!("/bots/{bot}/tasks/lease"), json!({})).await;
    let item = json!({"task_id": task, "attempt": rows[0]["attempt"], "error": "no \"paper\""});
    let verdicts = world.judged("/assignments/fail", json!({"items": [item]})).await;
    assert_eq!(verdicts, ["accepted"]);
    let listed = world.get(&format!("/bots/{bot}/tasks?status=failed")).await.ok();
    let row = &listed["tasks"][0];
    assert_eq!((&row["status"], &row["error"]), (&json!("failed"), &json!("no \"paper\"")));
    let path = format!("/bots/{bot}/tasks/{task}/complete");
    let answer = world.post(&path, "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].clone()),
        (StatusCode::CONFLICT, json!("TASK_ENDED"))
    );
    let found = world.get(&format!("/task/{task}")).await.ok();
    assert_eq!((&found["status"], &found["error"]), (&json!("failed"), &json!("no \"paper\"")));
    assert_eq!(world.get(&format!("/bots/{bot}")).await.ok()["failed_tasks"], 1);
}

#[tokio::test]
async fn a_failure_that_no_other_try_can_help_ends_an_assignment() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    for (retryable, left) in [(true, 1), (false, 0)] {
        world.assign(&bot, "{}").await;
        let rows = world.lease(&format!("/bots/{bot}/tasks/lease"), json!({})).await;
        let mut item = key(&rows[0]);
        item["error"] = json!("bad data");
        item["retryable"] = json!(retryable);
        let verdicts = world.judged("/assignments/fail", json!({"items": [item]})).await;
        assert_eq!(verdicts, ["accepted"]);
        let waiting = world.get(&format!("/bots/{bot}/tasks?status=waiting")).await.ok();
        assert_eq!(waiting["count"], left, "{waiting}");
        // Out of the way of the next.
        for row in waiting["tasks"].as_array().unwrap() {
            let task = row["task_id"].as_str().unwrap();
            world.post(&format!("/bots/{bot}/tasks/{task}/complete"), "").await.ok();
        }
    }
    let failed = world.get(&format!("/bots/{bot}/tasks?status=failed")).await.ok();
    assert_eq!((&failed["count"], &failed["tasks"][0]["error"]), (&json!(1), &json!("bad data")));
}

/// A worker took what it had no program for, and used up its tries.
#[tokio::test]
async fn work_of_other_types_is_left_for_others() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(2).await;
    world.give(&swarm, r#"{"type":"scan"}"#).await;
    world.give(&swarm, "{}").await;
    world.give(&swarm, r#"{"type":"print"}"#).await;
    let asked = |types: Value| json!({"swarms": [swarm], "max": 10, "types": types});
    let of = |rows: &[Value]| rows.iter().map(|row| row["task_type"].clone()).collect::<Vec<_>>();
    assert!(world.lease("/bots/leases", asked(json!(["odd"]))).await.is_empty());
    let rows = world.lease("/bots/leases", asked(json!(["odd", "print"]))).await;
    assert_eq!(of(&rows), ["print", "print"], "although scan was there first");
    let mut one = asked(json!([null]));
    one["swarms"] = Value::Null;
    one["bots"] = json!([bots[1]]);
    let rows = world.lease("/bots/leases", one).await;
    assert_eq!((of(&rows), &rows[0]["bot_id"]), (vec![Value::Null], &json!(bots[1])));
    // Somebody who waits is woken by its own type only.
    let mut patient = asked(json!(["print"]));
    patient["wait_seconds"] = json!(50);
    let (rows, ()) = tokio::join!(world.lease("/bots/leases", patient), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.give(&swarm, r#"{"type":"print"}"#).await;
    });
    assert_eq!(of(&rows), ["print", "print"]);
    assert_eq!(world.lease("/bots/leases", asked(Value::Null)).await.len(), 3, "all that is left");
    for wrong in [json!([]), json!("scan"), json!([7]), json!(vec!["x"; 101])] {
        let answer = world.post("/bots/leases", &asked(wrong.clone()).to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong:.40}: {}", answer.text);
    }
}

#[tokio::test]
async fn who_holds_no_lease_cannot_complete_what_somebody_works_on() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let task = world.assign(&bot, "{}").await;
    world.lease(&format!("/bots/{bot}/tasks/lease"), json!({"holder": "w"})).await;
    let path = format!("/bots/{bot}/tasks/{task}/complete");
    let answer = world.post(&path, "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].clone()),
        (StatusCode::CONFLICT, json!("TASK_LEASED"))
    );
    let answer = world.post(&path, r#"{"attempt":2}"#).await;
    assert_eq!(answer.json()["code"], "STALE_ATTEMPT");
    let done = world.post(&path, r#"{"attempt":1,"result":7}"#).await.ok();
    assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &json!(7)));
}

#[tokio::test]
async fn a_worker_that_waits_is_given_work_when_there_is_some() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(1).await;
    let asked = json!({"swarms": [swarm], "holder": "w", "wait_seconds": 50});
    let proposals = || world.cluster.metrics().proposals;
    // What a member that has just started writes by itself comes first.
    let mut before = proposals();
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = proposals();
        if std::mem::replace(&mut before, now) == now {
            break;
        }
    }
    let (rows, ()) = tokio::join!(world.lease("/bots/leases", asked.clone()), async {
        // Nothing is written into the log for somebody who only waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(proposals(), before);
        world.give(&swarm, "{}").await;
    });
    assert_eq!((rows.len(), &rows[0]["bot_id"]), (1, &json!(bots[0])));
    // What is given back is there for the next one.
    let (rows, verdicts) = tokio::join!(world.lease("/bots/leases", asked.clone()), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.judged("/bots/leases/release", json!({"leases": [key(&rows[0])]})).await
    });
    assert_eq!((rows.len(), verdicts), (1, vec!["accepted".to_owned()]));
    // And so is what nobody gave back in time.
    let body = json!({"leases": [key(&rows[0])], "lease_seconds": 0.01});
    world.judged("/bots/leases/renew", body).await;
    let (rows, ()) = tokio::join!(world.lease("/bots/leases", asked.clone()), world.expire());
    assert_eq!(rows[0]["attempt"], 3);
    let mut little = asked;
    little["wait_seconds"] = json!(0.05);
    assert!(world.lease("/bots/leases", little).await.is_empty());
}

#[tokio::test]
async fn many_who_wait_for_one_assignment_write_little() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(3).await;
    let asked = json!({"swarms": [swarm], "wait_seconds": 1}).to_string();
    let waiting = futures::future::join_all((0..200).map(|_| world.post("/bots/leases", &asked)));
    let (answers, before) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.give(&swarm, "{}").await;
        world.cluster.metrics().proposals
    });
    let given: usize = answers
        .into_iter()
        .map(|answer| answer.ok()["assignments"].as_array().unwrap().len())
        .sum();
    assert_eq!(given, 3, "each to one of them");
    let written = world.cluster.metrics().proposals - before;
    assert!(written <= 20, "{written} proposals");
}

#[tokio::test]
async fn a_lease_that_is_asked_for_again_is_the_same_one() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(1).await;
    world.give(&swarm, "{}").await;
    let body = json!({"swarms": [swarm], "wait_seconds": 50}).to_string();
    let first = world.post_keyed("/bots/leases", "k", &body).await.ok();
    let again = timeout(PATIENCE, world.post_keyed("/bots/leases", "k", &body)).await.unwrap();
    assert_eq!(again.ok(), first, "although nothing waits any more");
    assert_eq!(first["assignments"].as_array().unwrap().len(), 1);
}

/// Somebody else was faster the first time: what the second try was given is found again, also by
/// one that does not wait this time.
#[tokio::test]
async fn a_lease_that_is_asked_for_again_goes_through_all_its_tries() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(1).await;
    let first = RequestId::from_key("k");
    let second = RequestId::from_key(&format!("{first}/1"));
    for request_id in [first, second] {
        let command = BotCommand::LeaseAssignments {
            holder: "w".to_owned(),
            scope: LeaseScope::Swarms(vec![DerivedId::parse(&swarm).unwrap()]),
            max: 1,
            lease_ms: 60_000,
            types: Vec::new(),
        };
        let command = Command::Bot(Box::new(command));
        world.cluster.propose(request_id, "", command).await.unwrap().reply.unwrap();
        world.give(&swarm, "{}").await;
    }
    let body = json!({"swarms": [swarm]}).to_string();
    let leased = world.post_keyed("/bots/leases", "k", &body).await;
    assert_eq!(leased.header("x-quorate-request-id"), first.to_string(), "not that of a try");
    let rows = leased.ok();
    let found = (&rows["assignments"][0]["bot_id"], &rows["assignments"][0]["attempt"]);
    assert_eq!(found, (&json!(bots[0]), &json!(1)));
    let stats = world.get("/bots/stats").await.ok();
    assert_eq!((&stats["tasks_leased"], &stats["tasks_waiting"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_list_of_a_bot_waits_for_what_is_asked_for() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let path = format!("/bots/{bot}/tasks?status=assigned&wait=50");
    let (listed, task) = tokio::join!(timeout(PATIENCE, world.get(&path)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.assign(&bot, "{}").await
    });
    assert_eq!(listed.unwrap().ok()["tasks"][0]["task_id"], json!(task));
    let path = format!("/bots/{bot}/tasks?status=completed&wait=50");
    let (listed, _) = tokio::join!(timeout(PATIENCE, world.get(&path)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.post(&format!("/bots/{bot}/tasks/{task}/complete"), "").await.ok()
    });
    assert_eq!(listed.unwrap().ok()["count"], 1);
    let none = world.get(&format!("/bots/{bot}/tasks?status=failed&wait=1")).await.ok();
    assert_eq!((&none["tasks"], &none["count"]), (&json!([]), &json!(0)));
    let path = format!("/bots/{bot}/tasks?status=failed&wait=50");
    let (gone, _) = tokio::join!(timeout(PATIENCE, world.get(&path)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.delete(&format!("/bots/{bot}")).await.ok()
    });
    refused(&gone.unwrap(), 404, &format!("Bot {bot} not found"));
    for wrong in ["status=done", "wait=61", "wait=x", "limit=0", "limit=1001"] {
        let answer = world.get(&format!("/bots/{bot}/tasks?{wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn who_waits_is_let_go_when_the_member_closes() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(1).await;
    let asked = json!({"swarms": [swarm], "wait_seconds": 60});
    let (rows, ()) = tokio::join!(world.lease("/bots/leases", asked), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.app.close();
    });
    assert!(rows.is_empty());
}

#[tokio::test]
async fn who_goes_away_leaves_its_place_to_others() {
    // Two requests at once, of which one may wait.
    let world = World::with(ApiOptions { requests_max: 2, ..ApiOptions::default() }).await;
    let (swarm, _) = world.swarm(1).await;
    let asked = json!({"swarms": [swarm], "wait_seconds": 60}).to_string();
    let workflow = r#"{"tasks":[{"type":"x"}]}"#;
    let waiting = world.post("/orchestrate", workflow);
    let (gone, refused) = tokio::join!(timeout(Duration::from_millis(200), waiting), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.post("/bots/leases", &asked).await
    });
    assert!(gone.is_err(), "nobody does the workflow");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "TOO_MANY_WAITING");
    let running = world.get("/workflows?status=running").await.ok();
    assert_eq!(running["total"], 1, "it goes on without its client");
    let later = timeout(Duration::from_millis(200), world.post("/bots/leases", &asked)).await;
    assert!(later.is_err(), "it waits");
}

#[tokio::test]
async fn leases_of_nothing_are_refused() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(1).await;
    let known = json!([swarm]);
    for body in [
        json!({}),
        json!({"swarms": []}),
        json!({"swarms": "x"}),
        json!({"swarms": known, "bots": bots}),
        json!({"swarms": known, "max": 0}),
        json!({"swarms": known, "max": 1001}),
        json!({"swarms": known, "max": 1.5}),
        json!({"swarms": known, "lease_seconds": 0}),
        json!({"swarms": known, "lease_seconds": 86_401}),
        json!({"swarms": known, "wait_seconds": 61}),
        json!({"swarms": known, "wait_seconds": -1}),
        json!({"swarms": known, "holder": "x".repeat(65)}),
        json!({"bots": vec![&bots[0]; 101]}),
    ] {
        let answer = world.post("/bots/leases", &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.text);
    }
    let other = "12345678-1234-4234-8234-123456789abc";
    for id in ["none", other] {
        let body = json!({"swarms": [id]}).to_string();
        refused(&world.post("/bots/leases", &body).await, 404, &format!("Swarm {id} not found"));
        let body = json!({"bots": [id]}).to_string();
        refused(&world.post("/bots/leases", &body).await, 404, &format!("Bot {id} not found"));
    }
    // What is gone is left out beside what is there.
    let body = json!({"swarms": ["none", other, swarm]});
    assert!(world.lease("/bots/leases", body).await.is_empty());
}

#[tokio::test]
async fn health_tells_who_works_and_who_is_late() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(2).await;
    let of_swarm = format!("/swarms/{swarm}/health");
    let fresh = world.get(&of_swarm).await.ok();
    assert_eq!((&fresh["health"], &fresh["bot_count"]), (&json!("unattached"), &json!(2)));
    assert!(fresh["last_contact"].is_null());
    world.give(&swarm, "{}").await;
    let body = json!({"swarms": [swarm], "holder": "w", "lease_seconds": 0.02});
    let rows = world.lease("/bots/leases", body).await;
    while world.get(&of_swarm).await.ok()["health"] != "overdue" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = world.get(&format!("/api/v1/bots/{}/health", bots[0])).await.ok();
    assert_eq!((&late["health"], &late["overdue_leases"]), (&json!("overdue"), &json!(1)));
    let other = world.get(&format!("/bots/{}/health", bots[1])).await.ok();
    assert_eq!((&other["health"], &other["pending_tasks"]), (&json!("unattached"), &json!(1)));
    let body = json!({"leases": [key(&rows[0])], "lease_seconds": 600});
    assert_eq!(world.judged("/bots/leases/renew", body).await, ["accepted"]);
    let working = world.get(&of_swarm).await.ok();
    assert_eq!((&working["health"], &working["leased_tasks"]), (&json!("working"), &json!(1)));
    let items = json!({"items": [key(&rows[0])]});
    assert_eq!(world.judged("/assignments/complete", items).await, ["accepted"]);
    let done = world.get(&of_swarm).await.ok();
    assert_eq!((&done["health"], &done["completed_tasks"]), (&json!("active"), &json!(1)));
    let bot = world.bot("{}").await;
    let task = world.assign(&bot, "{}").await;
    let given = world.get(&format!("/bots/{bot}/health")).await.ok();
    assert_eq!(given["health"], "unattached", "that it was given something is no sign of anybody");
    world.post(&format!("/bots/{bot}/tasks/{task}/complete"), "").await.ok();
    assert_eq!(world.get(&format!("/bots/{bot}/health")).await.ok()["health"], "active");
    refused(&world.get("/bots/none/health").await, 404, "Bot none not found");
    refused(&world.get("/swarms/none/health").await, 404, "Swarm none not found");
}

//! What the event stream tells of bots, swarms and workflows: each event of docs/bots.md, its fields, once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::events::Stream;
use super::{World, take};

impl Stream {
    /// The next event, which must be this one and come in an entry of its own.
    async fn tells(&mut self, mut wanted: Value) {
        let frame = timeout(Duration::from_secs(30), self.next()).await;
        let mut frame = frame.unwrap_or_else(|_| panic!("nothing is told: {wanted}"));
        let index = take(&mut frame.data, "/index");
        assert_eq!(frame.id, format!("{index}-0"));
        assert_eq!(take(&mut frame.data, "/ordinal"), 0);
        assert!(take(&mut frame.data, "/at_ms").as_u64().is_some_and(|at_ms| at_ms > 0));
        wanted["type"] = frame.event.clone().into();
        let name = take(&mut wanted, "/event");
        assert_eq!((Value::from(frame.event), frame.data), (name, wanted));
    }
}

#[tokio::test]
async fn bots_and_swarms_tell_each_thing_once() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "from=now", None).await;
    let bot = world.bot("{}").await;
    stream.tells(json!({"event": "bot_created", "bot": bot})).await;
    let (swarm, bots) = world.swarm(4).await;
    stream.tells(json!({"event": "swarm_created", "swarm": swarm, "count": 4})).await;
    let scale = async |count: u32| {
        let body = json!({ "count": count }).to_string();
        world.patch(&format!("/swarms/{swarm}"), &body).await.ok();
    };
    // That it has as many already is nothing new.
    scale(4).await;
    scale(6).await;
    stream.tells(json!({"event": "swarm_scaled", "swarm": swarm, "count": 6})).await;
    scale(3).await;
    stream.tells(json!({"event": "swarm_scaled", "swarm": swarm, "count": 3})).await;
    let task = world.assign(&bot, r#"{"type":"t"}"#).await;
    stream.tells(json!({"event": "bot_assigned", "bot": bot, "task": task})).await;
    let given = world.post(&format!("/swarms/{swarm}/tasks"), "{}").await.json();
    let assigned =
        json!({"event": "swarm_assigned", "swarm": swarm, "wave": given["wave"], "count": 3});
    stream.tells(assigned).await;
    for removed in [&bots[1], &bot] {
        world.delete(&format!("/bots/{removed}")).await.ok();
        stream.tells(json!({"event": "bot_removed", "bot": removed})).await;
    }
    world.delete(&format!("/swarms/{swarm}")).await.ok();
    stream.tells(json!({"event": "swarm_removed", "swarm": swarm, "count": 2})).await;
    // What is refused is not told.
    world.delete(&format!("/swarms/{swarm}")).await;
    let last = world.bot("{}").await;
    stream.tells(json!({"event": "bot_created", "bot": last})).await;
}

#[tokio::test]
async fn work_of_bots_tells_each_thing_once() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(6).await;
    world.post(&format!("/swarms/{swarm}/tasks"), r#"{"type":"t"}"#).await;
    let mut stream = Stream::open(&world, "from=now", None).await;
    let path = format!("/swarms/{swarm}/tasks/lease");
    let leased = world.lease(&path, json!({"holder": "w", "max": 5})).await;
    stream.tells(json!({"event": "assignments_leased", "holder": "w", "count": 5})).await;
    let item = |at: usize| json!({"task_id": leased[at]["task_id"], "attempt": 1});
    let ask = async |path: &str, body: Value| world.post(path, &body.to_string()).await.ok();
    ask("/bots/leases/renew", json!({"leases": [item(0)]})).await;
    ask("/bots/leases/release", json!({"leases": [item(0)]})).await;
    stream.tells(json!({"event": "assignments_released", "count": 1})).await;
    let reported = |completed: u32, failed: u32, retried: u32, task: &Value| {
        json!({"event": "assignments_reported", "completed": completed, "failed": failed,
            "retried": retried, "task": task})
    };
    let both = json!({"items": [item(1), item(2)]});
    ask("/assignments/complete", both.clone()).await;
    stream.tells(reported(2, 0, 0, &Value::Null)).await;
    // Said again, which changes nothing.
    ask("/assignments/complete", both).await;
    let task = &leased[3]["task_id"];
    ask("/assignments/fail", json!({"items": [item(3)]})).await;
    stream.tells(reported(0, 0, 1, task)).await;
    ask("/assignments/fail", json!({"items": [{"task_id": task, "retryable": false}]})).await;
    stream.tells(reported(0, 1, 0, task)).await;
    let own = world.get(&format!("/bots/{}/tasks?status=waiting", bots[5])).await.ok();
    let own = own["tasks"][0]["task_id"].as_str().unwrap().to_owned();
    let path = format!("/bots/{}/tasks/{own}/complete", bots[5]);
    world.post(&path, "").await.ok();
    stream.tells(reported(1, 0, 0, &json!(own))).await;
    // A lease that runs out is a try that failed.
    let more = json!({"leases": [item(4)], "lease_seconds": 1});
    ask("/bots/leases/renew", more).await;
    world.expire().await;
    stream.tells(reported(0, 0, 1, &Value::Null)).await;
}

#[tokio::test]
async fn workflows_tell_how_far_they_are_once() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "types=workflow_changed", None).await;
    let changed = |id: &str, status: &str, position: u32| json!({"event": "workflow_changed", "workflow": id, "status": status, "position": position});
    let id = world.begin(r#"{"tasks":[{"type":"x"},{"type":"y"}]}"#).await;
    stream.tells(changed(&id, "running", 0)).await;
    world.do_next("1").await;
    stream.tells(changed(&id, "running", 1)).await;
    world.do_next("2").await;
    stream.tells(changed(&id, "completed", 2)).await;
    let empty = world.begin(r#"{"tasks":[]}"#).await;
    stream.tells(changed(&empty, "completed", 0)).await;
    let stopped = world.begin(r#"{"tasks":[{"type":"x"}]}"#).await;
    stream.tells(changed(&stopped, "running", 0)).await;
    world.delete(&format!("/workflows/{stopped}")).await.ok();
    stream.tells(changed(&stopped, "cancelled", 0)).await;
    world.delete(&format!("/workflows/{stopped}")).await.ok();
    let last = world.begin(r#"{"tasks":[]}"#).await;
    stream.tells(changed(&last, "completed", 0)).await;
}

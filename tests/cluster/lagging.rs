//! The API of a member that is behind: what was just changed through another one counts there, too.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use quorate::api::{ApiOptions, App, router};
use quorate::cluster::{Cluster, Direction, Fault};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::house::{House, eventually};

/// Longer than a test is; it is healed long before.
const CUT: Duration = Duration::from_secs(60);

async fn send(door: &Router, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string()));
    let answer = door.clone().oneshot(request.unwrap()).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn done(door: &Router, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = send(door, method, path, body).await;
    assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
    answer
}

/// A cluster with a door at each member, one of which leads and one of which is to fall behind.
struct Stage {
    house: House,
    doors: Vec<Router>,
    leads: usize,
    behind: usize,
}

impl Stage {
    async fn new() -> Self {
        let house = House::found().await;
        let door = |member: &Cluster| router(App::new(member.clone(), ApiOptions::default()));
        let doors = house.members.iter().map(door).collect();
        let leads = house.leader().await;
        Self { house, doors, leads, behind: (leads + 1) % 3 }
    }

    fn revision(&self, place: usize) -> u64 {
        self.house.members[place].view().read(|state| state.config().revision)
    }

    fn knows(&self, place: usize, task_type: &str) -> bool {
        self.house.members[place].view().read(|state| state.estimates().contains_key(task_type))
    }

    async fn allow(&self, hosts: &str) {
        let change = json!({"security": {"outward": {"allowed_hosts": [hosts]}}});
        done(&self.doors[self.leads], "PUT", "/api/v1/config", &change).await;
    }

    /// Lets the one member fall behind what is changed through the leader, asks it, and lets it
    /// catch up while it thinks.
    async fn ask_behind(
        &self,
        change: impl Future<Output = ()>,
        path: &str,
        body: &Value,
    ) -> Value {
        let behind = &self.house.members[self.behind];
        let peer = self.house.members[self.leads].member_id();
        let cut = Fault::Cut { peer, direction: Direction::In };
        assert!(behind.faults().cause(cut, 1, CUT));
        change.await;
        let before = behind.view().applied();
        let heals = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(behind.view().applied(), before, "it was behind when it was asked");
            behind.faults().heal(None);
        };
        tokio::join!(done(&self.doors[self.behind], "POST", path, body), heals).0
    }
}

/// It was refused as a task of a type that nobody knows, or taken as one without steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_was_just_defined_through_another_member_is_known() {
    let stage = Stage::new().await;
    let pipeline = json!({"mode": "sequential", "steps": [{"name": "a", "agent_type": "x"}]});
    for (task_type, path) in [("one", "/api/v1/tasks"), ("many", "/api/v1/tasks/batch")] {
        let define = async {
            let path = format!("/api/v1/pipelines/{task_type}");
            done(&stage.doors[stage.leads], "PUT", &path, &pipeline).await;
            assert!(!stage.knows(stage.behind, task_type));
        };
        let inputs = json!([{"type": "text", "data": "a"}]);
        let task = json!({"task_id": task_type, "task_type": task_type, "inputs": inputs});
        let body = if task_type == "one" { task } else { json!({"tasks": [task]}) };
        stage.ask_behind(define, path, &body).await;
        // Without any mark of its family it would be a task of nodes.
        let again = format!("{task_type}-again");
        let define = async {
            let path = format!("/api/v1/pipelines/{again}");
            done(&stage.doors[stage.leads], "PUT", &path, &pipeline).await;
        };
        let task = json!({"task_id": again, "task_type": again});
        let body = if task_type == "one" { task } else { json!({"tasks": [task]}) };
        stage.ask_behind(define, path, &body).await;
        let steps = stage.house.members[stage.leads].view().read(|state| {
            let task = state.task(&quorate::model::TaskId::parse(&again).unwrap());
            task.unwrap().rows() - 1
        });
        assert_eq!(steps, 1, "{path}");
    }
    stage.house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_just_allowed_through_another_member_may_be_named() {
    let stage = Stage::new().await;
    for (number, path) in [(1, "/api/v1/tasks"), (2, "/api/v1/tasks/batch")] {
        stage.allow("10.9.0.0/16").await;
        let newest = stage.revision(stage.leads);
        eventually("it is known everywhere", || {
            (stage.revision(stage.behind) == newest).then_some(())
        })
        .await;
        let task = json!({"task_type": "t", "callback_url": format!("http://10.{number}.1.1/")});
        let body = if number == 1 { task } else { json!({"tasks": [task]}) };
        let (status, refused) = send(&stage.doors[stage.behind], "POST", path, &body).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("HOST_NOT_ALLOWED")));
        let hosts = format!("10.{number}.0.0/16");
        let allow = async {
            stage.allow(&hosts).await;
            assert_eq!(stage.revision(stage.behind), newest);
        };
        stage.ask_behind(allow, path, &body).await;
    }
    stage.house.stop().await;
}

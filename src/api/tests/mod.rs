//! The router on a cluster of one member, asked as clients ask it.

mod accounts;
mod again;
mod auth;
mod backups;
mod bot_events;
mod bot_leases;
mod bot_lists;
mod bot_paths;
mod bots;
mod common;
mod contract;
mod control;
mod dashboard;
mod dead_letters;
mod documented;
mod drills;
mod errors;
mod events;
mod flows;
mod grpc;
mod grpc_auth;
mod hostile;
mod interface;
mod lists;
mod logins;
mod metrics;
mod more_lists;
mod nanoos;
mod nanoos_agent;
mod nanoos_budgets;
mod nanoos_laboratory;
mod nanoos_patch;
mod nanoos_runs;
mod nodes;
mod notices;
mod pages;
mod paragraphs;
mod parts;
mod performance;
mod tasks;
mod websocket;
mod why;
mod workflows;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use super::{ApiOptions, App, router};
use crate::clock;
use crate::cluster::net::Nobody;
use crate::cluster::{Cluster, ClusterOptions};
use crate::leader::campaigns::{Calendars, plan};
use crate::model::{Epoch, Member, NodeId, TaskId};
use crate::state::{Assignment, Command, Dispatch, DispatchResult, Outcome};
use crate::storage::{Disk, SimDisk, SimOptions, Storage, StorageOptions};

/// One member, its API, and what a test needs to play the leader's duties.
pub(super) struct World {
    pub(super) app: App,
    pub(super) router: Router,
    pub(super) cluster: Cluster,
    pub(super) epoch: Epoch,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }

    /// The body, which must be of a good answer.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(ApiOptions::default()).await
    }

    pub(super) async fn with(options: ApiOptions) -> Self {
        let cluster = one_member().await;
        let app = App::new(cluster.clone(), options);
        let router = router(app.clone());
        let epoch = Epoch { term: 1_000_000, member: cluster.member_id() };
        let world = Self { app, router, cluster, epoch };
        world.commit(Command::OpenEpoch(epoch)).await;
        world
    }

    /// Commits a command that no client sends.
    pub(super) async fn commit(&self, command: Command) -> Outcome {
        let proposed = self.cluster.propose(clock::mint_request_id(), "", command).await;
        proposed.unwrap().reply.unwrap()
    }

    /// Runs steps of orchestrators, as the leader's duty does, until the test ends.
    pub(super) fn play_steps(&self) {
        let (cluster, epoch) = (self.cluster.clone(), self.epoch);
        tokio::spawn(async move {
            let mut calendars = Calendars::default();
            loop {
                let now = clock::now_ms();
                let (duties, _) = cluster.view().read(|state| plan(state, now, &mut calendars));
                for duty in duties {
                    let command = Command::Step { epoch, duty };
                    let _ = cluster.propose(clock::mint_request_id(), "", command).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let body = Body::from(body.to_owned());
        self.send(Request::builder().method(method).uri(path).body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: &str) -> Answer {
        self.call("PUT", path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "").await
    }

    /// Asks until there is something.
    pub(super) async fn found(&self, path: &str) -> Value {
        for _ in 0..500 {
            let answer = self.get(path).await;
            if answer.status == StatusCode::OK {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} is never there");
    }

    pub(super) async fn post_keyed(&self, path: &str, key: &str, body: &str) -> Answer {
        self.keyed("POST", path, key, body).await
    }

    pub(super) async fn keyed(&self, method: &str, path: &str, key: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn register(&self, node_id: &str) {
        let path = format!("/api/v1/nodes/{node_id}/register");
        self.post(&path, r#"{"host":"h"}"#).await.ok();
    }

    pub(super) async fn submit(&self, task_id: &str) {
        let body = format!(r#"{{"task_id":"{task_id}","task_type":"t"}}"#);
        self.post("/api/v1/tasks", &body).await.ok();
    }

    /// Places a task, as the scheduler does.
    pub(super) async fn place(&self, task_id: &str, node_id: &str) {
        let task_id = TaskId::trusted(task_id);
        let task = self
            .cluster
            .view()
            .read(|state| state.task(&task_id).map(|task| task.into_owned()))
            .unwrap();
        let node_id = NodeId::trusted(node_id);
        let assignment = Assignment { task_id, seen_revision: task.revision, node_id };
        let command = Command::AssignTasks { epoch: self.epoch, assignments: vec![assignment] };
        assert_eq!(self.commit(command).await, Outcome::Judged { accepted: 1, stale: 0 });
    }

    /// Acknowledges an attempt, as the dispatcher does.
    pub(super) async fn acknowledge(&self, task_id: &str, attempt: u32) {
        let task_id = TaskId::trusted(task_id);
        let dispatch =
            Dispatch { task_id, attempt, again: false, result: DispatchResult::Acknowledged };
        let command = Command::RecordDispatches { epoch: self.epoch, dispatches: vec![dispatch] };
        assert_eq!(self.commit(command).await, Outcome::Judged { accepted: 1, stale: 0 });
    }
}

/// A member that belongs to no cluster yet.
async fn unseated() -> Cluster {
    let disk = Disk::Simulated(SimDisk::new(SimOptions::default()));
    let storage = Storage::open(StorageOptions::new(disk)).await.unwrap();
    let member = Member {
        name: "m1".to_owned(),
        peer_addr: "alone:7000".to_owned(),
        http_addr: "alone:9000".to_owned(),
        ..Member::default()
    };
    Cluster::start(ClusterOptions::new(member), storage, Arc::new(Nobody)).await.unwrap()
}

async fn one_member() -> Cluster {
    let cluster = unseated().await;
    cluster.init(&[]).await.unwrap();
    cluster.leadership().wait_for(Option::is_some).await.unwrap();
    // The leader names its cluster by itself; after that only tests write.
    let view = Arc::clone(cluster.view());
    let named = |_: &u64| view.read(|state| state.cluster_id() != 0);
    cluster.view().applied_watch().wait_for(named).await.unwrap();
    cluster
}

/// Takes a value out of an object, so that what is left can be compared as a whole.
#[track_caller]
pub(super) fn take(value: &mut Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let object = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    object.remove(key).unwrap_or_else(|| panic!("no {pointer}"))
}

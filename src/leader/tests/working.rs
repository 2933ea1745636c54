//! The whole room at work, on the in-memory seat: real duties, real HTTP to real nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::nodes::{Asked, json, serve};
use crate::leader::Outward;
use crate::leader::http::HttpCaller;
use crate::leader::seat::SeatError;
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership};
use crate::model::{CampaignPlan, Payload, TaskStatus};
use crate::state::{CampaignCommand, CampaignMove, Command, Outcome, TaskReport};

struct Work {
    solo: Arc<Solo>,
    leadership: Leadership,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(solo: &Arc<Solo>, options: LeaderOptions) -> Work {
    let shutdown = CancellationToken::new();
    let caller = Arc::new(HttpCaller::new().unwrap());
    let leadership = Leadership::new(options, Outward::new(caller));
    let task = tokio::spawn({
        let (leadership, solo, shutdown) = (leadership.clone(), solo.clone(), shutdown.clone());
        async move { leadership.run(solo, shutdown).await }
    });
    Work { solo: Arc::clone(solo), leadership, shutdown, task }
}

fn lead(options: LeaderOptions) -> Work {
    let solo = Solo::new();
    solo.leading.send_replace(Some(1));
    start(&solo, options)
}

impl Work {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
        assert_eq!(self.leadership.duties_running(), 0);
    }

    fn register(&self, name: &str, port: u16, capacity: u32) {
        self.solo.register(name, |spec| (spec.port, spec.capacity) = (port, capacity));
    }

    async fn until(&self, task: &crate::model::TaskId, status: TaskStatus) {
        let what = format!("{task} becomes {status:?}");
        let is = |state: &crate::state::State| {
            state.task(task).is_some_and(|task| task.status == status)
        };
        self.solo.until(&what, is).await;
    }
}

/// A node that answers at once with the length of its input.
async fn executor() -> (u16, Asked) {
    serve(|_, body| async move { json(StatusCode::OK, &counted(&body)) }).await
}

fn counted(body: &Value) -> String {
    let len = body["input_data"].to_string().len();
    format!(r#"{{"success":true,"result":{{"len":{len}}}}}"#)
}

#[tokio::test]
async fn a_submitted_task_is_placed_handed_over_and_completed() {
    let work = lead(LeaderOptions::default());
    let (port, asked) = executor().await;
    work.register("n", port, 4);
    let small = work.solo.submit("small", |spec| spec.input = r#"{"a":1}"#.to_owned());
    // Too large for its row: the dispatcher has to load it.
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000));
    let large = work.solo.submit("large", |spec| spec.input = text.clone());
    for (task_id, len) in [(&small, 7), (&large, text.len())] {
        work.until(task_id, TaskStatus::Completed).await;
        let state = work.solo.state.read();
        let task = state.task(task_id).unwrap();
        assert_eq!(task.result, Payload::inline(format!(r#"{{"len":{len}}}"#)));
        assert_eq!(task.attempt, 1);
    }
    assert_eq!(asked.lock().len(), 2);
    assert_eq!(asked.lock()[0].1["epoch"], "1.1");
    work.stop().await;
}

#[tokio::test]
async fn an_acknowledged_task_runs_until_its_report() {
    let work = lead(LeaderOptions::default());
    let (port, _) = serve(|_, _| async { json(StatusCode::ACCEPTED, "") }).await;
    work.register("n", port, 4);
    let task_id = work.solo.submit("t", |_| {});
    work.until(&task_id, TaskStatus::Running).await;
    let outcome = crate::state::TaskOutcome::Completed { result: "1".to_owned() };
    let report = TaskReport {
        task_id: task_id.clone(),
        attempt: Some(1),
        epoch: None,
        node_id: None,
        agent_id: None,
        outcome,
        execution_ms: 0,
        performance_metrics: String::new(),
    };
    work.solo.commit(Command::ReportTasks(vec![report])).unwrap();
    work.until(&task_id, TaskStatus::Completed).await;
    work.stop().await;
}

#[tokio::test]
async fn a_failing_node_uses_retries_up_to_a_dead_letter() {
    let work = lead(LeaderOptions::default());
    let path = "tasks.retry_delay_ms".to_owned();
    let value = "1".to_owned();
    work.solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    let failing = r#"{"success":false,"error":"no"}"#;
    let (port, asked) =
        serve(move |_, _| async move { json(StatusCode::INTERNAL_SERVER_ERROR, failing) }).await;
    work.register("n", port, 4);
    let task_id = work.solo.submit("t", |spec| spec.max_retries = 2);
    work.until(&task_id, TaskStatus::DeadLetter).await;
    let attempts: Vec<Value> =
        asked.lock().iter().map(|(_, body)| body["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 3]);
    work.stop().await;
}

#[tokio::test]
async fn a_busy_node_costs_no_retry_and_its_tasks_go_elsewhere() {
    let work = lead(LeaderOptions::default());
    let (busy, asked_busy) = serve(|_, _| async { json(StatusCode::TOO_MANY_REQUESTS, "") }).await;
    let (free, _) = executor().await;
    work.register("busy", busy, 50);
    for n in 0..20 {
        work.solo.submit(&format!("t{n}"), |_| {});
    }
    work.solo.until("the busy node was asked", |_| !asked_busy.lock().is_empty()).await;
    work.register("free", free, 4);
    for n in 0..20 {
        let task_id = crate::model::TaskId::trusted(&format!("t{n}"));
        work.until(&task_id, TaskStatus::Completed).await;
        assert_eq!(work.solo.state.read().task(&task_id).unwrap().retry_count, 0);
    }
    let asked = asked_busy.lock().len();
    assert!(asked <= 20, "it was asked {asked} times: once per task, then held");
    work.stop().await;
}

#[tokio::test]
async fn a_node_never_gets_more_at_once_than_it_takes() {
    let work = lead(LeaderOptions::default());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let answer = move |_, body: Value| {
        let (now, most) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            json(StatusCode::OK, &counted(&body))
        }
    };
    let (port, _) = serve(answer).await;
    work.register("n", port, 3);
    for n in 0..200 {
        work.solo.submit(&format!("t{n}"), |_| {});
    }
    let all = |state: &crate::state::State| state.tasks_in(TaskStatus::Completed) == 200;
    work.solo.until("all are completed", all).await;
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
    work.stop().await;
}

#[tokio::test]
async fn what_an_earlier_leader_placed_is_handed_over_by_the_next() {
    let solo = Solo::new();
    let gate = Arc::new(Notify::new());
    let (opened, asked_first) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked_first);
    let answer = move |_: String, body: Value| -> futures::future::BoxFuture<'static, Response> {
        // The first call hangs: its leader falls before it is answered.
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let opened = Arc::clone(&opened);
        Box::pin(async move {
            if first {
                opened.notify_one();
                std::future::pending::<()>().await;
            }
            json(StatusCode::OK, &counted(&body))
        })
    };
    let (port, asked) = serve(answer).await;
    solo.leading.send_replace(Some(1));
    let work = start(&solo, LeaderOptions::default());
    work.register("n", port, 4);
    let task_id = solo.submit("t", |_| {});
    gate.notified().await;
    solo.leading.send_replace(Some(2));
    work.until(&task_id, TaskStatus::Completed).await;
    let asked: Vec<_> = asked.lock().iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1], "the node can tell that it is the same attempt");
    work.stop().await;
}

#[tokio::test]
async fn cancelling_breaks_the_call_off_and_tells_the_node() {
    let work = lead(LeaderOptions::default());
    let started = Arc::new(Notify::new());
    let told = Arc::new(Notify::new());
    let (on_start, on_told) = (Arc::clone(&started), Arc::clone(&told));
    let answer = move |path: String, _| {
        let (started, told) = (Arc::clone(&on_start), Arc::clone(&on_told));
        async move {
            if path == "/api/cancel_task/t" {
                told.notify_one();
                return json(StatusCode::OK, r#"{"success":true}"#);
            }
            started.notify_one();
            std::future::pending().await
        }
    };
    let (port, _) = serve(answer).await;
    work.register("n", port, 1);
    let task_id = work.solo.submit("t", |_| {});
    started.notified().await;
    assert_eq!(work.leadership.metrics().in_flight.get(), 1);
    let reason = "not needed".to_owned();
    work.solo.commit(Command::CancelTask { task_id, reason }).unwrap();
    tokio::time::timeout(Duration::from_secs(10), told.notified()).await.unwrap();
    // The place is free again: the next task is handed over.
    work.solo.submit("u", |_| {});
    tokio::time::timeout(Duration::from_secs(10), started.notified()).await.unwrap();
    work.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_proposed_again_and_does_no_harm() {
    let work = lead(LeaderOptions::default());
    let (port, _) = executor().await;
    work.register("n", port, 4);
    work.until_serving().await;
    *work.solo.fail_next.lock() = [true, false, true, false, true]
        .map(|took_effect| (SeatError::Unknown, took_effect))
        .to_vec();
    for n in 0..10 {
        work.solo.submit(&format!("t{n}"), |_| {});
    }
    let all = |state: &crate::state::State| state.tasks_in(TaskStatus::Completed) == 10;
    work.solo.until("all are completed", all).await;
    assert!(work.solo.state.read().live_tasks().next().is_none());
    work.stop().await;
}

impl Work {
    async fn until_serving(&self) {
        let mut serving = self.leadership.serving();
        serving.wait_for(Option::is_some).await.unwrap();
    }
}

#[tokio::test]
async fn attempts_over_their_time_deadlines_and_old_tasks_are_dealt_with() {
    let work = lead(LeaderOptions::default());
    for (path, value) in [("tasks.retry_delay_ms", "1"), ("tasks.max_retained_tasks", "1")] {
        let (path, value) = (path.to_owned(), value.to_owned());
        work.solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    }
    let (port, _) = serve(|_, _| async { json(StatusCode::ACCEPTED, "") }).await;
    work.register("n", port, 4);
    // Acknowledged and never reported: its time runs out, then its only retry.
    let slow = work.solo.submit("slow", |spec| {
        (spec.timeout_ms, spec.max_retries) = (100, 1);
    });
    let missed = |state: &crate::state::State| {
        let ended = |task: &crate::model::Task| task.status == TaskStatus::DeadLetter;
        state.task(&slow).is_none_or(|task| ended(&task))
    };
    work.solo.until("the slow task is given up", missed).await;
    let late = work.solo.submit("late", |spec| {
        spec.requirements.capabilities = vec!["none".to_owned()];
        spec.deadline_ms = Some(crate::clock::now_ms() + 50);
    });
    // Only one ended task is kept.
    let kept = |state: &crate::state::State| {
        let timed_out = |task: &crate::model::Task| task.status == TaskStatus::TimedOut;
        state.task(&late).is_some_and(|task| timed_out(&task)) && state.task(&slow).is_none()
    };
    work.solo.until("the late task ends and the slow one is deleted", kept).await;
    assert!(work.leadership.metrics().expired.get() >= 3);
    assert_eq!(work.leadership.metrics().retired.get(), 1);
    work.stop().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_work_to_another() {
    let work = lead(LeaderOptions::default());
    let path = "network.node_timeout".to_owned();
    let value = "1".to_owned();
    work.solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    let (silent, _) = serve(|_, _| async { json(StatusCode::ACCEPTED, "") }).await;
    work.register("silent", silent, 4);
    let task_id = work.solo.submit("t", |_| {});
    work.until(&task_id, TaskStatus::Running).await;
    let offline = |state: &crate::state::State| {
        state.nodes().all(|node| node.status == crate::model::NodeStatus::Offline)
    };
    work.solo.until("the silent node is offline", offline).await;
    let (port, _) = executor().await;
    work.register("other", port, 4);
    work.until(&task_id, TaskStatus::Completed).await;
    assert_eq!(work.leadership.metrics().evictions.get(), 1);
    work.stop().await;
}

#[tokio::test]
async fn missed_events_are_made_up_for_from_the_state() {
    let solo = Solo::with_events(2);
    solo.leading.send_replace(Some(1));
    let work = start(&solo, LeaderOptions::default());
    let (port, asked) = executor().await;
    work.register("n", port, 50);
    let spec = |n: usize| crate::state::TaskSpec {
        task_id: Some(crate::model::TaskId::trusted(&format!("t{n}"))),
        task_type: "test".to_owned(),
        timeout_ms: 30_000,
        ..crate::state::TaskSpec::default()
    };
    work.solo.commit(Command::SubmitTasks((0..200).map(spec).collect())).unwrap();
    let all = |state: &crate::state::State| state.tasks_in(TaskStatus::Completed) == 200;
    work.solo.until("all are completed", all).await;
    assert!(work.leadership.metrics().event_gaps.get() > 0, "or this tests nothing");
    assert_eq!(asked.lock().len(), 200, "and nothing was handed over twice");
    work.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_there_is_recorded_before_a_peaceful_end() {
    let work = lead(LeaderOptions::default());
    let (called, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (on_call, on_answer) = (Arc::clone(&called), Arc::clone(&answer));
    let (port, _) = serve(move |_, body| {
        let (called, answer) = (Arc::clone(&on_call), Arc::clone(&on_answer));
        async move {
            called.notify_one();
            answer.notified().await;
            json(StatusCode::OK, &counted(&body))
        }
    })
    .await;
    work.register("n", port, 1);
    let task_id = work.solo.submit("t", |_| {});
    called.notified().await;
    // The record has to be made a second time; the end comes in between.
    work.solo.fail_next.lock().push((SeatError::Unknown, false));
    answer.notify_one();
    while !work.solo.fail_next.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let solo = Arc::clone(&work.solo);
    work.stop().await;
    assert_eq!(solo.status(&task_id), Some(TaskStatus::Completed));
}

/// Ended campaigns were forgotten when others were created, and only then.
#[tokio::test]
async fn the_leader_forgets_campaigns_that_have_ended_until_it_has_caught_up() {
    let work = lead(LeaderOptions::default());
    let plan = CampaignPlan::plain(1, 1);
    work.solo.until("a reign", |state| state.orchestrator("default").is_some()).await;
    for _ in 0..600 {
        let create = CampaignCommand::CreateCampaign(Box::new(plan.clone()));
        let created = work.solo.commit(Command::Campaign(create)).unwrap();
        let Outcome::CampaignCreated { campaign_id } = created else { panic!("{created:?}") };
        let how = CampaignMove::Cancel;
        let cancel = CampaignCommand::MoveCampaign { campaign_id, how };
        work.solo.commit(Command::Campaign(cancel)).unwrap();
    }
    assert_eq!(work.solo.state.read().campaigns_len(), 600, "so many are kept");
    let path = "campaigns.max_retained_campaigns".to_owned();
    let fewer = Command::PatchConfig { path, value: "7".to_owned(), expected_revision: None };
    work.solo.commit(fewer).unwrap();
    work.solo.until("the rest is forgotten", |state| state.campaigns_len() == 7).await;
    work.stop().await;
}

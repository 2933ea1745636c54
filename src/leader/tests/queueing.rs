//! Whom the courier serves next, and what the reaper leaves for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::leader::courier::{Receiver, plan};
use crate::leader::reaper;
use crate::leader::solo::Solo;
use crate::model::{
    AlertState, Delivery, DeliveryId, Epoch, FlowMode, Severity, StepSpec, TaskId, TimeMs,
};
use crate::state::{AlertChange, Command, DeliveryResult, FlowRequest};

const EPOCH: Epoch = Epoch { term: 1, member: 1 };

struct Post(Arc<Solo>);

impl Post {
    fn new() -> Self {
        let post = Self(Solo::new());
        post.0.commit(Command::OpenEpoch(EPOCH)).unwrap();
        let slack = json!({"enabled": true, "webhook_url": "http://slack/", "channel": "#fleet"});
        post.set("alerts.slack", &slack.to_string());
        post
    }

    fn set(&self, path: &str, value: &str) {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.0.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    }

    /// So many tasks end whose callbacks are for `host`.
    fn callbacks(&self, host: &str, count: usize) {
        for number in 0..count {
            let task_id = self.0.submit(&format!("{host}-{number}"), |spec| {
                spec.callback_url = Some(format!("http://{host}/{number}"));
            });
            self.0.commit(Command::CancelTask { task_id, reason: String::new() }).unwrap();
        }
    }

    fn alert(&self, alert_id: &str) {
        let change = AlertChange {
            alert_id: alert_id.to_owned(),
            seen_transitions: 0,
            metric: "network_utilization".to_owned(),
            severity: Severity::Critical,
            state: AlertState::Active,
            value_milli: 950,
            threshold_milli: 900,
            message: "too much".to_owned(),
        };
        self.0.commit(Command::RecordAlerts { epoch: EPOCH, changes: vec![change] }).unwrap();
    }

    fn next(&self, under_way: &BTreeMap<DeliveryId, Receiver>) -> Vec<Delivery> {
        plan(&self.0.state.read(), TimeMs::MAX, under_way)
    }

    fn end(&self, delivery: &Delivery, error: Option<&str>) {
        let (delivery_id, seen_tries) = (delivery.delivery_id, delivery.tries);
        let error = error.map(str::to_owned);
        let result = DeliveryResult { delivery_id, seen_tries, error, for_good: false };
        let results = vec![result];
        self.0.commit(Command::RecordDeliveries { epoch: EPOCH, results }).unwrap();
    }
}

/// With these under way.
fn under_way(posts: &[Delivery]) -> BTreeMap<DeliveryId, Receiver> {
    let receiver = |post: &Delivery| (post.lane(), post.host().to_owned());
    posts.iter().map(|post| (post.delivery_id, receiver(post))).collect()
}

fn hosts(posts: &[Delivery]) -> BTreeMap<&str, usize> {
    let mut hosts = BTreeMap::new();
    for post in posts {
        *hosts.entry(post.host()).or_default() += 1;
    }
    hosts
}

#[test]
fn an_alert_behind_five_thousand_callbacks_for_a_dead_host_is_told_at_once() {
    let post = Post::new();
    post.callbacks("dead:1", 5000);
    post.alert("network_utilization_threshold");
    post.callbacks("well:1", 1);
    let first = post.next(&BTreeMap::new());
    assert_eq!(first[0].kind, "slack", "what the operator is told goes first");
    assert_eq!(hosts(&first), [("dead:1", 16), ("slack", 1), ("well:1", 1)].into());
    let ids: Vec<_> = first.iter().map(|post| post.delivery_id).collect();
    let of_dead: Vec<_> = ids.iter().filter(|id| **id <= 5000).collect();
    assert!(of_dead.is_sorted(), "the oldest of each first: {ids:?}");
    // All of them stay under way: what comes later is told nevertheless.
    post.alert("node_failure_rate_threshold");
    post.callbacks("late:1", 1);
    let second = post.next(&under_way(&first));
    assert_eq!(hosts(&second), [("late:1", 1), ("slack", 1)].into());
}

#[test]
fn receivers_that_do_not_answer_leave_room_for_those_that_do() {
    let post = Post::new();
    for number in 0..10 {
        post.callbacks(&format!("dead{number}:1"), 30);
    }
    post.callbacks("well:1", 30);
    let first = post.next(&BTreeMap::new());
    assert_eq!(first.len(), 96);
    assert!(hosts(&first).values().all(|posts| (8..=9).contains(posts)), "{:?}", hosts(&first));
    // The living answers: it is next, though others are older.
    let mut still = first;
    let ended = still.extract_if(.., |post| post.host() == "well:1").count();
    let next = post.next(&under_way(&still));
    assert_eq!(hosts(&next), [("well:1", ended)].into());
}

#[test]
fn of_many_receivers_the_oldest_are_next() {
    let post = Post::new();
    for number in 0..2000 {
        post.callbacks(&format!("host{number}:1"), 1);
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        let next = post.next(&BTreeMap::new());
        assert_eq!(next.len(), 96, "as many as there is room for");
        next.iter().for_each(|delivery| post.end(delivery, None));
        told.extend(next.into_iter().map(|delivery| delivery.delivery_id));
    }
    assert_eq!(told, (1..=3 * 96).collect::<Vec<_>>(), "the oldest first");
}

#[test]
fn a_failed_post_waits_behind_the_others_of_its_receiver() {
    let post = Post::new();
    post.callbacks("a:1", 3);
    let first = post.next(&BTreeMap::new());
    post.end(&first[0], Some("answered 500"));
    let ids: Vec<_> = post.next(&BTreeMap::new()).iter().map(|post| post.delivery_id).collect();
    assert_eq!(ids, [2, 3, 1]);
    let state = post.0.state.read();
    let not_yet = plan(&state, state.delivery(3).unwrap().not_before_ms, &BTreeMap::new());
    assert_eq!(not_yet.len(), 2, "its wait is not over");
}

#[test]
fn the_reaper_does_not_look_at_tasks_whose_callbacks_are_still_to_be_made() {
    let post = Post::new();
    post.callbacks("dead:1", 300);
    let task_id = post.0.submit("plain", |_| ());
    post.0.commit(Command::CancelTask { task_id, reason: String::new() }).unwrap();
    let old = |max| reaper::plan(&post.0.state.read(), TimeMs::MAX, max).task_ids;
    assert_eq!(old(1000), [TaskId::trusted("plain")]);
    assert_eq!(post.0.state.read().told_ends().count(), 1, "it walks these alone");
    assert_eq!(post.0.state.read().ended_keys(None, false).count(), 301, "lists have them all");
    let first = post.next(&BTreeMap::new())[0].clone();
    post.end(&first, None);
    assert_eq!(old(1000).len(), 2, "a task that was told of may go");
    assert_eq!(old(1).len(), 1);
    // Results that nobody could fetch yet are not deleted in place of those that cannot go.
    post.set("tasks.max_retained_tasks", "2");
    assert_eq!(reaper::plan(&post.0.state.read(), 0, 1000).task_ids, []);
    post.set("tasks.max_retained_tasks", "1");
    let too_many = reaper::plan(&post.0.state.read(), 0, 1000);
    assert_eq!((too_many.task_ids.len(), too_many.more), (1, false));
}

/// A hundred thousand retained tasks could be 6.5 million rows, and deleting a thousand 65,000.
#[test]
fn the_reaper_counts_tasks_with_their_steps() {
    let post = Post::new();
    for name in ["a", "b", "c"] {
        let task_id = post.0.submit(name, |spec| {
            let step = |place: u16| StepSpec {
                name: format!("s{place}"),
                agent_type: "x".to_owned(),
                ..StepSpec::default()
            };
            let steps = (0..4).map(step).collect();
            spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps });
        });
        post.0.commit(Command::CancelTask { task_id, reason: String::new() }).unwrap();
    }
    let plan = |now, rows| reaper::plan(&post.0.state.read(), now, rows);
    let named = |names: &[&str], more| {
        let task_ids = names.iter().map(|name| TaskId::trusted(name)).collect();
        reaper::Plan { task_ids, more }
    };
    assert_eq!(plan(TimeMs::MAX, 1), named(&["a"], true), "one in any case");
    assert_eq!(plan(TimeMs::MAX, 10), named(&["a", "b"], true));
    assert_eq!(plan(TimeMs::MAX, 11), named(&["a", "b", "c"], false));
    assert_eq!(plan(0, 1000), named(&[], false), "none is old, and all may stay");
    post.set("tasks.max_retained_tasks", "9");
    assert_eq!(plan(0, 1000), named(&["a", "b"], false), "15 rows are six too many");
}

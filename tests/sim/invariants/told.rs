//! What those outside tell the invariants: what they are about to do, and what they were told.

use std::time::Duration;

use quorate::leader::AgentCall;
use quorate::model::{AssignmentPlace, CampaignId, NodeId, Pipeline, RunId, TaskId, TimeMs};
use serde_json::Value;

use super::{Checks, Invariants, Operation, Submissions, Told, epochs_only_grow, exactly_once};

impl Invariants {
    /// An agent begins an attempt of a step.
    pub(crate) fn agent_called(&self, call: &AgentCall) {
        let Checks { steps, submissions, definitions, .. } = &mut *self.checks.lock();
        let task_id = TaskId::trusted(&call.task_id);
        let (spec, held) = (submissions.spec_of(&task_id), definitions.of(&task_id));
        match steps.called(call, spec, held) {
            Ok(true) => {}
            Ok(false) => self.book.cover("agent_calls_again"),
            Err(what) => self.book.violation("finished steps stay finished", &what),
        }
    }

    /// Somebody outside was told of an end or of an alert.
    pub(crate) fn posted(&self, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).expect("what is posted is JSON");
        let delivery_id = body["delivery_id"].as_u64().expect("a post has its number");
        let Checks { callbacks, alerts, .. } = &mut *self.checks.lock();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(alert) = body.get("alert") {
            let transition = alert["transition"].as_u64().unwrap_or_default();
            let (alert_id, state) = (text(&alert["id"]), text(&alert["status"]));
            let held = alerts.posted(delivery_id, &alert_id, transition, &state);
            return self.book.check("alerts are told once", held);
        }
        let (task_id, status) = (text(&body["task_id"]), text(&body["status"]));
        self.book.check("callbacks are made", callbacks.posted(delivery_id, &task_id, &status));
    }

    /// Somebody was mailed an alert, whether or not the cluster heard that they were.
    pub(crate) fn mailed(&self, number: &str, subject: &str, text: &str) {
        let line = |name: &str| {
            let lines = || text.lines().filter_map(|line| line.split_once(": "));
            lines().find(|(key, _)| *key == name).map_or("", |(_, value)| value).to_owned()
        };
        let delivery_id = number.split('.').nth(1).and_then(|id| id.parse().ok());
        let delivery_id = delivery_id.expect("a mail has the number of its delivery");
        let transition =
            line("transition").parse().expect("a mail has the number of its transition");
        let (alert_id, status) = (line("alert"), line("status"));
        assert!(subject.ends_with(&format!("] {alert_id} {status}")), "{subject}: {text}");
        let held = self.checks.lock().mails.posted(delivery_id, &alert_id, transition, &status);
        self.book.check("alerts are mailed once", held);
    }

    /// A node was told that it is registered.
    pub(crate) fn registered(&self, node_id: &NodeId) {
        self.checks.lock().registered.told(node_id);
    }

    /// A command of an older reign was answered.
    pub(crate) fn straggler(&self, accepted: bool, what: &str) {
        self.book.cover("stragglers");
        self.book.check("epochs only grow", epochs_only_grow::refused(accepted, what));
    }

    /// A node was called.
    pub(crate) fn called(&self, task: &str, attempt: u64, epoch: &str, node: &str) {
        let held = self.checks.lock().attempts.called(task, attempt, epoch, node);
        self.book.check("attempts are fenced", held);
    }

    pub(crate) fn submissions<T>(&self, look: impl FnOnce(&mut Submissions) -> T) -> T {
        look(&mut self.checks.lock().submissions)
    }

    /// The answer to a request, the first or a later one.
    pub(crate) fn answered(&self, marker: &str, told: Told) {
        let held = exactly_once::answered(&mut self.checks.lock().submissions, marker, told);
        self.book.check("exactly once", held);
    }

    /// An operation on the register begins; gives its number.
    pub(crate) fn operates(&self, operation: Operation) -> usize {
        self.checks.lock().register.begin(operation)
    }

    /// It ended as told, or certainly never was.
    pub(crate) fn operated(&self, number: usize, operation: Option<Operation>) {
        self.checks.lock().register.end(number, operation);
    }

    /// An operator is about to take a node out.
    pub(crate) fn takes_out(&self, node_id: &NodeId) {
        self.checks.lock().registered.takes_out(node_id);
    }

    /// An author is about to define a pipeline, under a name that no other one bears.
    pub(crate) fn defines(&self, name: &str, pipeline: &Pipeline) {
        self.checks.lock().definitions.offered(name, pipeline);
    }

    /// An author was told that it is defined; with no name, that it is taken back.
    pub(crate) fn defined(&self, index: u64, task_type: &str, name: Option<&str>) {
        self.checks.lock().definitions.told(index, task_type, name);
    }

    /// An author does not know whether it took a pipeline back.
    pub(crate) fn maybe_taken_back(&self, task_type: &str) {
        self.checks.lock().definitions.maybe_taken_back(task_type);
    }

    /// Somebody was told that a setting is what it set.
    pub(crate) fn set(&self, revision: u64, path: &str, value: &str) {
        let held = self.checks.lock().settings.set(revision, path, value);
        self.book.check("settings are kept", held);
    }

    /// Somebody was told that a kill switch is pulled.
    pub(crate) fn tripped(&self, index: u64, campaign_id: &CampaignId) {
        self.checks.lock().switches.tripped(index, campaign_id);
    }

    /// Somebody is about to ask for iterations.
    pub(crate) fn asks_for_iterations(&self, campaign_id: &CampaignId, count: u32) {
        self.checks.lock().runs.asks(campaign_id, count);
    }

    /// So many of those that were asked for certainly do not come.
    pub(crate) fn asked_for_iterations(&self, campaign_id: &CampaignId, refused: u32) {
        self.checks.lock().runs.refused(campaign_id, refused);
    }

    /// Somebody was told that it began a run.
    pub(crate) fn run_begun(&self, run_id: RunId) {
        let held = self.checks.lock().runs.begun(run_id);
        self.book.check("runs are whole", held);
    }

    /// A worker was given a try of an assignment, to keep for a while by its own clock.
    pub(crate) fn leased(
        &self,
        index: u64,
        one: (AssignmentPlace, u32),
        time: (Duration, Duration),
    ) {
        self.book.cover("assignments_leased");
        self.checks.lock().bots.leased(index, one, time);
    }

    /// A worker stops working on a try.
    pub(crate) fn let_go(&self, one: (AssignmentPlace, u32), now: Duration) {
        self.checks.lock().bots.let_go(one, now);
    }

    /// A worker was told that it completed an assignment.
    pub(crate) fn completed(&self, index: u64, one: (AssignmentPlace, u32)) {
        let held = self.checks.lock().bots.completed(index, one);
        self.book.check("bots are whole", held);
    }

    /// A worker is about to complete so many.
    pub(crate) fn completes(&self, count: u64) {
        self.checks.lock().bots.completes(count);
    }

    /// It was told what became of so many, or that they certainly were not.
    pub(crate) fn knows_of_completions(&self, count: u64) {
        self.checks.lock().bots.knows_of_completions(count);
    }

    /// A service answers the call of a workflow's task.
    pub(crate) fn served(&self, key: &str, text: &str) {
        self.checks.lock().bots.served(key, text);
    }

    /// Somebody is about to end a login.
    pub(crate) fn logs_out(&self, session_id: &str) {
        self.checks.lock().logouts.asked(session_id);
    }

    /// Somebody was told that a login is ended.
    pub(crate) fn logged_out(&self, index: u64, session_id: &str, until_aged_ms: TimeMs) {
        self.checks.lock().logouts.told(index, session_id, until_aged_ms);
    }
}

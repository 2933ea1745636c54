//! The courier: posts what is due to URLs outside, and mails alerts (contract 6, rows 12 and 13).
//!
//! The state is its queue. A post may be made again by the next leader when its answer was not
//! recorded: receivers tell a repetition by `delivery_id`. Posts to one host are bounded, so that a slow
//! receiver holds up nobody else. A host that the operator's list does not have is not called: its
//! delivery is given up at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::debug;

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::http::{Call, CallError, NodeCaller};
use super::mailing;
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::{
    AllowedHosts, Delivery, DeliveryBody, DeliveryId, MailChannel, Reach, TaskId, TimeMs,
};
use crate::state::{Command, DeliveryResult, State};

/// The time for one post (contract 6, row 12).
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Posts under way at once.
const POSTS_MAX: usize = 128;
/// Posts under way at once to one host.
const POSTS_PER_HOST_MAX: usize = 16;
/// Deliveries looked at in one round.
const LOOK_MAX: usize = 4096;
/// Results in one command.
const RESULTS_MAX: usize = 500;
/// The longest wait without any wake-up.
const PERIOD: Duration = Duration::from_secs(1);

/// Gives the object of a task as clients see it, for its callback; `None` when it is gone.
pub trait TaskRenderer: Send + Sync + 'static {
    /// JSON text of one object.
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Option<Bytes>>;
}

/// A renderer for programs without an API: the id alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdOnly;

impl TaskRenderer for IdOnly {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Option<Bytes>> {
        let body = serde_json::json!({ "task_id": task_id.as_str() }).to_string();
        Box::pin(async move { Some(Bytes::from(body)) })
    }
}

/// The part of a URL that says whose it is.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// What may be posted at `now`, given what is under way by id and host, at most `max`.
#[must_use]
pub(super) fn plan(
    view: &State,
    now: TimeMs,
    under_way: &BTreeMap<DeliveryId, String>,
    max: usize,
) -> Vec<Delivery> {
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    for host in under_way.values() {
        *hosts.entry(host.clone()).or_default() += 1;
    }
    let mut due = Vec::new();
    let ready = view.due_deliveries().take(LOOK_MAX).take_while(|due| due.not_before_ms <= now);
    for delivery in ready {
        if due.len() >= max {
            break;
        }
        let posts = hosts.entry(host_of(&delivery.url).to_owned()).or_default();
        if under_way.contains_key(&delivery.delivery_id) || *posts >= POSTS_PER_HOST_MAX {
            continue;
        }
        *posts += 1;
        due.push(delivery.clone());
    }
    due
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub(super) struct Courier {
    under_way: BTreeMap<DeliveryId, String>,
    posts: JoinSet<DeliveryResult>,
    done: Vec<DeliveryResult>,
}

impl<S: Seat> Duty<S> for Courier {
    const NAME: DutyName = DutyName::Courier;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        self.collect();
        if !self.done.is_empty() {
            let rest = self.done.split_off(self.done.len().min(RESULTS_MAX));
            let results = std::mem::replace(&mut self.done, rest);
            let ids: BTreeSet<DeliveryId> =
                results.iter().map(|result| result.delivery_id).collect();
            let command =
                Command::RecordDeliveries { epoch: reign.epoch, results: results.clone() };
            match reign.propose(command).await? {
                Some(_) => self.under_way.retain(|id, _| !ids.contains(id)),
                // Recording it twice is harmless: the tries it saw have moved on.
                None => self.done.extend(results),
            }
            return Ok(Next::Again(Duration::ZERO));
        }
        let room = POSTS_MAX.saturating_sub(self.under_way.len());
        let (due, means) = reign.seat.read(|view| {
            let due = plan(view, state_now(&*reign.seat, view), &self.under_way, room);
            (due, Means::of(view, &reign.caller, &reign.renderer))
        });
        for delivery in due {
            self.under_way.insert(delivery.delivery_id, host_of(&delivery.url).to_owned());
            self.posts.spawn(made(delivery, means.clone()));
        }
        if self.posts.is_empty() {
            return Ok(Next::Wait(PERIOD));
        }
        // A post that ends is news of its own; so is a delivery that becomes due meanwhile.
        let wake = <Self as Duty<S>>::wake(&reign.wakes);
        tokio::select! {
            biased;
            Some(done) = self.posts.join_next() => self.note(done),
            () = wake.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
        Ok(Next::Again(Duration::ZERO))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.courier
    }
}

impl Courier {
    fn collect(&mut self) {
        while let Some(done) = self.posts.try_join_next() {
            self.note(done);
        }
    }

    fn note(&mut self, done: Result<DeliveryResult, tokio::task::JoinError>) {
        match done {
            Ok(result) => self.done.push(result),
            // Its delivery stays under way for this reign; the next one makes it again.
            Err(broken) => debug!(%broken, "a post broke"),
        }
    }
}

/// What a delivery is made with, as it is now.
#[derive(Clone)]
struct Means {
    caller: Arc<dyn NodeCaller>,
    renderer: Arc<dyn TaskRenderer>,
    reach: Arc<Reach>,
    /// `alerts.email`. Read now, so that no delivery holds a password.
    mail: Option<Arc<MailChannel>>,
    cluster_id: u128,
}

impl Means {
    fn of(view: &State, caller: &Arc<dyn NodeCaller>, renderer: &Arc<dyn TaskRenderer>) -> Self {
        let policy = view.policy();
        Self {
            caller: Arc::clone(caller),
            renderer: Arc::clone(renderer),
            reach: Arc::clone(&policy.reach),
            mail: policy.alert_email.clone(),
            cluster_id: view.cluster_id(),
        }
    }

    fn hosts(&self) -> &AllowedHosts {
        &self.reach.hosts
    }
}

/// Makes a delivery once.
async fn made(delivery: Delivery, means: Means) -> DeliveryResult {
    let (delivery_id, seen_tries) = (delivery.delivery_id, delivery.tries);
    let (error, for_good) = match mailing::is_mail(&delivery.url) {
        true => mailed(&delivery, &means).await,
        false => posted(delivery, &means).await,
    };
    DeliveryResult { delivery_id, seen_tries, error, for_good }
}

/// Why the post does not count, and whether another one would end alike.
async fn posted(delivery: Delivery, means: &Means) -> (Option<String>, bool) {
    let body = body_of(delivery.body, delivery.delivery_id, means.renderer.as_ref()).await;
    let Some(body) = body else { return (Some("the task is gone".to_owned()), true) };
    let call = Call::new(delivery.url, body, POST_TIMEOUT);
    let answer = means.caller.post_outside(call, means.hosts()).await;
    let for_good = matches!(answer, Err(CallError::NotAllowed(_)));
    (refusal(answer), for_good)
}

/// As [`posted`], of a mail.
async fn mailed(delivery: &Delivery, means: &Means) -> (Option<String>, bool) {
    let Some(channel) = &means.mail else {
        return (Some("alerts.email is switched off".to_owned()), true);
    };
    let channel = Arc::clone(channel);
    let Some(mail) = mailing::mail(delivery, channel, means.cluster_id, POST_TIMEOUT) else {
        return (Some("the delivery holds no mail".to_owned()), true);
    };
    match means.caller.mail(mail, means.hosts()).await {
        Ok(sent) => {
            mailing::tell_of_refused(delivery.delivery_id, &sent);
            (None, false)
        }
        Err(error) => (Some(error.to_string()), error.is_for_good()),
    }
}

/// The body, with the number of the delivery for whoever wants to tell repetitions.
async fn body_of(
    body: DeliveryBody,
    delivery_id: DeliveryId,
    renderer: &dyn TaskRenderer,
) -> Option<Bytes> {
    let text = match body {
        DeliveryBody::Text(text) => Bytes::from(text),
        DeliveryBody::Task(task_id) => renderer.render(task_id).await?,
    };
    // Every body is an object that is not empty.
    let rest = text.strip_prefix(b"{")?;
    let mut numbered = format!("{{\"delivery_id\":{delivery_id},").into_bytes();
    numbered.extend_from_slice(rest);
    Some(Bytes::from(numbered))
}

/// Why a post does not count; `None` when it was taken.
fn refusal(answer: Result<super::http::Answer, CallError>) -> Option<String> {
    match answer {
        Ok(answer) if (200..300).contains(&answer.status) => None,
        Ok(answer) => Some(format!("answered {}", answer.status)),
        // What was said after the headers is not looked at.
        Err(CallError::TooLarge) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::http::Answer;

    #[test]
    fn contract_6_only_2xx_counts() {
        let answer = |status| Ok(Answer { status, ..Answer::default() });
        assert_eq!(refusal(answer(204)), None);
        assert_eq!(refusal(answer(302)).as_deref(), Some("answered 302"));
        assert_eq!(refusal(Err(CallError::Timeout)).as_deref(), Some("no answer in time"));
    }

    #[test]
    fn hosts_are_told_apart() {
        for (url, host) in [
            ("http://a:1/x", "a:1"),
            ("https://a?x", "a"),
            ("http://a.b#", "a.b"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }

    #[tokio::test]
    async fn every_body_carries_its_number() {
        let body = body_of(DeliveryBody::Text("{\"a\":1}".to_owned()), 7, &IdOnly).await;
        assert_eq!(body.unwrap(), "{\"delivery_id\":7,\"a\":1}");
        let body = body_of(DeliveryBody::Task(TaskId::trusted("t")), 8, &IdOnly).await;
        assert_eq!(body.unwrap(), "{\"delivery_id\":8,\"task_id\":\"t\"}");
    }
}

//! The courier: posts what is due to URLs outside, and mails alerts (contract 6, rows 12 and 13).
//!
//! The state is its queue. A post may be made again by the next leader when its answer was not
//! recorded: receivers tell a repetition by `delivery_id`. Posts to one host are bounded, hosts take
//! turns, and what the operator is told has posts of its own, so that a slow receiver holds up nobody
//! else, however much waits for it. A host that the operator's list does not have is not called: its
//! delivery is given up at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::error;

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::http::{Call, CallError, NodeCaller};
use super::mailing;
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::{
    AllowedHosts, Delivery, DeliveryBody, DeliveryId, Lane, MailChannel, Reach, TaskId, TimeMs,
};
use crate::state::{Command, DeliveryResult, State};

/// The time for one post (contract 6, row 12).
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Posts under way at once to one host.
const POSTS_PER_HOST_MAX: usize = 16;
/// Results in one command.
const RESULTS_MAX: usize = 500;
/// The longest wait without any wake-up.
const PERIOD: Duration = Duration::from_secs(1);

/// A task that is there and could not be read this time; what was wrong has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// JSON text of one object; `None` when its task is gone.
pub type Rendered = Result<Option<Bytes>, Unreadable>;

/// Gives the object of a task as clients see it, for its callback.
pub trait TaskRenderer: Send + Sync + 'static {
    /// See [`Rendered`].
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered>;
}

/// A renderer for programs without an API: the id alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdOnly;

impl TaskRenderer for IdOnly {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered> {
        let body = serde_json::json!({ "task_id": task_id.as_str() }).to_string();
        Box::pin(async move { Ok(Some(Bytes::from(body))) })
    }
}

/// Whom a post is for: each lane counts for itself, so that no alert waits for callbacks.
pub(super) type Receiver = (Lane, String);

fn receiver(delivery: &Delivery) -> Receiver {
    (delivery.lane(), delivery.host().to_owned())
}

/// Posts of one lane under way at once. Neither takes the room of the other.
fn posts_max(lane: Lane) -> usize {
    match lane {
        Lane::Notices => 32,
        Lane::Callbacks => 96,
    }
}

/// What may be posted at `now`, given what is under way and for whom: notices first.
#[must_use]
pub(super) fn plan(
    view: &State,
    now: TimeMs,
    under_way: &BTreeMap<DeliveryId, Receiver>,
) -> Vec<Delivery> {
    let lanes = [Lane::Notices, Lane::Callbacks].into_iter();
    lanes.flat_map(|lane| plan_lane(view, now, under_way, lane)).collect()
}

/// As [`plan`], of one lane. Next is always the receiver with the fewest posts under way, of those
/// the one that waits for longest: receivers that do not answer leave room for those that do.
fn plan_lane(
    view: &State,
    now: TimeMs,
    under_way: &BTreeMap<DeliveryId, Receiver>,
    lane: Lane,
) -> Vec<Delivery> {
    let mut posts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, host) in under_way.values().filter(|(its_lane, _)| *its_lane == lane) {
        *posts.entry(host).or_default() += 1;
    }
    let room = posts_max(lane).saturating_sub(posts.values().sum());
    if room == 0 {
        return Vec::new();
    }
    // At most so many receivers have something under way: as many that have nothing are looked at.
    let lines = view.due_lines(lane).take(2 * posts_max(lane));
    let (hosts, mut lines): (Vec<&str>, Vec<_>) = lines.unzip();
    let turns = hosts.iter().enumerate();
    let mut turns: BinaryHeap<Reverse<(usize, usize)>> = turns
        .map(|(place, host)| Reverse((posts.get(host).copied().unwrap_or_default(), place)))
        .collect();
    let mut due = Vec::new();
    while due.len() < room
        && let Some(Reverse((posts, place))) = turns.pop()
        && posts < POSTS_PER_HOST_MAX
    {
        let mut ready = lines[place].by_ref().take_while(|due| due.not_before_ms <= now);
        if let Some(next) = ready.find(|due| !under_way.contains_key(&due.delivery_id)) {
            due.push(next.clone());
            turns.push(Reverse((posts + 1, place)));
        }
    }
    due
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub(super) struct Courier {
    under_way: BTreeMap<DeliveryId, Receiver>,
    posts: JoinSet<DeliveryResult>,
    /// What each of them makes, by its task in the runtime, with the tries before.
    tries: HashMap<Id, (DeliveryId, u32)>,
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
        let (due, means) = reign.seat.read(|view| {
            let due = plan(view, state_now(&*reign.seat, view), &self.under_way);
            (due, Means::of(view, &reign.caller, &reign.renderer))
        });
        for delivery in due {
            let made_now = (delivery.delivery_id, delivery.tries);
            self.under_way.insert(delivery.delivery_id, receiver(&delivery));
            let post = self.posts.spawn(made(delivery, means.clone()));
            self.tries.insert(post.id(), made_now);
        }
        if self.posts.is_empty() {
            return Ok(Next::Wait(PERIOD));
        }
        // A post that ends is news of its own; so is a delivery that becomes due meanwhile.
        let wake = <Self as Duty<S>>::wake(&reign.wakes);
        tokio::select! {
            biased;
            Some(done) = self.posts.join_next_with_id() => self.note(done),
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
        while let Some(done) = self.posts.try_join_next_with_id() {
            self.note(done);
        }
    }

    /// A post ended. One that broke is a try that failed, so that it does not keep its place.
    fn note(&mut self, done: Result<(Id, DeliveryResult), JoinError>) {
        match done {
            Ok((id, result)) => {
                self.tries.remove(&id);
                self.done.push(result);
            }
            Err(broken) => {
                error!(%broken, "a post broke");
                let Some((delivery_id, seen_tries)) = self.tries.remove(&broken.id()) else {
                    return;
                };
                let error = Some("the post broke".to_owned());
                self.done.push(DeliveryResult { delivery_id, seen_tries, error, for_good: false });
            }
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
    let body = match body {
        Ok(Some(body)) => body,
        Ok(None) => return (Some("the task is gone".to_owned()), true),
        // The next leader has the task on another disk.
        Err(Unreadable) => return (Some("the task could not be read".to_owned()), false),
    };
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
) -> Rendered {
    let text = match body {
        DeliveryBody::Text(text) => Some(Bytes::from(text)),
        DeliveryBody::Task(task_id) => renderer.render(task_id).await?,
    };
    // Every body is an object that is not empty.
    let Some(rest) = text.as_deref().and_then(|text| text.strip_prefix(b"{")) else {
        return Ok(None);
    };
    let mut numbered = format!("{{\"delivery_id\":{delivery_id},").into_bytes();
    numbered.extend_from_slice(rest);
    Ok(Some(Bytes::from(numbered)))
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

    #[tokio::test]
    async fn every_body_carries_its_number() {
        let body = body_of(DeliveryBody::Text("{\"a\":1}".to_owned()), 7, &IdOnly).await;
        assert_eq!(body.unwrap().unwrap(), "{\"delivery_id\":7,\"a\":1}");
        let body = body_of(DeliveryBody::Task(TaskId::trusted("t")), 8, &IdOnly).await;
        assert_eq!(body.unwrap().unwrap(), "{\"delivery_id\":8,\"task_id\":\"t\"}");
    }
}

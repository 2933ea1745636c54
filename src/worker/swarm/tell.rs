//! Tells the cluster what came of assignments, in batches, until it has decided about each.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{Judged, Try};
use super::{FAREWELL, ITEMS_MAX, Shared, read};
use crate::client::{Call, ClientError};
use crate::clock;

/// The longest result that the cluster keeps of an assignment, in bytes.
const RESULT_BYTES_MAX: usize = 16 * 1024;
/// One call; the client tries all members within it.
const DEADLINE: Duration = Duration::from_secs(20);
/// The pause between two calls of one batch.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The longest that a failed try is told later.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// What came of one try.
#[derive(Debug)]
pub(super) struct Told {
    key: Try,
    end: End,
}

#[derive(Debug)]
enum End {
    Completed(Box<RawValue>),
    Failed {
        error: String,
        /// Whether another try may help.
        retryable: bool,
    },
    /// Nobody is to blame: another try is for somebody else.
    GivenBack,
}

impl Told {
    pub(super) fn completed(key: Try, result: &RawValue) -> Self {
        if result.get().len() > RESULT_BYTES_MAX {
            let error = format!("the result is over {RESULT_BYTES_MAX} bytes");
            return Self::failed(key, error, false);
        }
        Self { key, end: End::Completed(result.to_owned()) }
    }

    pub(super) fn failed(key: Try, error: String, retryable: bool) -> Self {
        Self { key, end: End::Failed { error, retryable } }
    }

    pub(super) fn given_back(key: Try) -> Self {
        Self { key, end: End::GivenBack }
    }
}

/// Has an end told. Waits while many others are on their way.
pub(super) async fn hand_over(shared: &Shared, told: Told) {
    // Without the other side the worker has ended.
    let _ = shared.ends.send(told).await;
}

/// Has an end told, a failed try that may be repeated some time later: whatever is down has time to come
/// back before the next. It uses no slot meanwhile.
pub(super) async fn hand_over_in_time(shared: &Arc<Shared>, told: Told) {
    let factor = 1 << told.key.attempt.saturating_sub(1).min(16);
    let delay = shared.options.retry_delay.saturating_mul(factor).min(RETRY_DELAY_MAX);
    let is_retryable = matches!(told.end, End::Failed { retryable: true, .. });
    if !is_retryable || delay.is_zero() {
        return hand_over(shared, told).await;
    }
    shared.book.rest(&told.key);
    let worker = Arc::clone(shared);
    shared.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = worker.draining.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
        hand_over(&worker, told).await;
    });
}

/// One item of a batch.
#[derive(Debug, Clone, Default, Serialize)]
struct Item<'a> {
    task_id: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
}

/// Tells until `done`, and then what is left.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut ends: mpsc::Receiver<Told>,
    done: CancellationToken,
) {
    let mut batch = Vec::with_capacity(ITEMS_MAX);
    loop {
        batch.clear();
        let some = tokio::select! {
            biased;
            some = ends.recv_many(&mut batch, ITEMS_MAX) => some,
            () = done.cancelled() => {
                ends.close();
                ends.recv_many(&mut batch, ITEMS_MAX).await
            }
        };
        if some == 0 {
            return;
        }
        tell(&shared, &batch, &done).await;
        for told in &batch {
            shared.book.forget(&told.key);
        }
        shared.changed.notify_one();
    }
}

async fn tell(shared: &Shared, batch: &[Told], done: &CancellationToken) {
    let (mut completed, mut failed, mut given_back) = (Vec::new(), Vec::new(), Vec::new());
    for Told { key, end } in batch {
        let blank = Item { task_id: &key.task_id, attempt: key.attempt, ..Item::default() };
        match end {
            End::Completed(result) => completed.push(Item { result: Some(result), ..blank }),
            End::Failed { error, retryable } => {
                let retryable = Some(*retryable);
                failed.push(Item { error: Some(error), retryable, ..blank });
            }
            End::GivenBack => given_back.push(blank),
        }
    }
    for (path, list, items) in [
        ("/api/v1/assignments/complete", "items", completed),
        ("/api/v1/assignments/fail", "items", failed),
        ("/api/v1/bots/leases/release", "leases", given_back),
    ] {
        if items.is_empty() || send(shared, path, list, &items, done).await {
            continue;
        }
        // One that the cluster does not like takes no other with it.
        for item in items {
            if !send(shared, path, list, std::slice::from_ref(&item), done).await {
                tracing::warn!(task_id = item.task_id, path, "the cluster does not take it");
            }
        }
    }
}

/// Sends a batch until it is judged, or the worker gives up for good. Gives `false` when it was
/// refused as a whole.
async fn send(
    shared: &Shared,
    path: &'static str,
    list: &'static str,
    items: &[Item<'_>],
    done: &CancellationToken,
) -> bool {
    let body = serde_json::to_string(&std::collections::BTreeMap::from([(list, items)]))
        .expect("texts and numbers are always JSON");
    // The same for every try of this batch.
    let request = clock::mint_request_id().to_string();
    let mut pause = PAUSE_MIN;
    let mut until = None;
    loop {
        let call = Call::post_text(path, &body).key(request.clone()).deadline(DEADLINE);
        let error = match shared.client.call(call).await {
            Ok(answer) => match read::<Judged>(&answer.text) {
                Ok(judged) => {
                    note(items, &judged.verdicts);
                    return true;
                }
                Err(error) => error,
            },
            Err(ClientError::Refused(problem)) => {
                tracing::warn!(path, items = items.len(), %problem, "a batch was refused");
                return false;
            }
            Err(error) => error,
        };
        tracing::warn!(path, items = items.len(), %error, "not told yet");
        if done.is_cancelled() {
            until.get_or_insert_with(|| Instant::now() + FAREWELL);
        }
        if until.is_some_and(|until| Instant::now() + pause > until) {
            return true;
        }
        tokio::select! {
            biased;
            () = shared.abort.cancelled() => return true,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

fn note(items: &[Item<'_>], verdicts: &[String]) {
    for (item, verdict) in items.iter().zip(verdicts) {
        if verdict != "accepted" && verdict != "repeated" {
            let (task_id, attempt) = (item.task_id, item.attempt);
            tracing::info!(task_id, attempt, verdict, "an end came too late");
        }
    }
}

//! Probes: writes in turn over all members, and reads through each member, at a fixed rate whatever
//! becomes of them. Each write is sent under a key of its own and tried on, so it is what a client
//! that knows every member would see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::Admin;
use super::samples::{End, Read, Samples, Write};
use crate::client::{Answer, Call, Client, ClientError};

/// Probes under way at once, of each kind and member.
const UNDER_WAY_MAX: usize = 256;
/// How long one read may take: longer than an election.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// How long writes that are under way may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Probes that run.
pub(super) struct Probes {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    start: Instant,
    samples: Arc<Mutex<Samples>>,
    /// The highest log index of an acknowledged write.
    floor: AtomicU64,
    /// What tasks need, so that the probe node alone gets them.
    capability: String,
}

fn index_of(answer: &Answer) -> u64 {
    let header = answer.headers.get("x-quorate-index");
    header.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

impl Probes {
    /// Starts them: `rate` writes per second, and as many reads through each member.
    pub(super) fn start(
        admin: &Admin,
        drill_id: u64,
        capability: &str,
        rate: u32,
        start: Instant,
        samples: Arc<Mutex<Samples>>,
    ) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared {
            start,
            samples,
            floor: AtomicU64::new(0),
            capability: capability.to_owned(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let every = Duration::from_secs(1) / rate.max(1);
        let ids = admin.ids();
        let writers: Result<Vec<Client>, _> = ids.iter().map(|id| admin.starting_at(*id)).collect();
        let probes = Self { shared, stop, tasks };
        probes.write(writers?, every);
        for id in ids {
            probes.read(admin.clone(), id, drill_id, every);
        }
        Ok(probes)
    }

    fn write(&self, writers: Vec<Client>, every: Duration) {
        let shared = Arc::clone(&self.shared);
        self.repeat(every, move |number| {
            let (shared, client) = (Arc::clone(&shared), writers[number % writers.len()].clone());
            async move { shared.write_once(&client, number).await }
        });
    }

    fn read(&self, admin: Admin, id: u64, drill_id: u64, every: Duration) {
        let shared = Arc::clone(&self.shared);
        self.repeat(every, move |_| {
            let (shared, admin) = (Arc::clone(&shared), admin.clone());
            async move { shared.read_once(&admin, id, drill_id).await }
        });
    }

    /// Starts `probe` again and again, whether or not earlier ones have ended.
    fn repeat<F>(&self, every: Duration, probe: impl Fn(usize) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            for number in 0.. {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                let probing = probe(number);
                tasks.spawn(async move {
                    probing.await;
                    drop(place);
                });
            }
        });
    }

    /// The highest log index that was acknowledged.
    pub(super) fn floor(&self) -> u64 {
        self.shared.floor.load(Ordering::Relaxed)
    }

    /// Ends them, once what is under way has ended.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(END_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some probes did not end");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    async fn write_once(&self, client: &Client, number: usize) {
        let task_id = format!("{}-{number}", self.capability);
        let body = json!({
            "task_id": task_id, "task_type": "drill-probe", "input_data": { "number": number },
            "requirements": { "capabilities": [self.capability] }, "timeout": 60,
        });
        let call = Call::post("/api/v1/tasks", &body).key(format!("{task_id}-write"));
        let end = match client.call(call).await {
            Ok(answer) => {
                self.floor.fetch_max(index_of(&answer), Ordering::Relaxed);
                End::Acknowledged
            }
            Err(ClientError::Unknown { .. }) => End::Unknown,
            Err(error) => {
                tracing::debug!(%error, "a write was not done");
                End::NotDone
            }
        };
        let write = Write { task_id, ended: self.start.elapsed(), end };
        self.samples.lock().writes.push(write);
    }

    async fn read_once(&self, admin: &Admin, member: u64, drill_id: u64) {
        let floor = self.floor.load(Ordering::Relaxed);
        let call = Call::get(format!("/api/v1/drills/{drill_id}")).deadline(READ_DEADLINE);
        let answer = admin.call(member, call).await;
        let ended = self.start.elapsed();
        let mut samples = self.samples.lock();
        if answer.as_ref().is_ok_and(|answer| index_of(answer) < floor) {
            samples.stale += 1;
        }
        samples.reads.push(Read { member, ended, good: answer.is_ok() });
    }
}

/// What became of acknowledged writes.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Not there any more.
    pub(super) lost: Vec<String>,
    /// There, and not done.
    pub(super) undone: Vec<String>,
}

/// How many tasks are looked up at once.
const LOOKS: usize = 16;

/// Looks every acknowledged task up, until all are done or `patience` is over.
pub(super) async fn look_up(
    admin: &Admin,
    floor: u64,
    task_ids: Vec<String>,
    patience: Duration,
) -> Result<Aftermath, ClientError> {
    let until = Instant::now() + patience;
    let mut left = task_ids;
    let mut lost = Vec::new();
    loop {
        let found = look_once(admin, floor, &left).await?;
        let missing = |task_id: &String| found.get(task_id).is_none_or(Option::is_none);
        lost.extend(left.iter().filter(|task_id| missing(task_id)).cloned());
        left.retain(|task_id| {
            let status = found.get(task_id).and_then(Option::as_deref);
            status.is_some_and(|status| status != "completed")
        });
        if left.is_empty() || Instant::now() >= until {
            return Ok(Aftermath { lost, undone: left });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The status of each task; none for one that is not there.
async fn look_once(
    admin: &Admin,
    floor: u64,
    task_ids: &[String],
) -> Result<BTreeMap<String, Option<String>>, ClientError> {
    use futures::{StreamExt as _, TryStreamExt as _};
    let looks = futures::stream::iter(task_ids.to_vec()).map(|task_id| async move {
        let path = format!("/api/v1/tasks/{task_id}?consistency=local&min_index={floor}");
        match admin.all().call(Call::get(path)).await {
            Ok(answer) => {
                let status = answer.body.pointer("/task/status").and_then(Value::as_str);
                Ok((task_id, Some(status.unwrap_or_default().to_owned())))
            }
            Err(ClientError::Refused(problem)) if problem.code == "TASK_NOT_FOUND" => {
                Ok((task_id, None))
            }
            Err(error) => Err(error),
        }
    });
    looks.buffer_unordered(LOOKS).try_collect().await
}

/// Cancels tasks that nobody will take.
pub(super) async fn cancel(admin: &Admin, task_ids: Vec<String>) {
    use futures::StreamExt as _;
    let cancels = futures::stream::iter(task_ids).map(|task_id| async move {
        let call = Call::delete(format!("/api/v1/tasks/{task_id}"));
        if let Err(error) = admin.all().call(call).await {
            tracing::debug!(%error, task_id, "a probe's task was not cancelled");
        }
    });
    cancels.buffer_unordered(LOOKS).for_each(|()| std::future::ready(())).await;
}

//! A worker for swarms: one process that does what is assigned to any number of bots.
//!
//! It is no node and listens nowhere. It asks for assignments of its swarms by long poll, and gets
//! leases; runs a program for each, renews the leases meanwhile, and tells the cluster what came of them
//! until that has decided. It knows several members and outlives any of them.
//!
//! Invariants: one try of an assignment runs at most once per run of the worker, and only while its lease is
//! known to stand; at most `capacity` programs run; what has not begun is given back rather than kept.

mod book;
mod tell;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exec::{self, Job};
use super::report;
use crate::client::{Call, Client, ClientError};
use crate::clock;
use book::Book;
use tell::Told;
use wire::{Assignment, Judged, Leased, Try};

/// How long a member may hold a request while nothing waits.
pub const POLL_WAIT: Duration = Duration::from_secs(20);
/// What comes on top of that on the way.
const POLL_SLACK: Duration = Duration::from_secs(5);
/// How long a leaving worker goes on asking what its last poll was given, and telling what came of the
/// rest: longer than a failover takes.
const FAREWELL: Duration = Duration::from_secs(30);
/// The pause after a poll without an answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Items in one request: fewer than the cluster takes.
const ITEMS_MAX: usize = 500;
/// The program of assignments that name no type.
const DEFAULT_TYPE: &str = "default";
/// The program of types that no other is for.
const ANY_TYPE: &str = "*";
/// Types that the cluster takes in one request, the one without a name included.
const TYPES_MAX: usize = 99;

/// How a worker for swarms runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Ids of the swarms.
    pub swarms: Vec<String>,
    /// Its name for itself; `None` draws one.
    pub holder: Option<String>,
    /// Programs by task type, run through `sh -c`; the type `*` takes what no other does.
    /// Assignments without a type are of the type `default`.
    pub programs: BTreeMap<String, String>,
    /// The most programs at once.
    pub capacity: usize,
    /// How long a lease is taken for. It is renewed three times in that.
    pub lease: Duration,
    /// How long one program may take.
    pub timeout: Duration,
    /// How long a leaving worker lets its programs finish.
    pub drain_timeout: Duration,
    /// How much later the first try that failed is told, if another may help; of each further one twice
    /// as much, and 30 s at most. The lease is kept meanwhile, so nobody tries sooner.
    pub retry_delay: Duration,
}

/// Why a worker for swarms ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error("{0}")]
    Options(&'static str),
    /// The cluster gives no assignments of these swarms.
    #[error("the cluster gives no assignments: {0}")]
    Refused(ClientError),
}

/// What all parts of one worker share.
struct Shared {
    holder: String,
    options: Options,
    /// What it can do; `None` for everything.
    types: Option<Vec<Option<String>>>,
    client: Client,
    book: Book,
    ends: mpsc::Sender<Told>,
    /// A slot or a place has become free.
    changed: Notify,
    /// Programs.
    tasks: TaskTracker,
    /// No more work is taken.
    draining: CancellationToken,
    /// Programs are killed, ends are not told any more.
    abort: CancellationToken,
}

/// A worker for swarms.
pub struct SwarmWorker {
    shared: Arc<Shared>,
    ends: mpsc::Receiver<Told>,
}

impl std::fmt::Debug for SwarmWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmWorker").field("holder", &self.shared.holder).finish_non_exhaustive()
    }
}

impl SwarmWorker {
    /// One that has taken nothing yet.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: Options, client: Client) -> Result<Self, Error> {
        if options.swarms.is_empty() || options.programs.is_empty() {
            return Err(Error::Options("a worker needs at least one swarm and one program"));
        }
        if options.capacity == 0 || options.lease.is_zero() {
            return Err(Error::Options("a worker needs at least one slot, and a lease some time"));
        }
        let types = wanted(&options.programs);
        if types.as_ref().is_some_and(|types| types.len() > TYPES_MAX) {
            return Err(Error::Options("a worker has at most 99 programs for swarms, or `*`"));
        }
        let holder = options.holder.clone();
        // Bounded: who ends a program waits until its end can be told.
        let (sender, ends) = mpsc::channel(ITEMS_MAX);
        let shared = Shared {
            holder: holder.unwrap_or_else(|| format!("worker_{:08x}", clock::random() as u32)),
            book: Book::new(options.capacity),
            options,
            types,
            client,
            ends: sender,
            changed: Notify::new(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared), ends })
    }

    /// Its name.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.shared.holder
    }

    /// Makes the worker leave: cancel it once to drain.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.draining.clone()
    }

    /// Makes a leaving worker kill what it runs instead of waiting.
    #[must_use]
    pub fn abort_token(&self) -> CancellationToken {
        self.shared.abort.clone()
    }

    /// Works until [`Self::stop_token`] is cancelled and everything is drained.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cluster decides against it.
    pub async fn run(self) -> Result<(), Error> {
        let Self { shared, ends } = self;
        let done = CancellationToken::new();
        let teller = tokio::spawn(tell::run(Arc::clone(&shared), ends, done.clone()));
        let renewing = tokio::spawn(renew(Arc::clone(&shared), done.clone()));
        let watching = tokio::spawn(watch(Arc::clone(&shared), done.clone()));
        let taken = take(&shared).await;
        let left = taken.as_ref().ok().and_then(Option::as_ref);
        tokio::join!(drain(&shared), settle(&shared, left));
        done.cancel();
        for part in [teller, renewing, watching] {
            if part.await.is_err() {
                tracing::error!("a part of the worker panicked");
            }
        }
        taken.map(drop).map_err(Error::Refused)
    }
}

/// The types that there are programs for; `None` when there is one for all.
fn wanted(programs: &BTreeMap<String, String>) -> Option<Vec<Option<String>>> {
    if programs.contains_key(ANY_TYPE) {
        return None;
    }
    let unnamed = programs.contains_key(DEFAULT_TYPE).then_some(None);
    Some(programs.keys().cloned().map(Some).chain(unnamed).collect())
}

/// A poll that nobody has answered: it may have been given something.
struct Left {
    /// When first.
    asked: Instant,
    room: usize,
    key: String,
    /// It reached a member, perhaps.
    is_unknown: bool,
}

/// The next poll, once there is room; `None` when the worker is to leave.
async fn next_poll(shared: &Shared) -> Option<Left> {
    loop {
        let room = shared.book.room().min(ITEMS_MAX);
        if room > 0 {
            let key = clock::mint_request_id().to_string();
            return Some(Left { asked: Instant::now(), room, key, is_unknown: false });
        }
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => return None,
            () = shared.changed.notified() => {}
        }
    }
}

/// Asks for assignments whenever there is room, until the worker is to leave; gives the poll that was
/// under way then. A poll that may have been given something is asked again under its key until that is
/// known: nobody else would do what it was given before the lease ends.
async fn take(shared: &Arc<Shared>) -> Result<Option<Left>, ClientError> {
    let mut unknown = None;
    loop {
        let left = match unknown.take() {
            Some(left) => left,
            None => match next_poll(shared).await {
                Some(left) => left,
                None => return Ok(None),
            },
        };
        // Never so long that a lease that was taken at its beginning would be over at its end.
        let wait = POLL_WAIT.min(shared.options.lease / 4);
        let answer = tokio::select! {
            biased;
            answer = poll(shared, &left, wait) => answer,
            () = shared.draining.cancelled() => return Ok(Some(left)),
        };
        match answer {
            Ok(assignments) => {
                // The wait is part of the lease: it may have been taken at once.
                let (now, until) = (Instant::now(), good_until(shared, left.asked));
                if now < until {
                    shared.book.add(assignments, now, until);
                    start(shared);
                    continue;
                }
                // Known too late to be begun. If the lease stands, somebody else can have it.
                for assignment in assignments {
                    tell::hand_over(shared, Told::given_back(assignment.key())).await;
                }
            }
            Err(error @ (ClientError::Unavailable { .. } | ClientError::Unknown { .. })) => {
                tracing::warn!(%error, "no assignments now");
                tokio::select! {
                    biased;
                    () = shared.draining.cancelled() => return Ok(Some(left)),
                    () = tokio::time::sleep(PAUSE) => {}
                }
                let is_unknown = left.is_unknown || matches!(error, ClientError::Unknown { .. });
                unknown = is_unknown.then_some(Left { is_unknown, ..left });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Until when a lease is good that was asked for at `asked`: a tenth earlier than the cluster counts.
fn good_until(shared: &Shared, asked: Instant) -> Instant {
    asked + shared.options.lease * 9 / 10
}

fn lease_seconds(shared: &Shared) -> u64 {
    shared.options.lease.as_secs().max(1)
}

/// Asks what a poll was given that was left before it was answered, and gives it back. It is the same
/// request, so it is given the same, or what waits now. Beyond the end of the lease there is nothing to
/// give back.
async fn settle(shared: &Shared, left: Option<&Left>) {
    let Some(left) = left else { return };
    let until = (Instant::now() + FAREWELL).min(good_until(shared, left.asked));
    let asking = async {
        loop {
            match poll(shared, left, Duration::ZERO).await {
                Err(error @ (ClientError::Unavailable { .. } | ClientError::Unknown { .. })) => {
                    tracing::debug!(%error, "what the last poll was given is not known yet");
                    tokio::time::sleep(PAUSE).await;
                }
                decided => return decided,
            }
        }
    };
    let answer = tokio::select! {
        biased;
        () = shared.abort.cancelled() => None,
        answer = tokio::time::timeout_at(until, asking) => answer.ok(),
    };
    match answer {
        Some(Ok(assignments)) => {
            shared.book.add(assignments, Instant::now(), good_until(shared, left.asked));
            give_back(shared, Instant::now()).await;
        }
        // Whoever is refused was given nothing.
        Some(Err(ClientError::Refused(_))) => {}
        Some(Err(_)) | None => {
            tracing::warn!("what the last poll was given, if anything, runs out")
        }
    }
}

async fn poll(
    shared: &Shared,
    left: &Left,
    wait: Duration,
) -> Result<Vec<Assignment>, ClientError> {
    let mut body = json!({
        "swarms": shared.options.swarms,
        "holder": shared.holder,
        "max": left.room,
        "lease_seconds": lease_seconds(shared),
        // Where leases are short, a part of a second must not become none: it would ask without a pause.
        "wait_seconds": if wait.is_zero() { 0 } else { wait.as_secs().max(1) },
    });
    if let Some(types) = &shared.types {
        body["types"] = json!(types);
    }
    // Two tries, so that a member that hangs is left for another.
    let call = Call::post("/api/v1/bots/leases", &body).key(left.key.as_str());
    let call = call.deadline((wait + POLL_SLACK) * 2);
    let answer = shared.client.call(call).await?;
    let leased: Leased = read(&answer.text)?;
    Ok(leased.assignments)
}

fn read<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// Begins what there are slots for. A slot goes on with the next one by itself.
fn start(shared: &Arc<Shared>) {
    while let Some((assignment, kill)) = shared.book.begin() {
        let worker = Arc::clone(shared);
        shared.tasks.spawn(async move {
            let mut next = Some((assignment, kill));
            while let Some((assignment, kill)) = next {
                let told = work(&worker, &assignment, &kill).await;
                if let Some(told) = told {
                    tell::hand_over_in_time(&worker, told).await;
                }
                worker.changed.notify_one();
                let goes_on = !worker.draining.is_cancelled();
                next = goes_on.then(|| worker.book.begin()).flatten();
            }
        });
    }
}

/// Does one assignment; gives what is to be told of it.
async fn work(shared: &Shared, assignment: &Assignment, kill: &CancellationToken) -> Option<Told> {
    let task_type = assignment.task_type.as_deref().unwrap_or(DEFAULT_TYPE);
    let programs = &shared.options.programs;
    let key = assignment.key();
    let Some(program) = programs.get(task_type).or_else(|| programs.get(ANY_TYPE)) else {
        // It was not asked for; somebody else may have a program for it.
        let is_held = shared.book.end(&key, Duration::ZERO);
        tracing::warn!(task_type, "there is no program for this: given back");
        return is_held.then(|| Told::given_back(key));
    };
    let environment = vec![
        ("QUORATE_TASK_ID", assignment.task_id.clone()),
        ("QUORATE_TASK_TYPE", assignment.task_type.clone().unwrap_or_default()),
        ("QUORATE_ATTEMPT", assignment.attempt.to_string()),
        ("QUORATE_BOT_ID", assignment.bot_id.clone().unwrap_or_default()),
        ("QUORATE_SWARM_ID", assignment.swarm_id.clone().unwrap_or_default()),
    ];
    let timeout = shared.options.timeout;
    let job = Job { program, environment, input: assignment.input(), timeout };
    let ended = exec::run(job, kill).await;
    tracing::info!(
        task_id = key.task_id,
        attempt = key.attempt,
        seconds = ended.took.as_secs_f64(),
        end = %ended.end,
        "ended"
    );
    shared.book.end(&key, ended.took).then(|| match report::failure(&ended) {
        // Nobody but a leaving worker kills what it still holds a lease of.
        _ if matches!(ended.end, exec::End::Killed) => Told::given_back(key),
        None => Told::completed(key, &report::result(&ended.stdout)),
        Some((error, retryable)) => Told::failed(key, error, retryable),
    })
}

/// Renews what is held three times per lease, and gives back what has not begun in that time.
async fn renew(shared: Arc<Shared>, done: CancellationToken) {
    let period = shared.options.lease / 3;
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(before) = Instant::now().checked_sub(period) else { continue };
        give_back(&shared, before).await;
        for held in shared.book.to_renew().chunks(ITEMS_MAX) {
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = renew_some(&shared, held, period) => {}
            }
        }
        shared.changed.notify_one();
    }
}

async fn renew_some(shared: &Shared, held: &[Try], within: Duration) {
    let asked = Instant::now();
    let body = json!({ "leases": wire::keys(held), "lease_seconds": lease_seconds(shared) });
    let call = Call::post("/api/v1/bots/leases/renew", &body).deadline(within);
    let judged = match shared.client.call(call).await {
        Ok(answer) => read::<Judged>(&answer.text),
        Err(error) => Err(error),
    };
    match judged {
        Ok(Judged { verdicts }) => {
            for (key, verdict) in held.iter().zip(&verdicts) {
                if verdict == "accepted" {
                    shared.book.renewed(key, good_until(shared, asked));
                } else {
                    let (task_id, attempt) = (&key.task_id, key.attempt);
                    tracing::warn!(task_id, attempt, verdict, "a lease is lost");
                    shared.book.forget(key);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "leases are not renewed"),
    }
}

/// Gives back what has not begun and was leased before a moment.
async fn give_back(shared: &Shared, before: Instant) {
    for key in shared.book.give_back(before) {
        tell::hand_over(shared, Told::given_back(key)).await;
    }
}

/// Kills what runs under leases that could not be kept.
async fn watch(shared: Arc<Shared>, done: CancellationToken) {
    let mut ticks = tokio::time::interval((shared.options.lease / 20).min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for Try { task_id, attempt } in shared.book.kill_overdue(Instant::now()) {
            tracing::warn!(task_id, attempt, "a lease could not be kept: stopped");
            shared.changed.notify_one();
        }
    }
}

/// Gives back what has not begun, lets programs finish and their ends be told; past the limit, kills
/// them and gives those back, too.
async fn drain(shared: &Arc<Shared>) {
    shared.draining.cancel();
    tracing::info!(running = shared.book.running(), "draining");
    give_back(shared, Instant::now()).await;
    shared.tasks.close();
    tokio::select! {
        biased;
        () = shared.tasks.wait() => return,
        () = shared.abort.cancelled() => {}
        () = tokio::time::sleep(shared.options.drain_timeout) => {}
    }
    tracing::warn!(running = shared.book.running(), "killing what still runs");
    shared.book.kill_all();
    shared.tasks.wait().await;
}

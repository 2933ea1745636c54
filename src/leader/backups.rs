//! Backups on a schedule: the leader of the moment writes them, each into its own directory, and
//! rehearses the restore.
//!
//! The leader writes because there is always exactly one that is sure to be alive and current; no
//! other choice is known to all members without asking. Whoever becomes leader looks at its own
//! directory for when the last one was made, so a hand-over adds at most one. Nothing here is
//! replicated and no fault of it stops the member: a failure is logged, counted, and shown with the
//! list until a backup succeeds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Count;
use crate::clock;
use crate::cluster::{Cluster, Consistency};
use crate::model::TimeMs;
use crate::storage::{BackupDir, BackupInfo, rehearse};

/// From one look at the clock to the next.
const LOOK: Duration = Duration::from_millis(500);
/// The pause after a failure, unless the interval is shorter.
const RETRY: Duration = Duration::from_secs(60);
/// How long taking the snapshot for a backup may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

/// When and where backups are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPlan {
    /// The directory.
    pub dir: PathBuf,
    /// From one to the next.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
    /// Whether each is loaded into a scratch state.
    pub rehearse: bool,
}

/// How a rehearsal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearsalReport {
    /// When it ended.
    pub at_ms: TimeMs,
    /// How long it took.
    pub took: Duration,
    /// What was wrong; nothing when the digest is that of the state it was made of.
    pub error: Option<String>,
}

/// One backup in the directory.
#[derive(Debug, Clone)]
pub struct BackupFile {
    /// Its name.
    pub name: String,
    /// What it says of itself, or why its headers cannot be read.
    pub info: Result<BackupInfo, String>,
    /// What this process found when it rehearsed it.
    pub rehearsal: Option<RehearsalReport>,
}

/// The last failure, until a backup succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFault {
    /// When.
    pub at_ms: TimeMs,
    /// Why.
    pub error: String,
}

/// Figures of this member's backups.
#[derive(Debug, Default)]
pub struct BackupMetrics {
    /// Backups written.
    pub written: Count,
    /// Backups that could not be written.
    pub failures: Count,
    /// Rehearsals that passed.
    pub rehearsed: Count,
    /// Rehearsals that did not.
    pub rehearsal_failures: Count,
    /// When the newest was made, in seconds since 1970; 0 before the first.
    pub last_success_s: Count,
    /// Its length.
    pub last_bytes: Count,
    /// Whether the newest rehearsal passed.
    pub last_rehearsal_ok: Count,
}

/// See the module's description. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Backups(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    plan: Option<BackupPlan>,
    book: Mutex<Book>,
    metrics: BackupMetrics,
}

/// What this process remembers of its backups.
#[derive(Debug, Default)]
struct Book {
    rehearsals: BTreeMap<String, RehearsalReport>,
    fault: Option<BackupFault>,
}

impl Backups {
    /// Backups as planned; without a plan, none.
    #[must_use]
    pub fn new(plan: Option<BackupPlan>) -> Self {
        Self(Arc::new(Inner { plan, ..Inner::default() }))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> Option<&BackupPlan> {
        self.0.plan.as_ref()
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> &BackupMetrics {
        &self.0.metrics
    }

    /// The last failure, until a backup succeeds.
    #[must_use]
    pub fn fault(&self) -> Option<BackupFault> {
        self.0.book.lock().fault.clone()
    }

    /// The backups in this member's directory, newest first. Reads their headers: not for a thread
    /// that must not wait.
    ///
    /// # Errors
    /// Why the directory cannot be read.
    pub fn list(&self) -> Result<Vec<BackupFile>, String> {
        let Some(plan) = self.plan().filter(|plan| plan.dir.is_dir()) else {
            return Ok(Vec::new());
        };
        let dir = BackupDir::look(&plan.dir);
        let names = dir.names().map_err(|error| error.to_string())?;
        // The disk is read without the lock: those who run duties take it too.
        let rehearsals = self.0.book.lock().rehearsals.clone();
        let files = names.into_iter().rev().map(|name| BackupFile {
            info: BackupInfo::read(&dir.path(&name)).map_err(|error| error.to_string()),
            rehearsal: rehearsals.get(&name).cloned(),
            name,
        });
        Ok(files.collect())
    }

    /// Writes backups while this member leads, until `shutdown`.
    pub async fn run(self, cluster: Cluster, shutdown: CancellationToken) {
        let Some(plan) = self.plan().cloned() else { return };
        let leadership = cluster.leadership();
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Known only while this member leads: another may have written meanwhile.
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            if leadership.borrow().is_none() {
                due = None;
                continue;
            }
            let at = match due {
                Some(at) => at,
                None => first_due(&plan).await,
            };
            due = Some(at);
            if Instant::now() < at {
                continue;
            }
            let made = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                made = self.make(&plan, &cluster) => made,
            };
            let pause = if made { plan.interval } else { plan.interval.min(RETRY) };
            due = Some(Instant::now() + pause);
        }
    }

    /// Makes one backup and rehearses it. True when it was written; a failed rehearsal is told apart.
    async fn make(&self, plan: &BackupPlan, cluster: &Cluster) -> bool {
        let started = Instant::now();
        let name = match self.write(plan, cluster).await {
            Ok(name) => name,
            Err(error) => {
                self.0.metrics.failures.add(1);
                tracing::error!(dir = %plan.dir.display(), error, "a backup could not be written");
                self.0.book.lock().fault = Some(BackupFault { at_ms: clock::now_ms(), error });
                return false;
            }
        };
        self.0.metrics.written.add(1);
        self.0.metrics.last_success_s.set(clock::now_ms() / 1000);
        self.0.book.lock().fault = None;
        tracing::info!(name, took = ?started.elapsed(), "wrote a backup");
        if plan.rehearse {
            self.rehearse(plan, name).await;
        }
        self.prune(plan).await;
        true
    }

    async fn write(&self, plan: &BackupPlan, cluster: &Cluster) -> Result<String, String> {
        let stamp = cluster.read_barrier(Consistency::Linearizable).await;
        let stamp = stamp.map_err(|error| error.to_string())?;
        let backup = cluster.backup(stamp.index, SNAPSHOT_TIMEOUT).await;
        let backup = backup.map_err(|error| error.to_string())?;
        self.0.metrics.last_bytes.set(backup.info().bytes);
        let dir = plan.dir.clone();
        let written = blocking(move || {
            let (dir, name) = (BackupDir::open(&dir)?, backup.file_name());
            backup.write(&dir.path(&name))?;
            Ok::<_, crate::storage::StorageError>(name)
        });
        written.await?.map_err(|error| error.to_string())
    }

    async fn rehearse(&self, plan: &BackupPlan, name: String) {
        let started = Instant::now();
        let path = BackupDir::look(&plan.dir).path(&name);
        let ended = blocking(move || rehearse(&path)).await;
        let error =
            ended.and_then(|ended| ended.map(drop).map_err(|error| error.to_string())).err();
        let metrics = &self.0.metrics;
        match &error {
            None => metrics.rehearsed.add(1),
            Some(error) => {
                metrics.rehearsal_failures.add(1);
                tracing::error!(name, error, "a backup did not pass its rehearsal");
            }
        }
        metrics.last_rehearsal_ok.set(error.is_none().into());
        let report = RehearsalReport { at_ms: clock::now_ms(), took: started.elapsed(), error };
        self.0.book.lock().rehearsals.insert(name, report);
    }

    /// Deletes what is too old, but never the newest that is known to be good.
    async fn prune(&self, plan: &BackupPlan) {
        let good = {
            let book = self.0.book.lock();
            let mut newest = book.rehearsals.iter().rev();
            newest.find(|(_, report)| report.error.is_none()).map(|(name, _)| name.clone())
        };
        let (dir, keep) = (plan.dir.clone(), plan.keep);
        let pruned = blocking(move || {
            let dir = BackupDir::look(&dir);
            let gone = dir.prune(keep, good.as_deref())?;
            Ok::<_, crate::storage::StorageError>((gone, dir.names()?))
        });
        match pruned.await.and_then(|pruned| pruned.map_err(|error| error.to_string())) {
            Ok((gone, left)) => {
                tracing::debug!(?gone, "deleted old backups");
                self.0.book.lock().rehearsals.retain(|name, _| left.contains(name));
            }
            Err(error) => tracing::warn!(error, "cannot delete old backups"),
        }
    }
}

/// When the first backup of a reign is due, by the newest one in the directory. One from the future
/// (a clock was set back) counts as made now.
async fn first_due(plan: &BackupPlan) -> Instant {
    let dir = BackupDir::look(&plan.dir);
    let newest = blocking(move || {
        let names = dir.names().unwrap_or_default();
        names.iter().rev().find_map(|name| BackupInfo::read(&dir.path(name)).ok())
    });
    let left = newest.await.ok().flatten().map_or(Duration::ZERO, |newest| {
        let age = clock::now_ms().saturating_sub(newest.head.created_at_ms);
        plan.interval.saturating_sub(Duration::from_millis(age))
    });
    Instant::now() + left
}

/// Runs disk work on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

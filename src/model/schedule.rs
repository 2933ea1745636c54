//! A schedule, and the ledger of its slots: each nominal time gets exactly one decision, whoever
//! leads and however often the leader changes (contract 3.4 "Modes").

use serde::{Deserialize, Serialize};

use super::{Orchestrator, TimeMs};

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cadence {
    /// Every so many milliseconds from the moment the schedule was set.
    Every {
        /// At least [`Cadence::INTERVAL_MIN_MS`].
        interval_ms: u64,
    },
    /// At the times a cron expression names.
    Cron {
        /// Five fields: minute, hour, day of month, month, day of week.
        expression: String,
        /// An IANA time zone, `UTC` when none was given.
        zone: String,
    },
}

impl Cadence {
    /// The shortest interval.
    pub const INTERVAL_MIN_MS: u64 = 1000;
    /// The longest interval: a year.
    pub const INTERVAL_MAX_MS: u64 = 366 * 24 * 3_600_000;

    /// The first nominal time behind `after_ms` of an interval that was set at `since_ms`; `None` of a
    /// cron expression, which takes a calendar.
    #[must_use]
    pub fn next_interval(&self, since_ms: TimeMs, after_ms: TimeMs) -> Option<TimeMs> {
        let Self::Every { interval_ms } = self else { return None };
        let passed = after_ms.saturating_sub(since_ms) / interval_ms;
        Some(since_ms.saturating_add((passed + 1).saturating_mul(*interval_ms)))
    }
}

/// What becomes of slots that passed while nobody could decide them. Stored: variants are only
/// appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUp {
    /// They are missed.
    Skip,
    /// The newest one within the window is made up for; the others are missed.
    Latest,
    /// All within the window are made up for, the oldest first.
    All,
}

impl CatchUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Latest, Self::All];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Latest => "latest",
            Self::All => "all",
        }
    }

    /// The reverse of [`CatchUp::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// What becomes of a slot that comes while the run before it is under way. Stored: variants are
/// only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlap {
    /// It is skipped.
    Forbid,
    /// It waits for the end of that run.
    Queue,
}

impl Overlap {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Forbid, Self::Queue];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbid => "forbid",
            Self::Queue => "queue",
        }
    }

    /// The reverse of [`Overlap::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// How a schedule goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timetable {
    /// When it is due.
    pub cadence: Cadence,
    /// What becomes of slots that were missed.
    pub catch_up: CatchUp,
    /// How far back they are made up for.
    pub catch_up_window_ms: u64,
    /// What becomes of slots that come too soon.
    pub overlap: Overlap,
}

impl Timetable {
    /// How far back slots are made up for when nothing was said.
    pub const WINDOW_DEFAULT_MS: u64 = 3_600_000;
}

impl Default for Timetable {
    /// Every hour (contract 3.4), the newest missed one made up for.
    fn default() -> Self {
        Self {
            cadence: Cadence::Every { interval_ms: 3_600_000 },
            catch_up: CatchUp::Latest,
            catch_up_window_ms: Self::WINDOW_DEFAULT_MS,
            overlap: Overlap::Forbid,
        }
    }
}

/// Parts of a timetable that are to change; the others stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimetablePatch {
    /// A fixed interval in place of what there was. Without it the next two count.
    pub interval_ms: Option<u64>,
    /// A cron expression in place of what there was.
    pub expression: Option<String>,
    /// The time zone of the expression, the new one or the one there is; UTC for the first one.
    pub zone: Option<String>,
    /// What becomes of slots that were missed.
    pub catch_up: Option<CatchUp>,
    /// How far back they are made up for.
    pub catch_up_window_ms: Option<u64>,
    /// What becomes of slots that come too soon.
    pub overlap: Option<Overlap>,
}

impl TimetablePatch {
    /// What `old` becomes with it.
    #[must_use]
    pub fn onto(&self, old: &Timetable) -> Timetable {
        let (expression, zone) = (self.expression.clone(), self.zone.clone());
        let cadence = match (self.interval_ms, expression, &old.cadence) {
            (Some(interval_ms), ..) => Cadence::Every { interval_ms },
            (None, None, Cadence::Every { .. }) => old.cadence.clone(),
            (None, Some(expression), Cadence::Every { .. }) => {
                Cadence::Cron { expression, zone: zone.unwrap_or_else(|| "UTC".to_owned()) }
            }
            (None, expression, Cadence::Cron { expression: old, zone: old_zone }) => {
                Cadence::Cron {
                    expression: expression.unwrap_or_else(|| old.clone()),
                    zone: zone.unwrap_or_else(|| old_zone.clone()),
                }
            }
        };
        Timetable {
            cadence,
            catch_up: self.catch_up.unwrap_or(old.catch_up),
            catch_up_window_ms: self.catch_up_window_ms.unwrap_or(old.catch_up_window_ms),
            overlap: self.overlap.unwrap_or(old.overlap),
        }
    }
}

impl From<Timetable> for TimetablePatch {
    /// All of it.
    fn from(whole: Timetable) -> Self {
        let (interval_ms, expression, zone) = match whole.cadence {
            Cadence::Every { interval_ms } => (Some(interval_ms), None, None),
            Cadence::Cron { expression, zone } => (None, Some(expression), Some(zone)),
        };
        Self {
            interval_ms,
            expression,
            zone,
            catch_up: Some(whole.catch_up),
            catch_up_window_ms: Some(whole.catch_up_window_ms),
            overlap: Some(whole.overlap),
        }
    }
}

/// A schedule and how far its ledger goes. The first slot is the first nominal time after
/// `decided_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Unique: the name of the orchestrator whose steps it runs.
    pub key: String,
    /// When.
    pub timetable: Timetable,
    /// When the timetable was set: what intervals count from.
    pub since_ms: TimeMs,
    /// Everything up to this nominal time is decided.
    pub decided_ms: TimeMs,
    /// Why it cannot go on, in words; empty while it can. It is tried again when it is changed.
    pub degraded: String,
    /// Slots by decision, in the order of [`SlotDecision::WORDS`].
    pub counts: [u64; 5],
    /// Slots whose rows are gone, the oldest first.
    pub forgotten: u64,
    /// Since when the newest runs have followed one another: slots that fell due from then on until the
    /// last one's end fell due during a run, however much later they are decided.
    pub busy_since_ms: TimeMs,
    /// The same of runs before those, the oldest first: from when until when. Only where slots may be
    /// undecided; at most [`Schedule::STRETCHES_MAX`].
    pub stretches: Vec<(TimeMs, TimeMs)>,
    /// Timetables that ended before all that was due of them was decided, the oldest first. Slots of
    /// `timetable` are decided when none is left.
    pub closings: Vec<Closing>,
}

impl Schedule {
    /// How late a slot may be decided and still be in time: the loss of a leader takes less.
    pub const GRACE_MS: u64 = 10_000;

    /// Stretches of runs that are told apart behind the newest one. More of them take as many outages
    /// with slots that wait over all of them.
    pub const STRETCHES_MAX: usize = 8;

    /// Notes that a run begins, for the slot at `slot_ms` (0 for none), when the one before it ended at
    /// `last_ended_ms`.
    pub fn run_begins(&mut self, now: TimeMs, slot_ms: TimeMs, last_ended_ms: TimeMs) {
        let from = self.holds_up_from(now, slot_ms, last_ended_ms);
        if from <= last_ended_ms {
            self.busy_since_ms = self.busy_since_ms.min(from);
            return;
        }
        // Nobody could begin a run between the two, or nothing was due: what falls due there does not
        // fall due during a run.
        let decided_ms = self.decided_ms.max(slot_ms);
        self.stretches.push((self.busy_since_ms, last_ended_ms));
        self.stretches.retain(|(from, until)| from < until && *until > decided_ms);
        if self.stretches.len() > Self::STRETCHES_MAX {
            let (oldest_ms, _) = self.stretches.remove(0);
            self.stretches[0].0 = oldest_ms;
        }
        self.busy_since_ms = from;
    }

    /// From when on slots wait for a run that begins at `now`, as those do that fall due while it is under
    /// way.
    fn holds_up_from(&self, now: TimeMs, slot_ms: TimeMs, last_ended_ms: TimeMs) -> TimeMs {
        let grace_ms = now.saturating_sub(Self::GRACE_MS);
        // Its slot waited for the run before it: nothing behind it could have run in between.
        if slot_ms > 0 && slot_ms < last_ended_ms && last_ended_ms >= grace_ms {
            return last_ended_ms;
        }
        let in_time = slot_ms >= grace_ms && slot_ms > 0;
        match self.timetable.overlap {
            // What could still have run in time waits its turn.
            Overlap::Queue => grace_ms,
            Overlap::Forbid if in_time => slot_ms,
            Overlap::Forbid => now,
        }
    }

    /// Whether a slot fell due while a run was under way: one that is open, or one before it.
    #[must_use]
    pub fn fell_due_during_a_run(&self, nominal_ms: TimeMs, row: &Orchestrator) -> bool {
        let not_over = row.open_run.is_some() || nominal_ms < row.last_run_ended_ms;
        let before = |(from, until): &(TimeMs, TimeMs)| (*from..*until).contains(&nominal_ms);
        self.busy_since_ms <= nominal_ms && not_over || self.stretches.iter().any(before)
    }
}

/// A timetable that has ended. What is due of it and undecided gets `decision`, as soon as somebody who
/// has a calendar says which slots that are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// When it was due.
    pub cadence: Cadence,
    /// When it was set.
    pub since_ms: TimeMs,
    /// When it ended: the last moment at which something was due of it.
    pub until_ms: TimeMs,
    /// What becomes of its slots.
    pub decision: SlotDecision,
}

/// Numbers the runs of the cluster, from 1 in the order they began.
pub type RunId = u64;

/// What became of a slot. Stored: variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotDecision {
    /// It ran in its time.
    Ran(RunId),
    /// The run before it was still under way.
    SkippedOverlap,
    /// The orchestrator was not active, or the schedule was off.
    SkippedInactive,
    /// Nobody could decide it in its time, and the policy does not make up for it.
    MissedOutage,
    /// It ran late, as the policy asks.
    CaughtUp(RunId),
}

impl SlotDecision {
    /// The words on the wire, in the order of the variants.
    pub const WORDS: [&str; 5] =
        ["ran", "skipped_overlap", "skipped_inactive", "missed_outage", "caught_up"];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        Self::WORDS[self.ordinal()]
    }

    /// Its place among [`SlotDecision::WORDS`].
    #[must_use]
    pub fn ordinal(&self) -> usize {
        match self {
            Self::Ran(_) => 0,
            Self::SkippedOverlap => 1,
            Self::SkippedInactive => 2,
            Self::MissedOutage => 3,
            Self::CaughtUp(_) => 4,
        }
    }

    /// The run that it began.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        match self {
            Self::Ran(run_id) | Self::CaughtUp(run_id) => Some(*run_id),
            Self::SkippedOverlap | Self::SkippedInactive | Self::MissedOutage => None,
        }
    }
}

/// One slot of one schedule: its key holds the schedule and the nominal time, never the time it
/// was decided at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Whose.
    pub schedule: String,
    /// When it was due.
    pub nominal_ms: TimeMs,
    /// What became of it.
    pub decision: SlotDecision,
    /// When that was decided.
    pub decided_at_ms: TimeMs,
}

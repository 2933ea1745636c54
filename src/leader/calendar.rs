//! The calendar of a schedule: from a cadence to nominal times.
//!
//! Pure: a cadence and two times give the same slots on every member of one build, because the
//! data of the time zones is part of the program and the machine's is never looked at. Members of
//! different builds may know different laws; so only the leader asks a calendar, and what apply
//! records are its nominal times.
//!
//! **When clocks are changed.** An expression that names times of the day (neither minute nor
//! hour begins with `*`) gets each local time once: one that is left out counts at the moment
//! after the gap, all of one gap together, and one that comes twice counts the first time. An
//! expression with a rhythm (`*` as minute or hour) follows the clock on the wall: nothing in a
//! gap, and both of what comes twice. So `*/10 * * * *` is due every ten minutes throughout.

use std::iter;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use thiserror::Error;

use super::cron::{CronError, Expression};
use crate::model::{Cadence, TimeMs};

/// A schedule that is due later than so after it was set is refused: leap days come every eight
/// years at the turn of some centuries.
const FIRST_SLOT_MAX_MS: u64 = 8 * YEAR_MS;
/// How far a search looks. The rarest day, a leap day on a given day of the week, comes again
/// within forty years.
const SEARCH_MAX_MS: u64 = 41 * YEAR_MS;
const YEAR_MS: u64 = 366 * 86_400_000;
/// Clocks are never set back by more than the distance of the two ends of the date line.
const SET_BACK_MAX_S: i64 = 26 * 3600;

/// Why a cadence is refused, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// The interval is too short or too long.
    #[error(
        "an interval is between {min} and {max} milliseconds, not {0}",
        min = Cadence::INTERVAL_MIN_MS,
        max = Cadence::INTERVAL_MAX_MS
    )]
    Interval(u64),
    /// The expression cannot be read.
    #[error(transparent)]
    Expression(#[from] CronError),
    /// There is no such time zone.
    #[error("there is no time zone of that name; IANA's names are known, such as Europe/Berlin")]
    Zone,
    /// The expression names no time in reach.
    #[error("the cron expression is not due within eight years")]
    NeverDue,
}

/// The nominal times of a cadence: all after the moment it was set, in order.
#[derive(Debug, Clone)]
pub struct Calendar {
    since_ms: TimeMs,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Every(u64),
    Cron(Expression, TimeZone),
}

impl Calendar {
    /// The calendar of `cadence`, set at `since_ms` (milliseconds since 1970).
    ///
    /// # Errors
    ///
    /// [`CalendarError`] when the interval is out of bounds, the expression or the zone is not
    /// known, or nothing is due within eight years of `since_ms`.
    pub fn new(cadence: &Cadence, since_ms: TimeMs) -> Result<Self, CalendarError> {
        let rule = match cadence {
            Cadence::Every { interval_ms } => {
                let allowed = Cadence::INTERVAL_MIN_MS..=Cadence::INTERVAL_MAX_MS;
                if !allowed.contains(interval_ms) {
                    return Err(CalendarError::Interval(*interval_ms));
                }
                Rule::Every(*interval_ms)
            }
            Cadence::Cron { expression, zone } => {
                Rule::Cron(Expression::parse(expression)?, time_zone(zone)?)
            }
        };
        let until_ms = since_ms.saturating_add(FIRST_SLOT_MAX_MS);
        match rule.next(since_ms, since_ms, until_ms) {
            Some(_) => Ok(Self { since_ms, rule }),
            None => Err(CalendarError::NeverDue),
        }
    }

    /// The first nominal time after `after_ms`, never at it. `None` when there is none within 41
    /// years.
    #[must_use]
    pub fn next_after(&self, after_ms: TimeMs) -> Option<TimeMs> {
        self.next_within(after_ms, TimeMs::MAX)
    }

    /// The last nominal time before `before_ms`, never at it. Found by halving, so that its cost
    /// does not grow with the slots in between.
    #[must_use]
    pub fn latest_before(&self, before_ms: TimeMs) -> Option<TimeMs> {
        let until_ms = before_ms.checked_sub(1)?;
        let mut latest = self.next_within(self.since_ms, until_ms)?;
        // A slot follows `some`, and none follows `none`.
        let (mut some, mut none) = (self.since_ms, until_ms);
        while none - some > 1 {
            let middle = some + (none - some) / 2;
            match self.next_within(middle, until_ms) {
                Some(slot) => (latest, some) = (slot, slot - 1),
                None => none = middle,
            }
        }
        Some(latest)
    }

    /// The nominal times after `after_ms` up to and with `until_ms`, at most `max` of them.
    pub fn slots_between(
        &self,
        after_ms: TimeMs,
        until_ms: TimeMs,
        max: usize,
    ) -> impl Iterator<Item = TimeMs> {
        let next = move |after| self.next_within(after, until_ms);
        iter::successors(next(after_ms), move |slot| next(*slot)).take(max)
    }

    fn next_within(&self, after_ms: TimeMs, until_ms: TimeMs) -> Option<TimeMs> {
        self.rule.next(self.since_ms, after_ms.max(self.since_ms), until_ms)
    }
}

impl Rule {
    /// The first slot after `after_ms`, which is not before `since_ms`, up to `until_ms`.
    fn next(&self, since_ms: TimeMs, after_ms: TimeMs, until_ms: TimeMs) -> Option<TimeMs> {
        let until_ms = until_ms.min(after_ms.saturating_add(SEARCH_MAX_MS));
        let slot = match self {
            Self::Every(interval_ms) => {
                let passed = (after_ms - since_ms) / interval_ms;
                since_ms.checked_add(interval_ms.checked_mul(passed + 1)?)?
            }
            Self::Cron(expression, zone) => {
                let after = i64::try_from(after_ms / 1000).ok()?;
                let until = i64::try_from(until_ms / 1000).ok()?;
                let slot = next_zoned(expression, zone, after, until)?;
                TimeMs::try_from(slot).ok()?.checked_mul(1000)?
            }
        };
        (slot <= until_ms).then_some(slot)
    }
}

/// The zone of that name in the built-in data.
fn time_zone(name: &str) -> Result<TimeZone, CalendarError> {
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| CalendarError::Zone)?;
    if zone.is_unknown() { Err(CalendarError::Zone) } else { Ok(zone) }
}

/// The first slot after `after` and up to `until`, in seconds since 1970.
///
/// From one change of the zone's offset to the next, local time runs evenly; so the search goes
/// from change to change.
fn next_zoned(expression: &Expression, zone: &TimeZone, after: i64, until: i64) -> Option<i64> {
    let names_times = expression.names_times();
    let mut start = after + 1;
    let mut shown = shown_before(zone, start)?;
    while start <= until {
        let offset = offset_at(zone, start)?;
        let change = zone.following(timestamp(start)?).next();
        let end = change.map_or(until + 1, |it| it.timestamp().as_second().min(until + 1));
        let first = start + offset;
        // What lies between was left out when the clock was set forward just now.
        if names_times && expression.next_local(shown, first).is_some() {
            return Some(start);
        }
        // What lies below `shown` came before the clock was set back.
        let from = if names_times { first.max(shown) } else { first };
        if let Some(local) = expression.next_local(from, end + offset) {
            return Some(local - offset);
        }
        shown = shown.max(end + offset);
        start = end;
    }
    None
}

/// The end of the local times that clocks have shown before `at`.
fn shown_before(zone: &TimeZone, at: i64) -> Option<i64> {
    let mut shown = at + offset_at(zone, at - 1)?;
    for change in zone.preceding(timestamp(at)?) {
        let change = change.timestamp().as_second();
        if change <= at - SET_BACK_MAX_S {
            break;
        }
        shown = shown.max(change + offset_at(zone, change - 1)?);
    }
    Some(shown)
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

fn offset_at(zone: &TimeZone, second: i64) -> Option<i64> {
    Some(i64::from(zone.to_offset(timestamp(second)?).seconds()))
}

//! Cron expressions: five sets of numbers, and the search for the next local time in them.
//!
//! The grammar is that of vixie cron with its names and shortcuts, `?` for `*` in the two day
//! fields, and `L` for the last day of the month. What other programs read in different ways
//! (seconds, `5/15`, `W`, `#`) is refused rather than guessed. Time zones are no matter of this
//! file: local times are seconds as if the zone were UTC.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use thiserror::Error;

/// What is wrong with a cron expression, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    /// It is too long.
    #[error("a cron expression has at most {} bytes", Expression::BYTES_MAX)]
    TooLong,
    /// It does not consist of five fields.
    #[error(
        "a cron expression has five fields (minute, hour, day of month, month, day of week), not {0}"
    )]
    Fields(usize),
    /// It begins with `@` and is none of ours.
    #[error(
        "{0:?} is no shortcut; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"
    )]
    Shortcut(String),
    /// An item of a field cannot be read.
    #[error("{field}: {item:?} is no number, name, range or *")]
    Item {
        /// The field.
        field: &'static str,
        /// The item.
        item: String,
    },
    /// A number is beyond its field.
    #[error("{field}: {value} is not within {min} to {max}")]
    Beyond {
        /// The field.
        field: &'static str,
        /// The number.
        value: u32,
        /// The least that is allowed.
        min: u8,
        /// The most that is allowed.
        max: u8,
    },
    /// A range ends before it begins.
    #[error("{field}: the range {item:?} runs backwards; write it as a list of two")]
    Backwards {
        /// The field.
        field: &'static str,
        /// The range.
        item: String,
    },
    /// A step is missing, zero or longer than the field.
    #[error("{field}: the step of {item:?} must be a number within 1 to {max}")]
    Step {
        /// The field.
        field: &'static str,
        /// The item.
        item: String,
        /// The most that is allowed.
        max: u8,
    },
    /// A single number has a step.
    #[error("{field}: {item:?} has a step but no range; write for example 5-59/15 or */15")]
    StepOfOne {
        /// The field.
        field: &'static str,
        /// The item.
        item: String,
    },
}

/// What one of the five fields may hold.
struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    /// The last number of `*`: day 7 is Sunday again.
    star_max: u8,
    /// Names for the numbers from `min` on.
    names: &'static [&'static str],
    /// Whether `?` may stand for `*`.
    question: bool,
    /// Whether `L` is the last one.
    last: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const PLAIN: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    star_max: 59,
    names: &[],
    question: false,
    last: false,
};
const FIELDS: [Field; 5] = [
    PLAIN,
    Field { name: "hour", max: 23, star_max: 23, ..PLAIN },
    Field {
        name: "day of month",
        min: 1,
        max: 31,
        star_max: 31,
        question: true,
        last: true,
        ..PLAIN
    },
    Field { name: "month", min: 1, max: 12, star_max: 12, names: &MONTHS, ..PLAIN },
    Field { name: "day of week", max: 7, star_max: 6, names: &WEEKDAYS, question: true, ..PLAIN },
];

/// The numbers of one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set {
    /// One bit for each number.
    bits: u64,
    /// Whether the field begins with `*`, with or without a step.
    star: bool,
    /// Whether `L` is among them.
    last: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|n| self.bits >> n & 1 == 1)
    }
}

/// A cron expression that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

impl Expression {
    /// The longest expression.
    pub(super) const BYTES_MAX: usize = 256;

    /// Reads five fields or a shortcut.
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > Self::BYTES_MAX {
            return Err(CronError::TooLong);
        }
        let text = text.trim();
        let text = if text.starts_with('@') { shortcut(text)? } else { text };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = words[..] else {
            return Err(CronError::Fields(words.len()));
        };
        let mut weekdays = FIELDS[4].read(weekday)?;
        weekdays.bits = (weekdays.bits | weekdays.bits >> 7) & 0x7f;
        Ok(Self {
            minutes: FIELDS[0].read(minute)?,
            hours: FIELDS[1].read(hour)?,
            days: FIELDS[2].read(day)?,
            months: FIELDS[3].read(month)?,
            weekdays,
        })
    }

    /// Whether it names times of the day, rather than a rhythm (`*` as minute or hour). The two
    /// fare differently when clocks are changed.
    pub(super) fn names_times(&self) -> bool {
        !self.minutes.star && !self.hours.star
    }

    /// The first local time within `from..until` that it names. Takes one step for each day of a
    /// month that it names, and one for each other month.
    pub(super) fn next_local(&self, from: i64, until: i64) -> Option<i64> {
        let minute = from.checked_add(59)?.div_euclid(60);
        let (mut day, mut minute) = (minute.div_euclid(1440), minute.rem_euclid(1440));
        while day * 86_400 < until {
            let start = Timestamp::from_second(day * 86_400).ok()?;
            let date = Offset::UTC.to_datetime(start).date();
            if !self.months.has(date.month()) {
                day += i64::from(date.days_in_month() - date.day() + 1);
                minute = 0;
                continue;
            }
            let found = self.next_minute(minute).filter(|_| self.has_day(date));
            if let Some(found) = found {
                let local = day * 86_400 + found * 60;
                return (local < until).then_some(local);
            }
            day += 1;
            minute = 0;
        }
        None
    }

    /// Vixie's rule: when both day fields are restricted, either will do.
    fn has_day(&self, date: Date) -> bool {
        let last = self.days.last && date.day() == date.days_in_month();
        let by_month = last || self.days.has(date.day());
        let by_week = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        if self.days.star || self.weekdays.star { by_month && by_week } else { by_month || by_week }
    }

    /// The first minute of the day that it names, from `minute` on.
    fn next_minute(&self, minute: i64) -> Option<i64> {
        let (first, within) = (minute / 60, minute % 60);
        (first..24).filter(|hour| self.hours.bits >> hour & 1 == 1).find_map(|hour| {
            let passed = if hour == first { within } else { 0 };
            let left = self.minutes.bits >> passed << passed;
            (left != 0).then(|| hour * 60 + i64::from(left.trailing_zeros()))
        })
    }
}

fn shortcut(text: &str) -> Result<&'static str, CronError> {
    match text.to_ascii_lowercase().as_str() {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        _ => Err(CronError::Shortcut(text.to_owned())),
    }
}

impl Field {
    /// Reads a list of items.
    fn read(&self, text: &str) -> Result<Set, CronError> {
        let star = text.starts_with('*') || self.question && text.starts_with('?');
        let mut set = Set { star, ..Set::default() };
        for item in text.split(',') {
            if self.last && item.eq_ignore_ascii_case("l") {
                set.last = true;
            } else {
                set.bits |= self.read_item(item)?;
            }
        }
        Ok(set)
    }

    /// Reads a number, a range or a star, with or without a step.
    fn read_item(&self, item: &str) -> Result<u64, CronError> {
        let field = self.name;
        let (span, step) = match item.split_once('/') {
            Some((span, step)) => (span, Some(self.read_step(item, step)?)),
            None => (item, None),
        };
        let (from, to) = if span == "*" || self.question && span == "?" {
            (self.min, self.star_max)
        } else if let Some((from, to)) = span.split_once('-') {
            let (from, to) = (self.read_number(item, from)?, self.read_number(item, to)?);
            // A week may end with its Sunday: FRI-SUN.
            let to = if to == 0 && from > 0 && self.max == 7 { 7 } else { to };
            if to < from {
                return Err(CronError::Backwards { field, item: item.to_owned() });
            }
            (from, to)
        } else {
            let number = self.read_number(item, span)?;
            if step.is_some() {
                return Err(CronError::StepOfOne { field, item: item.to_owned() });
            }
            (number, number)
        };
        let numbers = (from..=to).step_by(step.unwrap_or(1));
        Ok(numbers.fold(0, |bits, number| bits | 1 << number))
    }

    /// A step longer than the field would never be taken: `*/90` is no hour and a half.
    fn read_step(&self, item: &str, text: &str) -> Result<usize, CronError> {
        let max = self.star_max - self.min + 1;
        let step = digits(text).filter(|step| (1..=u32::from(max)).contains(step));
        let step = step.and_then(|step| usize::try_from(step).ok());
        step.ok_or_else(|| CronError::Step { field: self.name, item: item.to_owned(), max })
    }

    fn read_number(&self, item: &str, text: &str) -> Result<u8, CronError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|place| u8::try_from(place).ok());
        if let Some(place) = named {
            return Ok(self.min + place);
        }
        let (field, min, max) = (self.name, self.min, self.max);
        let Some(value) = digits(text) else {
            return Err(CronError::Item { field, item: item.to_owned() });
        };
        let number = u8::try_from(value).ok().filter(|number| (min..=max).contains(number));
        number.ok_or(CronError::Beyond { field, value, min, max })
    }
}

/// A number without a sign; huge ones are cut off, they are beyond every field.
fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u32::MAX))
}

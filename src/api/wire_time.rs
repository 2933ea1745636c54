//! Times and durations as the families write them (contract 1.7).

use serde::{Serialize, Serializer};

use crate::model::TimeMs;

pub(super) use crate::model::iso;
use crate::security::parse_iso;

/// Seconds since the epoch, as a float: family W's numeric times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch(pub(super) TimeMs);

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1000.0)
    }
}

/// As [`Epoch`], but 0 stands for "not yet" and is written as null.
pub(super) fn epoch_or_null(at: TimeMs) -> Option<Epoch> {
    (at > 0).then_some(Epoch(at))
}

/// A duration in seconds: whole when it is whole, because clients sent whole numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(pub(super) u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

/// ISO-8601 in UTC with microseconds and a `Z`: family B's times.
pub(super) fn iso_micros(at: TimeMs) -> String {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let Ok(timestamp) = jiff::Timestamp::from_millisecond(at) else { return String::new() };
    format!("{timestamp:.6}")
}

/// As [`iso`], but 0 stands for "not yet" and is written as null.
pub(super) fn iso_or_null(at: TimeMs) -> Option<String> {
    (at > 0).then(|| iso(at))
}

/// Reads seconds since the epoch or an ISO-8601 text; one without a zone is of UTC, as Python's
/// `utcnow().isoformat()` writes it.
pub(super) fn parse_time(text: &str) -> Option<TimeMs> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return (seconds.is_finite() && seconds > 0.0).then_some((seconds * 1000.0) as TimeMs);
    }
    parse_iso(text.trim())
}

/// An uptime the way Python prints one, which is what family W's pages show: `2 days, 3:45:23`.
pub(super) fn uptime_words(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_contract_1_7() {
        let at = 1_700_000_000_120;
        assert_eq!(serde_json::to_string(&Epoch(at)).unwrap(), "1700000000.12");
        assert_eq!(iso(at), "2023-11-14T22:13:20.120Z");
        assert_eq!(iso_micros(at), "2023-11-14T22:13:20.120000Z");
        assert_eq!(serde_json::to_string(&Seconds(300_000)).unwrap(), "300");
        assert_eq!(serde_json::to_string(&Seconds(1500)).unwrap(), "1.5");
        assert_eq!(uptime_words((2 * 86_400 + 3 * 3600 + 45 * 60 + 23) * 1000), "2 days, 3:45:23");
        assert_eq!(uptime_words(5_000), "0:00:05");
    }

    #[test]
    fn times_come_as_epoch_or_iso() {
        assert_eq!(parse_time("1700000000.5"), Some(1_700_000_000_500));
        for text in
            ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000", "2023-11-14 23:13:20+01:00"]
        {
            assert_eq!(parse_time(text), Some(1_700_000_000_000), "{text}");
        }
        assert_eq!(parse_time("tomorrow"), None);
        assert_eq!(parse_time("-1"), None);
    }
}

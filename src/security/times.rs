//! Times as they stand in the configuration.

use serde_json::Value;

use crate::model::TimeMs;

pub(super) use crate::model::iso;

/// ISO-8601, or seconds since the epoch.
pub(super) fn parse_time(value: &Value) -> Option<TimeMs> {
    if let Some(seconds) = value.as_f64() {
        return (0.0..1e11).contains(&seconds).then_some((seconds * 1000.0) as TimeMs);
    }
    parse_iso(value.as_str()?.trim())
}

/// A time as ISO-8601 has it. A day, or a time without a zone, is one of UTC.
#[must_use]
pub fn parse_iso(text: &str) -> Option<TimeMs> {
    let timestamp = text.parse::<jiff::Timestamp>().ok();
    let timestamp = timestamp.or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    TimeMs::try_from(timestamp?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_come_as_iso_or_as_seconds() {
        let at = 1_700_000_000_000;
        assert_eq!(parse_time(&json!(iso(at))), Some(at));
        assert_eq!(parse_time(&json!(1_700_000_000)), Some(at));
        assert_eq!(parse_time(&json!("2023-11-14T22:13:20")), Some(at));
        assert_eq!(parse_time(&json!("2023-11-14")), Some(1_699_920_000_000));
        for wrong in [json!("soon"), json!(-1), json!(1e300), json!([])] {
            assert_eq!(parse_time(&wrong), None, "{wrong}");
        }
    }
}

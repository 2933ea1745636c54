//! Moments as text.

use super::TimeMs;

/// ISO-8601 in UTC with milliseconds and a `Z` (contract 1.7).
#[must_use]
pub fn iso(at: TimeMs) -> String {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let Ok(timestamp) = jiff::Timestamp::from_millisecond(at) else { return String::new() };
    format!("{timestamp:.3}")
}

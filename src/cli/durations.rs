//! Times as people write them.

use std::time::Duration;

/// `500ms`, `3s`, `1.5s`, `2m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.trim() {
        text if text.ends_with("ms") => (text.trim_end_matches("ms"), 0.001),
        text if text.ends_with('s') => (text.trim_end_matches('s'), 1.0),
        text if text.ends_with('m') => (text.trim_end_matches('m'), 60.0),
        text => (text, 1.0),
    };
    let number: f64 =
        digits.trim().parse().map_err(|_| format!("`{text}` is not like 500ms or 3s"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in
            [("500ms", 500), ("3s", 3000), ("1.5s", 1500), ("2m", 120_000), ("4", 4000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "soon", "-1s", "1h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

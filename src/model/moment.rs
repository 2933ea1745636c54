//! Moments as text. The core knows no calendar crate, whose tables may differ between builds; this much of a
//! calendar needs none.

use super::TimeMs;

const DAY_MS: TimeMs = 24 * 60 * 60 * 1000;
/// Days from 1 March of the year 0, where leap days end their years, to 1970.
const DAYS_BEFORE_EPOCH: u64 = 719_468;
/// The calendar repeats itself every 400 years, which have so many days.
const ERA_DAYS: u64 = 146_097;

/// ISO-8601 in UTC with milliseconds and a `Z` (contract 1.7); empty after the year 9999.
#[must_use]
pub fn iso(at: TimeMs) -> String {
    let (year, month, day) = date(at / DAY_MS);
    if year > 9999 {
        return String::new();
    }
    let seconds = at % DAY_MS / 1000;
    let (hour, minute, second, ms) = (seconds / 3600, seconds / 60 % 60, seconds % 60, at % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of the Gregorian calendar, so many days after the epoch.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let leap_days = of_era / 1460 + of_era / (ERA_DAYS - 1) - of_era / 36_524;
    let year_of_era = (of_era - leap_days) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 153 days every five.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_7_moments_are_written_as_the_calendar_has_them_until_the_year_9999() {
        let until = 2_932_896;
        for days in (0..ERA_DAYS).chain((ERA_DAYS..until).step_by(97)) {
            let at = days * DAY_MS + (days * 7_919_391) % DAY_MS;
            let theirs = jiff::Timestamp::from_millisecond(at as i64).unwrap();
            assert_eq!(iso(at), format!("{theirs:.3}"));
        }
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(TimeMs::MAX), "");
    }
}

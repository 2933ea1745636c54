//! Decimal numbers of JSON as whole numbers of small parts: what is decided by them must be the same
//! on every member, so no float takes part.

/// Digits of a mantissa that are looked at; a double has 17.
const DIGITS_MAX: u32 = 28;

/// A JSON number times ten to the power of `places`, rounded to the nearest whole number, halves away
/// from zero. `None` for what is no number, or too large.
#[must_use]
pub fn scaled(text: &str, places: i32) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let mut power = exponent.checked_add(places)?;
    let (mut value, mut digits) = (0i128, 0);
    for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let behind_the_point = place >= whole.len();
        if digits < DIGITS_MAX {
            value = value * 10 + i128::from(digit - b'0');
            digits += u32::from(value > 0);
            power = power.checked_sub(i32::from(behind_the_point))?;
        } else {
            power = power.checked_add(i32::from(!behind_the_point))?;
        }
    }
    let by = |power: i32| 10i128.checked_pow(power.unsigned_abs());
    let value = match power {
        _ if value == 0 => 0,
        0.. => value.checked_mul(by(power)?)?,
        ..0 => by(power).map_or(0, |by| (value + by / 2) / by),
    };
    i64::try_from(if negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_whole_numbers() {
        let cases = [
            ("0", Some(0)),
            ("0.25", Some(250_000_000)),
            ("-1.5", Some(-1_500_000_000)),
            ("1e-3", Some(1_000_000)),
            ("12E2", Some(1_200_000_000_000)),
            ("0.0000000004", Some(0)),
            ("0.0000000005", Some(1)),
            ("-0.0000000005", Some(-1)),
            ("0.12345678949999999999999999999999999999", Some(123_456_789)),
            ("1e-400", Some(0)),
            ("0e999", Some(0)),
            ("9223372036.854775807", Some(i64::MAX)),
            ("9223372036.854775808", None),
            ("1e30", None),
            ("1e999999999999", None),
            ("", None),
            ("-", None),
            (".5", None),
            ("NaN", None),
            ("1.2.3", None),
            ("\"1\"", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(scaled(text, 9), wanted, "{text}");
        }
        assert_eq!(scaled("2.5", 6), Some(2_500_000));
    }
}

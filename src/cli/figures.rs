//! Numbers as people read them.

/// The digits that are shown: enough for scores to differ.
const DIGITS: i32 = 6;

/// A number in at most six digits, without zeros at its end.
pub(super) fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "-".to_owned() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..9).contains(&magnitude) {
        let text = format!("{value:.3e}");
        let (number, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", shortened(number));
    }
    let places = usize::try_from(DIGITS - 1 - magnitude).unwrap_or_default();
    shortened(&format!("{value:.places$}")).to_owned()
}

fn shortened(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `part` of `whole` as a bar of so many letters.
pub(super) fn bar(part: f64, whole: f64, width: usize) -> String {
    let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
    let full = (share * width as f64).floor() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_matter() {
        let cases = [
            (0.0, "0"),
            (0.397_887_357, "0.397887"),
            (-3.862_78, "-3.86278"),
            (150.0, "150"),
            (12.5, "12.5"),
            (0.1 + 0.2, "0.3"),
            (123_456.789, "123457"),
            (100_000_000.0, "100000000"),
            (2.0e9, "2e9"),
            (0.000_25, "0.00025"),
            (0.000_012_34, "1.234e-5"),
            (f64::NAN, "-"),
        ];
        for (value, wanted) in cases {
            assert_eq!(figure(value), wanted);
        }
    }

    #[test]
    fn bars_are_as_long_as_they_should_be() {
        let cases = [
            (0.0, 4.0, "[....]"),
            (1.0, 4.0, "[#...]"),
            (3.9, 4.0, "[###.]"),
            (9.0, 4.0, "[####]"),
            (1.0, 0.0, "[....]"),
        ];
        for (part, whole, wanted) in cases {
            assert_eq!(bar(part, whole, 4), wanted);
        }
    }
}

//! The figures of a column of numbers.

use serde_json::{Value, json};

/// Figures are rounded to so many digits behind the point: beyond it is the noise of binary floats.
const DIGITS: f64 = 1e6;

/// `value`, rounded for an output.
pub(super) fn round(value: f64) -> f64 {
    let rounded = (value * DIGITS).round() / DIGITS;
    // Numbers so large have no digits behind the point, and would overflow.
    if rounded.is_finite() { rounded } else { value }
}

/// `value` for people: two digits behind the point at most.
pub(super) fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// What is known of a column. Deviations are those of the whole population, quartiles are linear
/// between the neighbours, both as numpy does by default.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) mean: f64,
    pub(super) median: f64,
    pub(super) std: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) quartiles: [f64; 3],
}

impl Summary {
    /// `None` for an empty column.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> =
            values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        // Relative to the smallest, so that large numbers do not overflow in the sum of squares.
        let mean = sorted.iter().map(|value| value / count as f64).sum::<f64>();
        let variance =
            sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
        let quartiles = [0.25, 0.5, 0.75].map(|share| quantile(&sorted, share));
        Some(Self { count, mean, median: quartiles[1], std: variance.sqrt(), min, max, quartiles })
    }

    pub(super) fn to_json(&self) -> Value {
        let [q25, q50, q75] = self.quartiles.map(round);
        json!({
            "count": self.count,
            "mean": round(self.mean),
            "median": round(self.median),
            "std": round(self.std),
            "min": round(self.min),
            "max": round(self.max),
            "quartiles": { "q25": q25, "q50": q50, "q75": q75 },
        })
    }

    /// How many deviations `value` is away from the mean; 0 where nothing deviates.
    pub(super) fn z_score(&self, value: f64) -> f64 {
        let score = (value - self.mean) / self.std;
        if score.is_finite() { score } else { 0.0 }
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// A straight line through values in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Per step.
    pub(super) slope: f64,
    /// The share of the variance that the line explains, 0 to 1.
    pub(super) fit: f64,
    /// Its ends.
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Line {
    /// By least squares; `None` for fewer than three values.
    pub(super) fn through(values: &[f64]) -> Option<Self> {
        if values.len() < 3 {
            return None;
        }
        let n = values.len() as f64;
        let middle = (n - 1.0) / 2.0;
        let mean = values.iter().sum::<f64>() / n;
        let (mut across, mut along, mut total) = (0.0, 0.0, 0.0);
        for (at, value) in values.iter().enumerate() {
            let (x, y) = (at as f64 - middle, value - mean);
            across += x * y;
            along += x * x;
            total += y * y;
        }
        let slope = across / along;
        let fit = if total > 0.0 { across * across / (along * total) } else { 0.0 };
        let line = Self { slope, fit, from: mean - slope * middle, to: mean + slope * middle };
        (line.slope.is_finite() && line.fit.is_finite()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_numpy() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(summary.count, 4);
        assert_eq!((summary.mean, summary.median), (2.5, 2.5));
        assert_eq!((summary.min, summary.max), (1.0, 4.0));
        assert_eq!(summary.quartiles, [1.75, 2.5, 3.25]);
        assert!((summary.std - 1.118_033_988).abs() < 1e-8);
        assert!((summary.z_score(4.0) - 1.341_640_786).abs() < 1e-8);
    }

    #[test]
    fn odd_columns_give_no_nonsense() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[f64::NAN, f64::INFINITY]), None);
        let one = Summary::of(&[7.0]).unwrap();
        assert_eq!((one.std, one.z_score(9.0), one.quartiles), (0.0, 0.0, [7.0; 3]));
        let huge = Summary::of(&[f64::MAX, f64::MAX]).unwrap();
        assert!(huge.mean.is_finite() && round(huge.mean).is_finite());
    }

    #[test]
    fn figures_for_people_are_short() {
        for (value, text) in [(1.0, "1"), (1.256, "1.26"), (-0.001, "0"), (1500.5, "1500.5")] {
            assert_eq!(plain(value), text);
        }
    }

    #[test]
    fn lines_have_a_slope_and_a_fit() {
        let line = Line::through(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((line.slope - 1.0).abs() < 1e-12 && (line.fit - 1.0).abs() < 1e-12);
        assert!((line.from - 1.0).abs() < 1e-12 && (line.to - 4.0).abs() < 1e-12);
        let flat = Line::through(&[5.0, 5.0, 5.0]).unwrap();
        assert_eq!((flat.slope, flat.fit), (0.0, 0.0));
        assert_eq!(Line::through(&[1.0, 2.0]), None);
    }
}

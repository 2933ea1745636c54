//! From values to places along an axis, with ticks at round numbers.

/// About how many parts an axis is cut into.
const PARTS: f64 = 5.0;
/// The most ticks at whole numbers.
const COUNTS_MAX: u32 = 12;
/// Over more powers of ten than this, only they are ticks; over more than the second, only some.
const DECADES_FINE: f64 = 2.5;
const DECADES_MAX: i32 = 8;

/// An axis: its ends and what is written along it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    /// For values from `low` to `high`; the ends are ticks.
    pub(super) fn linear(low: f64, high: f64) -> Self {
        let (low, high) = if low < high {
            (low, high)
        } else {
            // One value alone gets some room.
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low - room, low + room)
        };
        let step = round_step((high - low) / PARTS);
        // A value that is a tick but for rounding is one.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let ticks: Vec<f64> =
            (0..=(last - first) as u32).map(|place| (first + f64::from(place)) * step).collect();
        Self::ending(false, ticks)
    }

    /// By orders of magnitude; `None` unless all is above zero. The ends are 1, 2 or 5 times a power of
    /// ten, and ticks if there is room for so many.
    pub(super) fn logarithmic(low: f64, high: f64) -> Option<Self> {
        if !(low > 0.0 && low <= high && high.is_finite()) {
            return None;
        }
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let powers = (first..=last + 1).map(|power| 10_f64.powi(power));
        let round: Vec<f64> = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * power)).collect();
        let from = round.iter().rposition(|end| *end <= low * (1.0 + 1e-9)).unwrap_or(0);
        let until = round.iter().position(|end| *end >= high * (1.0 - 1e-9));
        // One value alone gets some room.
        let until = until.unwrap_or(round.len() - 1).max(from + 1).min(round.len() - 1);
        let (low, high) = (round[from], round[until]);
        if (high / low).log10() <= DECADES_FINE {
            return Some(Self::ending(true, round[from..=until].to_vec()));
        }
        let every = ((last - first) / DECADES_MAX + 1) as usize;
        let tens = (first..=last).step_by(every).map(|power| 10_f64.powi(power));
        let within = (low * (1.0 - 1e-9))..=(high * (1.0 + 1e-9));
        let ticks = tens.filter(|tick| within.contains(tick)).collect();
        Some(Self { low, high, logarithmic: true, ticks })
    }

    /// For the whole numbers from 1 to `count`, with half a number of room at both ends.
    pub(super) fn counts(count: u32) -> Self {
        let count = count.max(1);
        let steps = (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10_u32.pow(power)));
        let step = steps.into_iter().find(|step| count / step <= COUNTS_MAX).unwrap_or(count);
        let ticks = (1..=count).filter(|number| *number == 1 && step <= 2 || number % step == 0);
        let mut ticks: Vec<f64> = ticks.map(f64::from).collect();
        if step == 2 {
            // 1, 3, 5 ... would be odd beside the even ones.
            ticks.retain(|tick| tick % 2.0 == 0.0);
        }
        Self { low: 0.5, high: f64::from(count) + 0.5, logarithmic: false, ticks }
    }

    fn ending(logarithmic: bool, ticks: Vec<f64>) -> Self {
        let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
        Self { low, high, logarithmic, ticks }
    }

    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// Where `value` is: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            return (value / self.low).ln() / (self.high / self.low).ln();
        }
        (value - self.low) / (self.high - self.low)
    }
}

/// 1, 2 or 5 times a power of ten: the least that is no less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powi(least.log10().floor() as i32);
    let found = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= least * (1.0 - 1e-9));
    found.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::figures::figure;

    fn written(scale: &Scale) -> String {
        scale.ticks().iter().map(|tick| figure(*tick)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_at_round_numbers() {
        let cases = [
            (0.0, 1.0, "0 0.2 0.4 0.6 0.8 1"),
            (0.0, 0.3, "0 0.1 0.2 0.3"),
            (0.41, 0.93, "0.4 0.6 0.8 1"),
            (-3.862_78, -0.1, "-4 -3 -2 -1 0"),
            (-1.0, 1.0, "-1 -0.5 0 0.5 1"),
            (3.0, 308.1, "0 100 200 300 400"),
            (0.397_887, 0.398_1, "0.39785 0.3979 0.39795 0.398 0.39805 0.3981"),
            (1e-12, 5e-12, "1e-12 2e-12 3e-12 4e-12 5e-12"),
            (1e9, 3e9, "1e9 1.5e9 2e9 2.5e9 3e9"),
            (7.0, 7.0, "6 6.5 7 7.5 8"),
            (0.0, 0.0, "-1 -0.5 0 0.5 1"),
        ];
        for (low, high, wanted) in cases {
            assert_eq!(written(&Scale::linear(low, high)), wanted, "{low} to {high}");
        }
    }

    #[test]
    fn ticks_of_orders_of_magnitude() {
        let cases = [
            (0.398, 308.0, "1 10 100"),
            (0.9, 11.0, "0.5 1 2 5 10 20"),
            (0.4, 30.0, "0.2 0.5 1 2 5 10 20 50"),
            (1.0, 100.0, "1 2 5 10 20 50 100"),
            (3.0, 3.0, "2 5"),
            (1e-6, 1e6, "1e-6 0.0001 0.01 1 100 10000 1000000"),
        ];
        for (low, high, wanted) in cases {
            let scale = Scale::logarithmic(low, high).unwrap();
            assert_eq!(written(&scale), wanted, "{low} to {high}");
            assert!(scale.place(low) >= -1e-9 && scale.place(high) <= 1.0 + 1e-9);
        }
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)] {
            assert_eq!(Scale::logarithmic(low, high), None, "{low} to {high}");
        }
    }

    #[test]
    fn iterations_are_counted_in_whole_numbers() {
        let cases = [
            (0, "1"),
            (1, "1"),
            (3, "1 2 3"),
            (12, "1 2 3 4 5 6 7 8 9 10 11 12"),
            (13, "2 4 6 8 10 12"),
            (30, "5 10 15 20 25 30"),
            (1000, "100 200 300 400 500 600 700 800 900 1000"),
        ];
        for (count, wanted) in cases {
            assert_eq!(written(&Scale::counts(count)), wanted, "{count}");
        }
    }

    #[test]
    fn places_are_between_the_ends() {
        let linear = Scale::linear(0.0, 10.0);
        for (value, place) in [(0.0, 0.0), (2.5, 0.25), (10.0, 1.0)] {
            assert!((linear.place(value) - place).abs() < 1e-12);
        }
        let orders = Scale::logarithmic(1.0, 100.0).unwrap();
        for (value, place) in [(1.0, 0.0), (10.0, 0.5), (100.0, 1.0)] {
            assert!((orders.place(value) - place).abs() < 1e-12);
        }
        assert!((Scale::counts(3).place(2.0) - 0.5).abs() < 1e-12);
    }
}

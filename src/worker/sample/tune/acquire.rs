//! Where to look next: how much a point promises, from what a process says of it.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::gaussian::Process;

/// Points that are drawn over the whole cube, and then around the most promising one.
const DRAWS: usize = 500;
const DRAWS_NEAR: usize = 200;
/// How far around it is drawn: at first, and at last, in sides of the cube.
const NEAR_MAX: f64 = 0.2;
const NEAR_MIN: f64 = 0.001;
/// How many deviations below its mean a point is hoped to be, by `ucb`.
const HOPE: f64 = 2.0;

/// How a promise is measured; named as the orchestrator's `bo_acquisition_function` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquisition {
    /// Expected improvement.
    Ei,
    /// Probability of improvement.
    Pi,
    /// Confidence bound: of what is to be small, the lower one.
    Ucb,
}

impl Acquisition {
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Ei, Self::Pi, Self::Ucb].into_iter().find(|one| one.as_str() == word)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ei => "ei",
            Self::Pi => "pi",
            Self::Ucb => "ucb",
        }
    }

    /// What a point promises that is `mean` and `deviation`, when the best known is `best`; the
    /// more the better.
    pub(super) fn of(self, (mean, deviation): (f64, f64), best: f64) -> f64 {
        let gain = best - mean;
        match self {
            Self::Ucb => HOPE * deviation - mean,
            // Where nothing is uncertain, what is promised is what is known.
            Self::Ei if deviation <= 0.0 => gain.max(0.0),
            Self::Pi if deviation <= 0.0 => f64::from(u8::from(gain > 0.0)),
            Self::Ei => {
                let z = gain / deviation;
                gain * below(z) + deviation * density(z)
            }
            Self::Pi => below(gain / deviation),
        }
    }

    /// The most promising of many points that `seed` draws, in the unit cube. `best` is the best
    /// known point with its value.
    pub(super) fn most(self, process: &Process, best: (&[f64], f64), seed: u64) -> Vec<f64> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (known, value) = best;
        let mut found = (f64::NEG_INFINITY, known.to_vec());
        let judge = |x: Vec<f64>, found: &mut (f64, Vec<f64>)| {
            let promise = self.of(process.at(&x), value);
            if promise > found.0 {
                *found = (promise, x);
            }
        };
        for _ in 0..DRAWS {
            judge(uniform(&mut rng, known.len()), &mut found);
        }
        let mut beside = (f64::NEG_INFINITY, known.to_vec());
        for start in [&mut found, &mut beside] {
            for draw in 0..DRAWS_NEAR {
                let part = draw as f64 / DRAWS_NEAR as f64;
                let width = NEAR_MAX * (NEAR_MIN / NEAR_MAX).powf(part);
                let x = near(&mut rng, &start.1, width);
                judge(x, start);
            }
        }
        if beside.0 > found.0 { beside.1 } else { found.1 }
    }
}

/// A point of the unit cube that is beside `center`.
fn near(rng: &mut SmallRng, center: &[f64], width: f64) -> Vec<f64> {
    let side = |x: &f64| (x + rng.random_range(-width..width)).clamp(0.0, 1.0);
    center.iter().map(side).collect()
}

/// A point anywhere in the unit cube.
pub(super) fn uniform(rng: &mut SmallRng, sides: usize) -> Vec<f64> {
    (0..sides).map(|_| rng.random::<f64>()).collect()
}

/// The density of the standard normal distribution.
fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

/// How likely a standard normal number is below `z`. Abramowitz and Stegun 7.1.26: within 7.5e-8.
fn below(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let tail = terms.iter().fold(0.0, |sum, term| (sum + term) * t) * (-x * x).exp() / 2.0;
    if z < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (z, wanted) in [
            (0.0, 0.5),
            (1.0, 0.841_344_7),
            (-1.0, 0.158_655_3),
            (1.96, 0.975_002_1),
            (-4.0, 3.167e-5),
        ] {
            assert!((below(z) - wanted).abs() < 2e-7, "{z}: {}", below(z));
        }
        assert!((density(0.0) - 0.398_942_3).abs() < 1e-7);
        assert!((density(1.0) - 0.241_970_7).abs() < 1e-7);
    }

    #[test]
    fn promises_are_those_of_the_formulas() {
        use Acquisition::{Ei, Pi, Ucb};
        // mean, deviation, best, promise
        let cases = [
            (Ei, 0.0, 1.0, 0.0, 0.398_942),
            (Ei, 1.0, 1.0, 0.0, 0.083_315),
            (Ei, -1.0, 1.0, 0.0, 1.083_315),
            (Ei, 0.0, 2.0, 0.0, 0.797_885),
            (Ei, 1.0, 0.0, 3.0, 2.0),
            (Ei, 3.0, 0.0, 1.0, 0.0),
            (Pi, 0.0, 1.0, 0.0, 0.5),
            (Pi, 1.0, 1.0, 0.0, 0.158_655),
            (Pi, 1.0, 0.0, 3.0, 1.0),
            (Pi, 3.0, 0.0, 1.0, 0.0),
            (Ucb, 1.0, 0.5, 0.0, 0.0),
            (Ucb, 1.0, 2.0, 0.0, 3.0),
        ];
        for (function, mean, deviation, best, wanted) in cases {
            let promise = function.of((mean, deviation), best);
            assert!((promise - wanted).abs() < 1e-5, "{function:?} {mean} {deviation}: {promise}");
        }
    }

    #[test]
    fn the_most_promising_point_is_between_what_is_known() {
        let points = vec![vec![0.0], vec![0.45], vec![0.9], vec![1.0]];
        let values = [2.0, 1.0, 1.1, 2.0];
        let process = Process::learn(&points, &values).unwrap();
        let found = Acquisition::Ei.most(&process, (&points[1], 1.0), 7);
        assert!((0.46..0.89).contains(&found[0]), "{found:?}");
        assert_eq!(
            Acquisition::Ei.most(&process, (&points[1], 1.0), 7),
            found,
            "by its seed alone"
        );
        for word in ["ei", "pi", "ucb"] {
            assert_eq!(Acquisition::parse(word).unwrap().as_str(), word);
        }
        assert_eq!(Acquisition::parse("best"), None);
    }
}

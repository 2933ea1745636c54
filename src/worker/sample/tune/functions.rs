//! What can be tuned: functions with a known minimum, and a curve through points that are given.
//! All are to be made small.

use serde_json::{Map, Value, json};

use super::super::Failure;

/// The most points of a curve.
const POINTS_MAX: usize = 10_000;

/// Something with parameters in a box, and a number for each choice of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Function {
    /// Branin's, of two parameters: three minima of 0.397887.
    Branin,
    /// Hartmann's of three parameters: four minima, the lowest is -3.86278.
    Hartmann3,
    /// Hartmann's of six parameters: the lowest of its six minima is -3.32237.
    Hartmann6,
    /// How far `a exp(-b t) + c` is from points `(t, y)`: the root of the mean square.
    Decay(Vec<(f64, f64)>),
}

/// Weights of the four valleys of Hartmann's functions.
const VALLEYS: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
const STEEP3: [[f64; 3]; 4] =
    [[3.0, 10.0, 30.0], [0.1, 10.0, 35.0], [3.0, 10.0, 30.0], [0.1, 10.0, 35.0]];
const CENTER3: [[f64; 3]; 4] = [
    [0.3689, 0.1170, 0.2673],
    [0.4699, 0.4387, 0.7470],
    [0.1091, 0.8732, 0.5547],
    [0.0381, 0.5743, 0.8828],
];
const STEEP6: [[f64; 6]; 4] = [
    [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
    [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
    [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
    [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
];
const CENTER6: [[f64; 6]; 4] = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
];

impl Function {
    /// The function that `input` names.
    pub(super) fn parse(input: &Value) -> Result<Self, Failure> {
        match super::super::text(input, "function")? {
            "branin" => Ok(Self::Branin),
            "hartmann3" => Ok(Self::Hartmann3),
            "hartmann6" => Ok(Self::Hartmann6),
            "decay" => points(input).map(Self::Decay),
            other => Err(Failure::Input(format!(
                "`function` is branin, hartmann3, hartmann6 or decay, not `{other}`"
            ))),
        }
    }

    /// Names of its parameters with their bounds.
    pub(super) fn parameters(&self) -> Vec<(&'static str, f64, f64)> {
        const NAMES: [&str; 6] = ["x1", "x2", "x3", "x4", "x5", "x6"];
        match self {
            Self::Branin => vec![("x1", -5.0, 10.0), ("x2", 0.0, 15.0)],
            Self::Hartmann3 => NAMES[..3].iter().map(|name| (*name, 0.0, 1.0)).collect(),
            Self::Hartmann6 => NAMES.iter().map(|name| (*name, 0.0, 1.0)).collect(),
            Self::Decay(points) => {
                // What the points can tell: a level within their range, a rate within their time.
                let (low, high) = range(points.iter().map(|(_, y)| *y));
                let (from, until) = range(points.iter().map(|(t, _)| *t));
                let (height, time) = ((high - low).max(1e-9), (until - from).max(1e-9));
                vec![
                    ("a", 0.25 * height, 2.0 * height),
                    ("b", 0.3 / time, 10.0 / time),
                    ("c", low - 0.5 * height, low + 0.5 * height),
                ]
            }
        }
    }

    /// Its value at `x`, which has a number for each parameter.
    pub(super) fn at(&self, x: &[f64]) -> f64 {
        match self {
            Self::Branin => branin(x[0], x[1]),
            Self::Hartmann3 => -hartmann(x, &STEEP3, &CENTER3),
            Self::Hartmann6 => -hartmann(x, &STEEP6, &CENTER6),
            Self::Decay(points) => {
                let square = |(t, y): &(f64, f64)| (x[0] * (-x[1] * t).exp() + x[2] - y).powi(2);
                (points.iter().map(square).sum::<f64>() / points.len() as f64).sqrt()
            }
        }
    }

    /// `x` with the names of its parameters.
    pub(super) fn named(&self, x: &[f64]) -> Value {
        let named = self.parameters().into_iter().zip(x);
        Value::Object(named.map(|((name, _, _), x)| (name.to_owned(), json!(x))).collect())
    }

    /// The reverse of [`Function::named`]; `None` when a parameter is missing.
    pub(super) fn read(&self, parameters: &Map<String, Value>) -> Option<Vec<f64>> {
        let all = self.parameters().into_iter();
        all.map(|(name, _, _)| parameters.get(name)?.as_f64()).collect()
    }
}

fn branin(x1: f64, x2: f64) -> f64 {
    use std::f64::consts::PI;
    let bend = x2 - 5.1 / (4.0 * PI * PI) * x1 * x1 + 5.0 / PI * x1 - 6.0;
    bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x1.cos() + 10.0
}

fn hartmann<const N: usize>(x: &[f64], steep: &[[f64; N]; 4], center: &[[f64; N]; 4]) -> f64 {
    let valley = |place: usize| {
        let far = (0..N).map(|i| steep[place][i] * (x[i] - center[place][i]).powi(2)).sum::<f64>();
        VALLEYS[place] * (-far).exp()
    };
    (0..4).map(valley).sum()
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

fn points(input: &Value) -> Result<Vec<(f64, f64)>, Failure> {
    let wanted =
        || Failure::Input(format!("decay needs `data`: 3 to {POINTS_MAX} pairs of numbers [t, y]"));
    let rows = input.get("data").and_then(Value::as_array).ok_or_else(wanted)?;
    if !(3..=POINTS_MAX).contains(&rows.len()) {
        return Err(wanted());
    }
    let pair = |row: &Value| match row.as_array().map(Vec::as_slice) {
        Some([t, y]) => t.as_f64().zip(y.as_f64()),
        _ => None,
    };
    rows.iter().map(|row| pair(row).ok_or_else(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minima_are_where_the_literature_has_them() {
        let branin = 0.397_887;
        let cases: [(Function, &[f64], f64); 5] = [
            (Function::Branin, &[-std::f64::consts::PI, 12.275], branin),
            (Function::Branin, &[std::f64::consts::PI, 2.275], branin),
            (Function::Branin, &[9.424_78, 2.475], branin),
            (Function::Hartmann3, &[0.114_614, 0.555_649, 0.852_547], -3.862_78),
            (
                Function::Hartmann6,
                &[0.201_69, 0.150_011, 0.476_874, 0.275_332, 0.311_652, 0.6573],
                -3.322_37,
            ),
        ];
        for (function, x, minimum) in cases {
            let value = function.at(x);
            assert!((value - minimum).abs() < 1e-5, "{function:?}{x:?} is {value}");
            for place in 0..x.len() {
                for by in [-0.01, 0.01] {
                    let mut beside = x.to_vec();
                    beside[place] += by;
                    assert!(function.at(&beside) > value, "{function:?}{beside:?} is lower");
                }
            }
        }
    }

    #[test]
    fn a_curve_fits_the_points_it_was_made_of() {
        let data: Vec<Value> =
            (0..20).map(|t| json!([t, 3.0 * (-0.4 * f64::from(t)).exp() + 1.0])).collect();
        let function = Function::parse(&json!({"function": "decay", "data": data})).unwrap();
        assert!(function.at(&[3.0, 0.4, 1.0]) < 1e-12);
        assert!((function.at(&[3.0, 0.4, 1.5]) - 0.5).abs() < 1e-12);
        for ((name, low, high), x) in function.parameters().into_iter().zip([3.0, 0.4, 1.0]) {
            assert!(low < x && x < high, "{name}: {x} is not within {low} and {high}");
        }
    }

    #[test]
    fn bad_input_is_refused() {
        for input in [
            json!({}),
            json!({"function": "cosine"}),
            json!({"function": "decay"}),
            json!({"function": "decay", "data": [[1, 2], [2, 3]]}),
            json!({"function": "decay", "data": [[1, 2], [2, 3], [3, "x"]]}),
        ] {
            assert!(matches!(Function::parse(&input), Err(Failure::Input(_))), "{input}");
        }
    }

    #[test]
    fn parameters_are_read_as_they_were_named() {
        let x = [1.5, -2.0];
        let named = Function::Branin.named(&x);
        assert_eq!(named, json!({"x1": 1.5, "x2": -2.0}));
        assert_eq!(Function::Branin.read(named.as_object().unwrap()).unwrap(), x);
        assert_eq!(Function::Hartmann3.read(named.as_object().unwrap()), None);
    }
}

//! `{"function": NAME, "observations": [{score, parameters}], "acquisition_function", "seed", ...}`
//! -> the function's value at a point that expected improvement chooses, as `score`.
//!
//! It is what a campaign's candidate gets as its input, and what its result is to say. The same
//! input gives the same result. While little is known, points are random. Candidates of one iteration
//! know the same, and would all choose the same point: so each works out what those before it choose,
//! and believes what the process says of those points.

mod acquire;
mod functions;
mod gaussian;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::Failure;
use acquire::{Acquisition, uniform};
use functions::Function;
use gaussian::Process;

/// Results that are learned from; the newest ones.
const OBSERVATIONS_MAX: usize = 256;
/// The most candidates of one iteration.
const CANDIDATES_MAX: u64 = 100;
/// Points per parameter that are drawn before anything is learned.
const RANDOM_PER_PARAMETER: usize = 3;

/// What is known of a function, in the unit cube.
struct Known {
    points: Vec<Vec<f64>>,
    values: Vec<f64>,
}

pub(super) fn compute(input: &Value) -> Result<Value, Failure> {
    let function = Function::parse(input)?;
    let acquisition = match input.get("acquisition_function").and_then(Value::as_str) {
        None => Acquisition::Ei,
        Some(word) => Acquisition::parse(word).ok_or_else(|| {
            Failure::Input(format!("`acquisition_function` is ei, pi or ucb, not `{word}`"))
        })?,
    };
    let whole = |key: &str| input.get(key).and_then(Value::as_u64).unwrap_or_default();
    let candidate = whole("candidate");
    if candidate >= CANDIDATES_MAX {
        return Err(Failure::Input(format!("`candidate` is 0 to {}", CANDIDATES_MAX - 1)));
    }
    let known = Known::read(&function, input);
    let count = known.values.len();
    let enough = count >= RANDOM_PER_PARAMETER * function.parameters().len();
    let chosen = if enough {
        // The same for all candidates of an iteration; without a campaign there is but one.
        let (seed, iteration) = (whole("seed"), whole("iteration"));
        let shared = match input.get("campaign_id").and_then(Value::as_str) {
            Some(campaign_id) => xxh3_64(format!("{campaign_id}.{iteration}").as_bytes()),
            None => seed,
        };
        known.choose(acquisition, candidate, shared)
    } else {
        None
    };
    let (way, unit) = match chosen {
        Some(unit) => (acquisition.as_str(), unit),
        None => {
            let mut rng = SmallRng::seed_from_u64(whole("seed"));
            ("random", uniform(&mut rng, function.parameters().len()))
        }
    };
    let x = scaled(&function, &unit);
    let score = function.at(&x);
    Ok(json!({
        "score": score,
        "parameters": function.named(&x),
        "chosen_by": way,
        "observations": count,
    }))
}

impl Known {
    /// Observations with a score and all parameters; others tell nothing.
    fn read(function: &Function, input: &Value) -> Self {
        let rows = input.get("observations").and_then(Value::as_array);
        let read = |row: &Value| {
            let score = row.get("score")?.as_f64().filter(|score| score.is_finite())?;
            let x = function.read(row.get("parameters")?.as_object()?)?;
            let sides = function.parameters().into_iter().zip(x);
            let unit = sides.map(|((_, low, high), x)| ((x - low) / (high - low)).clamp(0.0, 1.0));
            Some((unit.collect(), score))
        };
        let rows = rows.into_iter().flatten().filter_map(read).take(OBSERVATIONS_MAX);
        let (points, values) = rows.unzip();
        Self { points, values }
    }

    /// The point of the candidate with this number.
    fn choose(mut self, acquisition: Acquisition, candidate: u64, seed: u64) -> Option<Vec<f64>> {
        self.flatten();
        let mut process = Process::learn(&self.points, &self.values)?;
        let mut earlier = 0;
        loop {
            let values = self.values.iter().enumerate();
            let (best, value) = values.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
            let point = acquisition.most(
                &process,
                (&self.points[best], *value),
                seed.wrapping_add(earlier),
            );
            if earlier == candidate {
                return Some(point);
            }
            self.values.push(process.at(&point).0);
            self.points.push(point);
            process = process.and(&self.points, &self.values)?;
            earlier += 1;
        }
    }

    /// Values far above the best become closer to each other: what matters is where the low ones
    /// are, and one mountain would make all valleys look alike.
    fn flatten(&mut self) {
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let mut above: Vec<f64> = self.values.iter().map(|value| value - low).collect();
        above.sort_by(f64::total_cmp);
        let middle = above.get(above.len() / 2).copied().unwrap_or_default();
        if middle > 0.0 {
            self.values.iter_mut().for_each(|value| *value = ((*value - low) / middle).ln_1p());
        }
    }
}

/// A point of the unit cube, in the bounds of the function.
fn scaled(function: &Function, unit: &[f64]) -> Vec<f64> {
    let sides = function.parameters().into_iter().zip(unit);
    sides.map(|((_, low, high), part)| low + part * (high - low)).collect()
}

#[cfg(test)]
mod tests;

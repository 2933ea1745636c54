//! A Gaussian process: what a function may be like between the points where it is known.
//!
//! Points lie in the unit cube, values are standardised, the kernel is the squared exponential. Each
//! parameter has a length of its own, from a few, under which the known values are most likely.

/// A matrix as rows.
type Matrix = Vec<Vec<f64>>;

/// Lengths that are tried, in sides of the unit cube.
const LENGTHS: [f64; 9] = [0.08, 0.12, 0.18, 0.27, 0.4, 0.6, 0.9, 1.4, 3.0];
/// How often the length of each parameter is chosen anew, given those of the others.
const SWEEPS: usize = 2;
/// What is added to the diagonal: at first, and at most, for points that nearly coincide.
const JITTER_MIN: f64 = 1e-8;
const JITTER_MAX: f64 = 1e-2;

/// What is known, ready to be asked.
#[derive(Debug)]
pub(super) struct Process {
    points: Vec<Vec<f64>>,
    lengths: Vec<f64>,
    /// The lower triangle whose product with itself is the matrix of all kernels.
    lower: Matrix,
    /// The inverse of that matrix times the standardised values.
    weights: Vec<f64>,
    mean: f64,
    deviation: f64,
    likelihood: f64,
}

impl Process {
    /// Learns from `values` at `points`; `None` when there are none, or they are no numbers.
    pub(super) fn learn(points: &[Vec<f64>], values: &[f64]) -> Option<Self> {
        let sides = points.first()?.len();
        let given = |lengths: &[f64]| Self::given(points, values, lengths);
        let best = |found: Option<Self>, other: Self| match found {
            Some(found) if found.likelihood >= other.likelihood => Some(found),
            Some(_) | None => Some(other),
        };
        let alike = LENGTHS.iter().filter_map(|length| given(&vec![*length; sides]));
        let mut found = alike.fold(None, best)?;
        for side in (0..sides).cycle().take(SWEEPS * sides) {
            let changed = LENGTHS.iter().filter_map(|length| {
                let mut lengths = found.lengths.clone();
                lengths[side] = *length;
                given(&lengths)
            });
            found = changed.fold(None, best).unwrap_or(found);
        }
        Some(found)
    }

    /// What is known when one more point is.
    pub(super) fn and(&self, points: &[Vec<f64>], values: &[f64]) -> Option<Self> {
        Self::given(points, values, &self.lengths)
    }

    fn given(points: &[Vec<f64>], values: &[f64], lengths: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        if !variance.is_finite() {
            return None;
        }
        // All the same: any scale will do.
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / deviation).collect();
        let lower = factor(points, lengths)?;
        let weights = solve(&lower, &scaled);
        let likelihood = likelihood(&lower, &weights, &scaled);
        let (points, lengths) = (points.to_vec(), lengths.to_vec());
        Some(Self { points, lengths, lower, weights, mean, deviation, likelihood })
    }

    /// The mean and the standard deviation at `x`.
    pub(super) fn at(&self, x: &[f64]) -> (f64, f64) {
        let near: Vec<f64> =
            self.points.iter().map(|point| kernel(point, x, &self.lengths)).collect();
        let mean: f64 = near.iter().zip(&self.weights).map(|(near, weight)| near * weight).sum();
        let known: f64 = forward(&self.lower, &near).iter().map(|part| part * part).sum();
        let deviation = (1.0 - known).max(0.0).sqrt();
        (self.mean + self.deviation * mean, self.deviation * deviation)
    }
}

fn kernel(a: &[f64], b: &[f64], lengths: &[f64]) -> f64 {
    let sides = a.iter().zip(b).zip(lengths);
    let square: f64 = sides.map(|((a, b), length)| ((a - b) / length).powi(2)).sum();
    (-square / 2.0).exp()
}

/// The triangle for all pairs of `points`, with as little added to the diagonal as it takes.
fn factor(points: &[Vec<f64>], lengths: &[f64]) -> Option<Matrix> {
    let row = |a: &Vec<f64>| points.iter().map(|b| kernel(a, b, lengths)).collect();
    let kernels: Matrix = points.iter().map(row).collect();
    let mut jitter = JITTER_MIN;
    while jitter <= JITTER_MAX {
        let mut matrix = kernels.clone();
        for (place, row) in matrix.iter_mut().enumerate() {
            row[place] += jitter;
        }
        if let Some(lower) = cholesky(&matrix) {
            return Some(lower);
        }
        jitter *= 10.0;
    }
    None
}

/// The lower triangle whose product with its transpose is `matrix`; `None` unless that is positive
/// definite.
fn cholesky(matrix: &Matrix) -> Option<Matrix> {
    let mut lower: Matrix = Vec::with_capacity(matrix.len());
    for (i, given) in matrix.iter().enumerate() {
        let mut row: Vec<f64> = Vec::with_capacity(i + 1);
        for (j, above) in lower.iter().enumerate() {
            let known: f64 = row.iter().zip(above).map(|(a, b)| a * b).sum();
            row.push((given[j] - known) / above[j]);
        }
        let rest = given[i] - row.iter().map(|part| part * part).sum::<f64>();
        // Not `rest <= 0`: what is no number is refused as well.
        if !(rest > 0.0 && rest.is_finite()) {
            return None;
        }
        row.push(rest.sqrt());
        lower.push(row);
    }
    Some(lower)
}

/// Solves `lower * y = b`.
fn forward(lower: &Matrix, b: &[f64]) -> Vec<f64> {
    let mut y: Vec<f64> = Vec::with_capacity(b.len());
    for (i, row) in lower.iter().enumerate() {
        let known: f64 = row.iter().zip(&y).map(|(a, y)| a * y).sum();
        y.push((b[i] - known) / row[i]);
    }
    y
}

/// Solves `lower * transposed(lower) * x = b`.
fn solve(lower: &Matrix, b: &[f64]) -> Vec<f64> {
    let mut x = forward(lower, b);
    for i in (0..x.len()).rev() {
        x[i] /= lower[i][i];
        let found = x[i];
        for (j, rest) in x[..i].iter_mut().enumerate() {
            *rest -= lower[i][j] * found;
        }
    }
    x
}

/// The logarithm of the likelihood of `values`, up to a constant.
fn likelihood(lower: &Matrix, weights: &[f64], values: &[f64]) -> f64 {
    let fit: f64 = weights.iter().zip(values).map(|(weight, value)| weight * value).sum();
    let spread: f64 = lower.iter().enumerate().map(|(i, row)| row[i].ln()).sum();
    -0.5 * fit - spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triangles_multiply_back() {
        let matrix = |rows: &[&[f64]]| rows.iter().map(|row| row.to_vec()).collect::<Matrix>();
        let cases = [
            (matrix(&[&[4.0]]), Some(matrix(&[&[2.0]]))),
            (matrix(&[&[4.0, 2.0], &[2.0, 5.0]]), Some(matrix(&[&[2.0], &[1.0, 2.0]]))),
            (
                matrix(&[&[4.0, 12.0, -16.0], &[12.0, 37.0, -43.0], &[-16.0, -43.0, 98.0]]),
                Some(matrix(&[&[2.0], &[6.0, 1.0], &[-8.0, 5.0, 3.0]])),
            ),
            (matrix(&[&[1.0, 2.0], &[2.0, 1.0]]), None),
            (matrix(&[&[f64::NAN]]), None),
        ];
        for (given, wanted) in cases {
            assert_eq!(cholesky(&given), wanted, "{given:?}");
        }
    }

    #[test]
    fn equations_are_solved() {
        let lower = vec![vec![2.0], vec![6.0, 1.0], vec![-8.0, 5.0, 3.0]];
        let x = [1.0, -2.0, 3.0];
        let b: Vec<f64> = [[4.0, 12.0, -16.0], [12.0, 37.0, -43.0], [-16.0, -43.0, 98.0]]
            .iter()
            .map(|row| row.iter().zip(&x).map(|(a, x)| a * x).sum())
            .collect();
        for (found, wanted) in solve(&lower, &b).iter().zip(x) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
    }

    #[test]
    fn what_is_known_is_certain_and_what_is_far_is_not() {
        let points: Vec<Vec<f64>> = [0.0, 0.1, 0.2, 0.3].iter().map(|x| vec![*x]).collect();
        let values = [5.0, 7.0, 6.0, 5.5];
        let process = Process::learn(&points, &values).unwrap();
        for (point, value) in points.iter().zip(values) {
            let (mean, deviation) = process.at(point);
            assert!((mean - value).abs() < 0.01 && deviation < 0.01, "{mean} {deviation}");
        }
        let (_, between) = process.at(&[0.15]);
        let (far_mean, far) = process.at(&[1.0]);
        assert!(between < far, "{between} {far}");
        assert!((far_mean - 5.875).abs() < 0.5, "far away it is the mean: {far_mean}");
    }

    #[test]
    fn points_that_coincide_and_equal_values_do_no_harm() {
        let points = vec![vec![0.5, 0.5]; 5];
        let process = Process::learn(&points, &[2.0; 5]).unwrap();
        let (mean, deviation) = process.at(&[0.5, 0.5]);
        assert!((mean - 2.0).abs() < 1e-6 && deviation < 0.1, "{mean} {deviation}");
        assert!(Process::learn(&[], &[]).is_none());
        assert!(Process::learn(&points, &[f64::NAN; 5]).is_none());
    }
}

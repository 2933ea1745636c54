//! The scores of a campaign over its iterations, drawn: what every candidate reached, and the best so
//! far. As a picture ([`svg`]), or as text ([`text`]).

mod scale;
mod svg;
mod text;

use serde_json::{Value, json};

use super::figures::figure;
use scale::Scale;

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    title: String,
    minimize: bool,
    target: Option<f64>,
    /// How many iterations there are, ended or not.
    iterations: u32,
    /// The scores of candidates, by iteration; iterations count from 1.
    scores: Vec<(u32, f64)>,
    /// The best so far at the end of each iteration that has a score.
    best: Vec<(u32, f64)>,
    /// Candidates without a score: they failed, or gave none.
    without: usize,
}

impl Chart {
    /// Reads a campaign and its iterations as the doors show them.
    pub(super) fn read(campaign: &Value, iterations: &[Value]) -> Self {
        let minimize = campaign.pointer("/config/direction").is_some_and(|way| way == "minimize");
        let (mut scores, mut best, mut without) = (Vec::new(), Vec::new(), 0);
        let mut best_so_far: Option<f64> = None;
        for (number, row) in (1..).zip(iterations) {
            let results = row.pointer("/metadata/results").and_then(Value::as_array);
            for result in results.into_iter().flatten() {
                if let Some(score) = result.get("score").and_then(Value::as_f64) {
                    scores.push((number, score));
                    best_so_far = Some(match best_so_far {
                        Some(best) if minimize => best.min(score),
                        Some(best) => best.max(score),
                        None => score,
                    });
                } else if result.get("state").is_some_and(|state| state != "open") {
                    without += 1;
                }
            }
            best.extend(best_so_far.map(|score| (number, score)));
        }
        Self {
            title: campaign.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            minimize,
            target: campaign.pointer("/config/target_score").and_then(Value::as_f64),
            iterations: u32::try_from(iterations.len()).unwrap_or(u32::MAX),
            scores,
            best,
            without,
        }
    }

    /// Whether there is anything to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let points = |points: &[(u32, f64)]| {
            let point = |(iteration, score): &(u32, f64)| json!([iteration, score]);
            points.iter().map(point).collect::<Vec<_>>()
        };
        json!({
            "name": self.title, "direction": if self.minimize { "minimize" } else { "maximize" },
            "target_score": self.target, "scores": points(&self.scores), "best": points(&self.best),
        })
    }

    /// The axis of scores; `None` when orders of magnitude are asked for and a score has none.
    fn vertical(&self, logarithmic: bool) -> Option<Scale> {
        let values = self.scores.iter().map(|(_, score)| *score).chain(self.target);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if logarithmic { Scale::logarithmic(low, high) } else { Some(Scale::linear(low, high)) }
    }

    /// Whether scores can be drawn by orders of magnitude.
    pub(super) fn has_orders(&self) -> bool {
        self.vertical(true).is_some()
    }

    /// One sentence that says what came of it.
    fn summary(&self) -> String {
        let way = if self.minimize { "lowest" } else { "highest" };
        let best = self.best.last().map_or_else(|| "-".to_owned(), |(_, best)| figure(*best));
        let count = |number: usize, noun: &str| {
            format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
        };
        let mut text = format!(
            "{way} score {best} of {} in {}",
            count(self.scores.len(), "candidate"),
            count(self.iterations as usize, "iteration")
        );
        if self.without > 0 {
            text.push_str(&format!("; {} without a score", self.without));
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A chart of these scores, by iteration.
    pub(in crate::cli::chart) fn chart(title: &str, minimize: bool, scores: &[&[f64]]) -> Chart {
        let direction = if minimize { "minimize" } else { "maximize" };
        let campaign = json!({"name": title, "config": {"direction": direction}});
        let iterations: Vec<Value> = scores
            .iter()
            .map(|scores| {
                let result = |score: &f64| json!({"state": "scored", "score": score});
                json!({"metadata": {"results": scores.iter().map(result).collect::<Vec<_>>()}})
            })
            .collect();
        Chart::read(&campaign, &iterations)
    }

    #[test]
    fn the_best_is_the_best_so_far() {
        let scores: [&[f64]; 4] = [&[3.0, 5.0], &[4.0], &[], &[1.0, 9.0]];
        let lowest = chart("c", true, &scores);
        assert_eq!(lowest.best, [(1, 3.0), (2, 3.0), (3, 3.0), (4, 1.0)]);
        assert_eq!(lowest.scores, [(1, 3.0), (1, 5.0), (2, 4.0), (4, 1.0), (4, 9.0)]);
        assert_eq!(lowest.summary(), "lowest score 1 of 5 candidates in 4 iterations");
        let highest = chart("c", false, &scores);
        assert_eq!(highest.best, [(1, 5.0), (2, 5.0), (3, 5.0), (4, 9.0)]);
        assert_eq!(highest.json()["best"][3], json!([4, 9.0]));
        assert!(chart("c", true, &[]).is_empty() && !lowest.is_empty());
    }

    #[test]
    fn candidates_without_a_score_are_counted() {
        let results = json!([{"state": "failed", "score": null}, {"state": "open", "score": null},
                             {"state": "unscored", "score": null}, {"state": "scored", "score": 2.0}]);
        let iterations = [json!({"metadata": {"results": results}})];
        let chart = Chart::read(&json!({"config": {"target_score": 5}}), &iterations);
        assert_eq!(
            chart.summary(),
            "highest score 2 of 1 candidate in 1 iteration; 2 without a score"
        );
        assert_eq!(chart.target, Some(5.0));
    }

    #[test]
    fn orders_of_magnitude_need_scores_above_zero() {
        assert!(chart("c", true, &[&[1.0, 20.0]]).has_orders());
        assert!(!chart("c", true, &[&[0.0, 20.0]]).has_orders());
    }
}

//! A chart in letters, for a terminal.

use super::Chart;
use super::scale::Scale;
use crate::cli::figures::figure;

/// Letters of the plot itself.
const COLUMNS: usize = 64;
const ROWS: usize = 16;

impl Chart {
    /// Lines of text: `o` a candidate, `*` the best so far.
    pub(in crate::cli) fn text(&self, logarithmic: bool) -> String {
        let up = self.vertical(true).filter(|_| logarithmic).or_else(|| self.vertical(false));
        let up = up.unwrap_or_else(|| Scale::linear(0.0, 1.0));
        let across = Scale::counts(self.iterations);
        let column = |iteration: f64| place(&across, iteration, COLUMNS);
        let row = |score: f64| ROWS - 1 - place(&up, score, ROWS);
        let mut grid = vec![vec![' '; COLUMNS]; ROWS];
        for (iteration, score) in &self.scores {
            grid[row(*score)][column(f64::from(*iteration))] = 'o';
        }
        // The line is drawn over the dots: from one iteration to the next at the height it had.
        for (at, (iteration, score)) in self.best.iter().enumerate() {
            let until = self.best.get(at + 1).map_or(*iteration, |(next, _)| *next);
            let last = column(f64::from(until)).saturating_sub(usize::from(until > *iteration));
            for letter in &mut grid[row(*score)][column(f64::from(*iteration))..=last] {
                *letter = '*';
            }
        }
        let mut labels = vec![String::new(); ROWS];
        for tick in up.ticks() {
            labels[row(*tick)] = figure(*tick);
        }
        let margin = labels.iter().map(String::len).max().unwrap_or_default();
        let mut lines =
            vec![self.title.replace(char::is_control, "?"), self.summary(), String::new()];
        for (label, letters) in labels.iter().zip(&grid) {
            let edge = if label.is_empty() { '|' } else { '+' };
            let letters: String = letters.iter().collect();
            lines.push(format!("{label:>margin$} {edge}{letters}").trim_end().to_owned());
        }
        lines.push(format!("{:>margin$} +{}", "", "-".repeat(COLUMNS)));
        lines.push(format!("{:>margin$}  {}", "", foot(&across)));
        lines.push(String::new());
        lines.push(format!("{:>margin$}  * best so far   o a candidate", ""));
        lines.join("\n")
    }
}

fn place(scale: &Scale, value: f64, letters: usize) -> usize {
    let place = (scale.place(value) * (letters - 1) as f64).round();
    (place.max(0.0) as usize).min(letters - 1)
}

/// Numbers of iterations below their columns, as far as they fit beside each other.
fn foot(across: &Scale) -> String {
    let mut line = String::new();
    for tick in across.ticks() {
        let (text, at) = (figure(*tick), place(across, *tick, COLUMNS));
        if line.is_empty() || line.len() < at {
            line = format!("{line:at$}{text}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use crate::cli::chart::tests::chart;

    #[test]
    fn a_chart_in_letters() {
        let text = chart("a\u{1b}[31m", true, &[&[10.0, 8.0], &[4.0], &[6.0, 0.0]]).text(false);
        let wanted = "\
a?[31m
lowest score 0 of 5 candidates in 3 iterations

10 +           o
   |
   |
 8 +           *********************
   |
   |
 6 +                                                     o
   |
   |
 4 +                                *********************
   |
   |
 2 +
   |
   |
 0 +                                                     *
   +----------------------------------------------------------------
               1                    2                    3

    * best so far   o a candidate";
        assert_eq!(text, wanted);
    }

    #[test]
    fn any_scores_fit() {
        let cases: [&[&[f64]]; 4] = [&[], &[&[]], &[&[5.0]], &[&[1e-9, 1e9], &[3.0]]];
        for scores in cases {
            for logarithmic in [false, true] {
                let text = chart("c", false, scores).text(logarithmic);
                assert!(text.lines().all(|line| line.chars().count() < 90), "{text}");
            }
        }
    }
}

//! `data_analysis`: figures, anomalies, trends and what they say (contract 4.5, `analysis_result`).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::data_ingest;
use super::number;
use super::pieces::{Piece, pieces};
use super::statistics::{Line, Summary, plain, round};

/// A value further from the mean, in standard deviations, is an anomaly.
const Z_SCORE_MAX: f64 = 3.0;
/// A trend beyond so many times its beginning is told without a percentage.
const CHANGE_MAX: f64 = 10.0;
/// The most anomalies that are named; the strongest.
const ANOMALIES_MAX: usize = 10;
/// Columns that are looked at; the first by name.
const COLUMNS_MAX: usize = 100;
/// Values of a column of words that are named; the most frequent.
const VALUES_MAX: usize = 5;
/// A line that explains less of the variance is no trend.
const FIT_MIN: f64 = 0.3;
/// Columns whose figures come first when nobody names one, by what is in their names.
const LEADING: [&str; 9] =
    ["revenue", "sales", "amount", "total", "value", "price", "score", "count", "quantity"];
/// Columns that number or date their rows.
const NUMBERING: [&str; 7] = ["id", "index", "timestamp", "time", "date", "year", "month"];

/// Analyses the records of its inputs.
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    analyse(task, &pieces(task)?)
}

/// The same for other types, which get raw records in parallel mode.
pub(super) fn analyse(task: &AgentTask, pieces: &[Piece]) -> Result<Value, AgentFailure> {
    let records = data_ingest::records(pieces);
    let table = Table::of(&records);
    let z_score_max = number(task, "z_threshold", Z_SCORE_MAX)?;
    let primary = match task.parameters.get("field") {
        Some(field) if table.numbers.contains_key(field) => Some(field.as_str()),
        Some(field) => {
            let message = format!("parameter field: no numbers in a column `{field}`");
            return Err(AgentFailure::invalid(message));
        }
        None => table.leading(),
    };
    let (anomalies, outside) = table.anomalies(z_score_max);
    let trends = table.trends(z_score_max);
    let insights = insights(&table, records.len(), primary, outside, &trends);
    let fields: BTreeMap<&str, Value> =
        table.summaries.iter().map(|(name, summary)| (name.as_str(), summary.to_json())).collect();
    let mut statistics = match primary {
        Some(field) => table.summaries[field].to_json(),
        None => json!({
            "count": 0, "mean": null, "median": null, "std": null, "min": null, "max": null,
            "quartiles": { "q25": null, "q50": null, "q75": null },
        }),
    };
    statistics["field"] = json!(primary);
    Ok(json!({
        "summary_statistics": statistics,
        "insights": insights,
        "anomalies": anomalies,
        "trends": trends,
        "fields": fields,
        "categories": table.categories(),
        "record_count": records.len(),
    }))
}

/// The columns of the records.
#[derive(Default)]
struct Table {
    numbers: BTreeMap<String, Vec<f64>>,
    words: BTreeMap<String, HashMap<String, usize>>,
    summaries: BTreeMap<String, Summary>,
}

impl Table {
    fn of(records: &[Value]) -> Self {
        let mut table = Self::default();
        for record in records.iter().filter_map(Value::as_object) {
            for (name, value) in record {
                match value {
                    Value::Number(number) => {
                        let columns = table.numbers.len();
                        if columns < COLUMNS_MAX || table.numbers.contains_key(name) {
                            let column = table.numbers.entry(name.clone()).or_default();
                            column.extend(number.as_f64());
                        }
                    }
                    Value::String(word) if word.len() <= 64 => {
                        let columns = table.words.len();
                        if columns < COLUMNS_MAX || table.words.contains_key(name) {
                            let column = table.words.entry(name.clone()).or_default();
                            *column.entry(word.clone()).or_default() += 1;
                        }
                    }
                    Value::Null
                    | Value::Bool(_)
                    | Value::String(_)
                    | Value::Array(_)
                    | Value::Object(_) => {}
                }
            }
        }
        let summary =
            |(name, values): (&String, &Vec<f64>)| Some((name.clone(), Summary::of(values)?));
        table.summaries = table.numbers.iter().filter_map(summary).collect();
        table
    }

    /// Columns that measure something.
    fn measures(&self) -> impl Iterator<Item = (&String, &Summary)> {
        self.summaries.iter().filter(|(name, _)| !is_numbering(name))
    }

    /// The column whose figures are the summary.
    fn leading(&self) -> Option<&str> {
        let leading = LEADING
            .iter()
            .find_map(|word| self.measures().find(|(name, _)| name.to_lowercase().contains(word)));
        let any =
            leading.or_else(|| self.measures().next()).or_else(|| self.summaries.iter().next());
        any.map(|(name, _)| name.as_str())
    }

    /// The strongest, and how many there are.
    fn anomalies(&self, z_score_max: f64) -> (Vec<Value>, usize) {
        let mut found: Vec<(f64, Value)> = Vec::new();
        for (field, summary) in self.measures() {
            for (index, value) in self.numbers[field].iter().enumerate() {
                let score = summary.z_score(*value);
                if score.abs() > z_score_max {
                    let side = if score > 0.0 { "unusually_high" } else { "unusually_low" };
                    let anomaly = json!({
                        "field": field, "value": round(*value), "z_score": round(score),
                        "type": side, "index": index,
                    });
                    found.push((score.abs(), anomaly));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let count = found.len();
        found.truncate(ANOMALIES_MAX);
        (found.into_iter().map(|(_, anomaly)| anomaly).collect(), count)
    }

    /// Straight lines through the columns, in the order of the records; anomalies would hide them.
    fn trends(&self, z_score_max: f64) -> Vec<Value> {
        let trend = |(field, summary): (&String, &Summary)| {
            let usual = |value: &&f64| summary.z_score(**value).abs() <= z_score_max;
            let usual: Vec<f64> = self.numbers[field].iter().filter(usual).copied().collect();
            let line = Line::through(&usual)?;
            if line.fit < FIT_MIN {
                return None;
            }
            // Of next to nothing everything is thousands of percent.
            let (begin, change) = (line.from.abs(), line.to - line.from);
            let says = begin > 0.0 && change.abs() <= begin * CHANGE_MAX;
            let change = says.then(|| round(change / begin * 100.0));
            Some(json!({
                "field": field,
                "direction": if line.slope > 0.0 { "increasing" } else { "decreasing" },
                "slope": round(line.slope),
                "change_percent": change,
                "fit": round(line.fit),
            }))
        };
        self.measures().filter_map(trend).collect()
    }

    fn categories(&self) -> BTreeMap<&str, Value> {
        let category = |(name, words): (_, &HashMap<String, usize>)| {
            let top: Vec<Value> = ranked(words)
                .into_iter()
                .take(VALUES_MAX)
                .map(|(word, count)| json!({ "value": word, "count": count }))
                .collect();
            (name, json!({ "distinct": words.len(), "top": top }))
        };
        self.words.iter().map(|(name, words)| category((name.as_str(), words))).collect()
    }
}

fn is_numbering(name: &str) -> bool {
    let name = name.to_lowercase();
    NUMBERING.iter().any(|word| name == *word || name.ends_with(&format!("_{word}")))
}

/// Most frequent first, then by the alphabet.
fn ranked(words: &HashMap<String, usize>) -> Vec<(&str, usize)> {
    let mut ranked: Vec<(&str, usize)> =
        words.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    ranked.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
    ranked
}

/// What the figures say, in sentences.
fn insights(
    table: &Table,
    records: usize,
    primary: Option<&str>,
    outside: usize,
    trends: &[Value],
) -> Vec<String> {
    let Some(field) = primary else {
        return vec![format!("{records} records without numbers to analyse.")];
    };
    let summary = &table.summaries[field];
    let mut said = vec![format!(
        "{field}: {} values from {} to {}, {} on average.",
        summary.count,
        plain(summary.min),
        plain(summary.max),
        plain(summary.mean),
    )];
    let spread = summary.std / summary.mean.abs();
    if spread.is_finite() && spread > 0.5 {
        said.push(format!(
            "{field} varies widely: its deviation is {:.0} % of the mean.",
            spread * 100.0
        ));
    }
    let skew = (summary.mean - summary.median) / summary.std;
    if skew.is_finite() && skew.abs() > 0.25 {
        let side = if skew > 0.0 { "large" } else { "small" };
        said.push(format!("A few {side} values pull the mean of {field} away from its median."));
    }
    for trend in trends.iter().take(3) {
        let (name, direction) = (&trend["field"], &trend["direction"]);
        let percent = trend["change_percent"].as_f64();
        let by = percent.map_or_else(String::new, |percent| format!(" by {:.1} %", percent.abs()));
        let (name, direction) = (name.as_str(), direction.as_str());
        said.push(format!(
            "{} is {}{by}.",
            name.unwrap_or_default(),
            direction.unwrap_or_default()
        ));
    }
    if outside > 0 {
        let plural = if outside == 1 { "value is" } else { "values are" };
        said.push(format!("{outside} {plural} far outside the usual range."));
    }
    for (name, words) in &table.words {
        // Where two are equally frequent there is no most frequent one.
        match ranked(words).as_slice() {
            [(word, count), rest @ ..] if rest.first().is_some_and(|(_, next)| next < count) => {
                said.push(format!("Most frequent {name}: {word}, {count} of {records} records."));
            }
            _ => {}
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    fn analyse(value: Value, parameters: &[(&str, &str)]) -> Value {
        run(&task("data_analysis", vec![AgentInput::json(value)], parameters)).unwrap()
    }

    #[test]
    fn contract_4_5_figures_of_the_leading_column() {
        let rows = json!([
            {"id": 1, "units": 7, "revenue": 10.0, "region": "north"},
            {"id": 2, "units": 7, "revenue": 20.0, "region": "north"},
            {"id": 3, "units": 7, "revenue": 30.0, "region": "south"},
            {"id": 4, "units": 7, "revenue": 40.0, "region": "north"},
        ]);
        let data = analyse(rows.clone(), &[]);
        let figures = &data["summary_statistics"];
        assert_eq!((&figures["field"], &figures["count"]), (&json!("revenue"), &json!(4)));
        assert_eq!((&figures["mean"], &figures["median"]), (&json!(25.0), &json!(25.0)));
        assert_eq!(figures["quartiles"], json!({"q25": 17.5, "q50": 25.0, "q75": 32.5}));
        assert_eq!(data["fields"]["units"]["std"], 0.0);
        assert_eq!(data["trends"][0]["field"], "revenue");
        assert_eq!(data["trends"][0]["direction"], "increasing");
        assert_eq!(data["trends"].as_array().unwrap().len(), 1, "ids are no trend");
        assert_eq!(data["categories"]["region"]["top"][0], json!({"value": "north", "count": 3}));
        let insights = data["insights"].to_string();
        assert!(insights.contains("Most frequent region: north, 3 of 4"), "{insights}");
        let data = analyse(rows, &[("field", "units")]);
        assert_eq!(data["summary_statistics"]["mean"], 7.0);
    }

    #[test]
    fn contract_4_5_anomalies_are_over_three_deviations_and_at_most_ten() {
        let mut rows: Vec<Value> = (0..200).map(|n| json!({"value": n % 5})).collect();
        rows.push(json!({"value": 90}));
        rows.push(json!({"value": -80}));
        let data = analyse(json!(rows), &[]);
        let anomalies = data["anomalies"].as_array().unwrap();
        assert_eq!(anomalies.len(), 2);
        assert_eq!(
            (&anomalies[0]["value"], &anomalies[0]["type"]),
            (&json!(90.0), &json!("unusually_high"))
        );
        assert_eq!(anomalies[1]["type"], "unusually_low");
        assert!(anomalies[0]["z_score"].as_f64().unwrap() > 3.0);
        rows.extend((0..12).map(|n| json!({"value": 1000 + n})));
        rows.extend((0..2000).map(|_| json!({"value": 2})));
        let data = analyse(json!(rows), &[]);
        assert_eq!(data["anomalies"].as_array().unwrap().len(), 10);
        let said = "12 values are far outside the usual range.";
        assert!(data["insights"].as_array().unwrap().contains(&json!(said)), "all are counted");
    }

    /// From 0 to 41 it was an increase by 20,400 %.
    #[test]
    fn a_trend_from_next_to_nothing_has_no_percentage() {
        for (values, percent) in [
            (json!([0, 10, 20, 30, 41]), false),
            (json!([1, 9, 21, 30, 40]), false),
            (json!([100, 110, 120, 130]), true),
        ] {
            let rows: Vec<Value> =
                values.as_array().unwrap().iter().map(|value| json!({"revenue": value})).collect();
            let data = analyse(json!(rows), &[]);
            assert_eq!(data["trends"][0]["change_percent"].is_number(), percent, "{data}");
            let said = data["insights"].as_array().unwrap().iter().map(Value::to_string);
            let said: String = said.collect();
            assert_eq!(said.contains("revenue is increasing."), !percent, "{said}");
        }
    }

    #[test]
    fn an_earlier_output_is_taken_and_nothing_is_told_as_nothing() {
        let ingested =
            json!({"type": "ingested_data", "data": {"records": [{"x": 1}], "count": 1}});
        assert_eq!(analyse(ingested, &[])["summary_statistics"]["count"], 1);
        let data = analyse(json!([]), &[]);
        assert_eq!(
            (&data["summary_statistics"]["count"], &data["summary_statistics"]["mean"]),
            (&json!(0), &Value::Null)
        );
        let task = task("data_analysis", Vec::new(), &[("field", "x")]);
        assert!(run(&task).unwrap_err().message.contains("`x`"));
    }
}

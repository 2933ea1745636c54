//! `synthesis`: a report out of an analysis (contract 4.5, `json_report`).

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::data_analysis;
use super::pieces::{Body, Piece, pieces};
use super::seconds;
use super::statistics::plain;
use crate::model::TimeMs;

/// The title of a report that nobody has named.
const TITLE: &str = "Analysis Report";

/// Writes the report. Inputs that are no analyses are analysed first, all together.
pub(super) fn run(task: &AgentTask, now: TimeMs) -> Result<Value, AgentFailure> {
    let (analyses, rest): (Vec<Piece>, Vec<Piece>) =
        pieces(task)?.into_iter().partition(|piece| piece.is("analysis_result"));
    let mut analyses: Vec<Value> = analyses.into_iter().filter_map(value).collect();
    if !rest.is_empty() || analyses.is_empty() {
        analyses.push(data_analysis::analyse(task, &rest)?);
    }
    let all = |key: &str| -> Vec<Value> {
        let lists = analyses.iter().filter_map(|analysis| analysis[key].as_array());
        lists.flatten().cloned().collect()
    };
    let (insights, anomalies, trends) = (all("insights"), all("anomalies"), all("trends"));
    let statistics = match analyses.as_slice() {
        [one] => one["summary_statistics"].clone(),
        several => several.iter().map(|analysis| analysis["summary_statistics"].clone()).collect(),
    };
    let records: u64 =
        analyses.iter().filter_map(|analysis| analysis["record_count"].as_u64()).sum();
    let title = task.parameters.get("report_title").map_or(TITLE, String::as_str);
    Ok(json!({
        "report_id": format!("report_{}", now / 1000),
        "generated_at": seconds(now),
        "title": title,
        "executive_summary": summary(&analyses, records, anomalies.len(), &trends),
        "recommendations": recommendations(records, &anomalies, &trends),
        "detailed_findings": {
            "statistics": statistics,
            "insights": insights,
            "anomalies": anomalies,
            "trends": trends,
        },
        "metadata": {
            "task_id": task.task_id,
            "sources": analyses.len(),
            "record_count": records,
        },
    }))
}

fn value(piece: Piece) -> Option<Value> {
    match piece.body {
        Body::Value(value) => Some(value),
        Body::Text(_) | Body::Media(_) => None,
    }
}

fn summary(analyses: &[Value], records: u64, anomalies: usize, trends: &[Value]) -> String {
    let mut said = format!("{records} records were analysed.");
    for figures in analyses.iter().map(|analysis| &analysis["summary_statistics"]) {
        let (Some(field), Some(mean)) = (figures["field"].as_str(), figures["mean"].as_f64())
        else {
            continue;
        };
        let [min, max] = ["min", "max"].map(|key| plain(figures[key].as_f64().unwrap_or(mean)));
        let mean = plain(mean);
        said.push_str(&format!(" {field} is {mean} on average, between {min} and {max}."));
    }
    for trend in trends.iter().take(2) {
        if let (Some(field), Some(direction)) =
            (trend["field"].as_str(), trend["direction"].as_str())
        {
            said.push_str(&format!(" {field} is {direction}."));
        }
    }
    match anomalies {
        0 => said.push_str(" No value stands out."),
        1 => said.push_str(" One value stands out and should be looked at."),
        n => said.push_str(&format!(" {n} values stand out and should be looked at.")),
    }
    said
}

/// What follows from the findings, most urgent first.
fn recommendations(records: u64, anomalies: &[Value], trends: &[Value]) -> Vec<Value> {
    let recommend = |priority: &str, recommendation: String, rationale: String| json!({ "priority": priority, "recommendation": recommendation, "rationale": rationale });
    let mut all = Vec::new();
    if records == 0 {
        let what = "Check where the data come from.".to_owned();
        return vec![recommend("high", what, "The inputs held no records.".to_owned())];
    }
    if let Some(first) = anomalies.first() {
        let field = text(&first["field"]);
        let value = plain(first["value"].as_f64().unwrap_or_default());
        let score = first["z_score"].as_f64().unwrap_or_default();
        let why = format!(
            "{} anomalies; the strongest, {value}, is {score:.1} deviations from the mean.",
            anomalies.len()
        );
        all.push(recommend("high", format!("Investigate the unusual values of {field}."), why));
    }
    for trend in trends.iter().take(5) {
        let field = text(&trend["field"]);
        let change = trend["change_percent"].as_f64();
        let by = change.map_or_else(String::new, |change| format!(" by {:.1} %", change.abs()));
        all.push(if trend["direction"] == "decreasing" {
            let why = format!("{field} is falling{by} over the records.");
            recommend(
                "high",
                format!("Find out why {field} is falling, and stop it if it should not."),
                why,
            )
        } else {
            let why = format!("{field} is rising{by} over the records.");
            recommend("medium", format!("Plan for a further rise of {field}."), why)
        });
    }
    if all.is_empty() {
        let why = "No anomalies and no clear trends were found.".to_owned();
        all.push(recommend("low", "Go on watching; nothing has to be done.".to_owned(), why));
    }
    // Stable, so that equals stay in the order of the findings.
    all.sort_by_key(|one| match one["priority"].as_str() {
        Some("high") => 0,
        Some("medium") => 1,
        Some(_) | None => 2,
    });
    all
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("the data")
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    const NOW: TimeMs = 1_700_000_000_500;

    #[test]
    fn contract_4_5_the_report_has_its_fields() {
        let rows: Vec<Value> = (1..=20).map(|n| json!({"revenue": n})).collect();
        let analysis =
            data_analysis::run(&task("data_analysis", vec![AgentInput::json(json!(rows))], &[]));
        let envelope = json!({"type": "analysis_result", "data": analysis.unwrap()});
        let inputs = vec![AgentInput::json(envelope)];
        let report = run(&task("synthesis", inputs, &[("report_title", "Sales")]), NOW).unwrap();
        assert_eq!(report["report_id"], "report_1700000000");
        assert_eq!(report["generated_at"], 1_700_000_000.5);
        assert_eq!(report["title"], "Sales");
        assert_eq!(report["detailed_findings"]["statistics"]["mean"], 10.5);
        for key in ["insights", "anomalies", "trends"] {
            assert!(report["detailed_findings"][key].is_array(), "{key}");
        }
        let first = &report["recommendations"][0];
        assert_eq!(first["priority"], "medium");
        assert!(first["rationale"].as_str().unwrap().contains("revenue is rising"), "{first}");
        assert!(report["executive_summary"].as_str().unwrap().starts_with("20 records"));
    }

    #[test]
    fn contract_4_5_in_parallel_mode_it_analyses_by_itself() {
        let inputs = vec![AgentInput::text("region,sales\nnorth,9\nsouth,6\neast,3\n")];
        let report = run(&task("synthesis", inputs, &[]), NOW).unwrap();
        assert_eq!(report["metadata"]["record_count"], 3);
        assert_eq!(report["recommendations"][0]["priority"], "high");
        let nothing = run(&task("synthesis", Vec::new(), &[]), NOW).unwrap();
        assert_eq!(nothing["metadata"]["record_count"], 0);
        assert!(
            nothing["recommendations"][0]["recommendation"].as_str().unwrap().contains("Check")
        );
    }

    #[test]
    fn several_analyses_are_joined() {
        let one = |mean: f64| {
            json!({
                "summary_statistics": {"field": "x", "mean": mean}, "insights": ["i"],
                "anomalies": [], "trends": [], "record_count": 2,
            })
        };
        let inputs = vec![AgentInput::json(json!([one(1.0), one(2.0)]))];
        let report = run(&task("synthesis", inputs, &[]), NOW).unwrap();
        assert_eq!(report["detailed_findings"]["statistics"][1]["mean"], 2.0);
        assert_eq!(report["detailed_findings"]["insights"], json!(["i", "i"]));
        assert_eq!(report["metadata"]["record_count"], 4);
    }
}

//! `industry_synthesis`: what several sources have in common, with sentences of theirs as evidence.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::pieces::{Body, Piece, pieces};
use super::{seconds, text, transcript_summary};
use crate::model::TimeMs;

/// Themes of a report, and the evidence of each.
const THEMES: usize = 8;
const QUOTES: usize = 3;
/// Key terms of all sources from which the themes are taken.
const TERMS: usize = 40;
/// The title of a report that nobody has named.
const TITLE: &str = "Industry Report";

/// The report. Inputs that are no summaries are summarised first.
pub(super) fn run(task: &AgentTask, now: TimeMs) -> Result<Value, AgentFailure> {
    let (summaries, rest): (Vec<Piece>, Vec<Piece>) =
        pieces(task)?.into_iter().partition(|piece| piece.is("summaries"));
    let mut sources: Vec<Value> =
        summaries.iter().flat_map(|piece| piece.array("summaries")).cloned().collect();
    let rest: Vec<Piece> = rest.into_iter().filter(|piece| !is_empty(piece)).collect();
    sources.extend(transcript_summary::summarize(task, &rest)?);
    if sources.is_empty() {
        return Err(AgentFailure::invalid("no summaries or texts in the inputs"));
    }
    let texts: Vec<&str> =
        sources.iter().map(|source| source["summary"].as_str().unwrap_or_default()).collect();
    let themes = themes(&sources, &texts);
    let common: Vec<&str> =
        themes.iter().take(3).filter_map(|theme| theme["term"].as_str()).collect();
    let named: Vec<Value> = sources
        .iter()
        .map(|source| json!({ "title": source["title"], "word_count": source["word_count"] }))
        .collect();
    let overview = text::summarize(&texts.join("\n\n"), 3).join(" ");
    let title = task.parameters.get("report_title").map_or(TITLE, String::as_str);
    Ok(json!({
        "title": title,
        "generated_at": seconds(now),
        "overview": overview,
        "headline": headline(sources.len(), &common),
        "themes": themes,
        "source_count": named.len(),
        "sources": named,
    }))
}

fn is_empty(piece: &Piece) -> bool {
    matches!(&piece.body, Body::Value(Value::Array(list)) if list.is_empty())
}

fn headline(sources: usize, common: &[&str]) -> String {
    let plural = if sources == 1 { "source" } else { "sources" };
    match common {
        [] => format!("{sources} {plural} without a common theme."),
        terms => format!("{sources} {plural}, mostly about {}.", terms.join(", ")),
    }
}

/// Terms by how many sources speak of them, then how often.
fn themes(sources: &[Value], texts: &[&str]) -> Vec<Value> {
    let mut themes: Vec<(usize, usize, String)> = Vec::new();
    for (term, mentions) in text::key_terms(texts.iter().copied(), TERMS) {
        let holding =
            texts.iter().filter(|text| text::words(text).any(|word| word == term)).count();
        themes.push((holding, mentions, term));
    }
    // With several sources a theme is what more than one speaks of, if there is any such.
    if themes.iter().any(|(holding, _, _)| *holding > 1) {
        themes.retain(|(holding, _, _)| *holding > 1);
    }
    themes.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.cmp(&b.2)));
    themes.truncate(THEMES);
    let theme = |(holding, mentions, term): (usize, usize, String)| {
        json!({
            "evidence": evidence(sources, &term), "term": term, "source_count": holding,
            "mentions": mentions,
        })
    };
    themes.into_iter().map(theme).collect()
}

/// A sentence of each source that speaks of the term.
fn evidence(sources: &[Value], term: &str) -> Vec<BTreeMap<&'static str, Value>> {
    let quote = |source: &Value| {
        let sentences = text::sentences(source["summary"].as_str().unwrap_or_default());
        let quote = sentences
            .into_iter()
            .find(|sentence| text::words(sentence).any(|word| word == term))?;
        Some(BTreeMap::from([("source", source["title"].clone()), ("quote", json!(quote))]))
    };
    sources.iter().filter_map(quote).take(QUOTES).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    const NOW: TimeMs = 1_700_000_000_000;

    #[test]
    fn themes_are_what_sources_share() {
        let summaries = json!({"summaries": [
            {"title": "A", "summary": "Storage is cheap. Wind grows.", "word_count": 5},
            {"title": "B", "summary": "Cheap storage changes grids.", "word_count": 4},
        ]});
        let inputs = vec![AgentInput::json(json!({"type": "summaries", "data": summaries}))];
        let report = run(&task("industry_synthesis", inputs, &[]), NOW).unwrap();
        let terms: Vec<&Value> =
            report["themes"].as_array().unwrap().iter().map(|t| &t["term"]).collect();
        assert_eq!(terms, ["cheap", "storage"]);
        assert_eq!(
            report["themes"][1]["evidence"][1],
            json!({"source": "B", "quote": "Cheap storage changes grids."})
        );
        assert_eq!(report["source_count"], 2);
        assert_eq!(report["headline"], "2 sources, mostly about cheap, storage.");
    }

    #[test]
    fn contract_4_4_it_works_alone_on_texts() {
        let inputs = vec![AgentInput::text("Solar wins. Solar is cheap.")];
        let report =
            run(&task("industry_synthesis", inputs, &[("report_title", "Sun")]), NOW).unwrap();
        assert_eq!(
            (&report["title"], &report["themes"][0]["term"]),
            (&json!("Sun"), &json!("solar"))
        );
        assert!(run(&task("industry_synthesis", Vec::new(), &[]), NOW).is_err());
    }
}

//! `transcript_summary`: the sentences that say most, and the key terms, of every text in the inputs.

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::document_reader::{strip_markup, texts};
use super::pieces::{Piece, pieces};
use super::{count, text};

/// Sentences of a summary, and the most of them.
const SENTENCES: usize = 5;
const SENTENCES_MAX: usize = 50;
const TERMS: usize = 10;

/// One summary per text; parameter `max_sentences` (5).
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    let summaries = summarize(task, &pieces(task)?)?;
    if summaries.is_empty() {
        return Err(AgentFailure::invalid("no text in the inputs to summarise"));
    }
    Ok(json!({ "summary_count": summaries.len(), "summaries": summaries }))
}

/// The same for `industry_synthesis`, which gets texts when it works alone.
pub(super) fn summarize(task: &AgentTask, pieces: &[Piece]) -> Result<Vec<Value>, AgentFailure> {
    let max = count(task, "max_sentences", SENTENCES, SENTENCES_MAX)?;
    let mut summaries = Vec::new();
    for piece in pieces {
        for (title, raw) in texts(piece, "transcript_summary")? {
            summaries.push(summary(&title, &strip_markup(&raw), max));
        }
    }
    Ok(summaries)
}

fn summary(title: &str, plain: &str, max: usize) -> Value {
    let sentences = text::summarize(plain, max);
    let terms = text::key_terms([plain], TERMS);
    let joined = sentences.join(" ");
    let (before, after) = (text::word_count(plain), text::word_count(&joined));
    json!({
        "title": title,
        "summary": joined,
        "key_points": sentences,
        "key_terms": text::terms_json(&terms),
        "word_count": before,
        "summary_word_count": after,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    const TALK: &str = "Welcome back. Storage costs fell by a third. Cheaper storage lets grids use \
                        more wind. I had coffee. Grids with storage waste less wind.";

    #[test]
    fn texts_and_transcripts_are_summarised() {
        let transcripts =
            json!({"transcripts": [{"title": "T", "text": TALK}], "transcript_count": 1});
        let inputs = vec![AgentInput::json(transcripts), AgentInput::text(TALK)];
        let data = run(&task("transcript_summary", inputs, &[("max_sentences", "2")])).unwrap();
        assert_eq!(data["summary_count"], 2);
        let first = &data["summaries"][0];
        assert_eq!(first["title"], "T");
        assert_eq!(first["key_points"].as_array().unwrap().len(), 2);
        assert!(
            first["key_points"]
                .as_array()
                .unwrap()
                .iter()
                .all(|point| TALK.contains(point.as_str().unwrap()))
        );
        assert_eq!(first["key_terms"][0], json!({"term": "storage", "count": 3}));
        assert_eq!(first["summary"], data["summaries"][1]["summary"]);
    }

    #[test]
    fn nothing_to_summarise_is_refused() {
        for inputs in [Vec::new(), vec![AgentInput::json(json!({"a": 1}))]] {
            assert!(run(&task("transcript_summary", inputs, &[])).is_err());
        }
        let task =
            task("transcript_summary", vec![AgentInput::text(TALK)], &[("max_sentences", "0")]);
        assert!(run(&task).is_err());
    }
}

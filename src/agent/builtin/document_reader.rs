//! `document_reader`: plain text and sections out of text, Markdown and HTML that the inputs carry.

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::pieces::{Body, Piece, pieces};
use super::text;

/// Key terms of a document.
const TERMS: usize = 10;
/// Tags after which a line ends.
const BLOCKS: [&str; 14] =
    ["p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "td"];
/// Tags whose contents are not text.
const HIDDEN: [&str; 4] = ["script", "style", "head", "noscript"];
/// What is longer is no tag. Without a limit, signs that open tags and never close them would each
/// cost a walk through the whole text.
const TAG_BYTES_MAX: usize = 1024;

/// One document per input.
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    let mut documents = Vec::new();
    for piece in pieces(task)? {
        for (title, text) in texts(&piece, "document_reader")? {
            documents.push(read(&title, &text));
        }
    }
    if documents.is_empty() {
        return Err(AgentFailure::invalid("no document in the inputs: give its text"));
    }
    Ok(json!({ "document_count": documents.len(), "documents": documents }))
}

/// The texts of a piece with their titles: a text, an object or list of objects with `text` or
/// `content`, or what earlier steps found.
pub(super) fn texts(
    piece: &Piece,
    agent_type: &str,
) -> Result<Vec<(String, String)>, AgentFailure> {
    let value = match &piece.body {
        Body::Text(text) => return Ok(vec![(title_of(piece), text.clone())]),
        Body::Media(_) => return Err(piece.needs_model(agent_type)),
        Body::Value(value) => value,
    };
    let lists = ["documents", "transcripts", "summaries", "items", "records"];
    let list = lists.iter().find_map(|key| value[*key].as_array()).or_else(|| value.as_array());
    let single = [value.clone()];
    let list = list.map_or(&single[..], Vec::as_slice);
    let of = |(n, one): (usize, &Value)| {
        if let Some(text) = one.as_str() {
            return Some((format!("{}.{n}", title_of(piece)), text.to_owned()));
        }
        let keys = ["text", "transcript", "content", "summary", "body", "description"];
        let text =
            keys.iter().find_map(|key| one[*key].as_str().filter(|text| !text.is_empty()))?;
        let title = one["title"].as_str().map_or_else(|| title_of(piece), str::to_owned);
        Some((title, text.to_owned()))
    };
    let found: Vec<(String, String)> = list.iter().enumerate().filter_map(of).collect();
    if found.is_empty() && !list.is_empty() {
        let message =
            format!("input {} holds no text: give a string, or objects with `text`", piece.name);
        return Err(AgentFailure::invalid(message));
    }
    Ok(found)
}

fn title_of(piece: &Piece) -> String {
    piece.metadata.get("title").and_then(Value::as_str).unwrap_or(&piece.name).to_owned()
}

fn read(name: &str, raw: &str) -> Value {
    let html = looks_like_html(raw);
    let plain = if html { strip_markup(raw) } else { raw.replace("\r\n", "\n") };
    let sections = sections(raw, &plain, html);
    let title = sections.iter().find_map(|(heading, _)| heading.clone());
    let terms = text::key_terms([plain.as_str()], TERMS);
    let sections: Vec<Value> = sections
        .into_iter()
        .map(|(heading, text)| json!({ "heading": heading, "words": text::word_count(&text), "text": text }))
        .collect();
    json!({
        "name": name,
        "title": title.unwrap_or_else(|| name.to_owned()),
        "format": if html { "html" } else { "text" },
        "word_count": text::word_count(&plain),
        "sentence_count": text::sentences(&plain).len(),
        "key_terms": text::terms_json(&terms),
        "sections": sections,
        "text": plain.trim(),
    })
}

fn looks_like_html(raw: &str) -> bool {
    let head: String = raw.trim_start().chars().take(200).collect::<String>().to_lowercase();
    head.starts_with("<!doctype html") || head.starts_with("<html") || head.starts_with("<body")
}

/// Headings with the text below them: Markdown's `#`, or those of HTML.
fn sections(raw: &str, plain: &str, html: bool) -> Vec<(Option<String>, String)> {
    let marked = if html { mark_headings(raw) } else { plain.to_owned() };
    let mut sections: Vec<(Option<String>, String)> = Vec::new();
    for line in marked.lines() {
        let hashes = line.trim_start().chars().take_while(|c| *c == '#').count();
        let rest = line.trim_start().trim_start_matches('#');
        if (1..=6).contains(&hashes) && rest.starts_with(' ') {
            sections
                .push((Some(rest.trim().trim_end_matches('#').trim().to_owned()), String::new()));
        } else if let Some((_, text)) = sections.last_mut() {
            text.push_str(line);
            text.push('\n');
        } else if !line.trim().is_empty() {
            sections.push((None, format!("{line}\n")));
        }
    }
    for (_, text) in &mut sections {
        *text = text.trim().to_owned();
    }
    sections
}

/// HTML without its markup, but with `# ` before headings.
fn mark_headings(raw: &str) -> String {
    walk(raw, |tag| {
        let level = tag.strip_prefix('h').and_then(|level| level.parse::<usize>().ok());
        level
            .filter(|level| (1..=6).contains(level))
            .map(|level| format!("\n{} ", "#".repeat(level)))
    })
}

/// The text of HTML or of a fragment of it; other text comes out as it is, but for its entities.
pub(super) fn strip_markup(raw: &str) -> String {
    if !raw.contains(['<', '&']) {
        return raw.trim().to_owned();
    }
    walk(raw, |_| None)
}

/// Leaves the markup out; `open` says what stands for an opening tag.
fn walk(raw: &str, open: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((tag, closing, after)) = tag(rest) else {
            // A bare sign, as in "a < b".
            text.push('<');
            rest = &rest[1..];
            continue;
        };
        rest = after;
        if !closing && HIDDEN.contains(&tag.as_str()) {
            rest = after_closing(rest, &tag);
        } else if BLOCKS.contains(&tag.as_str()) {
            let mark = if closing { None } else { open(&tag) };
            text.push_str(mark.as_deref().unwrap_or("\n"));
        }
    }
    text.push_str(rest);
    tidy(&entities(&text))
}

/// The name of the tag at the start of `text`, whether it closes, and what follows it.
fn tag(text: &str) -> Option<(String, bool, &str)> {
    if let Some(comment) = text.strip_prefix("<!--") {
        let end = comment.find("-->").map_or(comment.len(), |at| at + 3);
        return Some((String::new(), false, &comment[end..]));
    }
    let inside = &text[1..];
    let begins = inside.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
    let end = inside.bytes().take(TAG_BYTES_MAX).position(|b| b == b'>').filter(|_| begins)?;
    let (body, after) = (&inside[..end], &inside[end + 1..]);
    let closing = body.starts_with('/');
    let name: String = body
        .trim_start_matches('/')
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    Some((name, closing, after))
}

/// What stands behind the closing tag; nothing, when it is not closed.
fn after_closing<'a>(text: &'a str, tag: &str) -> &'a str {
    let wanted = format!("</{tag}");
    let at = text.char_indices().map(|(at, _)| at).find(|at| {
        let head = text.get(*at..at + wanted.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(&wanted))
    });
    let Some(at) = at else { return "" };
    text[at..].find('>').map_or("", |end| &text[at + end + 1..])
}

fn entities(text: &str) -> String {
    let pairs = [
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        // Last, or `&amp;lt;` would be read twice.
        ("&amp;", "&"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

/// No blanks at the ends of lines, no more than one blank line.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut blank = 0;
    for line in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")) {
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank < 2 {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    fn document(text: &str) -> Value {
        let data = run(&task("document_reader", vec![AgentInput::text(text)], &[])).unwrap();
        data["documents"][0].clone()
    }

    #[test]
    fn markdown_has_sections() {
        let document =
            document("Before.\n# Title\nText one. Text two.\n\n## Part ##\nMore text.\n#tag");
        assert_eq!((&document["title"], &document["format"]), (&json!("Title"), &json!("text")));
        assert_eq!(
            document["sections"][0],
            json!({"heading": null, "words": 1, "text": "Before."})
        );
        assert_eq!(document["sections"][2]["heading"], "Part");
        assert_eq!(document["sections"][2]["text"], "More text.\n#tag");
    }

    #[test]
    fn html_is_stripped() {
        let document = document(
            "<!DOCTYPE html><head><title>x</title></head><body><h1>A &amp; B</h1><script>if (a<b) \
             {}</script><p>One <b>two</b>.<br>3 &lt; 4 and 5 < 6<!-- not > this --></p><h2>C</h2>D",
        );
        assert_eq!(document["text"], "A & B\n\nOne two.\n3 < 4 and 5 < 6\n\nC\nD");
        assert_eq!((&document["title"], &document["format"]), (&json!("A & B"), &json!("html")));
        assert_eq!(document["sections"][1], json!({"heading": "C", "words": 1, "text": "D"}));
    }

    #[test]
    fn odd_markup_does_no_harm() {
        for text in ["<", "<p", "</", "a <!-- b", "<script>", "<html><style>x", "&", "<é>"] {
            let _ = strip_markup(text);
        }
        assert_eq!(strip_markup("a <b>c</b> &amp;lt;"), "a c &lt;");
        assert_eq!(strip_markup("<SCRIPT>é</Script >x"), "x");
    }

    #[test]
    fn objects_with_text_are_documents_and_others_are_refused() {
        let inputs = vec![AgentInput::json(json!([{"title": "T", "text": "One."}, "Two."]))];
        let data = run(&task("document_reader", inputs, &[])).unwrap();
        assert_eq!(data["document_count"], 2);
        assert_eq!(data["documents"][0]["title"], "T");
        for inputs in [Vec::new(), vec![AgentInput::json(json!({"a": 1}))]] {
            assert!(run(&task("document_reader", inputs, &[])).is_err());
        }
    }
}

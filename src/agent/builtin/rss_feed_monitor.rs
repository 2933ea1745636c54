//! `rss_feed_monitor`: the items of RSS and Atom feeds that the inputs carry.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::count;
use super::document_reader::strip_markup;
use super::pieces::{Body, Piece, pieces};

/// The most items of one task.
const ITEMS_MAX: usize = 1000;
const ITEMS: usize = 50;
/// XML nodes of one feed.
const NODES_MAX: u32 = 500_000;

/// Feeds and their newest items; parameters `max_items` (50) and `keywords`, separated by commas or as a
/// JSON list: only items that have one of them.
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    let max = count(task, "max_items", ITEMS, ITEMS_MAX)?;
    let keywords = task.parameters.get("keywords").map(|said| words(said)).unwrap_or_default();
    let (mut feeds, mut items) = (Vec::new(), Vec::new());
    for piece in pieces(task)? {
        for text in feed_texts(&piece)? {
            let (feed, of_feed) = read(&text).map_err(|why| {
                AgentFailure::invalid(format!("input {}: no feed: {why}", piece.name))
            })?;
            feeds.push(feed);
            items.extend(of_feed);
        }
    }
    if feeds.is_empty() {
        return Err(AgentFailure::invalid(
            "no feed in the inputs: give the text of an RSS or Atom feed",
        ));
    }
    let found = items.len();
    items.retain(|item| matches_any(item, &keywords));
    items.truncate(max);
    Ok(json!({ "feeds": feeds, "item_count": items.len(), "items": items, "found_count": found }))
}

fn words(said: &str) -> Vec<String> {
    let listed = serde_json::from_str::<Vec<String>>(said);
    let listed = listed.unwrap_or_else(|_| said.split(',').map(str::to_owned).collect());
    let words = listed.iter().map(|word| word.trim().to_lowercase());
    words.filter(|word| !word.is_empty()).collect()
}

/// A text is a feed; an object may have several under `feeds` or one under `feed`.
fn feed_texts(piece: &Piece) -> Result<Vec<String>, AgentFailure> {
    let value = match &piece.body {
        Body::Text(text) => return Ok(vec![text.clone()]),
        Body::Media(_) => return Err(piece.needs_model("rss_feed_monitor")),
        Body::Value(value) => value,
    };
    let list = value["feeds"].as_array().or_else(|| value.as_array());
    let texts: Option<Vec<String>> = match list {
        Some(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        None => value["feed"].as_str().map(|text| vec![text.to_owned()]),
    };
    texts.ok_or_else(|| {
        let message =
            format!("input {} must be the text of a feed, or {{\"feeds\": [texts]}}", piece.name);
        AgentFailure::invalid(message)
    })
}

fn matches_any(item: &Value, keywords: &[String]) -> bool {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_lowercase();
    let (title, summary) = (text("title"), text("summary"));
    keywords.is_empty()
        || keywords.iter().any(|word| title.contains(word) || summary.contains(word))
}

/// A feed and its items, in the feed's order.
fn read(text: &str) -> Result<(Value, Vec<Value>), String> {
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(text.trim_start(), options).map_err(|e| e.to_string())?;
    let root = document.root_element();
    let (head, name) = match root.tag_name().name() {
        "feed" => (root, "entry"),
        "rss" | "RDF" => (child(root, "channel").ok_or("it has no channel")?, "item"),
        other => return Err(format!("`{other}` is neither rss nor feed")),
    };
    // RSS 1.0 has its items beside the channel.
    let parent = if root.tag_name().name() == "RDF" { root } else { head };
    let feed_title = text_of(head, &["title"]);
    let entries = parent.children().filter(|node| node.tag_name().name() == name);
    let items: Vec<Value> = entries.map(|entry| item(entry, &feed_title)).collect();
    let feed = json!({ "title": feed_title, "link": link(head), "item_count": items.len() });
    Ok((feed, items))
}

fn item(entry: Node<'_, '_>, feed_title: &str) -> Value {
    let enclosure = child(entry, "enclosure").and_then(|node| node.attribute("url"));
    let long = text_of(entry, &["encoded", "content", "description", "summary"]);
    json!({
        "feed": feed_title,
        "title": strip_markup(&text_of(entry, &["title"])),
        "link": link(entry),
        "guid": text_of(entry, &["guid", "id"]),
        "published": text_of(entry, &["pubDate", "published", "updated", "date"]),
        "summary": strip_markup(&text_of(entry, &["description", "summary", "encoded", "content"])),
        "content": strip_markup(&long),
        "transcript": strip_markup(&text_of(entry, &["transcript"])),
        "audio_url": enclosure,
        "duration": text_of(entry, &["duration"]),
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}

/// The text of the first of these children that has any; empty when none has.
fn text_of(node: Node<'_, '_>, names: &[&str]) -> String {
    let texts = names.iter().filter_map(|name| child(node, name)).map(|child| {
        child.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect::<String>()
    });
    let text = texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty());
    text.unwrap_or_default()
}

/// RSS has the link as text, Atom as an attribute.
fn link(node: Node<'_, '_>) -> String {
    let links = || node.children().filter(|child| child.tag_name().name() == "link");
    let main = links().find(|link| link.attribute("rel").is_none_or(|rel| rel == "alternate"));
    let href = main.and_then(|link| link.attribute("href").map(str::to_owned));
    href.unwrap_or_else(|| text_of(node, &["link"]))
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    const RSS: &str = r#"<?xml version="1.0"?>
        <rss version="2.0" xmlns:itunes="i" xmlns:content="c"><channel>
        <title>Grid Talk</title><link>http://grid.example/</link>
        <item><title>Batteries &amp; Bolts</title><link>http://grid.example/1</link><guid>1</guid>
          <pubDate>Mon, 06 Jan 2025 10:00:00 GMT</pubDate><itunes:duration>31:05</itunes:duration>
          <description><![CDATA[<p>Prices <b>fell</b>.</p>]]></description>
          <enclosure url="http://grid.example/1.mp3" type="audio/mpeg"/></item>
        <item><title>Wind</title><description>Offshore.</description></item>
        </channel></rss>"#;
    const ATOM: &str = r#"<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title>
        <link rel="self" href="http://n/self"/><link href="http://n/"/>
        <entry><title>One</title><id>urn:1</id><link href="http://n/1"/><updated>2025-01-07</updated>
        <summary>Short.</summary></entry></feed>"#;

    fn monitor(
        inputs: Vec<AgentInput>,
        parameters: &[(&str, &str)],
    ) -> Result<Value, AgentFailure> {
        run(&task("rss_feed_monitor", inputs, parameters))
    }

    #[test]
    fn rss_and_atom_items_are_read() {
        let data =
            monitor(vec![AgentInput::text(RSS), AgentInput::json(json!({"feeds": [ATOM]}))], &[]);
        let data = data.unwrap();
        assert_eq!(data["item_count"], 3);
        assert_eq!(
            data["feeds"][0],
            json!({"title": "Grid Talk", "link": "http://grid.example/", "item_count": 2})
        );
        assert_eq!(data["feeds"][1]["link"], "http://n/");
        let first = &data["items"][0];
        assert_eq!(
            (&first["title"], &first["summary"]),
            (&json!("Batteries & Bolts"), &json!("Prices fell."))
        );
        assert_eq!(
            (&first["audio_url"], &first["duration"]),
            (&json!("http://grid.example/1.mp3"), &json!("31:05"))
        );
        let last = &data["items"][2];
        assert_eq!((&last["guid"], &last["published"]), (&json!("urn:1"), &json!("2025-01-07")));
    }

    #[test]
    fn items_are_chosen() {
        let data =
            monitor(vec![AgentInput::text(RSS)], &[("keywords", "offshore, tides")]).unwrap();
        assert_eq!((&data["item_count"], &data["found_count"]), (&json!(1), &json!(2)));
        assert_eq!(data["items"][0]["title"], "Wind");
        let listed =
            monitor(vec![AgentInput::text(RSS)], &[("keywords", r#"["offshore","tides"]"#)]);
        assert_eq!(listed.unwrap(), data);
        let data = monitor(vec![AgentInput::text(RSS)], &[("max_items", "1")]).unwrap();
        assert_eq!(data["item_count"], 1);
    }

    #[test]
    fn what_is_no_feed_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY a \"aaaa\">]><rss><channel>&a;</channel></rss>";
        for text in ["plain", "<html/>", "<rss></rss>", "<rss><channel>", bomb] {
            assert!(monitor(vec![AgentInput::text(text)], &[]).is_err(), "{text}");
        }
        assert!(monitor(vec![AgentInput::json(json!({"feeds": [1]}))], &[]).is_err());
        assert!(monitor(Vec::new(), &[]).is_err());
    }

    #[test]
    fn deep_feeds_do_no_harm() {
        let deep = format!(
            "<rss><channel>{}{}</channel></rss>",
            "<a>".repeat(100_000),
            "</a>".repeat(100_000)
        );
        // Whether it is taken or refused is the parser's business; that it comes back is ours.
        let _ = monitor(vec![AgentInput::text(deep)], &[]);
    }
}

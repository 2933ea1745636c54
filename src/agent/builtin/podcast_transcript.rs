//! `podcast_transcript`: what was said, out of transcripts that the inputs carry: plain text, SubRip,
//! WebVTT, or the episodes of a feed. Sound needs a model, which this is not.

use serde_json::{Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::document_reader;
use super::pieces::{Body, Piece, pieces};
use super::text;

/// The most segments of one transcript that are given; the text has all.
const SEGMENTS_MAX: usize = 2000;
/// A longer "name" before a colon is part of a sentence.
const SPEAKER_CHARS_MAX: usize = 40;

/// One transcript per episode.
pub(super) fn run(task: &AgentTask) -> Result<Value, AgentFailure> {
    let mut transcripts = Vec::new();
    for piece in pieces(task)? {
        if piece.is("feed_items") {
            transcripts.extend(episodes(&piece)?);
            continue;
        }
        let texts = document_reader::texts(&piece, "podcast_transcript")?;
        transcripts.extend(texts.iter().map(|(title, raw)| transcript(title, raw, "transcript")));
    }
    if transcripts.is_empty() {
        return Err(AgentFailure::invalid("no transcript in the inputs: give its text"));
    }
    Ok(json!({ "transcript_count": transcripts.len(), "transcripts": transcripts }))
}

/// Episodes of a feed: their transcript, or else their notes; those with neither need a model.
fn episodes(piece: &Piece) -> Result<Vec<Value>, AgentFailure> {
    let mut found = Vec::new();
    for item in piece.array("items") {
        let title = item["title"].as_str().unwrap_or("episode");
        let text = |key: &str| item[key].as_str().filter(|text| !text.is_empty());
        let mut episode = match (text("transcript"), text("content").or_else(|| text("summary"))) {
            (Some(raw), _) => transcript(title, raw, "transcript"),
            (None, Some(notes)) => transcript(title, notes, "show_notes"),
            (None, None) => continue,
        };
        for key in ["link", "published", "audio_url", "feed"] {
            episode[key] = item[key].clone();
        }
        found.push(episode);
    }
    if found.is_empty() && !piece.array("items").is_empty() {
        return Err(AgentFailure::invalid(format!(
            "the episodes of {} have neither transcripts nor notes: transcribing sound needs a model, \
             run `quorate agent --agent-type podcast_transcript` with --exec or --model-url",
            piece.name
        )));
    }
    debug_assert!(matches!(piece.body, Body::Value(_)), "only values have items");
    Ok(found)
}

/// A part of a transcript.
struct Segment {
    /// Seconds from the beginning.
    start: Option<f64>,
    end: Option<f64>,
    speaker: Option<String>,
    text: String,
}

fn transcript(title: &str, raw: &str, source: &str) -> Value {
    let timed = timed(raw);
    let format = if timed.is_some() { "timed" } else { "plain" };
    let segments = timed.unwrap_or_else(|| plain(raw));
    let mut speakers: Vec<&str> = Vec::new();
    for speaker in segments.iter().filter_map(|segment| segment.speaker.as_deref()) {
        if !speakers.contains(&speaker) && speakers.len() < 100 {
            speakers.push(speaker);
        }
    }
    let said: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
    let said = said.join(" ");
    let duration = segments.iter().filter_map(|segment| segment.end).reduce(f64::max);
    let given: Vec<Value> = segments.iter().take(SEGMENTS_MAX).map(Segment::to_json).collect();
    json!({
        "title": title,
        "source": source,
        "format": format,
        "word_count": text::word_count(&said),
        "duration_s": duration,
        "speakers": speakers,
        "segment_count": segments.len(),
        "segments": if format == "timed" || !speakers.is_empty() { given } else { Vec::new() },
        "text": said,
    })
}

impl Segment {
    fn to_json(&self) -> Value {
        json!({ "start": self.start, "end": self.end, "speaker": self.speaker, "text": self.text })
    }
}

/// The cues of SubRip and WebVTT; `None` when there is none.
fn timed(raw: &str) -> Option<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut inside = false;
    for line in raw.lines() {
        let line = line.trim();
        if let Some((start, end)) = line.split_once("-->").and_then(|(start, end)| {
            // WebVTT may have settings behind the time.
            Some((time(start)?, time(end.split_whitespace().next()?)?))
        }) {
            segments.push(Segment {
                start: Some(start),
                end: Some(end),
                speaker: None,
                text: String::new(),
            });
            inside = true;
        } else if line.is_empty() {
            inside = false;
        } else if inside && let Some(segment) = segments.last_mut() {
            let (speaker, text) = voice(line);
            segment.speaker = segment.speaker.take().or(speaker);
            if !segment.text.is_empty() {
                segment.text.push(' ');
            }
            segment.text.push_str(&text);
        }
    }
    (!segments.is_empty()).then_some(segments)
}

/// `00:01:02,500`, `01:02.5`: seconds.
fn time(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let parts: Vec<&str> = text.trim().split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    for part in parts {
        let number: f64 = part.replace(',', ".").parse().ok()?;
        seconds = seconds * 60.0 + number;
    }
    Some(seconds).filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

/// WebVTT's `<v Anna>text`, or `Anna: text`.
fn voice(line: &str) -> (Option<String>, String) {
    if let Some((name, text)) = line.strip_prefix("<v ").and_then(|rest| rest.split_once('>')) {
        return (Some(name.trim().to_owned()), document_reader::strip_markup(text));
    }
    let named = line.split_once(": ").filter(|(name, _)| {
        let upper = name.chars().next().is_some_and(char::is_uppercase);
        let words = name.split_whitespace().count();
        upper && words <= 3 && name.chars().count() <= SPEAKER_CHARS_MAX
    });
    match named {
        Some((name, text)) => (Some(name.to_owned()), document_reader::strip_markup(text)),
        None => (None, document_reader::strip_markup(line)),
    }
}

/// Paragraphs; one without a speaker goes on with what was said before.
fn plain(raw: &str) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for line in raw.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (speaker, text) = voice(line);
        match segments.last_mut() {
            Some(last) if speaker.is_none() && last.speaker.is_some() => {
                last.text.push(' ');
                last.text.push_str(&text);
            }
            Some(_) | None => segments.push(Segment { start: None, end: None, speaker, text }),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::super::super::input::{AgentInput, InputData, InputKind};
    use super::super::task;
    use super::*;

    fn read(inputs: Vec<AgentInput>) -> Result<Value, AgentFailure> {
        run(&task("podcast_transcript", inputs, &[]))
    }

    fn first(raw: &str) -> Value {
        read(vec![AgentInput::text(raw)]).unwrap()["transcripts"][0].clone()
    }

    #[test]
    fn subtitles_have_times_and_voices() {
        let vtt = "WEBVTT\n\n1\n00:01.000 --> 00:02.500 align:start\n<v Anna>Hello\nthere.\n\n\
                   00:03.000 --> 01:00:04.000\nBen: Hi.\n";
        let transcript = first(vtt);
        assert_eq!(transcript["text"], "Hello there. Hi.");
        assert_eq!(transcript["speakers"], json!(["Anna", "Ben"]));
        assert_eq!(transcript["duration_s"], 3604.0);
        assert_eq!(transcript["segments"][0]["end"], 2.5);
        let srt = "1\r\n00:00:00,500 --> 00:00:02,000\r\nOne.\r\n\r\n2\r\n00:00:02,000 --> 00:00:03,000\r\nTwo.\r\n";
        assert_eq!(
            (&first(srt)["text"], &first(srt)["format"]),
            (&json!("One. Two."), &json!("timed"))
        );
    }

    #[test]
    fn plain_transcripts_have_speakers() {
        let transcript =
            first("HOST: Welcome.\nMore.\n\nDr. Ada Lopez: Thanks. Note this: it works.");
        assert_eq!(transcript["speakers"], json!(["HOST", "Dr. Ada Lopez"]));
        assert_eq!(transcript["segments"][0]["text"], "Welcome. More.");
        assert_eq!(first("Just prose.")["speakers"], json!([]));
    }

    #[test]
    fn episodes_of_a_feed_are_taken_and_sound_is_refused() {
        let items = json!({"items": [
            {"title": "A", "transcript": "Said.", "summary": "s", "audio_url": "u"},
            {"title": "B", "summary": "Notes."}, {"title": "C"},
        ]});
        let data = read(vec![AgentInput::json(items)]).unwrap();
        assert_eq!(data["transcript_count"], 2);
        assert_eq!(
            (&data["transcripts"][0]["audio_url"], &data["transcripts"][1]["source"]),
            (&json!("u"), &json!("show_notes"))
        );
        assert!(read(vec![AgentInput::json(json!({"items": [{"title": "C"}]}))]).is_err());
        let sound = AgentInput {
            kind: InputKind::Audio,
            data: InputData::Bytes(bytes::Bytes::from_static(b"ID3")),
            ..AgentInput::default()
        };
        assert!(read(vec![sound]).unwrap_err().message.contains("--model-url"));
    }
}

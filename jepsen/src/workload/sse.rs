//! Reads server-sent events as bytes come in.

use serde_json::Value;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: Value,
}

/// Holds what is not yet whole.
#[derive(Debug, Default)]
pub(super) struct Parser {
    rest: Vec<u8>,
}

impl Parser {
    /// Takes more bytes; gives the events that are whole now. Comments and `retry` are left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            events.extend(parse(&String::from_utf8_lossy(&block)));
        }
        events
    }
}

fn parse(block: &str) -> Option<Sent> {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|text| text.trim_start().to_owned())
    };
    let data = serde_json::from_str(&field("data")?).ok()?;
    Some(Sent { id: field("id")?, name: field("event")?, data })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_however_the_bytes_are_cut() {
        let text = b"retry: 1000\n: connected\n\nid: 7-1\nevent: a\ndata: {\"x\":1}\n\nid: 8-0\nevent: b\ndata: {}\n\nid: 9";
        for size in [1, 3, 1000] {
            let mut parser = Parser::default();
            let events: Vec<Sent> = text.chunks(size).flat_map(|part| parser.feed(part)).collect();
            let expected = [("7-1", "a", json!({"x": 1})), ("8-0", "b", json!({}))];
            let expected =
                expected.map(|(id, name, data)| Sent { id: id.into(), name: name.into(), data });
            assert_eq!(events, expected);
        }
    }
}

//! Just enough of HTTP/1.1's framing for a load generator: heads, lengths, chunks.
//!
//! A general client spends several microseconds per request on header maps, pools and body
//! streams. Here a head is searched for the three facts that matter and nothing is allocated,
//! because the generator shares its processors with the members that it measures.

use std::io;

/// A longer head is refused.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A longer body is refused.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(usize),
    /// Chunks, the last one empty.
    Chunked,
}

/// What a message's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where the body starts.
    pub bytes: usize,
    /// How long the body is.
    pub framing: Framing,
    /// The sender will close the connection behind this message.
    pub close: bool,
}

/// A message that does not keep the protocol.
fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads the head at the start of `bytes`; `None` when it is not complete yet.
///
/// # Errors
/// `InvalidData` when it is too long or names an impossible length.
pub fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Err(invalid("the head is too long"))
        } else {
            Ok(None)
        };
    };
    let mut head = Head { bytes: end + 4, framing: Framing::Length(0), close: false };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    head.close = first.starts_with(b"HTTP/1.0") || first.trim_ascii_end().ends_with(b"HTTP/1.0");
    for line in lines {
        // Only three names matter; most lines are told apart by their first letter.
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    head.framing = Framing::Length(parse_length(value)?);
                } else if let Some(value) = value_of(line, b"connection:") {
                    head.close |= value.eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value_of(line, b"transfer-encoding:") {
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(invalid("an unknown transfer encoding"));
                    }
                    head.framing = Framing::Chunked;
                }
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

fn parse_length(value: &[u8]) -> io::Result<usize> {
    let length = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
    let length = length.ok_or_else(|| invalid("the content length is no number"))?;
    if length > BODY_BYTES_MAX {
        return Err(invalid("the body is too long"));
    }
    Ok(length)
}

/// The trimmed value of a header line, when its name is `name` (lower case, with colon).
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// The status code of a response.
///
/// # Errors
/// `InvalidData` when the bytes are no response.
pub fn status_of(head: &[u8]) -> io::Result<u16> {
    let digits = head.get(9..12).filter(|_| head.starts_with(b"HTTP/1."));
    let status = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| invalid("no HTTP/1.1 response"))
}

/// Where `needle` first occurs.
#[must_use]
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(offset) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + offset;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Decodes a chunked body as it arrives.
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    /// Bytes left of this chunk.
    Data(usize),
    /// The line end behind a chunk.
    DataEnd,
    Trailer,
    Done,
}

impl Chunks {
    /// Takes what it can from `input`, appends the payload to `out`, and returns how many bytes it
    /// took. Offer the rest again with what arrives next.
    ///
    /// # Errors
    /// `InvalidData` when a size is no number or a chunk does not end where it should.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if let ChunkState::Data(left) = self.state {
                let taken = left.min(rest.len());
                out.extend_from_slice(&rest[..taken]);
                at += taken;
                if taken < left {
                    self.state = ChunkState::Data(left - taken);
                    return Ok(at);
                }
                self.state = ChunkState::DataEnd;
                continue;
            }
            if self.state == ChunkState::Done {
                return Ok(at);
            }
            let Some(end) = find(rest, b"\r\n") else { return Ok(at) };
            self.state = self.state.after_line(&rest[..end])?;
            at += end + 2;
        }
    }

    /// Whether the last chunk and its trailer were read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }
}

impl ChunkState {
    fn after_line(self, line: &[u8]) -> io::Result<Self> {
        match self {
            Self::Size => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let text = std::str::from_utf8(digits.trim_ascii()).unwrap_or_default();
                let size = usize::from_str_radix(text, 16);
                match size.map_err(|_| invalid("a chunk size is no number"))? {
                    0 => Ok(Self::Trailer),
                    size if size > BODY_BYTES_MAX => Err(invalid("a chunk is too long")),
                    size => Ok(Self::Data(size)),
                }
            }
            Self::DataEnd if line.is_empty() => Ok(Self::Size),
            Self::Data(_) | Self::DataEnd => Err(invalid("a chunk is longer than its size")),
            Self::Trailer if line.is_empty() => Ok(Self::Done),
            Self::Trailer => Ok(Self::Trailer),
            Self::Done => Ok(Self::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_in_pieces_is_waited_for() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\nhello";
        for end in 0..text.len() - 5 {
            assert_eq!(parse_head(&text[..end]).unwrap(), None, "{end} bytes");
        }
        let head = parse_head(text).unwrap().unwrap();
        let expected = Head { bytes: text.len() - 5, framing: Framing::Length(12), close: false };
        assert_eq!(head, expected);
        assert_eq!(status_of(text).unwrap(), 200);
    }

    #[test]
    fn names_and_words_are_compared_without_case() {
        let text = b"HTTP/1.1 503 no\r\nTRANSFER-encoding: Chunked\r\nconnection: Close\r\n\r\n";
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!((head.framing, head.close), (Framing::Chunked, true));
        assert_eq!(status_of(text).unwrap(), 503);
    }

    #[test]
    fn an_old_peer_closes() {
        assert!(parse_head(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap().close);
        assert!(parse_head(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().close);
        assert!(!parse_head(b"GET / HTTP/1.1\r\n\r\n").unwrap().unwrap().close);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n").is_err());
        assert!(parse_head(&vec![b'a'; HEAD_BYTES_MAX + 1]).is_err());
        assert!(status_of(b"SSH-2.0-OpenSSH_9.9").is_err());
    }

    #[test]
    fn chunks_are_decoded_however_they_are_cut() {
        let wire = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: z\r\n\r\nnext";
        for step in 1..=wire.len() {
            let (mut chunks, mut out) = (Chunks::default(), Vec::new());
            let (mut seen, mut taken) = (0, 0);
            while !chunks.is_done() {
                seen = (seen + step).min(wire.len());
                taken += chunks.feed(&wire[taken..seen], &mut out).unwrap();
            }
            assert_eq!(out, b"hello, world", "in steps of {step}");
            assert_eq!(&wire[taken..], b"next");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        assert!(Chunks::default().feed(b"zz\r\n", &mut Vec::new()).is_err());
        assert!(Chunks::default().feed(b"1\r\nab\r\n", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_needle_is_found_behind_false_starts() {
        assert_eq!(find(b"\r\n\r\r\n\r\n", b"\r\n\r\n"), Some(3));
        assert_eq!(find(b"abc", b"d"), None);
        assert_eq!(find(b"abc", b""), None);
    }
}

//! One kept-alive HTTP/1.1 connection, as cheap as it gets: prepared bytes out, one reply back.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::framing::{Chunks, Framing, Head, parse_head, status_of};

/// A member that does not take a connection within this time counts as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 16 * 1024;
/// A buffer that grew beyond this for one large body is given back.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// Where a member listens, from its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `host:port`, for connecting and for the Host header.
    pub authority: String,
    /// What stands before every path; usually nothing.
    pub prefix: String,
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Anything but `http`.
    #[error("{0}: only http:// URLs are supported; measure TLS through a proxy")]
    Scheme(String),
    /// No host.
    #[error("{0}: the URL names no host")]
    NoHost(String),
    /// Not a port.
    #[error("{0}: the port must be a number up to 65535")]
    Port(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Self, TargetError> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(TargetError::Scheme(url.to_owned())),
            None => url,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // The colons of an IPv6 address stand inside brackets.
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let host = &authority[..port_at.unwrap_or(authority.len())];
        if host.is_empty() {
            return Err(TargetError::NoHost(url.to_owned()));
        }
        let authority = match port_at {
            Some(at) if authority[at + 1..].parse::<u16>().is_ok() => authority.to_owned(),
            Some(_) => return Err(TargetError::Port(url.to_owned())),
            None => format!("{authority}:80"),
        };
        Ok(Self { authority, prefix: path.trim_end_matches('/').to_owned() })
    }
}

/// Bytes from the other side, cut into messages.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Where the current message starts.
    start: usize,
    /// Where the message after the current one starts.
    next: usize,
    /// The payload of a chunked body.
    unchunked: Vec<u8>,
}

/// A complete message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Request or status line and headers.
    pub head: &'a [u8],
    /// The payload.
    pub body: &'a [u8],
    /// The sender closes the connection behind it.
    pub close: bool,
}

impl Inbox {
    /// An empty one.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { buffer: Vec::with_capacity(READ_BYTES), start: 0, next: 0, unchunked: Vec::new() }
    }

    /// The next message; `None` when the other side closed between two messages.
    ///
    /// # Errors
    /// When the connection breaks, or what arrives is not HTTP/1.1.
    pub(super) async fn message(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Message<'_>>> {
        self.skip_taken();
        let Some(head) = self.head(stream).await? else { return Ok(None) };
        let body_at = self.start + head.bytes;
        let body = match head.framing {
            Framing::Length(length) => {
                while self.buffer.len() < body_at + length {
                    self.more(stream).await?;
                }
                self.next = body_at + length;
                &self.buffer[body_at..self.next]
            }
            Framing::Chunked => {
                self.unchunked.clear();
                let (mut chunks, mut taken) = (Chunks::default(), body_at);
                loop {
                    taken += chunks.feed(&self.buffer[taken..], &mut self.unchunked)?;
                    if chunks.is_done() {
                        break;
                    }
                    self.more(stream).await?;
                }
                self.next = taken;
                &self.unchunked[..]
            }
        };
        let head_bytes = &self.buffer[self.start..body_at];
        Ok(Some(Message { head: head_bytes, body, close: head.close }))
    }

    /// Reads a head and leaves its body for [`Inbox::piece`].
    ///
    /// # Errors
    /// Like [`Inbox::message`].
    pub(super) async fn stream_head(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<Option<(u16, Head)>> {
        self.skip_taken();
        let Some(head) = self.head(stream).await? else { return Ok(None) };
        let status = status_of(&self.buffer[self.start..])?;
        self.next = self.start + head.bytes;
        Ok(Some((status, head)))
    }

    /// Appends what of an endless chunked body is here, waiting for more when nothing is.
    ///
    /// # Errors
    /// Like [`Inbox::message`].
    pub(super) async fn piece(
        &mut self,
        stream: &mut TcpStream,
        chunks: &mut Chunks,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let before = out.len();
        loop {
            self.next += chunks.feed(&self.buffer[self.next..], out)?;
            if out.len() > before || chunks.is_done() {
                self.skip_taken();
                return Ok(());
            }
            self.more(stream).await?;
        }
    }

    fn skip_taken(&mut self) {
        if self.next == self.buffer.len() {
            self.buffer.clear();
            if self.buffer.capacity() > BUFFER_KEPT_BYTES {
                self.buffer = Vec::with_capacity(READ_BYTES);
            }
        } else {
            self.buffer.drain(..self.next);
        }
        (self.start, self.next) = (0, 0);
    }

    async fn head(&mut self, stream: &mut TcpStream) -> io::Result<Option<Head>> {
        loop {
            if let Some(head) = parse_head(&self.buffer[self.start..])? {
                return Ok(Some(head));
            }
            if self.buffer.is_empty() {
                if stream.read_buf(&mut self.buffer).await? == 0 {
                    return Ok(None);
                }
            } else {
                self.more(stream).await?;
            }
        }
    }

    async fn more(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A reply, as far as anybody looks at it.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    /// HTTP's status code.
    pub status: u16,
    /// The payload.
    pub body: &'a [u8],
}

/// A connection to one member.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    closed: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or not within two seconds.
    pub(super) async fn open(target: &Target) -> io::Result<Self> {
        let connect = TcpStream::connect(&target.authority);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Inbox::new(), closed: false })
    }

    /// Sends a complete request and waits for its reply. Cancelling it leaves the connection
    /// useless: whoever puts a timeout around it drops the connection with it.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is not HTTP/1.1.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply<'_>> {
        self.stream.write_all(request).await?;
        let message = self.inbox.message(&mut self.stream).await?;
        let message = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.closed = message.close;
        Ok(Reply { status: status_of(message.head)?, body: message.body })
    }

    /// As [`Self::exchange`], and when the first byte of the reply was there.
    ///
    /// # Errors
    /// Like [`Self::exchange`].
    pub(super) async fn exchange_timed(
        &mut self,
        request: &[u8],
    ) -> io::Result<(Instant, Reply<'_>)> {
        self.stream.write_all(request).await?;
        self.stream.peek(&mut [0]).await?;
        let first = Instant::now();
        let message = self.inbox.message(&mut self.stream).await?;
        let message = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.closed = message.close;
        Ok((first, Reply { status: status_of(message.head)?, body: message.body }))
    }

    /// Whether the other side closed the connection while nobody used it, as a member that dies
    /// does. Costs no system call as long as nothing has arrived.
    #[must_use]
    pub(super) fn is_dead(&self) -> bool {
        let idle = self.stream.try_read(&mut [0]);
        // Bytes that nobody asked for are no better than an end.
        !matches!(idle, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the other side said that it closes behind the last reply.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends a request whose answer is an endless stream, and returns its status and its pieces.
    ///
    /// # Errors
    /// Like [`Connection::exchange`].
    pub(super) async fn subscribe(mut self, request: &[u8]) -> io::Result<(u16, Pieces)> {
        self.stream.write_all(request).await?;
        let head = self.inbox.stream_head(&mut self.stream).await?;
        let (status, _) = head.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((status, Pieces { connection: self, chunks: Chunks::default() }))
    }
}

/// An endless chunked body.
#[derive(Debug)]
pub(super) struct Pieces {
    connection: Connection,
    chunks: Chunks,
}

impl Pieces {
    /// Appends what arrives next.
    ///
    /// # Errors
    /// When the connection breaks or the stream ends.
    pub(super) async fn append_to(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.chunks.is_done() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Connection { stream, inbox, .. } = &mut self.connection;
        inbox.piece(stream, &mut self.chunks, out).await
    }
}

/// Builds a complete request. `headers` are whole lines with their line ends.
#[must_use]
pub(super) fn request_bytes(
    method: &str,
    target: &Target,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Vec<u8> {
    let Target { authority, prefix } = target;
    let mut bytes = format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {authority}\r\n{headers}");
    if !body.is_empty() || method == "POST" || method == "PUT" {
        let length = body.len();
        bytes.push_str("content-type: application/json\r\n");
        bytes.push_str(&format!("content-length: {length}\r\n"));
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_become_targets() {
        let target = |url: &str| url.parse::<Target>().map(|t| (t.authority, t.prefix));
        let is = |authority: &str, prefix: &str| Ok((authority.to_owned(), prefix.to_owned()));
        assert_eq!(target("http://127.0.0.1:9000"), is("127.0.0.1:9000", ""));
        assert_eq!(target("127.0.0.1:9000/"), is("127.0.0.1:9000", ""));
        assert_eq!(target("http://lb/fleet/"), is("lb:80", "/fleet"));
        assert_eq!(target("http://[::1]:9000"), is("[::1]:9000", ""));
        assert_eq!(target("http://[::1]"), is("[::1]:80", ""));
        assert!(matches!(target("https://a:1"), Err(TargetError::Scheme(_))));
        assert!(matches!(target("http://:1"), Err(TargetError::NoHost(_))));
        assert!(matches!(target("http://a:b"), Err(TargetError::Port(_))));
        assert!(matches!(target("http://a:70000"), Err(TargetError::Port(_))));
    }

    #[test]
    fn a_request_is_complete() {
        let target: Target = "http://a:1/p".parse().unwrap();
        let get = request_bytes("GET", &target, "/x", "k: v\r\n", b"");
        assert_eq!(get, b"GET /p/x HTTP/1.1\r\nhost: a:1\r\nk: v\r\n\r\n");
        let post = request_bytes("POST", &target, "/x", "", b"{}");
        let head = "POST /p/x HTTP/1.1\r\nhost: a:1\r\ncontent-type: application/json\r\n";
        assert_eq!(post, format!("{head}content-length: 2\r\n\r\n{{}}").into_bytes());
    }

    /// Listens, answers every complete request with the next of `replies`, byte for byte.
    async fn scripted(replies: Vec<&'static [u8]>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut inbox = Inbox::new();
            for reply in replies {
                inbox.message(&mut stream).await.unwrap().unwrap();
                for byte in reply {
                    stream.write_all(&[*byte]).await.unwrap();
                }
            }
        });
        target
    }

    #[tokio::test]
    async fn replies_of_both_framings_on_one_connection() {
        let target = scripted(vec![
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
            b"HTTP/1.1 404 no\r\ntransfer-encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n",
            b"HTTP/1.1 204 none\r\nconnection: close\r\n\r\n",
        ])
        .await;
        let mut connection = Connection::open(&target).await.unwrap();
        let request = request_bytes("POST", &target, "/", "", b"body");
        for (status, body, closed) in
            [(200, "first", false), (404, "second", false), (204, "", true)]
        {
            let reply = connection.exchange(&request).await.unwrap();
            assert_eq!((reply.status, reply.body), (status, body.as_bytes()));
            assert_eq!(connection.is_closed(), closed);
        }
        let error = connection.exchange(&request).await.unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        ));
    }

    #[tokio::test]
    async fn a_reply_cut_short_is_an_error() {
        let target = scripted(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort"]).await;
        let mut connection = Connection::open(&target).await.unwrap();
        let request = request_bytes("GET", &target, "/", "", b"");
        let error = connection.exchange(&request).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_stream_arrives_piece_by_piece() {
        let wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab\n\n\r\n2\r\ncd\r\n0\r\n\r\n";
        let target = scripted(vec![wire]).await;
        let connection = Connection::open(&target).await.unwrap();
        let request = request_bytes("GET", &target, "/", "", b"");
        let (status, mut pieces) = connection.subscribe(&request).await.unwrap();
        assert_eq!(status, 200);
        let mut out = Vec::new();
        while pieces.append_to(&mut out).await.is_ok() {}
        assert_eq!(out, b"ab\n\ncd");
    }
}

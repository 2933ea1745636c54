//! A mail server for tests, on loopback: takes letters, and refuses, puts off or forgets to answer as it
//! is told to. Whoever includes this file gives it a certificate, if it shall speak TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How the server begins.
#[derive(Clone)]
pub(crate) enum Manner {
    /// In clear, for good.
    Clear,
    /// In clear until it is asked for TLS.
    StartTls(TlsAcceptor),
    /// With TLS.
    Tls(TlsAcceptor),
}

/// What it does but taking letters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Who must come with which password.
    pub(crate) login: Option<(String, String)>,
    /// Recipients, with what they are refused by.
    pub(crate) refused: BTreeMap<String, String>,
    /// So many letters are put off before one is taken.
    pub(crate) put_off: usize,
    /// So many letters are taken without an answer.
    pub(crate) unanswered: usize,
    /// Said in clear right behind the answer to STARTTLS.
    pub(crate) said_too_early: &'static str,
}

/// A letter that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Headers and text, with lines as they came and dots as they were meant.
    pub(crate) text: String,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Who brought it.
    pub(crate) login: Option<String>,
}

impl Letter {
    /// The value of a header that is not folded.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.text.split("\r\n\r\n").next()?;
        headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[derive(Default)]
struct Inner {
    rules: Rules,
    letters: Vec<Letter>,
    /// Every line that was said to the server, but the letters'.
    heard: Vec<String>,
}

/// The server. It ends with the test's runtime.
#[derive(Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<Inner>>);

impl Mailbox {
    pub(crate) async fn start(manner: Manner, rules: Rules) -> (Self, SocketAddr) {
        let mailbox = Self(Arc::new(Mutex::new(Inner { rules, ..Inner::default() })));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = mailbox.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, manner) = (server.clone(), manner.clone());
                // A client that hangs up is no fault of the server.
                tokio::spawn(async move { server.receive(stream, manner).await.ok() });
            }
        });
        (mailbox, addr)
    }

    pub(crate) fn letters(&self) -> Vec<Letter> {
        self.0.lock().letters.clone()
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.0.lock().heard.clone()
    }

    async fn receive(&self, stream: TcpStream, manner: Manner) -> std::io::Result<()> {
        let acceptor = match manner {
            Manner::Clear => return self.talk(stream, State::Clear).await.map(drop),
            Manner::Tls(acceptor) => {
                let stream = acceptor.accept(stream).await?;
                return self.talk(stream, State::Secure).await.map(drop);
            }
            Manner::StartTls(acceptor) => acceptor,
        };
        let Some(stream) = self.talk(stream, State::MayTurn).await? else { return Ok(()) };
        let stream = acceptor.accept(stream).await?;
        self.talk(stream, State::Turned).await.map(drop)
    }

    /// Gives the connection back when it is to turn to TLS.
    async fn talk<S>(&self, stream: S, state: State) -> std::io::Result<Option<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        let mut talk = Talk::new(self.clone(), state);
        if state != State::Turned {
            say(&mut stream, "220 mailbox.test ready").await?;
        }
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            self.0.lock().heard.push(line.trim_end().to_owned());
            match talk.hear(line.trim_end()) {
                Answer::Say(text) => say(&mut stream, &text).await?,
                Answer::Turn(text) => {
                    say(&mut stream, &text).await?;
                    return Ok(Some(stream.into_inner()));
                }
                Answer::Bye => {
                    say(&mut stream, "221 bye").await?;
                    return Ok(None);
                }
                Answer::Take => {
                    say(&mut stream, "354 go on").await?;
                    let text = letter(&mut stream).await?;
                    let Some(answer) = talk.took(text) else { return Ok(None) };
                    say(&mut stream, answer).await?;
                }
            }
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// Reads up to the dot that stands alone.
async fn letter<S>(stream: &mut BufReader<S>) -> std::io::Result<String>
where
    S: AsyncRead + Unpin,
{
    let (mut text, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

enum Answer {
    Say(String),
    Turn(String),
    Take,
    Bye,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Clear,
    MayTurn,
    /// It was greeted before it turned to TLS.
    Turned,
    Secure,
}

struct Talk {
    mailbox: Mailbox,
    secure: bool,
    may_turn: bool,
    login: Option<String>,
    from: String,
    to: Vec<String>,
}

impl Talk {
    fn new(mailbox: Mailbox, state: State) -> Self {
        let (from, to, login) = (String::new(), Vec::new(), None);
        let secure = matches!(state, State::Turned | State::Secure);
        Self { mailbox, secure, may_turn: state == State::MayTurn, login, from, to }
    }

    fn hear(&mut self, line: &str) -> Answer {
        let rules = self.mailbox.0.lock().rules.clone();
        let say = |text: &str| Answer::Say(text.to_owned());
        let inside = |line: &str| line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let must_log_in = rules.login.is_some() && self.login.is_none();
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => {
                let turn = if self.may_turn { "250-STARTTLS\r\n" } else { "" };
                let login =
                    if must_log_in && !self.may_turn { "250-AUTH PLAIN LOGIN\r\n" } else { "" };
                Answer::Say(format!("250-mailbox.test\r\n{turn}{login}250 8BITMIME"))
            }
            "STARTTLS" if self.may_turn => {
                Answer::Turn(format!("220 go on{}", rules.said_too_early))
            }
            "AUTH" => match (line.strip_prefix("AUTH PLAIN ").map(plain), rules.login) {
                (Some(Some(given)), Some(wanted)) if given == wanted => {
                    self.login = Some(given.0);
                    say("235 welcome")
                }
                _ => say("535 5.7.8 who are you"),
            },
            "MAIL" if must_log_in => say("530 5.7.0 who are you"),
            "MAIL" => {
                (self.from, self.to) = (inside(line), Vec::new());
                say("250 ok")
            }
            "RCPT" => match rules.refused.get(&inside(line)) {
                Some(answer) => say(answer),
                None => {
                    self.to.push(inside(line));
                    say("250 ok")
                }
            },
            "DATA" if !self.to.is_empty() => Answer::Take,
            "QUIT" => Answer::Bye,
            _ => say("503 what?"),
        }
    }

    /// What a letter is answered with, if it is.
    fn took(&mut self, text: String) -> Option<&'static str> {
        let mut inner = self.mailbox.0.lock();
        if inner.rules.put_off > 0 {
            inner.rules.put_off -= 1;
            return Some("451 4.3.0 come again");
        }
        let (from, to) = (std::mem::take(&mut self.from), std::mem::take(&mut self.to));
        let (secure, login) = (self.secure, self.login.clone());
        inner.letters.push(Letter { from, to, text, secure, login });
        if inner.rules.unanswered > 0 {
            inner.rules.unanswered -= 1;
            return None;
        }
        Some("250 taken")
    }
}

/// Name and password of `AUTH PLAIN`.
fn plain(text: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(text).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut parts = text.split('\0').skip(1).map(str::to_owned);
    Some((parts.next()?, parts.next()?))
}

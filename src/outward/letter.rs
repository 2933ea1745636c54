//! A mail: what it says, how it is written down, and why it may not have been taken.
//!
//! Nothing that was configured or told can add a header, a recipient or a second mail: addresses are
//! of a form without room for it, texts of headers lose their control characters, and the text's own
//! lines are encoded.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::{Address, transport::smtp};

use super::TargetError;
use crate::model::{MailChannel, TimeMs, is_mail_address};

/// The longest subject, in characters.
const SUBJECT_MAX: usize = 200;
/// The longest part of an answer that is kept, in characters.
const ANSWER_MAX: usize = 200;

/// One mail, to all recipients of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// How, from whom and to whom.
    pub channel: Arc<MailChannel>,
    /// Tells a repetition: what is before the `@` of the `Message-ID`.
    pub number: String,
    /// `Date`.
    pub dated_ms: TimeMs,
    /// `Subject`.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// For all of it, until the server has taken the mail.
    pub timeout: Duration,
}

/// A mail that the server took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Recipients that it did not take it for.
    pub refused: Vec<Refused>,
}

/// A recipient that a server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whom.
    pub address: String,
    /// What it said.
    pub answer: String,
}

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// No connection was made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Not in time: it may have been taken.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, is not as safe as it must be, or what came is no SMTP.
    #[error("{0}")]
    Broken(String),
    /// The server answered with 4xx: later it may take it.
    #[error("answered {0}")]
    PutOff(String),
    /// The server answered with 5xx.
    #[error("answered {0}")]
    Refused(String),
    /// The operator's list of hosts does not have the server: nothing was sent.
    #[error(transparent)]
    NotAllowed(#[from] TargetError),
    /// It cannot be written down.
    #[error("no mail: {0}")]
    Unfit(String),
}

impl MailError {
    /// Whether trying again would end alike.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NotAllowed(_) | Self::Unfit(_) => true,
            Self::Connect(_) | Self::Timeout | Self::Broken(_) | Self::PutOff(_) => false,
        }
    }

    pub(super) fn of(error: &smtp::Error) -> Self {
        // The innermost cause says most: of an answer its text, of a broken connection why.
        let causes = std::iter::successors(Error::source(error), |cause| Error::source(*cause));
        let cause = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        let text = one_line(&cause, ANSWER_MAX);
        match error.status().map(u16::from) {
            Some(code) if error.is_permanent() => Self::Refused(format!("{code}: {text}")),
            Some(code) => Self::PutOff(format!("{code}: {text}")),
            None => Self::Broken(text),
        }
    }
}

/// `text` without anything that ends a line, at most `max` characters of it.
pub(super) fn one_line(text: &str, max: usize) -> String {
    text.chars().take(max).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// An address, checked as it was when it was configured.
pub(super) fn address(text: &str) -> Result<Address, MailError> {
    let wrong = || MailError::Unfit(format!("{text:?} is no address"));
    if !is_mail_address(text) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// The bytes of a mail, the same with each try.
pub(super) fn written(mail: &Mail) -> Result<Vec<u8>, MailError> {
    let channel = &*mail.channel;
    let from = Mailbox::new(None, address(&channel.from)?);
    let domain = channel.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut message = Message::builder()
        .date(UNIX_EPOCH + Duration::from_millis(mail.dated_ms))
        .message_id(Some(format!("<{}@{domain}>", one_line(&mail.number, SUBJECT_MAX))))
        .from(from)
        .subject(one_line(&mail.subject, SUBJECT_MAX))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN);
    for recipient in &channel.to {
        message = message.to(Mailbox::new(None, address(recipient)?));
    }
    let message = message.body(mail.text.clone());
    Ok(message.map_err(|error| MailError::Unfit(error.to_string()))?.formatted())
}

#[cfg(test)]
mod tests {
    use super::super::testing::mail;
    use super::*;

    fn text_of(mail: &Mail) -> String {
        String::from_utf8(written(mail).unwrap()).unwrap()
    }

    #[test]
    fn contract_2_11_a_mail_as_it_is_sent() {
        let mail = mail(&["ops@example.com", "dev@example.com"]);
        let expected = "Date: Fri, 21 Nov 2025 02:13:20 +0000\r\n\
            Message-ID: <quorate.7.00ab@example.com>\r\n\
            From: fleet@example.com\r\n\
            Subject: [warning] node_failure_rate_threshold active\r\n\
            Auto-Submitted: auto-generated\r\n\
            Content-Type: text/plain; charset=utf-8\r\n\
            To: ops@example.com, dev@example.com\r\n\
            Content-Transfer-Encoding: 7bit\r\n\
            \r\n\
            it fails\r\n\r\nvalue: 2.500\r\n";
        assert_eq!(text_of(&mail), expected);
        assert_eq!(text_of(&mail), text_of(&mail), "a repetition is the same mail");
    }

    #[test]
    fn nothing_that_was_told_adds_a_header_or_a_recipient() {
        let mut mail = mail(&["ops@example.com"]);
        let plain = text_of(&mail);
        let headers = |text: &str| text.split("\r\n\r\n").next().unwrap().lines().count();
        for odd in
            ["x\r\nBcc: eve@example.org", "x\nBcc: eve@example.org", "x\rBcc: e@x", "x\0\u{85}y"]
        {
            mail.subject = odd.to_owned();
            mail.number = odd.to_owned();
            let text = text_of(&mail);
            assert_eq!(headers(&text), headers(&plain), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("Bcc")), "{text}");
        }
        // A long subject and one in other letters are folded or encoded, not cut open.
        mail.subject = format!("\u{e9}\r\nBcc: eve@example.org {}", "long ".repeat(100));
        let text = text_of(&mail);
        assert!(text.is_ascii() && !text.contains("\nBcc"), "{text}");
        // Whatever stands in the text stays in the text.
        mail.text = "a\r\n.\r\nMAIL FROM:<eve@example.org>\n\u{e9}".to_owned();
        assert!(text_of(&mail).is_ascii());
        for odd in ["a@b\r\nBcc: c@d", "a@b>\r\nRCPT TO:<c@d", "a b@c", "Ops <a@b>"] {
            let channel = MailChannel { to: vec![odd.to_owned()], ..(*mail.channel).clone() };
            mail.channel = Arc::new(channel);
            assert!(written(&mail).is_err(), "{odd}");
        }
    }

    #[test]
    fn whatever_may_be_configured_can_be_written() {
        for good in
            ["ada@example.com", "a.b+c@x", "A_1@sub.example.co", "o'neil@x-y.org", "x@localhost"]
        {
            assert!(is_mail_address(good) && address(good).is_ok(), "{good}");
        }
    }
}

//! Mail that tells of alerts: how it is sent (contract 2.11, 2.12), and what an address is.

use core::fmt;
use core::net::IpAddr;

/// The longest address, in bytes.
pub const MAIL_ADDRESS_MAX: usize = 254;

/// Whether the way to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailEncryption {
    /// It begins in clear and must turn to TLS before anything is said.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all: a relay on a private network.
    None,
}

impl MailEncryption {
    /// All of them, by their words in the configuration.
    pub const ALL: [(&'static str, Self); 3] =
        [("starttls", Self::StartTls), ("tls", Self::Tls), ("none", Self::None)];

    /// The port that servers of this kind listen on.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// Who this cluster is to the mail server. Printed without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct MailCredentials {
    /// Mostly an address.
    pub username: String,
    /// In clear: the server wants to see it.
    pub password: String,
}

impl fmt::Debug for MailCredentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MailCredentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// `alerts.email`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailChannel {
    /// Name or address of the mail server, without brackets.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// The way to it.
    pub encryption: MailEncryption,
    /// Given to the server when it is connected to.
    pub credentials: Option<MailCredentials>,
    /// Sender.
    pub from: String,
    /// Recipients, at least one.
    pub to: Vec<String>,
}

impl MailChannel {
    /// Where it leads, with nothing secret in it.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { server, port, .. } = self;
        match server.contains(':') {
            true => format!("smtp://[{server}]:{port}"),
            false => format!("smtp://{server}:{port}"),
        }
    }
}

/// Whether a host is this machine, by what it is called.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether `text` has the form of an address of mail: a mailbox and a domain of labels, in ASCII. So
/// there is nothing in it that could end a line or a header.
#[must_use]
pub fn is_mail_address(text: &str) -> bool {
    let Some((mailbox, domain)) = text.rsplit_once('@') else { return false };
    let in_mailbox =
        |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    (1..=64).contains(&mailbox.len())
        && mailbox.bytes().all(in_mailbox)
        && !mailbox.split('.').any(str::is_empty)
        && text.len() <= MAIL_ADDRESS_MAX
        && is_domain(domain)
}

/// Whether `text` is a name of labels, as mail and certificates have it.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_debug_texts_hold_no_secret() {
        let credentials =
            Some(MailCredentials { username: "fleet".to_owned(), password: "hunter2".to_owned() });
        let channel = MailChannel {
            server: "fd00::1".to_owned(),
            port: 587,
            encryption: MailEncryption::StartTls,
            credentials,
            from: "fleet@example.com".to_owned(),
            to: vec!["ops@example.com".to_owned()],
        };
        assert_eq!(channel.url(), "smtp://[fd00::1]:587");
        let shown = format!("{channel:?}");
        assert!(shown.contains("fleet") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for (host, is) in [
            ("localhost", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(host), is, "{host}");
        }
    }

    #[test]
    fn contract_3_6_addresses_of_mail() {
        for good in ["ada@example.com", "a.b+c@x", "A_1@sub.example.co", "o'neil@x-y.org"] {
            assert!(is_mail_address(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        let far = format!("a@{}", vec!["a".repeat(60); 5].join("."));
        for bad in [
            "",
            "@",
            "ada",
            "ada@",
            "@x",
            "a b@x",
            "a@x y",
            "a@-x",
            "a@x-",
            "a@x..y",
            ".a@x",
            "a..b@x",
            "a@x\n",
            "a\u{e9}@x",
            "a@b@x",
            &long,
            &far,
        ] {
            assert!(!is_mail_address(bad), "{bad}");
        }
    }
}

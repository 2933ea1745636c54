//! A delivery: something the leader posts to a URL outside (contract 6, rows 12 and 13).

use serde::{Deserialize, Serialize};

use super::{TaskId, TimeMs};

/// Numbers deliveries from 1. Receivers get it with every try, so they can tell a repetition.
pub type DeliveryId = u64;

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryBody {
    /// The object of a task that has ended, for its `callback_url`.
    Task(TaskId),
    /// JSON text.
    Text(String),
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryState {
    /// To be posted, for the first time or again.
    Due,
    /// Answered with 2xx.
    Delivered,
    /// Every try was used up.
    GivenUp,
}

impl DeliveryState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Delivered => "delivered",
            Self::GivenUp => "given_up",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Due, Self::Delivered, Self::GivenUp].into_iter().find(|state| state.as_str() == word)
    }
}

/// One delivery, kept for a while after it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub delivery_id: DeliveryId,
    /// `callback`, `alert`, `slack`, `email`, `scaling`.
    pub kind: String,
    /// Where to. Of a mail the server, as `smtp://host:port`, with nothing that is secret.
    pub url: String,
    /// What.
    pub body: DeliveryBody,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries that were made and recorded.
    pub tries: u32,
    /// Not before this time.
    pub not_before_ms: TimeMs,
    /// When it was queued.
    pub created_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub ended_at_ms: TimeMs,
    /// Why the last try failed.
    pub error: Option<String>,
}

/// Which deliveries a delivery waits among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What the operator is told: alerts and scaling. Few, and to few receivers.
    Notices,
    /// What submitters are told of their tasks: as many, and to as many receivers, as they like.
    Callbacks,
}

impl Delivery {
    /// Where it waits.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self.body {
            DeliveryBody::Task(_) => Lane::Callbacks,
            DeliveryBody::Text(_) => Lane::Notices,
        }
    }

    /// The part of its URL that says whose it is: host and port, without credentials.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        for (url, host) in [
            ("http://a:1/x", "a:1"),
            ("https://a?x@y", "a"),
            ("http://a.b#", "a.b"),
            ("http://me:secret@a:1/", "a:1"),
            ("smtp://[fd00::1]:25", "[fd00::1]:25"),
            ("nonsense", "nonsense"),
        ] {
            let delivery = Delivery {
                delivery_id: 1,
                kind: "callback".to_owned(),
                url: url.to_owned(),
                body: DeliveryBody::Task(TaskId::trusted("t")),
                state: DeliveryState::Due,
                tries: 0,
                not_before_ms: 0,
                created_at_ms: 0,
                ended_at_ms: 0,
                error: None,
            };
            assert_eq!(delivery.host(), host);
        }
    }
}

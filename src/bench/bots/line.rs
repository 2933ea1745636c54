//! Requests that are made one after the other over one connection, and timed.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bench::args::LoadArgs;
use crate::bench::connection::{Connection, Target, request_bytes};
use crate::bench::histogram::Histogram;
use crate::bench::report::Quantiles;

/// One connection to one member, for one request after the other.
pub(super) struct Line {
    target: Target,
    headers: String,
    timeout: Duration,
    connection: Option<Connection>,
}

/// An answer, and how long its first byte and all of it took.
pub(super) struct Timed {
    pub(super) first: Duration,
    pub(super) total: Duration,
    pub(super) bytes: usize,
    pub(super) body: Value,
}

impl Line {
    /// To the member at place `number`, round and round.
    pub(super) fn to(load: &LoadArgs, number: usize) -> Self {
        let target = load.url[number % load.url.len()].clone();
        let (headers, timeout) = (load.header.concat(), Duration::from_millis(load.timeout_ms));
        Self { target, headers, timeout, connection: None }
    }

    /// A request that must succeed. Connecting is not timed.
    ///
    /// # Errors
    /// When it does not, or not in the time that the load gives.
    pub(super) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<Timed> {
        let request = request_bytes(method, &self.target, path, &self.headers, body.as_bytes());
        let connection = match self.connection.take() {
            Some(connection) => self.connection.insert(connection),
            None => self.connection.insert(Connection::open(&self.target).await?),
        };
        let began = Instant::now();
        let answer = tokio::time::timeout(self.timeout, connection.exchange_timed(&request)).await;
        let answer = answer.with_context(|| format!("no answer in time: {method} {path}"))?;
        let (first, reply) = answer.with_context(|| format!("{method} {path}"))?;
        let (first, total) = (first - began, began.elapsed());
        let text = || String::from_utf8_lossy(reply.body).into_owned();
        ensure!((200..300).contains(&reply.status), "{method} {path}: {}", text());
        let (bytes, body) = (reply.body.len(), serde_json::from_slice(reply.body)?);
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        Ok(Timed { first, total, bytes, body })
    }
}

/// Times of requests of one kind.
#[derive(Default)]
pub(super) struct Times {
    first: Histogram,
    total: Histogram,
}

impl Times {
    pub(super) fn add(&mut self, timed: &Timed) {
        self.first.record(timed.first);
        self.total.record(timed.total);
    }

    pub(super) fn total(&self) -> Quantiles {
        (&self.total).into()
    }

    pub(super) fn both(&self) -> Value {
        json!({"first_byte": Quantiles::from(&self.first), "total": self.total()})
    }
}

//! Reads every acknowledged write of a run again: an acknowledgement that does not survive the loss
//! of leaders is the worst a cluster can do, and no latency would show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::connection::{Connection, Target};
use super::subject::Subject;
use super::template::Template;

const READERS: usize = 16;
/// A read that nobody answered so often, from one member after the other, is given up.
const TRIES_MAX: usize = 15;
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// So many of the lost writes are named.
const NAMED_MAX: usize = 10;

/// What became of the acknowledged writes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ReadBack {
    /// All that were looked for.
    pub acknowledged: u64,
    /// Those that were there.
    pub found: u64,
    /// Those that were not there.
    pub lost: u64,
    /// Those that no member would tell of.
    pub unread: u64,
    /// The numbers of the first lost ones.
    pub lost_numbers: Vec<u64>,
}

impl ReadBack {
    fn count(&mut self, number: u64, there: Option<bool>) {
        self.acknowledged += 1;
        match there {
            Some(true) => self.found += 1,
            Some(false) => {
                self.lost += 1;
                if self.lost_numbers.len() < NAMED_MAX {
                    self.lost_numbers.push(number);
                }
            }
            None => self.unread += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.found += other.found;
        self.lost += other.lost;
        self.unread += other.unread;
        self.lost_numbers.extend(other.lost_numbers);
        self.lost_numbers.sort_unstable();
        self.lost_numbers.truncate(NAMED_MAX);
    }
}

/// What the readers share.
struct Reading {
    subject: Arc<Subject>,
    template: Template,
    numbers: Vec<u64>,
    next: AtomicUsize,
}

/// Reads the writes of these numbers, each from one member.
pub(super) async fn read_back(subject: Arc<Subject>, numbers: Vec<u64>) -> ReadBack {
    let template = subject.reads();
    let reading = Arc::new(Reading { subject, template, numbers, next: AtomicUsize::new(0) });
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        readers.spawn(Arc::clone(&reading).read_some(reader));
    }
    let mut all = ReadBack::default();
    while let Some(part) = readers.join_next().await {
        all.add(part.expect("readers neither panic nor are they cancelled"));
    }
    all
}

impl Reading {
    async fn read_some(self: Arc<Self>, reader: usize) -> ReadBack {
        let mut seen = ReadBack::default();
        let (mut at, mut connection, mut scratch) = (reader, None, Vec::new());
        while let Some(number) = self.numbers.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut there = None;
            for _ in 0..TRIES_MAX {
                there = self.ask(at, *number, &mut connection, &mut scratch).await;
                if there.is_some() {
                    break;
                }
                (at, connection) = (at + 1, None);
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
            seen.count(*number, there);
        }
        seen
    }

    /// One read from the member at place `at`, counted round and round.
    async fn ask(
        &self,
        at: usize,
        number: u64,
        connection: &mut Option<Connection>,
        scratch: &mut Vec<u8>,
    ) -> Option<bool> {
        let targets = self.subject.control().targets();
        let place = at % targets.len();
        let request = self.template.request(place, number, scratch);
        let answer = self.exchange(&targets[place], connection, request);
        let there = tokio::time::timeout(READ_TIMEOUT, answer).await.ok()??;
        if connection.as_ref().is_some_and(Connection::is_closed) {
            *connection = None;
        }
        Some(there)
    }

    async fn exchange(
        &self,
        target: &Target,
        connection: &mut Option<Connection>,
        request: &[u8],
    ) -> Option<bool> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::open(target).await.ok()?),
        };
        let reply = connection.exchange(request).await.ok()?;
        self.subject.holds(reply.status, reply.body)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;
    use crate::bench::args::System;
    use crate::bench::drive::tests::{load, serve};

    /// Has every task but those whose numbers end in 7.
    async fn forgetful(Path(id): Path<String>) -> StatusCode {
        if id.ends_with('7') { StatusCode::NOT_FOUND } else { StatusCode::OK }
    }

    #[tokio::test]
    async fn lost_writes_are_counted_and_named_whoever_else_refuses() {
        let refusing = Router::new().fallback(|| async { StatusCode::SERVICE_UNAVAILABLE });
        let keeping = Router::new().route("/api/v1/tasks/{id}", get(forgetful));
        let load = load(vec![serve(refusing).await, serve(keeping).await], 1);
        let subject = Arc::new(Subject::new(System::Quorate, &load));
        let seen = read_back(subject, (0..200).rev().collect()).await;
        assert_eq!((seen.acknowledged, seen.found, seen.lost, seen.unread), (200, 180, 20, 0));
        assert_eq!(seen.lost_numbers.len(), NAMED_MAX);
        assert!(seen.lost_numbers.iter().all(|number| number % 10 == 7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_tells_of_is_not_called_lost() {
        let load = load(vec!["127.0.0.1:1".parse().unwrap()], 1);
        let subject = Arc::new(Subject::new(System::Quorate, &load));
        let seen = read_back(subject, vec![1, 2]).await;
        assert_eq!((seen.acknowledged, seen.lost, seen.unread), (2, 0, 2));
    }
}

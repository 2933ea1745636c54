//! How ends of tasks are seen: by the event stream, or by the counters of the status page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::args::LoadArgs;
use super::connection::{Connection, Pieces, Target, request_bytes};
use super::control::Control;
use super::flights::Flights;
use super::framing::find;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
const PAUSE_BEFORE_RECONNECT: Duration = Duration::from_millis(50);
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// An event longer than this is none of ours; the stream is given up.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Who is told of every event.
pub(super) trait Observer: Send + Sync + 'static {
    /// An event of the cluster, as text.
    fn observe(&self, event: &[u8], now: Instant);
}

/// Watches until it is dropped.
pub(super) struct Watch {
    task: AbortHandle,
    reconnects: Arc<AtomicU64>,
}

impl Watch {
    /// Subscribes to the events of these types of a member, and of the next one when that fails.
    /// Returns when the subscription stands, so that none is missed.
    ///
    /// # Errors
    /// When the first member does not stream events.
    pub(super) async fn events(
        load: &LoadArgs,
        types: &str,
        observer: impl Observer,
    ) -> anyhow::Result<Self> {
        let mut stream = EventStream {
            targets: load.url.clone(),
            path: format!("/api/v1/events?types={types}"),
            headers: load.header.concat(),
            at: 0,
            last_id: None,
        };
        let mut pieces = stream.subscribe().await?;
        let reconnects = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&reconnects);
        let task = tokio::spawn(async move {
            loop {
                let error = stream.follow(&mut pieces, &observer).await;
                tracing::warn!(%error, "the event stream broke");
                pieces = stream.resubscribe().await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { task: task.abort_handle(), reconnects })
    }

    /// Counts ended tasks by the status page.
    ///
    /// # Errors
    /// When the page does not count tasks.
    pub(super) async fn status(control: Control, flights: Flights) -> anyhow::Result<Self> {
        let (first, counted) = oneshot::channel();
        let task = tokio::spawn(poll(control, flights, first));
        let watch = Self { task: task.abort_handle(), reconnects: Arc::default() };
        ensure!(counted.await.is_ok(), "GET /api/v1/status does not count tasks");
        Ok(watch)
    }

    /// How often the stream broke. Events can be missed then, unless the member resumed it.
    #[must_use]
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct EventStream {
    targets: Vec<Target>,
    path: String,
    headers: String,
    at: usize,
    /// Where to resume.
    last_id: Option<String>,
}

impl EventStream {
    async fn subscribe(&self) -> anyhow::Result<Pieces> {
        let target = &self.targets[self.at];
        let resume = self.last_id.as_ref().map(|id| format!("last-event-id: {id}\r\n"));
        let headers = [&self.headers, "accept: text/event-stream\r\n", &resume.unwrap_or_default()];
        let request = request_bytes("GET", target, &self.path, &headers.concat(), b"");
        let subscribe = async { Connection::open(target).await?.subscribe(&request).await };
        let (status, pieces) = tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribe).await??;
        if status != 200 {
            bail!(
                "{}: GET /api/v1/events answers {status}; try --observe status",
                target.authority
            );
        }
        Ok(pieces)
    }

    async fn resubscribe(&mut self) -> Pieces {
        loop {
            tokio::time::sleep(PAUSE_BEFORE_RECONNECT).await;
            self.at = (self.at + 1) % self.targets.len();
            match self.subscribe().await {
                Ok(pieces) => return pieces,
                Err(error) => tracing::warn!(error = %format!("{error:#}"), "no event stream"),
            }
        }
    }

    /// Notes the events of a subscription until it breaks.
    async fn follow(&mut self, pieces: &mut Pieces, observer: &impl Observer) -> std::io::Error {
        let mut buffer = Vec::new();
        loop {
            if let Err(error) = pieces.append_to(&mut buffer).await {
                return error;
            }
            let now = Instant::now();
            let mut taken = 0;
            while let Some(end) = find(&buffer[taken..], b"\n\n") {
                let event = &buffer[taken..taken + end];
                observer.observe(event, now);
                self.remember(event);
                taken += end + 2;
            }
            buffer.drain(..taken);
            if buffer.len() > EVENT_BYTES_MAX {
                return std::io::Error::other("an event does not end");
            }
        }
    }

    fn remember(&mut self, event: &[u8]) {
        let id = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"id:"));
        let id = id.and_then(|id| std::str::from_utf8(id.trim_ascii()).ok());
        if let Some(id) = id {
            let kept = self.last_id.get_or_insert_default();
            kept.clear();
            kept.push_str(id);
        }
    }
}

async fn poll(control: Control, flights: Flights, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    let mut last = None;
    loop {
        let counters = control.counters().await;
        let count = |name: &str| counters["tasks"][name].as_u64();
        match count("completed").zip(count("failed")) {
            Some((completed, failed)) => {
                let now = completed + failed;
                flights.landed_oldest(now.saturating_sub(last.unwrap_or(now)), Instant::now());
                last = Some(now);
                // Nobody waits for the signal any more once it was given.
                first.take().map(|first| first.send(()).is_ok());
            }
            None if first.is_some() => return,
            None => {}
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::Response;
    use axum::routing::get;
    use futures::StreamExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::bench::drive::tests::{load, serve};
    use crate::bench::flights::Group;

    fn event(id: u64) -> String {
        format!("id: {id}-0\ndata: {{\"type\":\"task_ended\",\"task_id\":\"r-{id:012}\"}}\n\n")
    }

    #[tokio::test]
    async fn a_broken_stream_is_resumed_behind_its_last_event() {
        let (seen, mut headers) = mpsc::channel(8);
        let handler = |State(seen): State<mpsc::Sender<HeaderMap>>, headers: HeaderMap| async move {
            let resumed = headers.contains_key("last-event-id");
            seen.send(headers).await.unwrap();
            if resumed {
                let rest = futures::stream::iter([Ok::<_, std::io::Error>(event(2))]);
                let stream = rest.chain(futures::stream::pending());
                return Response::new(Body::from_stream(stream));
            }
            // It ends in the middle of an event.
            let pieces = [Ok::<_, std::io::Error>(event(1)), Ok("id: 9".to_owned())];
            Response::new(Body::from_stream(futures::stream::iter(pieces)))
        };
        let router = Router::new().route("/api/v1/events", get(handler)).with_state(seen);
        let load = load(vec![serve(router).await], 1);
        let flights = Flights::new("r-");
        let group = Arc::new(Group::default());
        flights.depart(1, 2, Instant::now(), &group);

        let watch = Watch::events(&load, "task_ended", flights.clone()).await.unwrap();
        group.landed().await;
        assert_eq!(flights.sums().ended, 2);
        assert_eq!(watch.reconnects(), 1);
        assert!(headers.recv().await.unwrap().get("last-event-id").is_none());
        assert_eq!(headers.recv().await.unwrap()["last-event-id"], "1-0");
    }

    #[tokio::test]
    async fn a_member_without_events_is_an_error_that_says_what_to_do() {
        let load = load(vec![serve(Router::new()).await], 1);
        let error =
            Watch::events(&load, "task_ended", Flights::new("r-")).await.err().unwrap().to_string();
        assert!(error.contains("404") && error.contains("--observe status"), "{error}");
    }

    #[tokio::test]
    async fn counters_land_the_oldest() {
        let completed = Arc::new(AtomicU64::new(40));
        let shown = Arc::clone(&completed);
        let page = move || async move {
            let completed = shown.load(Ordering::Relaxed);
            format!(r#"{{"data":{{"tasks":{{"completed":{completed},"failed":2}}}}}}"#)
        };
        let router = Router::new().route("/api/v1/status", get(page));
        let load = load(vec![serve(router).await], 1);
        let flights = Flights::new("r-");
        let group = Arc::new(Group::default());
        flights.depart(0, 3, Instant::now(), &group);
        let watch = Watch::status(Control::new(&load), flights.clone()).await.unwrap();
        completed.store(43, Ordering::Relaxed);
        group.landed().await;
        assert_eq!(flights.sums().ended, 3);
        assert_eq!(watch.reconnects(), 0);
    }

    #[tokio::test]
    async fn a_status_page_without_counters_is_an_error() {
        let nothing = || async { (StatusCode::OK, "{}") };
        let router = Router::new().route("/api/v1/status", get(nothing));
        let load = load(vec![serve(router).await], 1);
        assert!(Watch::status(Control::new(&load), Flights::new("r-")).await.is_err());
    }
}

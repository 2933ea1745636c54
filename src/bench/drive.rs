//! The clients of a run: each takes a ticket, sends, waits, counts, and moves on to the next
//! member when something fails.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::LoadArgs;
use super::connection::{Connection, Target};
use super::schedule::{Pace, Ticket};
use super::tally::{Finished, Tally, Window};
use super::template::Template;

/// A client that failed rests this long, so that a dead member is not asked in a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);
/// More acknowledged requests than this are not kept.
const KEPT_MAX: usize = 10_000_000;

/// A kind of failure, as it is counted.
pub(super) type Code = Cow<'static, str>;

/// One run: what is shared by its clients.
pub(super) struct Run {
    targets: Arc<[Target]>,
    timeout: Duration,
    /// Who may send when.
    pub pace: Pace,
    /// What happened.
    pub tally: Mutex<Tally>,
    /// Raised to send all clients home to their own member.
    spread: AtomicU64,
    /// The numbers of acknowledged requests, when somebody wants to read them back.
    kept: Option<Mutex<Vec<u64>>>,
}

impl Run {
    /// Starts the clock of a run.
    #[must_use]
    pub(super) fn start(load: &LoadArgs) -> Arc<Self> {
        Self::begin(load, None)
    }

    /// Starts the clock of a run that keeps the numbers of its acknowledged requests.
    #[must_use]
    pub(super) fn start_keeping(load: &LoadArgs) -> Arc<Self> {
        Self::begin(load, Some(Mutex::default()))
    }

    fn begin(load: &LoadArgs, kept: Option<Mutex<Vec<u64>>>) -> Arc<Self> {
        let now = Instant::now();
        let window = Window::new(now, load.warmup, load.secs);
        Arc::new(Self {
            targets: load.url.clone().into(),
            timeout: Duration::from_millis(load.timeout_ms),
            pace: Pace::new(now, window.end, load.requests, load.rate),
            tally: Mutex::new(Tally::new(window, Duration::from_millis(load.gap_ms))),
            spread: AtomicU64::new(0),
            kept,
        })
    }

    /// Counts an acknowledged request.
    fn acknowledge(&self, number: u64, finished: Finished) {
        self.tally.lock().success(finished);
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock();
            if kept.len() < KEPT_MAX {
                kept.push(number);
            }
        }
    }

    /// The numbers of the acknowledged requests, of the first ten million at most; none when the
    /// run does not keep them.
    #[must_use]
    pub(super) fn take_acknowledged(&self) -> Vec<u64> {
        self.kept.as_ref().map(|kept| std::mem::take(&mut *kept.lock())).unwrap_or_default()
    }

    /// A place for client number `client`.
    #[must_use]
    pub(super) fn seat(&self, client: usize) -> Seat {
        let home = client % self.targets.len();
        let spread = self.spread.load(Ordering::Relaxed);
        let (targets, timeout) = (Arc::clone(&self.targets), self.timeout);
        Seat { targets, timeout, home, at: home, spread, connection: None }
    }

    /// Sends every client back to the member it started with.
    pub(super) fn spread(&self) {
        self.spread.fetch_add(1, Ordering::Relaxed);
    }

    /// How long a request may take.
    #[must_use]
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Closes the books.
    pub(super) fn finish(&self) {
        let now = Instant::now();
        let mut tally = self.tally.lock();
        tally.errors_of("unsent", self.pace.unsent(now));
        tally.finish(now);
        self.pace.stop();
    }
}

/// Where a client sits: its connection, and which member it talks to.
pub(super) struct Seat {
    targets: Arc<[Target]>,
    timeout: Duration,
    home: usize,
    at: usize,
    spread: u64,
    connection: Option<Connection>,
}

impl Seat {
    /// The index of the member it talks to.
    #[must_use]
    pub(super) fn target(&self) -> usize {
        self.at
    }

    /// Goes home when all clients were sent home.
    pub(super) fn settle(&mut self, run: &Run) {
        let spread = run.spread.load(Ordering::Relaxed);
        if spread != self.spread {
            self.spread = spread;
            if self.at != self.home {
                (self.at, self.connection) = (self.home, None);
            }
        }
    }

    /// One request and its reply. A failure moves the seat to the next member, after a rest.
    ///
    /// # Errors
    /// The code under which the failure is counted.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<(), Code> {
        let target = &self.targets[self.at];
        let attempt = attempt(target, &mut self.connection, request);
        let outcome = tokio::time::timeout(self.timeout, attempt).await;
        let failure = match outcome {
            Ok(Ok(())) => {
                if self.connection.as_ref().is_some_and(Connection::is_closed) {
                    self.connection = None;
                }
                return Ok(());
            }
            Ok(Err(code)) => code,
            Err(_) => Code::Borrowed("timeout"),
        };
        self.connection = None;
        self.at = (self.at + 1) % self.targets.len();
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        Err(failure)
    }
}

async fn attempt(
    target: &Target,
    connection: &mut Option<Connection>,
    request: &[u8],
) -> Result<(), Code> {
    // A connection that died with its member says nothing of the member that is there now. Else one
    // write per client would fail long after a failover, and in a row that looks like a silence.
    connection.take_if(|connection| connection.is_dead());
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(target).await.map_err(|_| "connect")?),
    };
    let reply = connection.exchange(request).await.map_err(|_| "broken")?;
    if (200..300).contains(&reply.status) {
        return Ok(());
    }
    Err(Code::Owned(failure_code(reply.status, reply.body)))
}

/// The status, and the problem document's own code when there is one.
fn failure_code(status: u16, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body.get("code").or_else(|| body.get("error")?.get("code"));
    match code.and_then(serde_json::Value::as_str) {
        Some(code) if code.len() <= 64 => format!("{status} {code}"),
        _ => status.to_string(),
    }
}

/// Runs `clients` clients that send `template` until the run is over.
pub(super) async fn drive(run: &Arc<Run>, clients: u32, template: Template) {
    let template = Arc::new(template);
    let mut set = JoinSet::new();
    for number in 0..clients as usize {
        set.spawn(client(Arc::clone(run), number, Arc::clone(&template)));
    }
    while set.join_next().await.is_some() {}
}

async fn client(run: Arc<Run>, number: usize, template: Arc<Template>) {
    let mut seat = run.seat(number);
    let mut scratch = Vec::new();
    while let Some(Ticket { number, due }) = run.pace.next().await {
        seat.settle(&run);
        let request = template.request(seat.target(), number, &mut scratch);
        let sent = Instant::now();
        match seat.exchange(request).await {
            Ok(()) => run.acknowledge(number, Finished { due, sent, done: Instant::now() }),
            Err(code) => run.tally.lock().failure(due, &code),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::bench::args::Output;

    /// Serves `router` on a free port.
    pub(crate) async fn serve(router: Router) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        target
    }

    /// A closed loop of four clients that ends by count.
    pub(crate) fn load(url: Vec<Target>, requests: u64) -> LoadArgs {
        LoadArgs {
            url,
            clients: 4,
            rate: None,
            secs: Duration::from_secs(3600),
            warmup: Duration::ZERO,
            requests,
            size: 16,
            timeout_ms: 5_000,
            gap_ms: 100,
            header: Vec::new(),
            output: Output::Json,
        }
    }

    fn counting(seen: &Arc<AtomicUsize>) -> Router {
        let seen = Arc::clone(seen);
        let handler = move || {
            let seen = Arc::clone(&seen);
            async move {
                seen.fetch_add(1, Ordering::Relaxed);
                "{}"
            }
        };
        Router::new().route("/t", post(handler))
    }

    #[tokio::test]
    async fn a_closed_loop_sends_exactly_its_requests_to_all_members() {
        let seen = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        let urls = vec![serve(counting(&seen[0])).await, serve(counting(&seen[1])).await];
        let load = load(urls, 200);
        let run = Run::start(&load);
        drive(&run, 4, Template::new(&load.url, "POST", "/t", "", "{}")).await;
        run.finish();
        let seen = seen.map(|seen| seen.load(Ordering::Relaxed));
        assert_eq!(seen[0] + seen[1], 200);
        assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
        let tally = run.tally.lock();
        assert_eq!((tally.acknowledged(), tally.latencies().count()), (200, 200));
        assert!(tally.errors().is_empty());
        assert!(tally.per_sec() > 0.0);
    }

    #[tokio::test]
    async fn an_open_loop_sends_exactly_its_requests() {
        let seen = Arc::new(AtomicUsize::new(0));
        let mut load = load(vec![serve(counting(&seen)).await], 100);
        load.rate = Some(20_000.0);
        let run = Run::start_keeping(&load);
        drive(&run, 4, Template::new(&load.url, "POST", "/t", "", "{}")).await;
        run.finish();
        let mut numbers = run.take_acknowledged();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
        assert_eq!(seen.load(Ordering::Relaxed), 100);
        assert_eq!(run.tally.lock().acknowledged(), 100);
    }

    #[tokio::test]
    async fn a_member_that_is_gone_or_refuses_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        drop(listener);
        let problem = || async { (StatusCode::SERVICE_UNAVAILABLE, r#"{"code":"no_leader"}"#) };
        let refusing = serve(Router::new().route("/t", post(problem))).await;
        let seen = Arc::new(AtomicUsize::new(0));
        let load = load(vec![gone, refusing, serve(counting(&seen)).await], 50);
        let run = Run::start(&load);
        drive(&run, 4, Template::new(&load.url, "POST", "/t", "", "{}")).await;
        run.finish();
        let tally = run.tally.lock();
        // Clients 0 and 3 start at the dead member, 1 at the refusing one; the others may pass by.
        assert_eq!(tally.errors().get("connect"), Some(&2));
        assert!((1..=3).contains(&tally.errors()["503 no_leader"]));
        let failed: u64 = tally.errors().values().sum();
        assert_eq!(tally.acknowledged() + failed, 50);
        assert_eq!(seen.load(Ordering::Relaxed) as u64, tally.acknowledged());
    }

    #[tokio::test]
    async fn a_silent_member_costs_a_timeout() {
        let silent = Router::new().route("/t", get(std::future::pending::<()>));
        let mut load = load(vec![serve(silent).await], 1);
        load.timeout_ms = 1;
        let run = Run::start(&load);
        drive(&run, 1, Template::new(&load.url, "GET", "/t", "", "")).await;
        run.finish();
        assert_eq!(run.tally.lock().errors().get("timeout"), Some(&1));
    }

    /// Closes its first connection behind the first reply without saying so, as by a kill, and
    /// serves the second.
    async fn dies_once(listener: TcpListener, closed: Arc<tokio::sync::Notify>) {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            drop(stream);
            closed.notify_one();
        }
    }

    #[tokio::test]
    async fn a_connection_that_died_while_idle_costs_no_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let closed = Arc::new(tokio::sync::Notify::new());
        tokio::spawn(dies_once(listener, Arc::clone(&closed)));
        let load = load(vec![target], 1);
        let (run, template) = (Run::start(&load), Template::new(&load.url, "GET", "/", "", ""));
        let mut seat = run.seat(0);
        assert_eq!(seat.exchange(template.request(0, 0, &mut Vec::new())).await, Ok(()));
        closed.notified().await;
        while !seat.connection.as_ref().is_none_or(Connection::is_dead) {
            tokio::task::yield_now().await;
        }
        assert_eq!(seat.exchange(template.request(0, 1, &mut Vec::new())).await, Ok(()));
    }

    #[tokio::test]
    async fn clients_can_be_sent_home() {
        let load = load(vec!["a:1".parse().unwrap(), "b:2".parse().unwrap()], 1);
        let run = Run::start(&load);
        let mut seat = run.seat(1);
        assert_eq!(seat.target(), 1);
        seat.at = 0;
        seat.settle(&run);
        assert_eq!(seat.target(), 0, "nobody asked for it");
        run.spread();
        seat.settle(&run);
        assert_eq!(seat.target(), 1);
    }

    #[test]
    fn failures_are_named_by_status_and_code() {
        assert_eq!(failure_code(503, br#"{"code":"no_leader"}"#), "503 no_leader");
        assert_eq!(failure_code(400, br#"{"error":{"code":"X"}}"#), "400 X");
        assert_eq!(failure_code(400, br#"{"error":"text"}"#), "400");
        assert_eq!(failure_code(502, b"<html>"), "502");
    }
}

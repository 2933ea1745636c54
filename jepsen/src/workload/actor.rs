//! One client: it does one thing after the other, records each, and goes on under a new process
//! number when it does not know how something ended.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{HarnessError, Stage};
use crate::client::{Client, Reply, Request};
use crate::history::{Kind, Note};

/// How often a request is sent until somebody knows what came of it.
const SENDS_MAX: usize = 8;
/// How long a write is tried when the scene is set.
const WRITE_PATIENCE: Duration = Duration::from_secs(8);

/// A member as it is picked: number and base URL.
pub(super) type Seat = (u64, String);

pub(super) struct Actor<'a> {
    pub(super) stage: &'a Stage,
    pub(super) client: Client,
    pub(super) workload: &'static str,
    pub(super) rng: StdRng,
    process: u64,
    interval: Duration,
}

impl<'a> Actor<'a> {
    /// Client `number` of `clients` that share the rate of the stage.
    pub(super) fn new(
        stage: &'a Stage,
        client: &Client,
        workload: &'static str,
        number: usize,
        clients: usize,
    ) -> Self {
        let rate = stage.load.rate.max(0.1);
        Self {
            stage,
            client: client.clone(),
            workload,
            rng: stage.rng(&format!("{workload}/{number}")),
            process: stage.recorder.process(),
            interval: Duration::from_secs_f64(clients as f64 / rate),
        }
    }

    /// Waits for its next turn; false when the run is over.
    pub(super) async fn turn(&mut self) -> bool {
        let wait = self.interval.mul_f64(self.rng.random_range(0.5..1.5));
        self.sleep(wait).await
    }

    /// Waits; false when the run is over.
    pub(super) async fn sleep(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stage.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// A member by chance. Without any, a place where nobody answers: calls fail, as they should.
    pub(super) fn seat(&mut self) -> Seat {
        let nobody = || (0, "http://127.0.0.1:1".to_owned());
        self.stage.members.pick(&mut self.rng).unwrap_or_else(nobody)
    }

    pub(super) fn note(&self, f: &str) -> Note {
        Note::new(self.workload, f)
    }

    /// Does one operation of one call. `result` reads the value of an ok answer; any other end
    /// carries the arguments again.
    pub(super) async fn act(
        &mut self,
        seat: &Seat,
        note: Note,
        request: &Request,
        result: impl FnOnce(&Reply) -> Value,
    ) -> Reply {
        self.begin(seat, &note);
        let reply = self.client.send(&seat.1, request).await;
        let value = if reply.kind == Kind::Ok { result(&reply) } else { note.value.clone() };
        self.end(seat, &note, &reply, value);
        reply
    }

    /// As [`Self::act`], but through one member after the other until one of them says that it was done,
    /// or that it was refused before anybody might have done it. `request` needs a key, under which it is
    /// one and the same however often it is sent.
    pub(super) async fn act_until_known(
        &mut self,
        note: Note,
        request: &Request,
        result: impl FnOnce(&Reply) -> Value,
    ) -> Reply {
        let mut seat = self.seat();
        self.begin(&seat, &note);
        let mut unsure = false;
        let mut sends = 1;
        let mut reply = loop {
            let reply = self.client.send(&seat.1, request).await;
            let refused = matches!(reply.status, 400..=499) && reply.status != 429;
            let settled = reply.kind == Kind::Ok || refused && !unsure;
            unsure |= reply.kind == Kind::Info;
            if settled || sends == SENDS_MAX {
                break reply;
            }
            sends += 1;
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(30..200))).await;
            seat = self.seat();
        };
        if unsure && reply.kind != Kind::Ok {
            reply.kind = Kind::Info;
        }
        let value = if reply.kind == Kind::Ok { result(&reply) } else { note.value.clone() };
        self.end(&seat, &note, &reply, value);
        reply
    }

    /// Records that an operation of several calls begins.
    pub(super) fn begin(&self, seat: &Seat, note: &Note) {
        self.stage.recorder.invoke(self.process, Note { node: Some(seat.0), ..note.clone() });
    }

    /// Records how it ended.
    pub(super) fn end(&mut self, seat: &Seat, note: &Note, reply: &Reply, value: Value) {
        self.stage.recorder.end(self.process, reply.kind, reply.note(note, seat.0, value));
        if reply.kind == Kind::Info {
            self.process = self.stage.recorder.process();
        }
    }
}

/// The highest index that any answer of the run has named so far: what every member must get to.
pub(super) fn highest_index(stage: &Stage) -> u64 {
    stage.recorder.with_ops(|ops| {
        let acked = ops.iter().filter(|op| op.kind == Kind::Ok);
        acked.filter_map(|op| op.log).max().unwrap_or(0)
    })
}

/// Reads `path` from one member until it answers, for at most `patience`.
pub(super) async fn insist(
    client: &Client,
    url: &str,
    path: &str,
    patience: Duration,
) -> Result<Reply, String> {
    let until = tokio::time::Instant::now() + patience;
    let request = Request::get(path);
    loop {
        let reply = client.send_within(url, &request, Duration::from_secs(10)).await;
        if reply.kind == Kind::Ok {
            return Ok(reply);
        }
        let why = reply.error.unwrap_or_default();
        if tokio::time::Instant::now() >= until {
            return Err(why);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a request until some member takes it.
pub(super) async fn insist_write(
    stage: &Stage,
    client: &Client,
    request: &Request,
) -> Result<(), String> {
    insist_reply(stage, client, request).await.map(drop)
}

/// As [`insist_write`], with what the member answered.
pub(super) async fn insist_reply(
    stage: &Stage,
    client: &Client,
    request: &Request,
) -> Result<Reply, String> {
    let until = tokio::time::Instant::now() + WRITE_PATIENCE;
    let mut why = "there is no member".to_owned();
    while tokio::time::Instant::now() < until {
        for (_, url) in stage.members.all() {
            let reply = client.send(&url, request).await;
            if reply.kind == Kind::Ok {
                return Ok(reply);
            }
            why = reply.error.unwrap_or_default();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(why)
}

/// Serves `router` where members reach it, until the stage is over.
pub(super) async fn serve(
    stage: &Stage,
    workload: &'static str,
    router: axum::Router,
) -> Result<SocketAddr, HarnessError> {
    let failed = |what: String| HarnessError { workload, what };
    let Some(host) = stage.worker_hosts.first() else {
        return Err(failed("no address for workers is given".to_owned()));
    };
    let bound = TcpListener::bind((*host, 0)).await;
    let listener = bound.map_err(|error| failed(error.to_string()))?;
    let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let over = stage.over.clone();
    tokio::spawn(async move {
        let served = axum::serve(listener, router);
        tokio::select! { () = over.cancelled() => {} _ = served => {} }
    });
    Ok(address)
}

//! Readers of the event stream: one that stays with each member, and some that hop. All begin at
//! the beginning and go on where they were after every break, so whatever is told to one must be
//! told to all: in order, once, with the same words, and nothing left out without a gap marker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::actor::highest_index;
use super::sse::{Parser, Sent};
use super::{HarnessError, Stage, Workload};
use crate::checker::{Verdict, streams};
use crate::client::Client;
use crate::history::{History, Note};

const NAME: &str = "events";
const HOPPERS: u64 = 2;
/// A stream that says nothing for so long is left: members send a comment after 15 s of silence.
const SILENCE: Duration = Duration::from_secs(17);
/// How long readers may take at the end to get to what was acknowledged.
const PATIENCE: Duration = Duration::from_secs(15);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How far each reader is: the log index of its newest event.
    reached: Mutex<BTreeMap<String, u64>>,
    done: CancellationToken,
}

/// One reader.
struct Reader {
    stage: Stage,
    shared: Arc<Shared>,
    client: Client,
    who: String,
    /// The member it stays with; none hops.
    home: Option<u64>,
    last: String,
    rng: rand::rngs::StdRng,
}

impl Reader {
    async fn run(mut self) {
        loop {
            let (number, url) = match self.home {
                Some(home) => match self.stage.members.all().into_iter().find(|m| m.0 == home) {
                    Some(member) => member,
                    None => return,
                },
                None => match self.stage.members.pick(&mut self.rng) {
                    Some(member) => member,
                    None => return,
                },
            };
            let stay = match self.home {
                Some(_) => Duration::from_secs(3600),
                None => Duration::from_millis(self.rng.random_range(500..3000)),
            };
            let done = self.shared.done.clone();
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = async { let _ = timeout(stay, self.follow(number, &url)).await; } => {}
            }
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    /// Reads from one member until the stream breaks.
    async fn follow(&mut self, number: u64, url: &str) {
        let opened = self.client.stream(url, "/api/v1/events", Some(&self.last)).await;
        let Ok(mut response) = opened else { return };
        self.note("open", number, json!({"after": self.last}));
        let mut parser = Parser::default();
        loop {
            let chunk = timeout(SILENCE, response.chunk()).await;
            let Ok(Ok(Some(bytes))) = chunk else { return };
            let events = parser.feed(&bytes);
            if !events.is_empty() {
                // Remembered and recorded without a pause between, so that a cancelled read
                // neither loses nor repeats anything.
                self.take(number, events);
            }
        }
    }

    fn take(&mut self, number: u64, events: Vec<Sent>) {
        let mut told = Vec::new();
        for Sent { id, name, data } in events {
            let index = id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            self.shared.reached.lock().insert(self.who.clone(), index);
            self.last.clone_from(&id);
            told.push(json!([id, name, data]));
        }
        self.note("events", number, Value::Array(told));
    }

    fn note(&self, f: &str, number: u64, value: Value) {
        let note = Note { node: Some(number), ..Note::new(NAME, f).value(value) };
        self.stage.recorder.observe(self.who.clone(), note);
    }
}

impl Events {
    fn start(&self, stage: &Stage, client: &Client, who: String, home: Option<u64>) {
        let reader = Reader {
            stage: stage.clone(),
            shared: Arc::clone(&self.shared),
            client: client.clone(),
            rng: stage.rng(&who),
            who,
            home,
            last: "0".to_owned(),
        };
        tokio::spawn(reader.run());
    }
}

impl Workload for Events {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            for number in 0..HOPPERS {
                self.start(stage, &client, format!("events-hop-{number}"), None);
            }
            // Members may be added while the run goes.
            let mut known = Vec::new();
            loop {
                for (number, _) in stage.members.all() {
                    if !known.contains(&number) {
                        known.push(number);
                        self.start(stage, &client, format!("events-m{number}"), Some(number));
                    }
                }
                tokio::select! {
                    biased;
                    () = stage.stop.cancelled() => return Ok(()),
                    () = sleep(Duration::from_millis(500)) => {}
                }
            }
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            // The newest acknowledged writes may be of kinds without events, so readers need not
            // get quite there: they are done when nobody has moved for a while, or time is up.
            let (goal, until) = (highest_index(stage), Instant::now() + PATIENCE);
            let mut before = self.shared.reached.lock().clone();
            while Instant::now() < until {
                sleep(Duration::from_millis(1000)).await;
                let now = self.shared.reached.lock().clone();
                if now == before && now.values().min().is_some_and(|least| least + 100 >= goal) {
                    break;
                }
                before = now;
            }
            self.shared.done.cancel();
            Ok(())
        }
        .boxed()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        streams::check(NAME, history)
    }
}

//! Clients that write without pause, and what they may say afterwards: every acknowledged write is
//! there, on every member; every other is there or is not, but the same everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::house::House;
use crate::http::{CALL, Fault, Http, PATIENCE};

/// Between two writes of one client, so that the figures of a run stay within reason.
const PAUSE: Duration = Duration::from_millis(15);
/// How long a patient client goes on with one write.
const GIVE_UP: Duration = Duration::from_secs(20);
/// Between two rounds of a write through all members.
const RETRY: Duration = Duration::from_millis(50);
/// Reads at once when the end is checked.
const READS: usize = 8;

/// How a write ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledged,
    /// Every try was certainly not started.
    NotDone,
    Unknown,
}

#[derive(Debug, Default)]
struct Book {
    writes: Vec<(String, End)>,
    /// Answers that are neither a success nor "not now" nor "I do not know".
    refusals: Vec<String>,
    /// Answers that say "not now".
    turned_away: Vec<String>,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// Clients at work.
pub(crate) struct Load {
    book: Arc<Mutex<Book>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

/// What became of their writes.
pub(crate) struct History {
    pub(crate) writes: Vec<(String, End)>,
    pub(crate) refusals: Vec<String>,
    /// Answers of living members that say "not now".
    pub(crate) turned_away: Vec<String>,
}

struct Writer {
    http: Http,
    urls: Vec<String>,
    task_type: String,
    number: usize,
    /// Tries each write once only: that is where unknown outcomes come from.
    patient: bool,
    book: Arc<Mutex<Book>>,
}

impl Load {
    /// Starts `count` clients that submit tasks of `task_type` through the members at `urls`; every
    /// fourth tries a write only once.
    pub(crate) fn start(urls: &[String], task_type: &str, count: usize) -> Self {
        let (book, stop) = (Arc::<Mutex<Book>>::default(), CancellationToken::new());
        let mut clients = JoinSet::new();
        for number in 0..count {
            let writer = Writer {
                http: Http::new(),
                urls: urls.to_vec(),
                task_type: task_type.to_owned(),
                number,
                patient: number % 4 != 3,
                book: Arc::clone(&book),
            };
            let stop = stop.clone();
            clients.spawn(async move {
                let mut count = 0;
                while !stop.is_cancelled() {
                    writer.write(count).await;
                    count += 1;
                    sleep(PAUSE).await;
                }
            });
        }
        Self { book, stop, clients }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        let book = self.book.lock();
        book.writes.iter().filter(|(_, end)| *end == End::Acknowledged).count()
    }

    /// Waits until `more` writes were acknowledged from now on.
    pub(crate) async fn flows(&self, more: usize) {
        let goal = self.acknowledged() + more;
        let flowing = async {
            while self.acknowledged() < goal {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, flowing).await.is_err() {
            panic!("{} of {goal} writes acknowledged", self.acknowledged());
        }
    }

    /// The longest time without an acknowledged write since this was asked last.
    pub(crate) fn take_gap(&self) -> Duration {
        let mut book = self.book.lock();
        let open = book.last.map(|at| at.elapsed()).unwrap_or_default();
        std::mem::take(&mut book.longest_gap).max(open)
    }

    /// Ends the clients in the middle of what they do: nobody is left to answer them.
    pub(crate) fn cut(mut self) {
        self.clients.abort_all();
    }

    /// Lets the clients finish what they do.
    pub(crate) async fn end(mut self) -> History {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let book = std::mem::take(&mut *self.book.lock());
        let Book { writes, refusals, turned_away, longest_gap: _, last: _ } = book;
        History { writes, refusals, turned_away }
    }
}

impl Writer {
    async fn write(&self, count: usize) {
        let task_id = format!("{}-{}-{count}", self.task_type, self.number);
        let body = json!({ "task_id": task_id, "task_type": self.task_type, "input_data": count });
        let key = format!("key-{task_id}");
        let until = Instant::now() + GIVE_UP;
        let mut end = End::NotDone;
        for place in self.number + count.. {
            let url = format!("{}/api/v1/tasks", self.urls[place % self.urls.len()]);
            let tried = self.try_once(&url, &body, &key).await;
            match tried {
                End::Acknowledged => end = End::Acknowledged,
                End::Unknown => end = End::Unknown,
                End::NotDone => {}
            }
            if tried == End::Acknowledged || !self.patient || Instant::now() > until {
                break;
            }
            sleep(RETRY).await;
        }
        let mut book = self.book.lock();
        if end == End::Acknowledged {
            let gap = book.last.map(|at| at.elapsed()).unwrap_or_default();
            book.longest_gap = book.longest_gap.max(gap);
            book.last = Some(Instant::now());
        }
        book.writes.push((task_id, end));
    }

    async fn try_once(&self, url: &str, body: &Value, key: &str) -> End {
        match self.http.send(Method::POST, url, Some(body), Some(key), CALL).await {
            Ok(reply) if reply.status == 200 => End::Acknowledged,
            Ok(reply) if reply.status == 503 => {
                let words = format!("{url}: {}", reply.body);
                self.book.lock().turned_away.push(words);
                End::NotDone
            }
            Ok(reply) if reply.status == 504 => End::Unknown,
            Ok(reply) => {
                self.book.lock().refusals.push(format!("{url}: {} {}", reply.status, reply.body));
                End::Unknown
            }
            Err(Fault::NotSent) => End::NotDone,
            Err(Fault::Lost) => End::Unknown,
        }
    }
}

impl History {
    pub(crate) fn count(&self, wanted: End) -> usize {
        self.writes.iter().filter(|(_, end)| *end == wanted).count()
    }

    /// Holds what the clients were told against what every running member has.
    pub(crate) async fn check(&self, house: &House) {
        assert!(self.refusals.is_empty(), "clients were refused: {:?}", self.refusals);
        assert!(self.count(End::Acknowledged) > 0, "nothing was acknowledged");
        house.agree().await;
        let mut on_members = Vec::new();
        for place in house.running() {
            let present = stream::iter(&self.writes).map(|(task_id, _)| async move {
                let path = format!("/api/v1/tasks/{task_id}?consistency=local");
                let reply = house.http.get(&house.url(place, &path)).await.unwrap();
                match reply.status {
                    200 => Some(task_id.as_str()),
                    404 => None,
                    status => panic!("{task_id}: {status} {}", reply.body),
                }
            });
            let present: Vec<_> = present.buffer_unordered(READS).collect().await;
            on_members.push(present.into_iter().flatten().collect::<BTreeSet<&str>>());
        }
        let first = &on_members[0];
        assert!(on_members.iter().all(|tasks| tasks == first), "members hold different tasks");
        let wrong = self.writes.iter().filter(|(task_id, end)| match end {
            End::Acknowledged => !first.contains(task_id.as_str()),
            End::NotDone => first.contains(task_id.as_str()),
            End::Unknown => false,
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "lost, or done in spite of what was said: {wrong:?}");
    }
}

//! Writes a history as it happens.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::fault::Fault;
use super::{History, Kind, NEMESIS, Note, Op, Process};

/// Lines after which the file is written through to the system.
const FLUSH_EVERY: u64 = 256;

/// Records what everybody does. Cloning shares the history.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    processes: AtomicU64,
    faults: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    ops: Vec<Op>,
    file: Option<BufWriter<File>>,
    /// The first failure to write; told by [`Recorder::finish`].
    broken: Option<io::Error>,
}

impl Recorder {
    /// A recorder that writes JSON lines to `path`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Self::with(Some(file)))
    }

    /// A recorder without a file, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    fn with(file: Option<BufWriter<File>>) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            processes: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            book: Mutex::new(Book { file, ..Book::default() }),
        }))
    }

    /// Nanoseconds since this recorder was made.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A process number that nobody has used yet.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.0.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// Records that client `process` begins an operation.
    pub fn invoke(&self, process: u64, note: Note) {
        self.push(Process::Client(process), Kind::Invoke, note);
    }

    /// Records how the operation of client `process` ended. After [`Kind::Info`] the client must
    /// go on under a new [`Self::process`].
    pub fn end(&self, process: u64, kind: Kind, note: Note) {
        self.push(Process::Client(process), kind, note);
    }

    /// Records an observation by something with a name: a worker, an observer.
    pub fn observe(&self, who: impl Into<String>, note: Note) {
        self.push(Process::Named(who.into()), Kind::Info, note);
    }

    /// A fault begins: call this right before it is applied. `members` are the harness's numbers.
    pub fn fault(&self, name: &str, members: &[u64]) -> Fault {
        let id = self.0.faults.fetch_add(1, Ordering::Relaxed);
        Fault::begin(self.clone(), id, name, members)
    }

    /// Which faults this run was asked for, by name. The coverage checker wants each of them to
    /// have taken effect.
    pub fn plan(&self, names: &[&str]) {
        let note = Note { value: json!({ "faults": names }), ..Note::new("", "plan") };
        self.push(Process::Named(NEMESIS.to_owned()), Kind::Info, note);
    }

    /// A stretch of the run begins: `healthy`, `faults`, `healed`, `final`.
    pub fn stretch(&self, name: &str) {
        let note = Note { value: json!({ "name": name }), ..Note::new("", "stretch") };
        self.push(Process::Named(NEMESIS.to_owned()), Kind::Info, note);
    }

    /// Looks at what has been recorded until now. Everybody who records waits for it.
    pub(super) fn read<T>(&self, look: impl FnOnce(&[Op]) -> T) -> T {
        look(&self.0.book.lock().ops)
    }

    /// The time is taken under the lock, so that the order of lines is the order of times.
    pub(super) fn push(&self, process: Process, kind: Kind, note: Note) {
        let Note { workload, f, key, value, node, term, log, error } = note;
        let mut book = self.0.book.lock();
        let index = book.ops.len() as u64;
        let time = self.now_ns();
        let workload = workload.to_owned();
        let op = Op { index, time, process, kind, workload, f, key, value, node, term, log, error };
        if let Some(file) = &mut book.file {
            let written = serde_json::to_writer(&mut *file, &op)
                .map_err(io::Error::from)
                .and_then(|()| file.write_all(b"\n"))
                .and_then(
                    |()| if index.is_multiple_of(FLUSH_EVERY) { file.flush() } else { Ok(()) },
                );
            if let Err(error) = written {
                book.file = None;
                book.broken = Some(error);
            }
        }
        book.ops.push(op);
    }

    /// Calls `look` with all lines so far. Short, because it holds everybody up.
    pub fn with_ops<T>(&self, look: impl FnOnce(&[Op]) -> T) -> T {
        look(&self.0.book.lock().ops)
    }

    /// Writes the file through and gives the history so far.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn finish(&self) -> io::Result<History> {
        let mut book = self.0.book.lock();
        if let Some(error) = book.broken.take() {
            return Err(error);
        }
        if let Some(file) = &mut book.file {
            file.flush()?;
        }
        Ok(History { ops: book.ops.clone() })
    }
}

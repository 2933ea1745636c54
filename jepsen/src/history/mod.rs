//! The history of a run: everything that clients, workers and the nemesis did, in one order.
//!
//! A history is the only thing checkers look at, so a recorded file can be checked again at any
//! time (`jepsen check FILE`). It is JSON lines, one [`Op`] per line, written as the run goes so
//! that a run that is cut short still leaves what it saw. Keys are Jepsen's, and [`edn`] turns a
//! history into what Knossos and Elle read.

pub mod edn;
mod fault;
mod recorder;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use fault::{Fault, FaultSpan, Stretch};
pub use recorder::Recorder;

/// The process name under which faults stand.
pub const NEMESIS: &str = "nemesis";

/// Who did something: a client, which is single-threaded and gets a new number after an operation
/// whose outcome it does not know; or something with a name: the nemesis, a worker, an observer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client.
    Client(u64),
    /// Anything else.
    Named(String),
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// What a line says of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It certainly did not happen.
    Fail,
    /// Of a client: it may have happened, or may happen yet. Of others: an observation.
    Info,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// Its place in the history, from 0.
    pub index: u64,
    /// Nanoseconds since the recorder was made, of a clock that never goes back.
    pub time: u64,
    /// Who.
    pub process: Process,
    /// Begin, end, or observation.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Which workload it belongs to; empty for the nemesis.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// What: `read`, `write`, `cas`, `submit` ... or the name of a fault.
    pub f: String,
    /// What it was about, where histories are checked key by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Arguments of an invocation; results of an end.
    #[serde(default)]
    pub value: Value,
    /// The member that was asked, by the harness's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The term of the epoch that the answer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// The log index that the answer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
    /// Why it did not end well: a stable code, or the transport's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a line says beside who, when and where it stands: [`Recorder`] adds those.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Note {
    /// See [`Op::workload`].
    pub workload: &'static str,
    /// See [`Op::f`].
    pub f: String,
    /// See [`Op::key`].
    pub key: Option<String>,
    /// See [`Op::value`].
    pub value: Value,
    /// See [`Op::node`].
    pub node: Option<u64>,
    /// See [`Op::term`].
    pub term: Option<u64>,
    /// See [`Op::log`].
    pub log: Option<u64>,
    /// See [`Op::error`].
    pub error: Option<String>,
}

impl Note {
    /// `f` of `workload`, with nothing else known yet.
    #[must_use]
    pub fn new(workload: &'static str, f: impl Into<String>) -> Self {
        Self { workload, f: f.into(), ..Self::default() }
    }

    /// About `key`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With arguments or results.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.value = value.into();
        self
    }
}

/// An operation with its end, if it has one.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The line that begins it.
    pub invoke: &'a Op,
    /// The line that ends it; none when the run ended first.
    pub end: Option<&'a Op>,
}

impl Call<'_> {
    /// How it ended; [`Kind::Info`] when nobody knows.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.end.map_or(Kind::Info, |end| end.kind)
    }

    /// Whether it certainly happened.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.kind() == Kind::Ok
    }

    /// When it ended, in ns; `u64::MAX` when it may happen yet.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        match self.end {
            Some(end) if end.kind != Kind::Info => end.time,
            _ => u64::MAX,
        }
    }

    /// The value at the end; the null value when there is none.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.end.map_or(&Value::Null, |end| &end.value)
    }
}

/// A whole history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// In the order of [`Op::index`].
    pub ops: Vec<Op>,
}

impl History {
    /// Reads JSON lines.
    ///
    /// # Errors
    /// When the file cannot be read or a line is no [`Op`].
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = io::BufReader::new(std::fs::File::open(path)?);
        let mut ops = Vec::new();
        for (number, line) in file.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let op = serde_json::from_str(&line).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1))
            })?;
            ops.push(op);
        }
        Ok(Self { ops })
    }

    /// The lines of one workload.
    pub fn of<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Op> {
        self.ops.iter().filter(move |op| op.workload == workload)
    }

    /// The operations of clients of one workload, in the order in which they began.
    #[must_use]
    pub fn calls<'a>(&'a self, workload: &'a str) -> Vec<Call<'a>> {
        pair(self.of(workload))
    }

    /// The operations of clients of all workloads, in the order in which they began.
    #[must_use]
    pub fn all_calls(&self) -> Vec<Call<'_>> {
        pair(self.ops.iter())
    }

    /// What was observed under `f` in one workload: lines of kind info by named processes.
    pub fn observed<'a>(&'a self, workload: &'a str, f: &'a str) -> impl Iterator<Item = &'a Op> {
        let seen = |op: &&Op| op.kind == Kind::Info && matches!(op.process, Process::Named(_));
        self.of(workload).filter(seen).filter(move |op| op.f == f)
    }

    /// The time of the last line, in ns.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.ops.last().map_or(0, |op| op.time)
    }
}

/// Links each invocation to the next line of its process.
fn pair<'a>(ops: impl Iterator<Item = &'a Op>) -> Vec<Call<'a>> {
    let mut calls: Vec<Call<'a>> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for op in ops {
        let Process::Client(process) = op.process else { continue };
        if op.kind == Kind::Invoke {
            open.insert(process, calls.len());
            calls.push(Call { invoke: op, end: None });
        } else if let Some(place) = open.remove(&process) {
            calls[place].end = Some(op);
        }
    }
    calls
}

#[cfg(test)]
mod tests;

//! Faults in a history: when each began and ended, and whether it did anything.

use serde_json::{Value, json};

use super::{History, Kind, NEMESIS, Note, Op, Process, Recorder};

/// A fault under way. Call [`Self::active`] once it is applied, [`Self::healing`] right before and
/// [`Self::healed`] right after it is taken away. `evidence` says how it is known that the fault
/// did something: packets counted as dropped, the process that is gone, the offset that was read
/// back. A fault that nobody calls active counts as one that had no effect.
#[derive(Debug)]
#[must_use = "a fault must be ended with `healed`"]
pub struct Fault {
    recorder: Recorder,
    id: u64,
    name: String,
}

impl Fault {
    pub(super) fn begin(recorder: Recorder, id: u64, name: &str, members: &[u64]) -> Self {
        let fault = Self { recorder, id, name: name.to_owned() };
        fault.note("begin", json!({ "members": members }));
        fault
    }

    /// Its number in this history.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// It is in force.
    pub fn active(&self, evidence: &str) {
        self.note("active", json!({ "evidence": evidence }));
    }

    /// It could not be applied, or was seen to do nothing.
    pub fn no_effect(&self, why: &str) {
        self.note("no-effect", json!({ "why": why }));
    }

    /// It is about to be taken away.
    pub fn healing(&self) {
        self.note("healing", json!({}));
    }

    /// It is gone: from here on the cluster has its budget to serve again.
    pub fn healed(self) {
        self.note("healed", json!({}));
    }

    fn note(&self, phase: &str, mut value: Value) {
        value["fault"] = json!(self.id);
        value["phase"] = json!(phase);
        let note = Note { value, ..Note::new("", self.name.clone()) };
        self.recorder.push(Process::Named(NEMESIS.to_owned()), Kind::Info, note);
    }
}

/// One fault as it stands in a history. Times are in ns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultSpan {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The members it was aimed at.
    pub members: Vec<u64>,
    /// Before it was applied.
    pub begin_ns: u64,
    /// When it began to be taken away; none when the run ended first.
    pub healing_ns: Option<u64>,
    /// When it was gone.
    pub healed_ns: Option<u64>,
    /// How it is known that it did something.
    pub evidence: Option<String>,
    /// Why it did nothing.
    pub no_effect: Option<String>,
}

impl FaultSpan {
    /// Whether it is known to have done something.
    #[must_use]
    pub fn took_effect(&self) -> bool {
        self.evidence.is_some() && self.no_effect.is_none()
    }
}

/// A stretch of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its name.
    pub name: String,
    /// When it began, in ns.
    pub begin_ns: u64,
    /// When the next one began, or the history ended.
    pub end_ns: u64,
}

/// The faults among `ops`, in the order in which they began.
fn spans<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Vec<FaultSpan> {
    let mut spans: Vec<FaultSpan> = Vec::new();
    for op in ops.into_iter().filter(|op| is_nemesis(op)) {
        let Some(id) = op.value["fault"].as_u64() else { continue };
        let phase = op.value["phase"].as_str().unwrap_or_default();
        if phase == "begin" {
            let members = op.value["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            spans.push(FaultSpan {
                id,
                name: op.f.clone(),
                members: members.iter().filter_map(Value::as_u64).collect(),
                begin_ns: op.time,
                healing_ns: None,
                healed_ns: None,
                evidence: None,
                no_effect: None,
            });
            continue;
        }
        let Some(span) = spans.iter_mut().find(|span| span.id == id) else { continue };
        let text = |key: &str| Some(op.value[key].as_str().unwrap_or_default().to_owned());
        match phase {
            "active" => span.evidence = text("evidence"),
            "no-effect" => span.no_effect = text("why"),
            "healing" => span.healing_ns = Some(op.time),
            "healed" => span.healed_ns = Some(op.time),
            _ => {}
        }
    }
    spans
}

/// Whether a line tells of faults.
fn is_nemesis(op: &Op) -> bool {
    matches!(&op.process, Process::Named(name) if name == NEMESIS)
}

impl Recorder {
    /// Whether any fault of this name has done something until now.
    #[must_use]
    pub fn took_effect(&self, name: &str) -> bool {
        self.read(|ops| spans(ops).iter().any(|span| span.name == name && span.took_effect()))
    }
}

impl History {
    /// All faults, in the order in which they began.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultSpan> {
        spans(&self.ops)
    }

    /// The names of the faults that were asked for.
    #[must_use]
    pub fn planned(&self) -> Vec<String> {
        let plans = self.nemesis().filter(|op| op.f == "plan");
        let names = plans.filter_map(|op| op.value["faults"].as_array()).flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// The stretches of the run, in order.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch> {
        let end_ns = self.end_ns();
        let mut stretches: Vec<Stretch> = Vec::new();
        for op in self.nemesis().filter(|op| op.f == "stretch") {
            if let Some(last) = stretches.last_mut() {
                last.end_ns = op.time;
            }
            let name = op.value["name"].as_str().unwrap_or_default().to_owned();
            stretches.push(Stretch { name, begin_ns: op.time, end_ns });
        }
        stretches
    }

    fn nemesis(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().filter(|op| is_nemesis(op))
    }
}

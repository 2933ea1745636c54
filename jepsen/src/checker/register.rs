//! A register with read, write and compare-and-set: the operations that the three checkers of
//! linearizability judge.

use serde_json::Value;

use crate::history::{Call, Kind};

/// What was done; values are unique per write, `None` is a register nobody has written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Saw this value.
    Read(Option<i64>),
    /// Wrote this value.
    Write(i64),
    /// Put the second value where it found the first.
    Cas(Option<i64>, i64),
}

/// An operation on one register. Times are in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOp {
    /// When it was called.
    pub call: i64,
    /// When it returned; `i64::MAX` when its outcome is unknown.
    pub end: i64,
    /// What it did, or may have done.
    pub action: Action,
    /// The line of the history that begins it.
    pub index: u64,
}

impl RegisterOp {
    /// Whether it certainly happened.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.end != i64::MAX
    }

    /// The value afterwards, or `None` when the operation does not fit `state`. An unknown
    /// compare-and-set that does not fit simply did nothing.
    #[must_use]
    pub fn step(&self, state: Option<i64>) -> Option<Option<i64>> {
        match self.action {
            Action::Read(seen) => (seen == state).then_some(state),
            Action::Write(value) => Some(Some(value)),
            Action::Cas(old, new) if old == state => Some(Some(new)),
            Action::Cas(..) => (!self.is_sure()).then_some(state),
        }
    }
}

/// Reads the calls of one key. Failures did not happen, and reads without an answer say nothing:
/// both are left out.
#[must_use]
pub fn ops_of<'a>(calls: impl IntoIterator<Item = &'a Call<'a>>) -> Vec<RegisterOp> {
    calls.into_iter().filter_map(op_of).collect()
}

fn op_of(call: &Call<'_>) -> Option<RegisterOp> {
    if call.kind() == Kind::Fail {
        return None;
    }
    let argument = &call.invoke.value;
    let action = match call.invoke.f.as_str() {
        "read" if call.is_ok() => Action::Read(call.result().as_i64()),
        "write" => Action::Write(argument.as_i64()?),
        "cas" => Action::Cas(argument[0].as_i64(), argument[1].as_i64()?),
        _ => return None,
    };
    let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    Some(RegisterOp {
        call: time(call.invoke.time),
        end: time(call.end_ns()),
        action,
        index: call.invoke.index,
    })
}

/// One line for people.
#[must_use]
pub fn describe(op: &RegisterOp) -> String {
    let value = |value: Option<i64>| value.map_or_else(|| "nil".to_owned(), |v| v.to_string());
    let what = match op.action {
        Action::Read(seen) => format!("read -> {}", value(seen)),
        Action::Write(new) => format!("write {new}"),
        Action::Cas(old, new) => format!("cas {} -> {new}", value(old)),
    };
    let end = match op.is_sure() {
        true => format!("{:.3} ms", op.end as f64 / 1e6),
        false => "unknown".to_owned(),
    };
    format!("#{} {what} [{:.3} ms .. {end}]", op.index, op.call as f64 / 1e6)
}

/// The calls of a workload by their key, in order.
#[must_use]
pub fn by_key<'a>(calls: &'a [Call<'a>]) -> Vec<(&'a str, Vec<&'a Call<'a>>)> {
    let mut keys: Vec<(&str, Vec<&Call<'_>>)> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for call in calls {
        let Some(key) = call.invoke.key.as_deref() else { continue };
        let place = *places.entry(key).or_insert_with(|| {
            keys.push((key, Vec::new()));
            keys.len() - 1
        });
        keys[place].1.push(call);
    }
    keys
}

/// A null or a number, as the history writes values.
#[must_use]
pub fn value(value: Option<i64>) -> Value {
    value.map_or(Value::Null, Value::from)
}

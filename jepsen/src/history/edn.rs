//! Histories as EDN, for Knossos and Elle.
//!
//! Knossos wants `{:process 3, :type :invoke, :f :write, :value 5}` per line, keys of independent
//! histories as `[k v]`; Elle wants transactions as vectors of `[:append k v]` and `[:r k nil]`.
//! Both are what the JSON already says, in another spelling.

use std::io::{self, Write};

use serde_json::Value;

use super::{Kind, Op, Process};

/// Writes operations of clients and of the nemesis as EDN, one map per line.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write<'a>(ops: impl IntoIterator<Item = &'a Op>, out: &mut impl Write) -> io::Result<()> {
    for op in ops {
        writeln!(out, "{}", line(op))?;
    }
    Ok(())
}

fn line(op: &Op) -> String {
    let process = match &op.process {
        Process::Client(number) => number.to_string(),
        Process::Named(name) => keyword(name),
    };
    let kind = match op.kind {
        Kind::Invoke => ":invoke",
        Kind::Ok => ":ok",
        Kind::Fail => ":fail",
        Kind::Info => ":info",
    };
    let value = match &op.key {
        // An independent history: knossos and jepsen.independent read a pair.
        Some(key) => format!("[{} {}]", text(key), edn(&op.value, false)),
        None => edn(&op.value, op.f == "txn"),
    };
    let mut line = format!(
        "{{:index {}, :time {}, :process {process}, :type {kind}, :f {}, :value {value}",
        op.index,
        op.time,
        keyword(&op.f)
    );
    for (name, number) in [("node", op.node), ("term", op.term), ("log", op.log)] {
        if let Some(number) = number {
            line.push_str(&format!(", :{name} {number}"));
        }
    }
    if let Some(error) = &op.error {
        line.push_str(&format!(", :error {}", text(error)));
    }
    line.push('}');
    line
}

/// JSON as EDN. In a transaction the first word of each micro-operation is a keyword.
fn edn(value: &Value, txn: bool) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(word) => text(word),
        Value::Array(list) if txn => {
            let micro = |op: &Value| match op.as_array().map(Vec::as_slice) {
                Some([Value::String(word), rest @ ..]) => {
                    let rest: Vec<String> = rest.iter().map(|value| edn(value, false)).collect();
                    format!("[{} {}]", keyword(word), rest.join(" "))
                }
                _ => edn(op, false),
            };
            format!("[{}]", list.iter().map(micro).collect::<Vec<_>>().join(" "))
        }
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(|value| edn(value, false)).collect();
            format!("[{}]", list.join(" "))
        }
        Value::Object(map) => {
            let pairs =
                map.iter().map(|(key, value)| format!("{} {}", text(key), edn(value, false)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A word as a keyword; what a keyword may not hold becomes a dash.
fn keyword(word: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let word: String = word.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    format!(":{word}")
}

/// JSON's escapes are EDN's, too.
fn text(word: &str) -> String {
    Value::from(word).to_string()
}

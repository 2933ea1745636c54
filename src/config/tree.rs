//! The values of a configuration as one tree, with where each came from and what is wrong.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fault, Faults, compat, keys};

/// What was found wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Tree {
    root: Value,
    /// Line of each key of the file, by dotted path.
    lines: BTreeMap<String, usize>,
    /// Origin of values that do not come from the file.
    origins: BTreeMap<String, String>,
    findings: Findings,
}

impl Tree {
    /// Reads the first document of `text` (family W ships files with several).
    pub(super) fn parse(text: &str) -> Result<Self, Faults> {
        let fault = |what: String| {
            let origin = String::new();
            Faults(vec![Fault { key: String::new(), origin, what }])
        };
        let first = serde_yaml_ng::Deserializer::from_str(text).next();
        let root = match first {
            Some(document) => Value::deserialize(document)
                .map_err(|error| fault(format!("not readable as YAML: {error}")))?,
            None => Value::Null,
        };
        let root = match root {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => root,
            _ => return Err(fault("the file must hold sections (`name: ...`)".to_owned())),
        };
        let (origins, findings) = (BTreeMap::new(), Findings::default());
        Ok(Self { root, lines: lines_of(text), origins, findings })
    }

    /// Lays the variables over the file that name a key of ours or of family W.
    pub(super) fn overlay(&mut self, environment: &BTreeMap<String, String>) {
        let ours = keys::KEYS.iter().map(|key| (key.path.to_owned(), key.kind));
        let theirs = compat::keys().filter(|(path, _)| !path.contains('*'));
        for (path, kind) in ours.chain(theirs) {
            let variable = keys::variable(&path);
            if let Some(text) = environment.get(&variable) {
                self.set(&path, kind.read_variable(text), &variable);
            }
        }
        for (variable, path, kind) in compat::VARIABLES {
            // Our own name for the same key wins.
            if let Some(text) = environment.get(variable)
                && !environment.contains_key(&keys::variable(path))
            {
                self.set(path, kind.read_variable(text), variable);
            }
        }
    }

    pub(super) fn set(&mut self, path: &str, value: Value, origin: &str) {
        let mut at = &mut self.root;
        for name in path.split('.') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { return };
            at = map.entry(name).or_insert(Value::Null);
        }
        *at = value;
        self.origins.insert(path.to_owned(), origin.to_owned());
    }

    /// The value somebody gave at `path`; `null` counts as none.
    pub(super) fn given(&self, path: &str) -> Option<Value> {
        let value = path.split('.').try_fold(&self.root, |value, name| value.get(name))?;
        (!value.is_null()).then(|| value.clone())
    }

    /// Whether the value at `path` comes from there and not from the file.
    pub(super) fn is_from(&self, path: &str, origin: &str) -> bool {
        self.origins.get(path).is_some_and(|from| from == origin)
    }

    pub(super) fn forget(&mut self, path: &str) {
        let origin = self.origin(path);
        self.set(path, Value::Null, &origin);
    }

    /// The whole document without the values that are local.
    pub(super) fn replicated(&self) -> Value {
        let mut root = self.root.clone();
        let Value::Object(sections) = &mut root else { return root };
        sections.remove("cluster");
        sections.remove("listeners");
        sections.remove("services");
        if let Some(Value::Object(logging)) = sections.get_mut("logging") {
            logging.remove("level");
            logging.remove("format");
            if logging.is_empty() {
                sections.remove("logging");
            }
        }
        root
    }

    /// Paths of all values below `section` that are no sections themselves.
    pub(super) fn leaves(&self, section: &str) -> Vec<String> {
        let mut found = Vec::new();
        let start = if section.is_empty() { Some(&self.root) } else { self.root.get(section) };
        if let Some(value) = start {
            collect_leaves(section, value, &mut found);
        }
        found
    }

    fn value(&self, path: &str) -> Value {
        let default = keys::find(path).default;
        self.given(path).unwrap_or_else(|| {
            serde_yaml_ng::from_str(default).expect("a test reads every default")
        })
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.value(path).as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.value(path).as_bool().unwrap_or_default()
    }

    pub(super) fn number(&self, path: &str) -> u64 {
        self.value(path).as_u64().unwrap_or_default()
    }

    pub(super) fn number_or(&self, path: &str, default: u64) -> u64 {
        self.given(path).and_then(|value| value.as_u64()).unwrap_or(default)
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let value = self.value(path);
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// Where the value at `path` comes from, as people find it.
    fn origin(&self, path: &str) -> String {
        if let Some(origin) = self.origins.get(path) {
            return origin.clone();
        }
        let mut at = path;
        loop {
            if let Some(line) = self.lines.get(at) {
                return format!("line {line}");
            }
            let Some((parent, _)) = at.rsplit_once('.') else { return String::new() };
            at = parent;
        }
    }

    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>) {
        let fault = Fault { key: key.to_owned(), origin: self.origin(key), what: what.into() };
        self.findings.faults.push(fault);
    }

    pub(super) fn fault_of(&mut self, key: &str, origin: &str, what: impl Into<String>) {
        let fault = Fault { key: key.to_owned(), origin: origin.to_owned(), what: what.into() };
        self.findings.faults.push(fault);
    }

    pub(super) fn warn(&mut self, what: String) {
        self.findings.warnings.push(what);
    }

    pub(super) fn into_findings(self) -> Findings {
        self.findings
    }
}

fn collect_leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect_leaves(&below, value, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// The line of every key in block style; keys inside `{...}` are found by their parent.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut item = 0;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut indent = line.len() - content.len();
        let mut content = content;
        let dash = content.strip_prefix("- ");
        open.retain(|(depth, _)| {
            *depth < indent || (dash.is_some() && *depth == indent && item == 0)
        });
        if let Some(rest) = dash {
            // Items are numbered below the key that holds the list.
            open.retain(|(depth, name)| *depth < indent || name.parse::<usize>().is_err());
            open.push((indent, item.to_string()));
            lines.insert(join(&open), number + 1);
            item += 1;
            indent += 2;
            content = rest.trim_start();
        } else if !open.iter().any(|(_, name)| name.parse::<usize>().is_ok()) {
            item = 0;
        }
        let name =
            content.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '));
        if let Some((name, _)) = name {
            open.retain(|(depth, _)| *depth < indent);
            open.push((indent, name.trim_matches(['"', '\'']).to_owned()));
            lines.entry(join(&open)).or_insert(number + 1);
        }
    }
    lines
}

fn join(open: &[(usize, String)]) -> String {
    open.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_line() {
        let text = "# c\ncluster:\n  name: x\n\n  raft:\n    preset: lan\nlisteners:\n  - profile: peer\n    addr: a\n  - profile: web4ai\nlogging:\n  level: info\n";
        let lines = lines_of(text);
        assert_eq!(lines["cluster.raft.preset"], 6);
        assert_eq!(lines["listeners.0.addr"], 9);
        assert_eq!(lines["listeners.1.profile"], 10);
        assert_eq!(lines["logging.level"], 12);
    }
}

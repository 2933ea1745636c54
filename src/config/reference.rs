//! That docs/configuration.md has every replicated key, with the default and the range that hold.

use serde_json::json;

use super::compat;
use super::tests::with;
use super::*;
use crate::state::{Policy, default_document, unread_keys};

const PAGE: &str = include_str!("../../docs/configuration.md");
/// Read by rooms whose own tests know their defaults: they are in no [`Policy`].
const ELSEWHERE: [&str; 7] = [
    "orchestrator.id",
    "orchestrator.security_enabled",
    "security.",
    "websocket.",
    "metrics.",
    "compat.status_nodes",
    "compat.agents.",
];

/// A row of the page: one key or two that mean the same.
struct Row {
    keys: Vec<&'static str>,
    default: &'static str,
    range: &'static str,
}

/// The texts between backticks.
fn quoted(cell: &'static str) -> Vec<&'static str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn cells() -> impl Iterator<Item = Vec<&'static str>> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// Those that something acts on.
fn rows() -> Vec<Row> {
    let five = cells().filter(|cells| cells.len() == 5);
    five.map(|cells| Row { keys: quoted(cells[0]), default: cells[1], range: cells[2] }).collect()
}

/// Those that nothing acts on, each with why.
fn without_effect() -> Vec<(&'static str, &'static str)> {
    let two = cells().filter(|cells| cells.len() == 2);
    two.map(|cells| (quoted(cells[0])[0], cells[1])).collect()
}

impl Row {
    /// The default as a value, when it is one.
    fn value(&self) -> Option<Value> {
        let text = self.default.strip_prefix('`')?.strip_suffix('`')?;
        Some(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
    }

    fn bounds(&self) -> Option<(u64, u64)> {
        let (least, most) = self.range.split_once(" to ")?;
        Some((least.parse().ok()?, most.parse().ok()?))
    }

    /// Values within the range, and values out of it.
    fn samples(&self) -> (Vec<Value>, Vec<Value>) {
        if let Some((least, most)) = self.bounds() {
            let below = least.checked_sub(1).map(Value::from);
            let out = below.into_iter().chain([json!(most + 1), json!("x")]).collect();
            return (vec![json!(least), json!(most)], out);
        }
        let words = quoted(self.range).into_iter().map(Value::from).collect::<Vec<_>>();
        match self.range {
            "true or false" => (vec![json!(true), json!(false)], vec![json!("perhaps")]),
            "a number from 0 on" => (vec![json!(0), json!(1.5)], vec![json!(-1), json!("x")]),
            "a whole number" => (vec![json!(7)], vec![json!(-1), json!(1.5), json!("x")]),
            "a text" => (vec![json!("x")], Vec::new()),
            "an http or https URL" => (vec![json!("http://a")], vec![json!("a")]),
            _ if !words.is_empty() => (words, vec![json!("nonsense")]),
            text => match text.strip_prefix("a list of at most ") {
                None => (Vec::new(), Vec::new()),
                Some(most) => {
                    let most: usize = most.parse().unwrap();
                    let list = |len| json!(vec!["a"; len]);
                    let fits = if self.keys[0].ends_with("rules") { 0 } else { most };
                    (vec![list(fits)], vec![list(most + 1)])
                }
            },
        }
    }
}

fn set(document: &mut Value, path: &str, value: Value) {
    let pointed = path.split('.').fold(document, |at, key| {
        let map = at.as_object_mut().unwrap();
        map.entry(key).or_insert_with(|| json!({}))
    });
    *pointed = value;
}

/// What keys that need others find: channels that could be used, and somewhere to look for nodes.
fn base(enabled: bool) -> Value {
    json!({
        "security": {"api_keys": ["an administrator's"]},
        "network": {"discovery_endpoints": ["http://node"]},
        "alerts": {
            "webhook": {"url": "http://a", "enabled": enabled},
            "slack": {"webhook_url": "http://a", "enabled": enabled},
            "email": {"smtp_server": "mail", "from": "a@b", "to": "c@d"}
        }
    })
}

#[test]
fn every_replicated_key_stands_in_the_reference() {
    let listed: Vec<&str> = rows().into_iter().flat_map(|row| row.keys).collect();
    assert!(listed.len() > 90, "the tables are where this test looks for them");
    let unread: Vec<_> = unread_keys().collect();
    assert_eq!(without_effect(), unread);
    let is_below = |path: &str, section: &str| {
        path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for (path, _) in compat::keys() {
        let section = path.strip_suffix(".*").or_else(|| path.strip_suffix('*')).unwrap_or(&path);
        let acts = listed.iter().any(|key| is_below(key, section));
        let idle = unread.iter().any(|(key, _)| is_below(section.trim_end_matches('.'), key));
        assert!(acts != idle, "{path}: {acts} {idle}");
    }
    for key in listed {
        assert!(compat::kind_of(key).is_some(), "{key} is unknown");
    }
}

#[test]
fn the_ranges_of_the_reference_are_those_that_are_checked() {
    let checked = |key: &str, value: &Value| {
        let mut document = base(true);
        set(&mut document, key, value.clone());
        with(&document.to_string(), &[])
    };
    for row in rows() {
        let (within, beyond) = row.samples();
        for key in &row.keys {
            for value in &within {
                let faults = checked(key, value).err();
                assert!(faults.is_none(), "{key}: {value}: {faults:?}");
            }
            for value in &beyond {
                let faults = checked(key, value).err().map(|faults| faults.to_string());
                assert!(faults.is_some_and(|told| told.contains(key)), "{key}: {value}");
            }
        }
    }
}

#[test]
fn the_defaults_of_the_reference_are_those_that_hold() {
    let policy = |key: &str, value: Value| {
        let mut document = default_document();
        for section in ["network", "alerts"] {
            for (name, value) in base(false)[section].as_object().unwrap() {
                set(&mut document, &format!("{section}.{name}"), value.clone());
            }
        }
        if !value.is_null() {
            set(&mut document, key, value);
        }
        Policy::from_document(&document).unwrap()
    };
    let usual = policy("", Value::Null);
    for row in rows() {
        let (within, _) = row.samples();
        for key in &row.keys {
            let started = default_document();
            let pointer = format!("/{}", key.replace('.', "/"));
            let (stands, said) = (started.pointer(&pointer), row.value());
            if let (Some(stands), Some(said)) = (stands, &said) {
                assert_eq!(stands, said, "{key}");
            }
            if ELSEWHERE.iter().any(|prefix| key.starts_with(prefix)) {
                continue;
            }
            if let Some(said) = said.filter(|_| *key != "network.discovery_endpoints") {
                assert!(policy(key, said.clone()) == usual, "{key} is not {said} by default");
            }
            let needs_more = ["alerts.webhook.url", "alerts.slack.webhook_url"].contains(key);
            let changes = |value: &Value| policy(key, value.clone()) != usual;
            let acts = within.is_empty() || within.iter().any(changes);
            assert!(acts || needs_more || key.ends_with("rules"), "{key} changes nothing");
        }
    }
}

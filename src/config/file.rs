//! The documented configuration file: every key of ours with its meaning and default, family W's
//! sections with the values a new cluster starts with.

use serde_json::Value;

use super::keys::{KEYS, Key, Kind, variable};
use super::listeners::Profile;
use crate::state::default_document;

const HEAD: &str = "\
# A member's configuration. Every key has its default, so a file may hold as little as it wants.
# Later layers win: defaults, this file, the environment (the name in brackets), flags.
# `quorate config check FILE` tells what is wrong; `quorate config generate` prints this file.
";

const LISTENERS: &str = "
# Where this member listens. All HTTP profiles (web4ai, nano, agents, bots) serve every path.
# `advertise` is what others are told (host:port); it is needed where `addr` is 0.0.0.0 and the
# peer address does not say which host this is. [QUORATE_HTTP_LISTEN, QUORATE_HTTP_ADVERTISE,
# QUORATE_PEER_LISTEN, QUORATE_PEER_ADVERTISE, and so on by profile]
listeners:
";

const THEIRS: &str = "
# The orchestrator configuration. It is replicated: a new cluster takes it from the member that
# forms it; afterwards `quorate config set` changes it, and what stands here is not looked at.
# These are the keys with a value from the start. What they mean, and all others: the page
# docs/configuration.md.
";

/// The text of the file.
#[must_use]
pub fn generate() -> String {
    let mut text = HEAD.to_owned();
    let (ours, others): (Vec<&Key>, Vec<&Key>) =
        KEYS.iter().partition(|key| key.path.starts_with("cluster."));
    write_keys(&mut text, &ours);
    text.push_str(LISTENERS);
    for profile in [Profile::Web4ai, Profile::Peer] {
        let host = if profile == Profile::Peer { "127.0.0.1" } else { "0.0.0.0" };
        let (name, port) = (profile.as_str(), profile.default_port());
        text.push_str(&format!("  - profile: {name}\n    addr: {host}:{port}\n"));
    }
    write_keys(&mut text, &others);
    text.push_str(THEIRS);
    let mut document = default_document();
    if let Value::Object(sections) = &mut document {
        for (name, section) in sections {
            text.push_str(&format!("{name}:\n"));
            write_section(&mut text, section, 1);
        }
    }
    text
}

/// Keys in the order of the table, under the sections their paths name.
fn write_keys(text: &mut String, keys: &[&Key]) {
    let mut open: Vec<&str> = Vec::new();
    for key in keys {
        let mut names: Vec<&str> = key.path.split('.').collect();
        let name = names.pop().unwrap_or_default();
        let shared = open.iter().zip(&names).take_while(|(one, two)| one == two).count();
        for (depth, section) in names.iter().enumerate().skip(shared) {
            text.push_str(&format!("\n{}{section}:\n", "  ".repeat(depth)));
        }
        let pad = "  ".repeat(names.len());
        open = names;
        for line in key.doc.lines() {
            text.push_str(&format!("{pad}# {line}\n"));
        }
        let allowed = match key.kind {
            Kind::Number(min, max) => format!("{min} to {max}; "),
            Kind::Words(words) => format!("{}; ", words.join(", ")),
            Kind::Text | Kind::Flag | Kind::Amount | Kind::Texts | Kind::Any => String::new(),
        };
        text.push_str(&format!("{pad}# [{allowed}{}]\n", variable(key.path)));
        let comment = if key.default.is_empty() { "# " } else { "" };
        text.push_str(format!("{pad}{comment}{name}: {}", key.default).trim_end());
        text.push('\n');
    }
}

fn write_section(text: &mut String, section: &Value, depth: usize) {
    let Value::Object(keys) = section else { return };
    let pad = "  ".repeat(depth);
    for (name, value) in keys {
        if value.is_object() {
            text.push_str(&format!("{pad}{name}:\n"));
            write_section(text, value, depth + 1);
        } else {
            // JSON values are YAML values; words need no quotes.
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("{pad}{name}: {plain}\n"));
        }
    }
}

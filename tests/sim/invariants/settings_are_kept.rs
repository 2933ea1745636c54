//! A revision of the configuration is one document on every member, what was set is in it, and all work
//! by what it says: what a member derived of it when it was changed, and what another one derives of it
//! when it starts or gets a snapshot, is the same.
//!
//! Source: design, "tunables are replicated"; docs/operations.md, on pausing.

use std::collections::BTreeMap;

use quorate::state::{Policy, State};
use serde_json::Value;

/// The document of a revision, and whether it says that nothing is placed.
type Seen = (String, bool);

#[derive(Default)]
pub(super) struct Settings {
    seen: BTreeMap<u64, Seen>,
    /// By the revision that a client was told: where it set what.
    told: BTreeMap<u64, (String, String)>,
}

impl Settings {
    /// A client was told that it set something.
    pub(super) fn set(&mut self, revision: u64, path: &str, value: &str) -> Result<(), String> {
        let told = (path.to_owned(), value.to_owned());
        match self.told.insert(revision, told.clone()) {
            Some(other) => Err(format!("revision {revision} is {told:?} and {other:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn note(&mut self, state: &State) -> Result<(), String> {
        let (config, policy) = (state.config(), state.policy());
        let new = !self.seen.contains_key(&config.revision);
        let seen = self
            .seen
            .entry(config.revision)
            .or_insert_with(|| (config.text.clone(), policy.paused));
        if seen.0 != config.text || seen.1 != policy.paused {
            return Err(format!("revision {} is {config:?}, and was {seen:?}", config.revision));
        }
        if new { derived(state) } else { Ok(()) }
    }

    /// As if a state had shown it, for tests.
    pub(super) fn saw(&mut self, revision: u64, paused: bool) {
        self.seen.insert(revision, (String::new(), paused));
    }

    /// Whether nothing is placed under a revision, as far as that was seen.
    pub(super) fn is_paused(&self, revision: u64) -> Option<bool> {
        self.seen.get(&revision).map(|(_, paused)| *paused)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (revision, (path, value)) in &self.told {
            let Some((text, _)) = self.seen.get(revision) else { continue };
            let document: Value = serde_json::from_str(text).unwrap_or_default();
            let pointer = format!("/{}", path.replace('.', "/"));
            let set: Value = serde_json::from_str(value).unwrap_or_default();
            if document.pointer(&pointer) != Some(&set) {
                return Err(format!("revision {revision} set {path} to {value}: {text}"));
            }
        }
        Ok(())
    }
}

/// What a member works by is what its document says.
pub(super) fn derived(state: &State) -> Result<(), String> {
    let said = Policy::from_document(&state.config().document())?;
    if said == *state.policy() {
        return Ok(());
    }
    Err(format!("the document says {said:?}, and the member works by {:?}", state.policy()))
}

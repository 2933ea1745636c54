//! What a new cluster begins with (contract 3.8): the orchestrator that is meant when none is named,
//! and the mode it begins in. Both stand in the replicated configuration, never in a member's own.

use serde_json::Value;

use super::apply::Txn;
use super::campaign_command::OrchestratorPatch;
use super::document::{flag, text};
use super::orchestrators::{DEFAULT_ORCHESTRATOR, check_name};
use super::{Policy, Rejection};
use crate::model::Mode;

/// What pauses scheduling.
pub(super) const PAUSED_KEY: &str = "orchestrator.scheduling_paused";

/// `orchestrator.default_name`.
pub(super) fn default_orchestrator(document: &Value) -> Result<String, String> {
    let path = "orchestrator.default_name";
    let name = text(document, path)?.unwrap_or_else(|| DEFAULT_ORCHESTRATOR.to_owned());
    check_name(path, &name).map(|()| name).map_err(|error| error.to_string())
}

/// Family N gates the schedule by a flag of its own beside the mode (contract 3.4, 3.8).
pub(super) fn initial_mode(document: &Value) -> Result<Option<Mode>, String> {
    let path = "orchestrator.mode";
    let read = |word: String| {
        let words = Mode::ALL.map(Mode::as_str).join(", ");
        Mode::parse(&word).ok_or_else(|| format!("{path} must be one of {words}, not {word:?}"))
    };
    let mode = text(document, path)?.map(read).transpose()?;
    Ok(match (flag(document, "orchestrator.beat_enabled")?, mode) {
        (Some(true), None) => Some(Mode::Scheduled),
        (Some(false), Some(Mode::Scheduled | Mode::Continuous)) => Some(Mode::Manual),
        (_, mode) => mode,
    })
}

impl Txn<'_> {
    /// The orchestrator that requests mean that name none is there as soon as the configuration names
    /// it. The first configuration of a cluster also says which mode it begins in; later ones do not,
    /// because by then clients may have chosen another (contract 3.8).
    pub(super) fn found_orchestrator(
        &mut self,
        policy: &Policy,
        is_first: bool,
    ) -> Result<(), Rejection> {
        let name = &policy.default_orchestrator;
        let mode = policy.initial_mode.filter(|_| is_first);
        if name == DEFAULT_ORCHESTRATOR && mode.is_none() {
            return Ok(());
        }
        self.ensure_orchestrator(name.clone())?;
        if mode.is_some() {
            let patch = OrchestratorPatch { mode, ..OrchestratorPatch::default() };
            self.patch_orchestrator(name, patch)?;
        }
        Ok(())
    }
}

/// Whether nothing is placed: as was said last, or else as the cluster is to begin.
pub(super) fn is_paused(document: &Value) -> Result<bool, String> {
    let said = flag(document, PAUSED_KEY)?;
    let begins = flag(document, "orchestrator.auto_start")?.unwrap_or(true);
    Ok(said.unwrap_or(!begins))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_3_8_the_mode_and_the_flag_that_gates_it() {
        let mode = |section: Value| initial_mode(&json!({"orchestrator": section}));
        for (section, expected) in [
            (json!({}), None),
            (json!({"mode": "continuous"}), Some(Mode::Continuous)),
            (json!({"beat_enabled": true}), Some(Mode::Scheduled)),
            (json!({"beat_enabled": true, "mode": "MANUAL"}), Some(Mode::Manual)),
            (json!({"beat_enabled": false}), None),
            (json!({"beat_enabled": false, "mode": "SCHEDULED"}), Some(Mode::Manual)),
            (json!({"beat_enabled": false, "mode": "PAUSED"}), Some(Mode::Paused)),
        ] {
            assert_eq!(mode(section.clone()), Ok(expected), "{section}");
        }
        let wrong = mode(json!({"mode": "sometimes"})).unwrap_err();
        assert!(wrong.starts_with("orchestrator.mode must be one of MANUAL"), "{wrong}");
        let name =
            |name: Value| default_orchestrator(&json!({"orchestrator": {"default_name": name}}));
        assert_eq!(name(Value::Null), Ok("default".to_owned()));
        assert_eq!(name(json!("prod")), Ok("prod".to_owned()));
        for wrong in [json!("x".repeat(300)), json!("a\u{0}b"), json!(7)] {
            assert!(name(wrong).unwrap_err().starts_with("orchestrator.default_name"));
        }
    }
}

//! Whether values fit the keys they are given to, in a file and in a change of the replicated
//! configuration (contract 2.12).

use serde_json::Value;

use super::compat;
use super::keys::Kind;

/// Looks at the value at `path`. Gives whether the key is known.
///
/// # Errors
/// What is allowed instead of the value.
pub(super) fn check_value(path: &str, value: &Value) -> Result<bool, String> {
    match compat::kind_of(path) {
        Some(kind) => kind.check(value).map(|()| true),
        // Taken as it is, it would put itself in the place of everything in there.
        None if is_section(path) && !value.is_object() => {
            Err(format!("must be a section, not {value}"))
        }
        None => Ok(false),
    }
}

/// Whether `path` holds keys that are known. Whole documents of which nothing is looked at are none.
fn is_section(path: &str) -> bool {
    let inside = |known: &str| {
        let name = known.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'));
        name.is_some_and(|name| name != "*" || path.contains('.'))
    };
    compat::keys().any(|(known, _)| inside(&known))
}

/// Checks a change of the replicated configuration as it is to be merged in. Null takes away what is
/// there, and an empty text is none.
///
/// # Errors
/// What is wrong with which key.
pub fn check_change(change: &Value) -> Result<(), String> {
    let mut open = vec![(String::new(), change)];
    while let Some((path, value)) = open.pop() {
        let is_within = path.is_empty() || is_section(&path);
        // What nobody knows may be as deep as it likes: it is not looked at.
        if let Some(map) = value.as_object().filter(|_| is_within) {
            let dot = if path.is_empty() { "" } else { "." };
            open.extend(map.iter().map(|(name, value)| (format!("{path}{dot}{name}"), value)));
            continue;
        }
        let is_text = || matches!(compat::kind_of(&path), Some(Kind::Text));
        if !value.is_null() && (value.as_str() != Some("") || !is_text()) {
            check_value(&path, value).map_err(|what| format!("{path} {what}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_does_not_take_the_place_of_a_section() {
        for section in ["orchestrator", "network", "alerts", "tasks", "agents", "bots", "metrics"] {
            for value in [json!("x"), json!(7), json!([1]), json!(false)] {
                let what = check_change(&json!({ section: value })).unwrap_err();
                assert!(what.starts_with(section) && what.contains("must be a section"), "{what}");
            }
            assert_eq!(check_change(&json!({ section: null })), Ok(()));
            assert_eq!(check_change(&json!({ section: {} })), Ok(()));
        }
        assert!(check_change(&json!({"performance": {"load_balancing": 5}})).is_err());
        assert!(check_change(&json!({"alerts": {"slack": 5}})).is_err());
    }

    #[test]
    fn known_keys_take_what_the_page_says() {
        let wrong = [
            json!({"auto_scaling": {"provider": "odd"}}),
            json!({"auto_scaling": {"min_nodes": -4}}),
            json!({"auto_scaling": {"max_nodes": 2.5}}),
            json!({"auto_scaling": {"metrics_window": -1}}),
            json!({"websocket": {"max_connections": "many"}}),
            json!({"websocket": {"enabled": "x"}}),
            json!({"metrics": {"enabled": "x"}}),
            json!({"compat": {"status_nodes": "odd"}}),
            json!({"compat": {"agents": {"priority_order": 1}}}),
            json!({"network": {"max_nodes": {"deep": 1}}}),
        ];
        for change in wrong {
            assert!(check_change(&change).is_err(), "{change}");
        }
        let right = json!({
            "auto_scaling": {"provider": "command", "webhook_url": "", "min_nodes": null,
                "scaling_rules": [{"name": "mine"}], "kubernetes": {"namespace": "x"}},
            "alerts": {"slack": {"enabled": true}, "thresholds": {"cpu": 0.5}},
            "scaling_rules": [], "aws": "us-east-1", "mine": {"own": 1}, "own": 5,
            "orchestrator_url": "http://o",
        });
        assert_eq!(check_change(&right), Ok(()));
    }
}

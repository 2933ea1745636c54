//! Where the configuration lets the cluster call out: channels of alerts, webhooks, and what clients
//! may name.

use serde_json::Value;

use super::document::{flag, text, texts};
use super::mail::mail_channel;
use crate::model::{AllowedHosts, Reach};

/// Refuses a channel that is switched on and could not tell anybody. A document that was stored like
/// that is still read, without the channel: only changes are refused, with what to do.
///
/// # Errors
/// What is wrong with which key.
pub fn check_channels(document: &Value) -> Result<(), String> {
    mail_channel(document).map(drop)
}

/// Where a channel of alerts leads, when it is enabled.
pub(super) fn channel(
    document: &Value,
    section: &str,
    key: &str,
) -> Result<Option<String>, String> {
    if flag(document, &format!("{section}.enabled"))? != Some(true) {
        return Ok(None);
    }
    let path = format!("{section}.{key}");
    web_url(document, &path)?.ok_or_else(|| format!("{path} is required")).map(Some)
}

pub(super) fn web_url(document: &Value, path: &str) -> Result<Option<String>, String> {
    let Some(url) = text(document, path)? else { return Ok(None) };
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(format!("{path} must be an http or https URL"));
    }
    Ok(Some(url))
}

pub(super) fn reach(document: &Value) -> Result<Reach, String> {
    let path = "security.outward.allowed_hosts";
    let texts = texts(document, path, 256)?;
    let hosts = AllowedHosts::parse(texts.iter().map(String::as_str));
    Ok(Reach {
        hosts: hosts.map_err(|error| format!("{path}: {error}"))?,
        fetch_inputs: flag(document, "agents.fetch_inputs")?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use crate::state::{Config, Policy};

    #[test]
    fn nonsense_is_refused_by_name() {
        for (path, value, part) in [
            ("auto_scaling.webhook_url", "\"scale.example\"", "auto_scaling.webhook_url must be"),
            ("auto_scaling.webhook_url", "\"https:///x\"", "auto_scaling.webhook_url must be"),
            ("security.outward.allowed_hosts", "[\"a b\"]", "allowed_hosts: `a b` is no host"),
            ("security.outward.allowed_hosts", "\"a\"", "allowed_hosts must be a list"),
            ("agents.fetch_inputs", "1", "agents.fetch_inputs must be true or false"),
            ("alerts.email", "{\"enabled\":true}", "alerts.email.smtp_server is required"),
            ("alerts.email", "{\"enabled\":1}", "alerts.email.enabled must be true or false"),
        ] {
            let error = Config::default().patched(path, value).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let off = r#"{"enabled":false,"smtp_server":"mail.example"}"#;
        assert!(Config::default().patched("alerts.email", off).is_ok(), "kept, as other keys are");
    }

    #[test]
    fn what_may_be_reached_is_read() {
        let open = Policy::default().reach;
        assert!(open.hosts.is_open() && !open.fetch_inputs);
        let patch = r#"{"security":{"outward":{"allowed_hosts":["10.0.0.0/8"]}},
            "agents":{"fetch_inputs":true}}"#;
        let (_, policy) = Config::default().patched("", patch).unwrap();
        assert!(policy.reach.hosts.has_networks() && policy.reach.fetch_inputs);
    }
}

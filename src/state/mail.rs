//! Mail of alerts: how `alerts.email` is read (contract 2.12), and what a mail says of a transition.

use serde_json::{Value, json};

use super::State;
use super::alerts::{decimal, described};
use super::document::{flag, lookup, text};
use crate::model::{
    Alert, MailChannel, MailCredentials, MailEncryption, is_domain, is_loopback, is_mail_address,
};

/// Recipients at most.
const RECIPIENTS_MAX: usize = 32;
/// The longest name or password for the mail server, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 512;
/// The keys that may name the sender and the recipients; the first that says something counts.
const SENDER_KEYS: [&str; 3] = ["from_email", "from", "sender"];
const RECIPIENT_KEYS: [&str; 3] = ["to_emails", "recipients", "to"];

fn path(key: &str) -> String {
    format!("alerts.email.{key}")
}

fn said(document: &Value, key: &str) -> Result<Option<String>, String> {
    text(document, &path(key))
}

/// The channel, when it is enabled. What a channel that is off says is not looked at.
///
/// # Errors
/// What is wrong with which key, without the password.
pub(super) fn mail_channel(document: &Value) -> Result<Option<MailChannel>, String> {
    if flag(document, &path("enabled"))? != Some(true) {
        return Ok(None);
    }
    let server = server(document)?;
    let encryption = encryption(document)?;
    let port = match lookup(document, &path("smtp_port")) {
        None => encryption.port(),
        Some(value) => value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| {
                format!(
                    "alerts.email.smtp_port must be a whole number from 1 to 65535, not {value}"
                )
            })?,
    };
    let credentials = credentials(document)?;
    if credentials.is_some() && encryption == MailEncryption::None && !is_loopback(&server) {
        return Err(
            "alerts.email.password would be sent in clear: let alerts.email.encryption be \
                    starttls or tls, or leave out username and password"
                .to_owned(),
        );
    }
    let from = sender(document)?;
    let to = recipients(document)?;
    Ok(Some(MailChannel { server, port, encryption, credentials, from, to }))
}

fn server(document: &Value) -> Result<String, String> {
    let server = said(document, "smtp_server")?.ok_or("alerts.email.smtp_server is required")?;
    let bare = server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&server);
    if is_domain(bare) || bare.parse::<core::net::IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    Err(format!(
        "alerts.email.smtp_server must be the name or the address of a host, without port, \
         not {server:?}"
    ))
}

fn encryption(document: &Value) -> Result<MailEncryption, String> {
    let Some(word) = said(document, "encryption")? else { return Ok(MailEncryption::StartTls) };
    let found = MailEncryption::ALL.into_iter().find(|(known, _)| *known == word);
    found.map(|(_, encryption)| encryption).ok_or_else(|| {
        let known = MailEncryption::ALL.map(|(known, _)| known).join(", ");
        format!("alerts.email.encryption must be one of {known}, not {word:?}")
    })
}

fn credentials(document: &Value) -> Result<Option<MailCredentials>, String> {
    // No message of these says what the value is.
    let secret = |key: &str| {
        let fits =
            |text: &str| text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control);
        let Some(value) = lookup(document, &path(key)) else { return Ok(None) };
        let given = value.as_str().filter(|given| fits(given)).ok_or_else(|| {
            format!(
                "alerts.email.{key} must be a text of at most {CREDENTIAL_BYTES_MAX} bytes \
                 without control characters"
            )
        })?;
        Ok::<_, String>(Some(given.to_owned()).filter(|given| !given.is_empty()))
    };
    match (secret("username")?, secret("password")?) {
        (Some(username), Some(password)) => Ok(Some(MailCredentials { username, password })),
        (None, None) => Ok(None),
        (Some(_), None) => Err("alerts.email.password is required with a username".to_owned()),
        (None, Some(_)) => Err("alerts.email.username is required with a password".to_owned()),
    }
}

fn sender(document: &Value) -> Result<String, String> {
    for key in SENDER_KEYS {
        let Some(from) = said(document, key)? else { continue };
        return match is_mail_address(&from) {
            true => Ok(from),
            false => Err(format!("alerts.email.{key} must be an address of mail, not {from:?}")),
        };
    }
    let username = said(document, "username")?.filter(|name| is_mail_address(name));
    username.ok_or_else(|| "alerts.email.from_email is required".to_owned())
}

fn recipients(document: &Value) -> Result<Vec<String>, String> {
    for key in RECIPIENT_KEYS {
        let list: Vec<&str> = match lookup(document, &path(key)) {
            None => continue,
            Some(Value::String(text)) => {
                text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect()
            }
            Some(Value::Array(list)) => {
                let list: Option<_> = list.iter().map(Value::as_str).collect();
                list.ok_or_else(|| format!("alerts.email.{key} must be a list of texts"))?
            }
            Some(_) => return Err(format!("alerts.email.{key} must be a text or a list of texts")),
        };
        if list.is_empty() {
            continue;
        }
        if list.len() > RECIPIENTS_MAX {
            return Err(format!("alerts.email.{key} may name {RECIPIENTS_MAX} recipients at most"));
        }
        if let Some(odd) = list.iter().find(|one| !is_mail_address(one)) {
            return Err(format!("alerts.email.{key} must be addresses of mail, not {odd:?}"));
        }
        let mut once: Vec<String> = Vec::with_capacity(list.len());
        for address in list {
            if !once.iter().any(|known| known == address) {
                once.push(address.to_owned());
            }
        }
        return Ok(once);
    }
    Err("alerts.email.to_emails is required".to_owned())
}

/// The body of the delivery that mails a transition: `{subject, text, alert}`.
pub(super) fn letter(state: &State, alert: &Alert) -> String {
    let (severity, status) = (alert.severity.as_str(), alert.state.as_str());
    let on_for_s = alert.changed_at_ms.saturating_sub(alert.since_ms) / 1000;
    let mut text = format!(
        "{}\n\nalert: {}\nmetric: {}\nseverity: {severity}\nstatus: {status}\nvalue: {}\n\
         threshold: {}\non for: {on_for_s} s\n",
        alert.message,
        alert.alert_id,
        alert.metric,
        decimal(alert.value_milli),
        decimal(alert.threshold_milli),
    );
    if !alert.acknowledged_by.is_empty() {
        text.push_str(&format!("acknowledged by: {}\n", alert.acknowledged_by));
    }
    let (transition, cluster) = (alert.transitions, state.cluster_id());
    text.push_str(&format!("transition: {transition}\ncluster: {cluster:032x}\n"));
    let subject = format!("[{severity}] {} {status}", alert.alert_id);
    json!({ "subject": subject, "text": text, "alert": described(alert) }).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{AlertState, Severity};
    use crate::state::{Config, Policy};

    fn base() -> Value {
        json!({"enabled": true, "smtp_server": "mail.example.com", "username": "fleet@example.com",
            "password": "hunter2", "to_emails": ["ops@example.com"]})
    }

    fn read(change: &Value) -> Result<Option<MailChannel>, String> {
        let mut email = base();
        for (key, value) in change.as_object().unwrap() {
            email[key] = value.clone();
        }
        mail_channel(&json!({"alerts": {"email": email}}))
    }

    #[test]
    fn contract_2_12_what_the_channel_is_told() {
        let channel = read(&json!({})).unwrap().unwrap();
        assert_eq!((channel.port, channel.encryption), (587, MailEncryption::StartTls));
        assert_eq!((channel.from.as_str(), channel.to.len()), ("fleet@example.com", 1));
        assert_eq!(channel.credentials.unwrap().password, "hunter2");
        let relay = json!({"encryption": "none", "username": null, "password": "", "sender": "a@b",
            "to_emails": [], "to": "ops@x.org, dev@x.org,ops@x.org", "smtp_server": "[fd00::1]"});
        let relay = read(&relay).unwrap().unwrap();
        assert_eq!((relay.url().as_str(), relay.from.as_str()), ("smtp://[fd00::1]:25", "a@b"));
        assert_eq!(relay.to, ["ops@x.org", "dev@x.org"]);
        let tls = read(&json!({"encryption": "tls", "from": "a@b", "from_email": "c@d"})).unwrap();
        assert_eq!(tls.as_ref().map(|tls| (tls.port, tls.from.as_str())), Some((465, "c@d")));
        let local = json!({"encryption": "none", "smtp_server": "127.0.0.1", "smtp_port": 2525});
        assert!(read(&local).unwrap().unwrap().credentials.is_some(), "loopback is no network");
        assert_eq!(read(&json!({"enabled": false, "smtp_port": "x"})).unwrap(), None);
    }

    #[test]
    fn contract_2_12_nonsense_is_refused_by_name() {
        let many: Vec<String> = (0..33).map(|n| format!("u{n}@example.com")).collect();
        for (change, part) in [
            (json!({"enabled": 1}), "alerts.email.enabled must be true or false"),
            (json!({"smtp_server": ""}), "alerts.email.smtp_server is required"),
            (json!({"smtp_server": "smtp://mail"}), "alerts.email.smtp_server must be the name"),
            (json!({"smtp_server": "mail:25"}), "alerts.email.smtp_server must be the name"),
            (json!({"smtp_server": "a\r\nb"}), "alerts.email.smtp_server must be the name"),
            (json!({"smtp_server": 7}), "alerts.email.smtp_server must be a text"),
            (json!({"smtp_port": 0}), "alerts.email.smtp_port must be a whole number"),
            (json!({"smtp_port": 65536}), "alerts.email.smtp_port must be a whole number"),
            (json!({"smtp_port": "587"}), "alerts.email.smtp_port must be a whole number"),
            (json!({"encryption": "ssl"}), "alerts.email.encryption must be one of starttls"),
            (json!({"encryption": "none"}), "alerts.email.password would be sent in clear"),
            (json!({"password": ""}), "alerts.email.password is required"),
            (json!({"username": ""}), "alerts.email.username is required"),
            (json!({"username": "x"}), "alerts.email.from_email is required"),
            (json!({"from": "Fleet <a@b>"}), "alerts.email.from must be an address"),
            (
                json!({"from_email": "a@b\r\nBcc: c@d"}),
                "alerts.email.from_email must be an address",
            ),
            (json!({"to_emails": []}), "alerts.email.to_emails is required"),
            (json!({"to_emails": 7}), "alerts.email.to_emails must be a text or a list"),
            (json!({"to_emails": [7]}), "alerts.email.to_emails must be a list of texts"),
            (json!({"to_emails": ["ops"]}), "alerts.email.to_emails must be addresses"),
            (json!({"to_emails": ["a@b\nRCPT TO:<c@d>"]}), "alerts.email.to_emails must be addre"),
            (json!({"to_emails": many}), "alerts.email.to_emails may name 32 recipients"),
        ] {
            let error = read(&change).unwrap_err();
            assert!(error.starts_with(part), "{change}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for secret in [json!(4711), json!("47\n11"), json!(["4711"]), json!("4711".repeat(200))] {
            let error = read(&json!({ "password": secret })).unwrap_err();
            assert!(error.starts_with("alerts.email.password must be a text"), "{error}");
            assert!(!error.contains("47"), "{error}");
        }
    }

    #[test]
    fn contract_2_11_what_a_mail_says() {
        let alert = Alert {
            alert_id: "node_failure_rate_threshold".to_owned(),
            metric: "node_failure_rate".to_owned(),
            severity: Severity::Warning,
            state: AlertState::Acknowledged,
            value_milli: 2500,
            threshold_milli: 2000,
            message: "too many".to_owned(),
            since_ms: 1_000_000,
            changed_at_ms: 1_310_900,
            acknowledged_by: "ann".to_owned(),
            transitions: 2,
            suppressed_until_ms: 0,
        };
        let letter: Value = serde_json::from_str(&letter(&State::default(), &alert)).unwrap();
        assert_eq!(letter["subject"], "[warning] node_failure_rate_threshold acknowledged");
        assert_eq!(letter["alert"]["transition"], 2);
        let expected = "too many\n\nalert: node_failure_rate_threshold\n\
            metric: node_failure_rate\nseverity: warning\nstatus: acknowledged\nvalue: 2.500\n\
            threshold: 2.000\non for: 310 s\nacknowledged by: ann\ntransition: 2\n\
            cluster: 00000000000000000000000000000000\n";
        assert_eq!(letter["text"], expected);
    }

    #[test]
    fn a_channel_that_was_stored_and_makes_no_sense_is_read_as_none() {
        let stored = json!({"alerts": {"email": {"enabled": true, "smtp_port": "587"}}});
        assert_eq!(Policy::from_document(&stored).unwrap().alert_email, None);
        let config = Config { revision: 1, text: stored.to_string() };
        let error = config.patched("network.max_nodes", "7").unwrap_err().to_string();
        assert!(error.contains("alerts.email.smtp_server is required"), "{error}");
        let off = config.patched("alerts.email.enabled", "false").unwrap().0;
        assert!(off.patched("network.max_nodes", "7").is_ok());
    }
}

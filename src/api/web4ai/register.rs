//! A registration: from a node's body to a [`NodeSpec`] (contract 2.2, 2.3, 2.6).

use serde_json::value::RawValue;

use super::load;
use crate::api::object::{FieldError, Object};
use crate::model::{Agent, NodeId, NodeStatus};
use crate::state::{LoadWeights, NodeSpec};

/// Fields with a place of their own in a node; all others join its metadata.
const KNOWN: [&str; 20] = [
    "node_id",
    "host",
    "port",
    "node_type",
    "status",
    "capabilities",
    "agents_count",
    "agents",
    "cpu_usage",
    "memory_usage",
    "gpu_usage",
    "network_latency",
    "load_score",
    "version",
    "location",
    "last_heartbeat",
    "capacity",
    "instance",
    "tasks_running",
    "active_tasks",
];
/// Fields with a place of their own in an agent.
const AGENT_KNOWN: [&str; 4] = ["agent_id", "agent_type", "status", "capabilities"];
const AGENTS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 2048;
/// What a node may leave with us beyond its figures: it stays in memory on every member.
const METADATA_BYTES_MAX: usize = 256 * 1024;
/// The words for what a node can do, together.
const CAPABILITIES_BYTES_MAX: usize = 64 * 1024;
/// What the agents it declares may take, together: they lie in its row, as its metadata does.
const AGENTS_BYTES_MAX: usize = 256 * 1024;

/// Reads a registration. A node that declares no capacity gets `default_capacity`, and one without a
/// load score is weighed by `weights`; both are the policy's.
///
/// # Errors
/// [`FieldError`] naming what cannot be used.
pub(super) fn parse(
    node_id: NodeId,
    body: &Object<'_>,
    (default_capacity, weights): (u32, LoadWeights),
) -> Result<NodeSpec, FieldError> {
    let performance = body.object("performance").unwrap_or_default();
    let agents = agents(body)?;
    let agents_count = match body.count("agents_count")?.or(performance.count("agents_count")?) {
        Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
        None => agents.len() as u32,
    };
    let metadata = body.remainder("metadata", &KNOWN)?;
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(FieldError::new("metadata", "at most 256 KiB"));
    }
    Ok(NodeSpec {
        node_id,
        host: text_or(body, "host", "localhost")?,
        port: port(body)?,
        node_type: text_or(body, "node_type", "worker")?,
        capabilities: capabilities(body)?,
        capacity: capacity(body, default_capacity)?,
        agents_count,
        agents,
        load: load::parse(body, &performance, || weights)?.unwrap_or_default(),
        version: text_or(body, "version", "1.0.0")?,
        location: Some(text_or(body, "location", "")?).filter(|location| !location.is_empty()),
        external_url: external_url(body)?,
        instance: text_or(body, "instance", "")?,
        metadata,
        agent_type: None,
    })
}

/// What the node says it is; `active` when it says nothing. It counts like the status of a heartbeat,
/// which a registration is as well.
///
/// # Errors
/// [`FieldError`] for a word that is no status (contract 2.1).
pub(super) fn status(body: &Object<'_>) -> Result<NodeStatus, FieldError> {
    let Some(word) = body.text("status")? else { return Ok(NodeStatus::Active) };
    let wanted = "active, degraded, maintenance, offline or error";
    NodeStatus::parse(&word).ok_or_else(|| FieldError::new("status", wanted))
}

fn text_or(body: &Object<'_>, key: &str, default: &str) -> Result<String, FieldError> {
    let text = body.text(key)?.filter(|text| !text.is_empty());
    let text = text.map_or_else(|| default.to_owned(), |text| text.into_owned());
    if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(FieldError::new(key, "at most 2048 bytes without control characters"));
    }
    Ok(text)
}

fn port(body: &Object<'_>) -> Result<u16, FieldError> {
    let port = body.count("port")?.unwrap_or(8080);
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.ok_or_else(|| FieldError::new("port", "1 to 65535"))
}

fn capacity(body: &Object<'_>, default: u32) -> Result<u32, FieldError> {
    match body.count("capacity")? {
        None => Ok(default),
        Some(capacity @ 1..=100_000) => Ok(capacity as u32),
        Some(_) => Err(FieldError::new("capacity", "1 to 100000")),
    }
}

fn external_url(body: &Object<'_>) -> Result<Option<String>, FieldError> {
    let url = text_or(body, "external_url", "")?;
    match url {
        url if url.is_empty() => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url)),
        _ => Err(FieldError::new("external_url", "an http or https URL")),
    }
}

fn agents(body: &Object<'_>) -> Result<Vec<Agent>, FieldError> {
    let wanted = || FieldError::new("agents", "a list of at most 10000 objects");
    let list = body.list("agents")?;
    if list.len() > AGENTS_MAX {
        return Err(wanted());
    }
    let read = |raw: &RawValue| match Object::of(raw) {
        None => Some(Err(wanted())),
        Some(agent) => agent_of(&agent).transpose(),
    };
    let agents = list.into_iter().filter_map(read).collect::<Result<Vec<Agent>, FieldError>>()?;
    if agents.iter().map(agent_bytes).sum::<usize>() > AGENTS_BYTES_MAX {
        return Err(FieldError::new("agents", "at most 256 KiB together"));
    }
    Ok(agents)
}

/// About what an agent takes of its node's row.
fn agent_bytes(agent: &Agent) -> usize {
    let words: usize = agent.capabilities.iter().map(|word| word.len() + 1).sum();
    let texts = [&agent.agent_id, &agent.agent_type, &agent.status, &agent.extra];
    words + texts.map(|text| text.len() + 1).iter().sum::<usize>()
}

/// What a node can do.
///
/// # Errors
/// [`FieldError`] for no list of strings, and for more than [`CAPABILITIES_BYTES_MAX`].
pub(in crate::api) fn capabilities(body: &Object<'_>) -> Result<Vec<String>, FieldError> {
    let words = body.texts("capabilities")?;
    if words.iter().map(|word| word.len() + 1).sum::<usize>() > CAPABILITIES_BYTES_MAX {
        return Err(FieldError::new("capabilities", "at most 64 KiB together"));
    }
    Ok(words)
}

/// An agent; `None` for one without an id, which is skipped (contract 2.2).
fn agent_of(body: &Object<'_>) -> Result<Option<Agent>, FieldError> {
    let agent_id = text_or(body, "agent_id", "")?;
    if agent_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(Agent {
        agent_id,
        agent_type: text_or(body, "agent_type", "generic")?,
        status: text_or(body, "status", "active")?,
        capabilities: body.texts("capabilities")?,
        extra: body.remainder("metadata", &AGENT_KNOWN)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<NodeSpec, FieldError> {
        let body = Object::parse(body.as_bytes()).unwrap();
        let policy = crate::state::Policy::default();
        parse(NodeId::trusted("n1"), &body, (policy.node_capacity, policy.load_weights))
    }

    #[test]
    fn contract_2_2_defaults() {
        let spec = read(r#"{"x":1}"#).unwrap();
        assert_eq!((spec.host.as_str(), spec.port), ("localhost", 8080));
        assert_eq!((spec.node_type.as_str(), spec.version.as_str()), ("worker", "1.0.0"));
        assert_eq!((spec.capacity, spec.agents_count), (16, 0));
        assert_eq!((spec.location, spec.external_url), (None, None));
        assert_eq!(spec.metadata, r#"{"x":1}"#);
    }

    #[test]
    fn contract_2_6_what_the_enhanced_node_sends() {
        let spec = read(
            r#"{"node_id":"other","host":"10.0.0.7","port":"5000","node_type":"enhanced_node",
                "capabilities":["agent_management","ai_operations"],"version":"2.0.0",
                "agents":[{"agent_id":"a1","agent_type":"gpu","status":"online","name":"A",
                           "capabilities":["x"],"resource_usage":{"cpu":1}},{"name":"no id"}],
                "api_versions":["v3"],"features":{"ws":true},"registration_time":"t",
                "external_url":"http://10.0.0.7:5000","instance":"run-1",
                "performance":{"cpu_usage":10,"memory_usage":20,"load_score":0.5,
                               "agents_count":4,"active_tasks":0,"uptime":9}}"#,
        );
        let spec = spec.unwrap();
        assert_eq!(spec.node_id.as_str(), "n1", "the path wins");
        assert_eq!((spec.port, spec.agents_count), (5000, 4));
        assert_eq!(spec.load.score_milli, 5, "0.5 percent");
        assert_eq!(spec.load.cpu_milli, 10_000);
        assert_eq!(spec.agents.len(), 1);
        assert_eq!(spec.agents[0].extra, r#"{"name":"A","resource_usage":{"cpu":1}}"#);
        assert_eq!(spec.instance, "run-1");
        for kept in ["api_versions", "features", "performance", "registration_time", "external_url"]
        {
            assert!(spec.metadata.contains(kept), "{kept}");
        }
    }

    #[test]
    fn contract_2_2_what_lies_in_a_nodes_row_is_bounded() {
        let agents = |bytes: usize| {
            let agent =
                |number: usize| format!(r#"{{"agent_id":"a{number}","x":"{}"}}"#, "y".repeat(1000));
            let list: Vec<String> = (0..bytes / 1000).map(agent).collect();
            format!(r#"{{"agents":[{}]}}"#, list.join(","))
        };
        assert_eq!(read(&agents(250_000)).unwrap().agents.len(), 250);
        let refused = read(&agents(270_000)).unwrap_err().to_string();
        assert_eq!(refused, "agents must be at most 256 KiB together");
        let words = format!(
            r#"{{"agents":[{{"agent_id":"a","capabilities":["{}"]}}]}}"#,
            "c".repeat(300_000)
        );
        assert_eq!(read(&words).unwrap_err().to_string(), refused);
        let words = format!(r#"{{"capabilities":["{}"]}}"#, "c".repeat(70_000));
        let refused = read(&words).unwrap_err().to_string();
        assert_eq!(refused, "capabilities must be at most 64 KiB together");
    }

    #[test]
    fn contract_2_3_nonsense_is_refused() {
        for (body, error) in [
            (r#"{"port":0}"#, "port must be 1 to 65535"),
            (r#"{"port":70000}"#, "port must be 1 to 65535"),
            (r#"{"port":"x"}"#, "port must be a number"),
            (r#"{"capabilities":"x"}"#, "capabilities must be a list of strings"),
            (r#"{"agents":[1]}"#, "agents must be a list of at most 10000 objects"),
            (r#"{"capacity":0}"#, "capacity must be 1 to 100000"),
            (r#"{"external_url":"file:///x"}"#, "external_url must be an http or https URL"),
        ] {
            assert_eq!(read(body).unwrap_err().to_string(), error, "{body}");
        }
    }
}

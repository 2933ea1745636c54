//! A submitted task: from the body of either family to a [`TaskSpec`] (contract 8.1, C1, C3, C4).
//!
//! Pure, and on the path of the highest rate this API has: one pass over the body, JSON values
//! stay text, and what the client wrote is copied once, into the command.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::words::RESERVED_TASK_IDS;
use crate::api::object::{FieldError, Object, text_of};
use crate::api::wire_time::parse_time;
use crate::model::{NodeId, Requirements, TaskId, TimeMs, Urgency};
use crate::state::TaskSpec;

/// The task types of family A (contract 4.4) and its estimate for each, in milliseconds (4.2).
const PIPELINES: [(&str, u64); 8] = [
    ("report_generation", 3000),
    ("real_time_monitoring", 500),
    ("data_analysis", 2000),
    ("api_call", 300),
    ("podcast_intelligence", 1000),
    ("document_intelligence", 1000),
    ("content_summarization", 1000),
    ("industry_synthesis_only", 1000),
];
/// Family A's default for `timeout_ms`.
const AGENTS_TIMEOUT_MS: u64 = 30_000;
/// The longest timeout and the most retries accepted; also the bounds of the configuration.
const TIMEOUT_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
const RETRIES_MAX: u64 = 1000;
const TASK_TYPE_BYTES_MAX: usize = 256;
const CALLBACK_BYTES_MAX: usize = 2048;

/// Fields with a place of their own in a task; all others join its metadata.
const KNOWN: [&str; 10] = [
    "task_id",
    "task_type",
    "priority",
    "requirements",
    "input_data",
    "timeout",
    "timeout_ms",
    "max_retries",
    "deadline",
    "callback_url",
];

/// What a task gets that the client left open: from the replicated policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) timeout_ms: TimeMs,
    pub(super) max_retries: u32,
    /// Family A's larger numbers are less urgent (`compat.agents.priority_order: asc`).
    pub(super) agents_ascending: bool,
}

/// Which family a body is written for (contract C1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Web4ai,
    Agents,
}

/// A submission that was understood.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) spec: TaskSpec,
    pub(super) estimate_ms: u64,
}

/// Why a submission is refused: the family's text, and who is meant by it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: String,
    pub(super) shape: Shape,
    /// The id that the client gave, for family A's failure form.
    pub(super) task_id: Option<String>,
}

/// Reads one submission.
///
/// # Errors
/// [`Refusal`] with a text for the client.
pub(super) fn parse(body: &Object<'_>, defaults: Defaults) -> Result<Submission, Refusal> {
    let task_type = body.text("task_type");
    let shape = shape_of(body, task_type.as_ref().ok().and_then(Option::as_deref));
    let refuse = |error: String| {
        let task_id = body.text("task_id").ok().flatten().map(Cow::into_owned);
        Refusal { error, shape, task_id }
    };
    if body.is_empty() {
        return Err(refuse("No task data provided".to_owned()));
    }
    let task_type = task_type.map_err(|error| refuse(error.to_string()))?.unwrap_or_default();
    if task_type.is_empty() {
        return Err(refuse("task_type is required".to_owned()));
    }
    if task_type.len() > TASK_TYPE_BYTES_MAX {
        return Err(refuse(format!("task_type is at most {TASK_TYPE_BYTES_MAX} bytes")));
    }
    let estimate_ms = estimate_of(&task_type);
    if shape == Shape::Agents && estimate_ms.is_none() {
        return Err(refuse(format!("unknown task_type: {task_type}")));
    }
    let spec = spec_of(body, shape, task_type, defaults).map_err(refuse)?;
    Ok(Submission { spec, estimate_ms: estimate_ms.unwrap_or(1000) })
}

fn shape_of(body: &Object<'_>, task_type: Option<&str>) -> Shape {
    let marked = ["inputs", "execution_mode", "timeout_ms"].iter().any(|key| body.has(key));
    let pipeline = task_type.is_some_and(|task_type| estimate_of(task_type).is_some());
    if marked || (pipeline && !body.has("input_data")) { Shape::Agents } else { Shape::Web4ai }
}

fn estimate_of(task_type: &str) -> Option<u64> {
    PIPELINES.iter().find(|(name, _)| *name == task_type).map(|(_, estimate)| *estimate)
}

fn spec_of(
    body: &Object<'_>,
    shape: Shape,
    task_type: Cow<'_, str>,
    defaults: Defaults,
) -> Result<TaskSpec, String> {
    let field = |error: FieldError| error.to_string();
    let max_retries = match body.count("max_retries").map_err(field)? {
        None => defaults.max_retries,
        Some(retries) if retries <= RETRIES_MAX => retries as u32,
        Some(_) => return Err(format!("max_retries must be at most {RETRIES_MAX}")),
    };
    let deadline_ms = match body.text("deadline").map_err(field)? {
        None => None,
        Some(text) => {
            let at = parse_time(&text);
            Some(at.ok_or("deadline must be seconds since the epoch or an ISO-8601 time")?)
        }
    };
    let requirements = body.object("requirements").map_err(field)?;
    let requirements_raw =
        if requirements.is_empty() { String::new() } else { body.json("requirements") };
    Ok(TaskSpec {
        task_id: task_id(body)?,
        task_type: task_type.into_owned(),
        urgency: urgency(body.raw("priority"), shape, defaults.agents_ascending)?,
        priority_raw: body.json("priority"),
        requirements: parse_requirements(&requirements).map_err(field)?,
        requirements_raw,
        input: input(body),
        metadata: metadata(body).map_err(field)?,
        timeout_ms: timeout_ms(body, shape, defaults).map_err(field)?,
        max_retries,
        deadline_ms,
        callback_url: callback_url(body)?,
    })
}

fn task_id(body: &Object<'_>) -> Result<Option<TaskId>, String> {
    let text = body.text("task_id").map_err(|error| error.to_string())?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    if RESERVED_TASK_IDS.contains(&&*text) {
        return Err(format!("task_id must not be {text}: that word names a list"));
    }
    let task_id = TaskId::parse(&text).map_err(|error| format!("task_id: {error}"))?;
    Ok(Some(task_id))
}

/// Contract 8.3.
fn urgency(raw: Option<&RawValue>, shape: Shape, ascending: bool) -> Result<Urgency, String> {
    let Some(raw) = raw else { return Ok(Urgency::NORMAL) };
    let text = text_of(raw).ok_or("priority must be a number or a word")?;
    let text = text.trim();
    if let Some(urgency) = Urgency::from_word(text) {
        return Ok(urgency);
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let number = number.ok_or_else(|| format!("unknown priority: {text}"))?;
    Ok(match shape {
        Shape::Web4ai => Urgency::from_web4ai(number as i64),
        Shape::Agents => {
            let tenths = (number.clamp(0.0, 10.0) * 10.0) as u64;
            Urgency::clamped(if ascending { 100 - tenths } else { tenths })
        }
    })
}

/// `timeout` in seconds or `timeout_ms` (contract C4).
fn timeout_ms(body: &Object<'_>, shape: Shape, defaults: Defaults) -> Result<u64, FieldError> {
    let seconds = body.number("timeout")?.map(|seconds| ("timeout", seconds * 1000.0));
    let millis = body.number("timeout_ms")?.map(|millis| ("timeout_ms", millis));
    let (given, default) = match shape {
        Shape::Web4ai => (seconds, defaults.timeout_ms),
        Shape::Agents => (millis.or(seconds), AGENTS_TIMEOUT_MS),
    };
    match given {
        None => Ok(default),
        Some((_, ms)) if (1.0..=TIMEOUT_MS_MAX as f64).contains(&ms) => Ok(ms as u64),
        Some((key, _)) => Err(FieldError::new(key, "above 0 and at most a year")),
    }
}

fn input(body: &Object<'_>) -> String {
    if body.raw("input_data").is_some() { body.json("input_data") } else { body.json("inputs") }
}

/// Whatever has no place of its own. When both kinds of input were sent, the one that was not
/// taken as the input stays here.
fn metadata(body: &Object<'_>) -> Result<String, FieldError> {
    if body.raw("input_data").is_some() {
        return body.remainder("metadata", &KNOWN);
    }
    let mut known = [""; KNOWN.len() + 1];
    known[..KNOWN.len()].copy_from_slice(&KNOWN);
    known[KNOWN.len()] = "inputs";
    body.remainder("metadata", &known)
}

fn callback_url(body: &Object<'_>) -> Result<Option<String>, String> {
    let text = body.text("callback_url").map_err(|error| error.to_string())?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    if !is_http || text.len() > CALLBACK_BYTES_MAX {
        return Err("callback_url must be an http or https URL of at most 2048 bytes".to_owned());
    }
    Ok(Some(text.into_owned()))
}

/// Contract 2.8. `redundancy` and whatever else is said stays in `requirements_raw`.
fn parse_requirements(body: &Object<'_>) -> Result<Requirements, FieldError> {
    if body.is_empty() {
        return Ok(Requirements::default());
    }
    let percent_milli = |key: &str| -> Result<u32, FieldError> {
        let percent = body.number(key)?.unwrap_or(0.0).max(0.0);
        // More than 100 means megabytes, which nodes do not report: not compared (contract 2.8).
        Ok(if percent > 100.0 { 0 } else { (percent * 1000.0) as u32 })
    };
    let max_load = body.number("max_load")?.unwrap_or(0.0).max(0.0);
    let max_load = if max_load > 1.0 { max_load / 100.0 } else { max_load };
    let mut capabilities = body.texts("capabilities")?;
    capabilities.sort();
    capabilities.dedup();
    Ok(Requirements {
        capabilities,
        min_cpu_milli: percent_milli("min_cpu")?,
        min_memory_milli: percent_milli("min_memory")?,
        max_load_milli: (max_load.min(1.0) * 1000.0) as u32,
        preferred_nodes: node_ids(body, "preferred_nodes")?,
        exclude_nodes: node_ids(body, "exclude_nodes")?,
    })
}

fn node_ids(body: &Object<'_>, key: &str) -> Result<Vec<NodeId>, FieldError> {
    let ids = body.texts(key)?;
    let parse = |text: &String| NodeId::parse(text);
    ids.iter().map(parse).collect::<Result<_, _>>().map_err(|_| FieldError::new(key, "node ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults =
        Defaults { timeout_ms: 300_000, max_retries: 3, agents_ascending: false };

    fn read(body: &str) -> Result<Submission, Refusal> {
        parse(&Object::parse(body.as_bytes()).unwrap(), DEFAULTS)
    }

    fn spec(body: &str) -> TaskSpec {
        read(body).unwrap_or_else(|refusal| panic!("{body}: {refusal:?}")).spec
    }

    #[test]
    fn contract_8_1_all_fields_find_their_place() {
        let spec = spec(
            r#"{"task_id":"t-1","task_type":"thumb","priority":"HIGH","input_data":{"f": [1]},
                "requirements":{"capabilities":["b","a","a"],"min_cpu":10,"min_memory":1024,
                "preferred_nodes":["n1"],"exclude_nodes":["n2"],"max_load":0.7,"redundancy":2},
                "timeout":1.5,"max_retries":1,"deadline":1700000000.5,
                "callback_url":"http://c/","metadata":{"who":"me"},"parameters":{"x":1}}"#,
        );
        assert_eq!(spec.task_id.unwrap().as_str(), "t-1");
        assert_eq!((spec.urgency.value(), spec.priority_raw.as_str()), (75, "\"HIGH\""));
        assert_eq!(spec.input, r#"{"f": [1]}"#);
        assert_eq!(spec.requirements.capabilities, ["a", "b"]);
        assert_eq!(spec.requirements.min_cpu_milli, 10_000);
        assert_eq!(spec.requirements.min_memory_milli, 0, "above 100 means megabytes");
        assert_eq!(spec.requirements.max_load_milli, 700);
        assert!(spec.requirements_raw.contains("redundancy"));
        assert_eq!((spec.timeout_ms, spec.max_retries), (1500, 1));
        assert_eq!(spec.deadline_ms, Some(1_700_000_000_500));
        assert_eq!(spec.callback_url.as_deref(), Some("http://c/"));
        assert_eq!(spec.metadata, r#"{"who":"me","parameters":{"x":1}}"#);
    }

    #[test]
    fn contract_8_1_defaults() {
        let spec = spec(r#"{"task_type":"t"}"#);
        let expected = TaskSpec {
            task_type: "t".to_owned(),
            timeout_ms: 300_000,
            max_retries: 3,
            ..TaskSpec::default()
        };
        assert_eq!(spec, expected);
    }

    #[test]
    fn contract_8_1_refusals() {
        for (body, error) in [
            ("{}", "No task data provided"),
            (r#"{"priority":1}"#, "task_type is required"),
            (r#"{"task_type":""}"#, "task_type is required"),
            (r#"{"task_type":[]}"#, "task_type must be a string"),
            (r#"{"task_type":"t","priority":"soon"}"#, "unknown priority: soon"),
            (r#"{"task_type":"t","priority":true}"#, "priority must be a number or a word"),
            (r#"{"task_type":"t","timeout":0}"#, "timeout must be above 0 and at most a year"),
            (r#"{"task_type":"t","max_retries":-1}"#, "max_retries must be a whole number"),
            (r#"{"task_type":"t","max_retries":1001}"#, "max_retries must be at most 1000"),
            (r#"{"task_type":"t","task_id":"failed"}"#, "task_id must not be failed"),
            (r#"{"task_type":"t","task_id":"a\u0000"}"#, "task_id: an id must not hold"),
            (r#"{"task_type":"t","metadata":"x"}"#, "metadata must be an object"),
            (r#"{"task_type":"t","requirements":[]}"#, "requirements must be an object"),
            (r#"{"task_type":"t","callback_url":"ftp://x"}"#, "callback_url must be"),
            (r#"{"task_type":"t","deadline":"later"}"#, "deadline must be"),
        ] {
            let refusal = read(body).unwrap_err();
            assert!(refusal.error.starts_with(error), "{body}: {}", refusal.error);
        }
    }

    #[test]
    fn contract_c1_tells_the_families_apart() {
        for (body, shape) in [
            (r#"{"task_type":"t"}"#, Shape::Web4ai),
            (r#"{"task_type":"data_analysis","input_data":1}"#, Shape::Web4ai),
            (r#"{"task_type":"data_analysis"}"#, Shape::Agents),
            (r#"{"task_type":"t","inputs":[]}"#, Shape::Agents),
            (r#"{"task_type":"t","execution_mode":"parallel"}"#, Shape::Agents),
            (r#"{"task_type":"t","timeout_ms":1}"#, Shape::Agents),
        ] {
            let object = Object::parse(body.as_bytes()).unwrap();
            let task_type = object.text("task_type").unwrap();
            assert_eq!(shape_of(&object, task_type.as_deref()), shape, "{body}");
        }
        let refusal = read(r#"{"task_id":"a","task_type":"t","inputs":[]}"#).unwrap_err();
        assert_eq!(refusal.shape, Shape::Agents);
        assert_eq!(refusal.task_id.as_deref(), Some("a"));
        assert_eq!(refusal.error, "unknown task_type: t");
    }

    #[test]
    fn contract_4_2_agents_bodies() {
        let body = r#"{"task_type":"report_generation","inputs":[{"data":1}],
            "execution_mode":"hybrid","priority":8,"timeout":99,"timeout_ms":1000}"#;
        let submission = read(body).unwrap();
        assert_eq!(submission.estimate_ms, 3000);
        assert_eq!(submission.spec.input, r#"[{"data":1}]"#);
        assert_eq!(submission.spec.metadata, r#"{"execution_mode":"hybrid"}"#);
        assert_eq!(submission.spec.timeout_ms, 1000, "contract C4");
        assert_eq!(submission.spec.urgency.value(), 80);
        assert_eq!(spec(r#"{"task_type":"api_call"}"#).timeout_ms, 30_000);
    }

    #[test]
    fn contract_8_3_urgency_by_shape() {
        let web = r#"{"task_type":"t","priority":P}"#;
        let agents = r#"{"task_type":"api_call","priority":P}"#;
        for (body, priority, urgency) in [
            (web, "1", 100),
            (web, "\"2\"", 75),
            (web, "5", 0),
            (web, "9", 0),
            (web, "0", 100),
            (web, "\"background\"", 0),
            (web, "null", 50),
            (agents, "5", 50),
            (agents, "0", 0),
            (agents, "12", 100),
            (agents, "\"critical\"", 100),
        ] {
            let spec = spec(&body.replace('P', priority));
            assert_eq!(spec.urgency.value(), urgency, "{body} {priority}");
        }
        let ascending = Defaults { agents_ascending: true, ..DEFAULTS };
        let object = Object::parse(br#"{"task_type":"api_call","priority":8}"#).unwrap();
        assert_eq!(parse(&object, ascending).unwrap().spec.urgency.value(), 20);
    }
}

//! A submitted task: from the body of either family to a [`TaskSpec`] (contract 8.1, C1, C3, C4).
//!
//! Pure, and on the path of the highest rate this API has: one pass over the body, JSON values
//! stay text, and what the client wrote is copied once, into the command.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::words::RESERVED_TASK_IDS;
use super::{callback, limits, payloads};
use crate::api::agents::steps;
use crate::api::object::{FieldError, Object, text_of};
use crate::api::wire_time::parse_time;
use crate::model::{FlowMode, NodeId, Reach, Requirements, TaskId, TimeMs, Urgency};
use crate::state::{FlowRequest, TaskSpec, is_step_id};

/// Family A's default for `timeout_ms`.
const AGENTS_TIMEOUT_MS: u64 = 30_000;
/// The longest timeout and the most retries accepted; also the bounds of the configuration.
const TIMEOUT_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
const RETRIES_MAX: u64 = 1000;
const TASK_TYPE_BYTES_MAX: usize = 256;
const COPIES_MAX: u64 = 16;
/// How long a task takes of whose type nobody said anything.
pub(super) const ESTIMATE_MS: u64 = 1000;

/// Fields with a place of their own in a task; all others join its metadata.
pub(super) const KNOWN: [&str; 13] = [
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
    "steps",
    "concurrency",
    "rate_limit",
];

/// What a task gets that the client left open: from the replicated policy.
#[derive(Debug, Clone)]
pub(in crate::api) struct Defaults {
    pub(super) timeout_ms: TimeMs,
    pub(super) max_retries: u32,
    /// Family A's larger numbers are less urgent (`compat.agents.priority_order: asc`).
    pub(super) agents_ascending: bool,
    /// Task types that pipelines say something of, with their estimates.
    pub(super) estimates: Arc<BTreeMap<String, u64>>,
    /// Where callbacks may go.
    pub(super) reach: Arc<Reach>,
}

/// Which family a body is written for (contract C1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Shape {
    Web4ai,
    Agents,
}

/// A submission that was understood.
#[derive(Debug)]
pub(in crate::api) struct Submission {
    pub(in crate::api) spec: TaskSpec,
    /// A pipeline of its type would make it another task; none is known here.
    pub(in crate::api) is_guess: bool,
}

/// Why a submission is refused: the family's text, and who is meant by it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) struct Refusal {
    pub(in crate::api) error: String,
    /// The stable code.
    pub(in crate::api) code: &'static str,
    pub(super) shape: Shape,
    /// The id that the client gave, for family A's failure form.
    pub(super) task_id: Option<String>,
    /// A pipeline of its type, or its host on the list, would make it a task; none is known here.
    pub(in crate::api) is_guess: bool,
}

/// Reads one submission.
///
/// # Errors
/// [`Refusal`] with a text for the client.
pub(in crate::api) fn parse(body: &Object<'_>, defaults: &Defaults) -> Result<Submission, Refusal> {
    let task_type = body.text("task_type");
    let pipelines = &defaults.estimates;
    let shape = shape_of(body, task_type.as_ref().ok().and_then(Option::as_deref), pipelines);
    let refuse_as = |(code, error)| {
        let task_id = body.text("task_id").ok().flatten().map(Cow::into_owned);
        Refusal { error, code, shape, task_id, is_guess: false }
    };
    let refuse = |error: String| refuse_as(("INVALID_TASK", error));
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
    let unknown = !pipelines.contains_key(&*task_type) && !body.has("steps");
    if unknown && shape == Shape::Agents {
        let unknown = format!("unknown task_type: {task_type}");
        let refusal = refuse_as(("UNKNOWN_TASK_TYPE", unknown));
        return Err(Refusal { is_guess: true, ..refusal });
    }
    let is_guess = unknown && !body.has("input_data");
    // A host may have been allowed just now as well.
    let callback_url = callback::url(body, &defaults.reach.hosts).map_err(|refused| {
        let is_guess = refused.0 == callback::HOST_NOT_ALLOWED;
        Refusal { is_guess, ..refuse_as(refused) }
    })?;
    let spec = spec_of(body, shape, task_type, defaults).map_err(refuse)?;
    let spec = TaskSpec { callback_url, ..spec };
    Ok(Submission { spec, is_guess })
}

fn shape_of(
    body: &Object<'_>,
    task_type: Option<&str>,
    pipelines: &BTreeMap<String, u64>,
) -> Shape {
    const MARKS: [&str; 4] = ["inputs", "execution_mode", "timeout_ms", "steps"];
    let marked = MARKS.iter().any(|key| body.has(key));
    let pipeline = task_type.is_some_and(|task_type| pipelines.contains_key(task_type));
    if marked || (pipeline && !body.has("input_data")) { Shape::Agents } else { Shape::Web4ai }
}

fn spec_of(
    body: &Object<'_>,
    shape: Shape,
    task_type: Cow<'_, str>,
    defaults: &Defaults,
) -> Result<TaskSpec, String> {
    let field = |error: FieldError| error.to_string();
    let max_retries = match body.count("max_retries").map_err(field)? {
        None => None,
        Some(retries) if retries <= RETRIES_MAX => Some(retries as u32),
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
    let (input, metadata) = payloads::of(body, shape)?;
    Ok(TaskSpec {
        task_id: task_id(body)?,
        task_type: task_type.into_owned(),
        urgency: urgency(body.raw("priority"), shape, defaults.agents_ascending)?,
        priority_raw: body.json("priority"),
        requirements: parse_requirements(&requirements).map_err(field)?,
        requirements_raw,
        input,
        metadata,
        timeout_ms: timeout_ms(body, shape, defaults).map_err(field)?,
        max_retries: max_retries.unwrap_or(defaults.max_retries),
        deadline_ms,
        callback_url: None,
        concurrency: limits::concurrency(body)?,
        rate: limits::rate(body)?,
        flow: match shape {
            Shape::Agents => Some(steps_of(body, max_retries)?),
            Shape::Web4ai => copies_of(&requirements)?,
        },
    })
}

/// The mode stands at the top or, as upstream's code reads it, in the metadata (contract 4.5).
/// `max_retries`, if the client says it, is that of each step that has none of its own.
fn steps_of(body: &Object<'_>, max_retries: Option<u32>) -> Result<FlowRequest, String> {
    let field = |error: FieldError| error.to_string();
    let metadata = body.object("metadata").map_err(field)?;
    let word = match body.text("execution_mode").map_err(field)? {
        Some(word) => Some(word),
        None => metadata.text("execution_mode").map_err(field)?,
    };
    let mode = match word.filter(|word| !word.is_empty()) {
        None => None,
        Some(word) => Some(FlowMode::parse(&word).ok_or_else(|| {
            format!("execution_mode must be sequential, parallel or hybrid, not {word}")
        })?),
    };
    if !body.has("steps") {
        // Only steps say what they wait for.
        return match (mode, max_retries) {
            (Some(FlowMode::Graph), _) => Err("execution_mode graph needs steps".to_owned()),
            (mode, None) => Ok(FlowRequest::Pipeline { mode }),
            (mode, Some(max_retries)) => Ok(FlowRequest::PipelineTried { mode, max_retries }),
        };
    }
    let list = body.list("steps").map_err(field)?;
    let (mode, steps) = steps::parse(&list, mode, max_retries)?;
    Ok(FlowRequest::Steps { mode, steps })
}

/// `redundancy` of more than one: so many nodes do the same (contract 2.8).
fn copies_of(requirements: &Object<'_>) -> Result<Option<FlowRequest>, String> {
    let wanted = requirements.count("redundancy").map_err(|error| error.to_string())?;
    match wanted.unwrap_or(1) {
        0 | 1 => Ok(None),
        count if count <= COPIES_MAX => Ok(Some(FlowRequest::Copies { count: count as u16 })),
        _ => Err(format!("redundancy must be at most {COPIES_MAX}")),
    }
}

/// The id that the client gives, if any.
///
/// # Errors
/// Why it cannot be one, for the client.
pub(super) fn task_id(body: &Object<'_>) -> Result<Option<TaskId>, String> {
    let text = body.text("task_id").map_err(|error| error.to_string())?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    if RESERVED_TASK_IDS.contains(&&*text) {
        return Err(format!("task_id must not be {text}: that word names a list"));
    }
    let task_id = TaskId::parse(&text).map_err(|error| format!("task_id: {error}"))?;
    if is_step_id(&task_id) {
        let why = "task_id must not end in # and a number: so the steps of tasks are named";
        return Err(why.to_owned());
    }
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
    if number.fract() != 0.0 {
        return Err(format!("priority must be a whole number or a word, not {text}"));
    }
    Ok(match shape {
        Shape::Web4ai => Urgency::from_web4ai(number as i64),
        Shape::Agents => {
            let tenths = (number.clamp(0.0, 10.0) * 10.0) as u64;
            Urgency::clamped(if ascending { 100 - tenths } else { tenths })
        }
    })
}

/// `timeout` in seconds or `timeout_ms` (contract C4).
fn timeout_ms(body: &Object<'_>, shape: Shape, defaults: &Defaults) -> Result<u64, FieldError> {
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

/// Contract 2.8. Whatever else is said stays in `requirements_raw`.
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
        agent_type: None,
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

    fn defaults() -> Defaults {
        let estimates = crate::state::State::default().estimates();
        let reach = Arc::default();
        Defaults { timeout_ms: 300_000, max_retries: 3, agents_ascending: false, estimates, reach }
    }

    fn read(body: &str) -> Result<Submission, Refusal> {
        parse(&Object::parse(body.as_bytes()).unwrap(), &defaults())
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
        assert_eq!(spec.flow, Some(FlowRequest::Copies { count: 2 }));
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
            (r#"{"task_type":"t","priority":1.5}"#, "priority must be a whole number"),
            (r#"{"task_type":"api_call","priority":"7.5"}"#, "priority must be a whole number"),
            (r#"{"task_type":"api_call","inputs":7}"#, "inputs must be an array"),
            (r#"{"task_type":"t","timeout":0}"#, "timeout must be above 0 and at most a year"),
            (r#"{"task_type":"t","max_retries":-1}"#, "max_retries must be a whole number"),
            (r#"{"task_type":"t","max_retries":1001}"#, "max_retries must be at most 1000"),
            (r#"{"task_type":"t","task_id":"failed"}"#, "task_id must not be failed"),
            (r#"{"task_type":"t","task_id":"a\u0000"}"#, "task_id: an id must not hold"),
            (r#"{"task_type":"t","metadata":"x"}"#, "metadata must be an object"),
            (r#"{"task_type":"t","requirements":[]}"#, "requirements must be an object"),
            (r#"{"task_type":"t","callback_url":"ftp://x"}"#, "callback_url must be"),
            (r#"{"task_type":"t","deadline":"later"}"#, "deadline must be"),
            (r#"{"task_type":"t","task_id":"a#1"}"#, "task_id must not end in #"),
            (r#"{"task_type":"t","rate_limit":{"key":"k"}}"#, "rate_limit.max is 1"),
            (r#"{"task_type":"t","concurrency":{"max":2}}"#, "concurrency.key is 1 to"),
            (r#"{"task_type":"t","concurrency":{"key":"k","max":0}}"#, "concurrency.max is 1"),
            (r#"{"task_type":"t","requirements":{"redundancy":17}}"#, "redundancy must be"),
            (r#"{"task_type":"api_call","execution_mode":"odd"}"#, "execution_mode must be"),
            (r#"{"task_type":"api_call","execution_mode":"graph"}"#, "execution_mode graph needs"),
            (r#"{"task_type":"t","steps":[]}"#, "steps must hold 1 to"),
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
            let pipelines = defaults().estimates;
            assert_eq!(shape_of(&object, task_type.as_deref(), &pipelines), shape, "{body}");
        }
        let refusal = read(r#"{"task_id":"a","task_type":"t","inputs":[]}"#).unwrap_err();
        assert_eq!(refusal.shape, Shape::Agents);
        assert_eq!(refusal.task_id.as_deref(), Some("a"));
        assert_eq!(refusal.error, "unknown task_type: t");
    }

    #[test]
    fn contract_4_5_where_the_mode_stands() {
        let mode = |body: &str| spec(body).flow;
        let pipeline = |mode| Some(FlowRequest::Pipeline { mode });
        assert_eq!(mode(r#"{"task_type":"api_call"}"#), pipeline(None));
        assert_eq!(
            mode(r#"{"task_type":"api_call","execution_mode":"Hybrid"}"#),
            pipeline(Some(FlowMode::Hybrid))
        );
        assert_eq!(
            mode(r#"{"task_type":"api_call","metadata":{"execution_mode":"parallel"}}"#),
            pipeline(Some(FlowMode::Parallel))
        );
        assert_eq!(mode(r#"{"task_type":"t"}"#), None);
        let tried = FlowRequest::PipelineTried { mode: None, max_retries: 0 };
        assert_eq!(mode(r#"{"task_type":"api_call","max_retries":0}"#), Some(tried));
        let steps = r#"[{"agent_type":"x"},{"agent_type":"y","max_retries":5}]"#;
        let own = mode(&format!(r#"{{"task_type":"mine","max_retries":1,"steps":{steps}}}"#));
        let Some(FlowRequest::Steps { steps, .. }) = own else { panic!("{own:?}") };
        assert_eq!((steps[0].max_retries, steps[1].max_retries), (1, 5));
        let own = mode(r#"{"task_type":"mine","steps":[{"agent_type":"x"}]}"#);
        assert!(matches!(own, Some(FlowRequest::Steps { mode: FlowMode::Sequential, .. })));
    }

    #[test]
    fn contract_4_2_agents_bodies() {
        let body = r#"{"task_type":"report_generation","inputs":[{"data":1}],
            "execution_mode":"hybrid","priority":8,"timeout":99,"timeout_ms":1000}"#;
        let submission = read(body).unwrap();
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
        let ascending = Defaults { agents_ascending: true, ..defaults() };
        let object = Object::parse(br#"{"task_type":"api_call","priority":8}"#).unwrap();
        assert_eq!(parse(&object, &ascending).unwrap().spec.urgency.value(), 20);
    }
}

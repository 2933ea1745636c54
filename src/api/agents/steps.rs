//! Steps as clients write them: in a pipeline's definition, or with a task of their own.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::api::object::Object;
use crate::model::{FlowMode, STEPS_MAX, StepSpec};
use crate::state::check_steps;

/// Tries after the first that a step gets which names none (contract 4.6).
const RETRIES: u64 = 3;
const RETRIES_MAX: u64 = 1000;
const TIMEOUT_MS_MAX: f64 = 366.0 * 24.0 * 3_600_000.0;
const NAME_BYTES_MAX: usize = 128;
const PARAMETERS_BYTES_MAX: usize = 4096;

/// Reads `steps`: a list of objects with `agent_type` and, all optional, `name`, `depends_on` (names),
/// `max_retries`, `timeout_ms`, `parameters`. They may stand in any order; they come back in one in
/// which each stands behind those it depends on. Without any `depends_on` the mode is sequential.
///
/// # Errors
/// A text for the client.
pub(in crate::api) fn parse(
    list: &[&RawValue],
    mode: Option<FlowMode>,
    max_retries: Option<u32>,
) -> Result<(FlowMode, Vec<StepSpec>), String> {
    if list.is_empty() || list.len() > STEPS_MAX {
        return Err(format!("steps must hold 1 to {STEPS_MAX} steps, not {}", list.len()));
    }
    let mut written = Vec::with_capacity(list.len());
    for (place, raw) in list.iter().enumerate() {
        let object = Object::of(raw).ok_or_else(|| format!("steps[{place}] must be an object"))?;
        written
            .push(read(&object, max_retries).map_err(|error| format!("steps[{place}]: {error}"))?);
    }
    name_all(&mut written)?;
    let is_graph = written.iter().any(|(_, depends_on)| !depends_on.is_empty());
    let mode = match mode {
        Some(FlowMode::Graph) | None if is_graph => FlowMode::Graph,
        Some(mode) if is_graph => {
            return Err(format!("depends_on has no meaning in mode {}", mode.as_str()));
        }
        Some(mode) => mode,
        None => FlowMode::Sequential,
    };
    let steps = in_order(written)?;
    check_steps(&steps)?;
    Ok((mode, steps))
}

type Written = (StepSpec, Vec<String>);

fn read(object: &Object<'_>, usual: Option<u32>) -> Result<Written, String> {
    let text = |key: &str| -> Result<String, String> {
        let text = object.text(key).map_err(|error| error.to_string())?.unwrap_or_default();
        if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(format!("{key} is at most {NAME_BYTES_MAX} bytes of plain text"));
        }
        Ok(text.into_owned())
    };
    let max_retries = object.count("max_retries").map_err(|error| error.to_string())?;
    let max_retries = max_retries.or_else(|| usual.map(u64::from)).unwrap_or(RETRIES);
    if max_retries > RETRIES_MAX {
        return Err(format!("max_retries must be at most {RETRIES_MAX}"));
    }
    let timeout_ms = object.number("timeout_ms").map_err(|error| error.to_string())?;
    if timeout_ms.is_some_and(|ms| !(1.0..=TIMEOUT_MS_MAX).contains(&ms)) {
        return Err("timeout_ms must be above 0 and at most a year".to_owned());
    }
    let parameters = object.object("parameters").map_err(|error| error.to_string())?;
    let parameters = if parameters.is_empty() { String::new() } else { object.json("parameters") };
    if parameters.len() > PARAMETERS_BYTES_MAX {
        return Err(format!("parameters is at most {PARAMETERS_BYTES_MAX} bytes"));
    }
    let spec = StepSpec {
        name: text("name")?,
        agent_type: Some(text("agent_type")?)
            .filter(|agent_type| !agent_type.is_empty())
            .ok_or("agent_type is required")?,
        depends_on: Vec::new(),
        max_retries: max_retries as u32,
        timeout_ms: timeout_ms.map_or(0, |ms| ms as u64),
        parameters,
    };
    let depends_on = object.texts("depends_on").map_err(|error| error.to_string())?;
    Ok((spec, depends_on))
}

/// A step without a name is called after its agent, with a number when that is taken.
fn name_all(steps: &mut [Written]) -> Result<(), String> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for (spec, _) in steps.iter() {
        if !spec.name.is_empty() && taken.insert(spec.name.clone(), 1).is_some() {
            return Err(format!("two steps have the name {}", spec.name));
        }
    }
    for (spec, _) in steps.iter_mut().filter(|(spec, _)| spec.name.is_empty()) {
        let mut name = spec.agent_type.clone();
        let mut number = 2;
        while taken.contains_key(&name) {
            name = format!("{}-{number}", spec.agent_type);
            number += 1;
        }
        taken.insert(name.clone(), 1);
        spec.name = name;
    }
    Ok(())
}

/// Kahn's algorithm, keeping the order of the client where it is free.
fn in_order(steps: Vec<Written>) -> Result<Vec<StepSpec>, String> {
    let names: Vec<String> = steps.iter().map(|(spec, _)| spec.name.clone()).collect();
    for (spec, depends_on) in &steps {
        if let Some(unknown) = depends_on.iter().find(|name| !names.contains(name)) {
            return Err(format!("step {} depends on {unknown}, which is not there", spec.name));
        }
    }
    let mut left: Vec<Option<Written>> = steps.into_iter().map(Some).collect();
    let mut ordered: Vec<StepSpec> = Vec::with_capacity(left.len());
    while ordered.len() < left.len() {
        let place_of = |ordered: &[StepSpec], name: &String| {
            ordered.iter().position(|step| step.name == *name).map(|place| place as u16)
        };
        let free = left.iter_mut().find(|step| {
            step.as_ref().is_some_and(|(_, depends_on)| {
                depends_on.iter().all(|name| place_of(&ordered, name).is_some())
            })
        });
        let Some((mut spec, depends_on)) = free.and_then(Option::take) else {
            let circle = left.iter().flatten().map(|(spec, _)| spec.name.as_str());
            let circle: Vec<&str> = circle.collect();
            return Err(format!("these steps depend on each other: {}", circle.join(", ")));
        };
        spec.depends_on = depends_on.iter().filter_map(|name| place_of(&ordered, name)).collect();
        spec.depends_on.sort_unstable();
        spec.depends_on.dedup();
        ordered.push(spec);
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str, mode: Option<FlowMode>) -> Result<(FlowMode, Vec<StepSpec>), String> {
        let list: Vec<&RawValue> = serde_json::from_str(text).unwrap();
        parse(&list, mode, None)
    }

    #[test]
    fn steps_come_back_behind_those_they_depend_on() {
        let (mode, steps) = read_all(
            r#"[{"name":"join","agent_type":"x","depends_on":["b","a"]},
                {"name":"a","agent_type":"x","max_retries":0,"timeout_ms":5},
                {"name":"b","agent_type":"y","parameters":{"k":1}}]"#,
            None,
        )
        .unwrap();
        assert_eq!(mode, FlowMode::Graph);
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "join"]);
        assert_eq!(steps[2].depends_on, [0, 1]);
        assert_eq!((steps[0].max_retries, steps[0].timeout_ms, steps[1].max_retries), (0, 5, 3));
        assert_eq!(steps[1].parameters, r#"{"k":1}"#);
    }

    #[test]
    fn names_are_made_up_where_they_are_missing() {
        let (mode, steps) = read_all(r#"[{"agent_type":"x"},{"agent_type":"x"}]"#, None).unwrap();
        assert_eq!(mode, FlowMode::Sequential);
        assert_eq!((steps[0].name.as_str(), steps[1].name.as_str()), ("x", "x-2"));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, mode, error) in [
            ("[]", None, "steps must hold 1 to 64"),
            ("[1]", None, "steps[0] must be an object"),
            ("[{}]", None, "steps[0]: agent_type is required"),
            (r#"[{"agent_type":"x","timeout_ms":0}]"#, None, "steps[0]: timeout_ms"),
            (r#"[{"agent_type":"x","depends_on":["y"]}]"#, None, "step x depends on y"),
            (
                r#"[{"name":"a","agent_type":"x","depends_on":["b"]},
                    {"name":"b","agent_type":"x","depends_on":["a"]}]"#,
                None,
                "these steps depend on each other: a, b",
            ),
            (
                r#"[{"name":"a","agent_type":"x"},{"name":"a","agent_type":"x"}]"#,
                None,
                "two steps have the name a",
            ),
            (
                r#"[{"name":"a","agent_type":"x"},{"agent_type":"x","depends_on":["a"]}]"#,
                Some(FlowMode::Parallel),
                "depends_on has no meaning in mode parallel",
            ),
        ] {
            let refused = read_all(text, mode).unwrap_err();
            assert!(refused.starts_with(error), "{text}: {refused}");
        }
    }
}

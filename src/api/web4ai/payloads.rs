//! What a submitted task works on, and what it carries along (contract 4.2, 4.5, 8.1).

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::submit::{KNOWN, Shape};
use crate::agent::{AgentInput, INPUTS_MAX, InputKind};
use crate::api::object::{FieldError, Object};

/// What to work on, and whatever has no place of its own, as JSON text. When both kinds of input were
/// sent, the one that was not taken as the input stays among the latter. Family A's inputs stand at
/// the top or, as upstream's code reads them, in the metadata (contract 4.5).
///
/// # Errors
/// A text for the client: what no agent could read is refused here, and not after a while in a queue.
pub(super) fn of(body: &Object<'_>, shape: Shape) -> Result<(String, String), String> {
    let field = |error: FieldError| error.to_string();
    if shape == Shape::Agents {
        // They stay beside the metadata; the agents of all steps get them.
        body.object("parameters").map_err(field)?;
    }
    let (input, rest) = parts(body, shape).map_err(field)?;
    if shape == Shape::Agents {
        check(&input)?;
    }
    Ok((input, rest))
}

fn parts(body: &Object<'_>, shape: Shape) -> Result<(String, String), FieldError> {
    if body.raw("input_data").is_some() {
        return Ok((body.json("input_data"), body.remainder("metadata", &KNOWN)?));
    }
    let mut known = [""; KNOWN.len() + 1];
    known[..KNOWN.len()].copy_from_slice(&KNOWN);
    known[KNOWN.len()] = "inputs";
    let rest = body.remainder("metadata", &known)?;
    if body.raw("inputs").is_some() || shape == Shape::Web4ai {
        return Ok((body.json("inputs"), rest));
    }
    match Object::parse(rest.as_bytes()) {
        Ok(metadata) if metadata.raw("inputs").is_some() => {
            Ok((metadata.json("inputs"), metadata.remainder("", &["inputs"])?))
        }
        Ok(_) | Err(_) => Ok((String::new(), rest)),
    }
}

/// Whether agents can read these inputs, by the rules that they read them by; their data are not
/// looked into.
fn check(inputs: &str) -> Result<(), String> {
    match inputs.as_bytes().first() {
        None => Ok(()),
        Some(b'[') => {
            let list: Vec<&RawValue> = serde_json::from_str(inputs).map_err(|_| wanted())?;
            if list.len() > INPUTS_MAX {
                let len = list.len();
                return Err(format!("inputs has {len} items, at most {INPUTS_MAX}"));
            }
            let look = |(place, raw): (usize, &&RawValue)| {
                check_one(raw.get()).map_err(|why| format!("inputs[{place}]: {why}"))
            };
            list.iter().enumerate().try_for_each(look)
        }
        Some(b'{') => check_one(inputs).map_err(|why| format!("inputs: {why}")),
        Some(b'"') => Ok(()),
        Some(_) => Err(wanted()),
    }
}

fn wanted() -> String {
    "inputs must be an array".to_owned()
}

fn check_one(input: &str) -> Result<(), String> {
    // Texts and other values are inputs as they stand.
    let Ok(fields) = Object::parse(input.as_bytes()) else { return Ok(()) };
    let kind = fields.text("type").ok().flatten().unwrap_or_default().to_ascii_lowercase();
    let is_bytes = InputKind::ALL.iter().any(|one| one.as_str() == kind && one.is_bytes());
    let mut small = Map::new();
    for (name, value) in fields.fields() {
        let value = match name {
            // Only what must be base64 is read whole.
            "data" if !is_bytes && value.get().starts_with('"') => json!(""),
            _ => stand_in(value.get()),
        };
        small.insert(name.to_owned(), value);
    }
    AgentInput::from_json(&Value::Object(small)).map(drop)
}

/// A value of the same kind: texts as they are, and of all others only what they are.
fn stand_in(json: &str) -> Value {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_default(),
        Some(b'{') => json!({}),
        Some(b'[') => json!([]),
        Some(b't' | b'f') => Value::Bool(true),
        Some(b'n') => Value::Null,
        Some(_) | None => json!(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(String, String), String> {
        of(&Object::parse(body.as_bytes()).unwrap(), Shape::Agents)
    }

    #[test]
    fn contract_4_5_where_the_inputs_stand() {
        let given = |body: &str| read(body).unwrap();
        let text = |text: &str| text.to_owned();
        let inside = r#"{"task_type":"api_call","metadata":{"inputs":[{"data":1}],"x":2}}"#;
        assert_eq!(given(inside), (text(r#"[{"data":1}]"#), text(r#"{"x":2}"#)));
        let both = r#"{"task_type":"api_call","inputs":[1],"metadata":{"inputs":[2]}}"#;
        assert_eq!(given(both), (text("[1]"), text(r#"{"inputs":[2]}"#)));
        let of_nodes = r#"{"task_type":"t","metadata":{"inputs":[2]}}"#;
        let of_nodes = of(&Object::parse(of_nodes.as_bytes()).unwrap(), Shape::Web4ai).unwrap();
        assert_eq!(of_nodes, (text(""), text(r#"{"inputs":[2]}"#)));
    }

    /// They were taken, and failed once an agent had them.
    #[test]
    fn contract_4_2_inputs_that_no_agent_can_read_are_refused_at_the_door() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for (inputs, error) in [
            ("7", "inputs must be an array"),
            ("true", "inputs must be an array"),
            (r#"[{"type":"film","data":1}]"#, "inputs[0]: type must be one of text, image"),
            (r#"[1,{"type":5,"data":1}]"#, "inputs[1]: type must be one of"),
            (r#"[{"type":"image","data":"%%"}]"#, "inputs[0]: data is not base64"),
            (r#"[{"data":1,"metadata":[2]}]"#, "inputs[0]: metadata must be an object"),
            (r#"{"data":1,"url":{}}"#, "inputs: url must be a string"),
            (&format!("[{}1]", "1,".repeat(INPUTS_MAX)), "inputs has 1001 items, at most 1000"),
        ] {
            for body in [
                format!(r#"{{"task_type":"api_call","inputs":{inputs}}}"#),
                format!(r#"{{"task_type":"api_call","metadata":{{"inputs":{inputs}}}}}"#),
            ] {
                let refused = read(&body).unwrap_err();
                assert!(refused.starts_with(error), "{inputs}: {refused}");
            }
        }
        for inputs in [
            "null",
            "[]",
            r#""text""#,
            r#"["text",[1,2],{"sales":3},null]"#,
            r#"{"type":"JSON","data":"{","input_id":5,"metadata":{"k":1}}"#,
            r#"[{"type":"binary","data":"AAH/"},{"url":"http://h/"},{"data":null}]"#,
            &format!(r#"[{{"data":{deep}}},{deep}]"#),
        ] {
            let body = format!(r#"{{"task_type":"api_call","inputs":{inputs}}}"#);
            assert!(read(&body).is_ok(), "{inputs:.80}");
        }
        let parameters = read(r#"{"task_type":"api_call","inputs":[],"parameters":7}"#);
        assert_eq!(parameters.unwrap_err(), "parameters must be an object");
    }
}

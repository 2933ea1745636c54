//! What is given on the command line, in files and on standard input.

use std::io::Read;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::exit::Failure;

/// JSON given in place, in a file (`@FILE`) or on standard input (`-`).
pub(super) fn read_json(given: &str) -> Result<Value, Failure> {
    parse(&read_given(given)?)
}

/// As [`read_json`], for what is handed on as it is: numbers keep all their digits.
pub(super) fn read_raw(given: &str) -> Result<Box<RawValue>, Failure> {
    parse(&read_given(given)?)
}

fn parse<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::usage(format!("not JSON: {error}")))
}

fn read_given(given: &str) -> Result<String, Failure> {
    Ok(match given.strip_prefix('@') {
        Some(file) => read_text(file)?,
        None if given == "-" => read_text("-")?,
        None => given.to_owned(),
    })
}

/// A file; `-` for standard input.
pub(super) fn read_text(file: &str) -> Result<String, Failure> {
    let read = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| Failure::usage(format!("{file}: {error}")))
}

/// As [`read_json`], for what must be an object.
pub(super) fn read_object(what: &str, given: &str) -> Result<Map<String, Value>, Failure> {
    match read_json(given)? {
        Value::Object(object) => Ok(object),
        _ => Err(Failure::usage(format!("{what} must be a JSON object"))),
    }
}

/// `name=value`, of which the value is JSON, or else a text.
pub(super) fn pair(given: &str) -> Result<(&str, Value), Failure> {
    let wanted = || Failure::usage(format!("`{given}` is not NAME=VALUE"));
    let (name, value) = given.split_once('=').ok_or_else(wanted)?;
    if name.is_empty() || value.is_empty() {
        return Err(wanted());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name, value))
}

/// `resource=limit` or `resource=limit:soft`, as the body of a budget.
pub(super) fn budget(given: &str) -> Result<(&str, Value), Failure> {
    let wanted = || {
        Failure::usage(format!(
            "`{given}` is not like tokens=1000, or tokens=1000:900 with a soft limit"
        ))
    };
    let (name, amount) =
        given.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wanted)?;
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    let value = match amount.split_once(':') {
        None => Value::from(number(amount).ok_or_else(wanted)?),
        Some((limit, soft)) => {
            let (limit, soft) =
                (number(limit).ok_or_else(wanted)?, number(soft).ok_or_else(wanted)?);
            serde_json::json!({ "limit": limit, "soft": soft })
        }
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pairs_are_json_or_text() {
        let cases = [
            ("a=1", ("a", json!(1))),
            ("a=x=y", ("a", json!("x=y"))),
            ("a.b=null", ("a.b", json!(null))),
            (r#"a={"b":[1]}"#, ("a", json!({"b": [1]}))),
        ];
        for (given, wanted) in cases {
            assert_eq!(pair(given).unwrap(), wanted);
        }
        for given in ["a", "=1", "a="] {
            assert!(pair(given).unwrap_err().to_string().contains("NAME=VALUE"), "{given}");
        }
    }

    #[test]
    fn budgets_may_be_soft() {
        assert_eq!(budget("tokens=1000").unwrap(), ("tokens", json!(1000.0)));
        let soft = json!({"limit": 1000.0, "soft": 900.0});
        assert_eq!(budget("tokens=1e3:900").unwrap(), ("tokens", soft));
        for given in ["tokens", "=1", "tokens=", "tokens=x", "tokens=1:", "tokens=inf"] {
            assert!(budget(given).is_err(), "{given}");
        }
    }

    #[test]
    fn objects_are_objects() {
        assert_eq!(read_object("--config", r#"{"a": 1}"#).unwrap()["a"], 1);
        let refused = read_object("--config", "[1]").unwrap_err().to_string();
        assert_eq!(refused, "--config must be a JSON object");
    }
}

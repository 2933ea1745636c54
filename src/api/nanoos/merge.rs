//! JSON objects merged field by field (RFC 7396): what is not sent stays, and null takes a field away.

use std::collections::BTreeMap;

use crate::api::object::Object;

/// Objects within objects that are merged; deeper ones replace what there is.
const DEPTH_MAX: usize = 16;

/// `base`, which is JSON object text or empty, with what `patch` says.
pub(super) fn merged(base: &str, patch: &Object<'_>) -> String {
    merge(base, patch, DEPTH_MAX)
}

fn merge(base: &str, patch: &Object<'_>, depth: usize) -> String {
    let base = Object::parse(base.as_bytes()).unwrap_or_default();
    let old = base.fields().map(|(name, value)| (name.to_owned(), value.get().to_owned()));
    let mut fields: BTreeMap<String, String> = old.collect();
    for (name, value) in patch.fields() {
        let inner = Object::of(value).filter(|_| depth > 0);
        let text = match inner {
            _ if value.get() == "null" => {
                fields.remove(name);
                continue;
            }
            Some(inner) => merge(fields.get(name).map_or("", String::as_str), &inner, depth - 1),
            None => value.get().to_owned(),
        };
        fields.insert(name.to_owned(), text);
    }
    let text = fields.iter().map(|(name, value)| {
        let name = serde_json::to_string(name).expect("a string is always JSON");
        format!("{name}:{value}")
    });
    format!("{{{}}}", text.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, patch: &str, wanted: &str) {
        let patch = Object::parse(patch.as_bytes()).unwrap();
        assert_eq!(merged(base, &patch), wanted);
    }

    #[test]
    fn what_is_not_sent_stays_and_null_takes_away() {
        check(r#"{"a":1,"b":2}"#, r#"{"b":3,"c":[1,null]}"#, r#"{"a":1,"b":3,"c":[1,null]}"#);
        check(r#"{"a":1,"b":2}"#, r#"{"a":null,"x":null}"#, r#"{"b":2}"#);
        check("", r#"{"a":{"b":null}}"#, r#"{"a":{}}"#);
        check(r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"c":3}}"#, r#"{"a":{"b":1,"c":3}}"#);
        check(r#"{"a":7}"#, r#"{"a":{"b":1}}"#, r#"{"a":{"b":1}}"#);
        check(r#"{"a":{"b":1}}"#, r#"{"a":7}"#, r#"{"a":7}"#);
        // Texts stay as they were sent: no number passes through a float.
        check(
            r#"{"n":12345678901234567890123}"#,
            r#"{"a\"b":1.10}"#,
            r#"{"a\"b":1.10,"n":12345678901234567890123}"#,
        );
    }

    #[test]
    fn nesting_has_a_bound() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(5000), "1".to_owned() + &"}".repeat(5000));
        let patch = Object::parse(deep.as_bytes());
        let text = patch.map(|patch| merged("{}", &patch));
        assert!(text.is_err() || text.is_ok_and(|text| text == deep));
    }
}

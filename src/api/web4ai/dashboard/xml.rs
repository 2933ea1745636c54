//! JSON as XML, for the export: an object is a list of elements, a list one `item` for each of
//! its values, null an element that says so. Keys that XML takes for no name stand in an attribute.

use std::fmt::Write as _;

use serde_json::Value;

/// A document with `value` below the element `root`.
pub(super) fn document(root: &str, value: &Value) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    element(&mut text, root, value);
    text.push('\n');
    text
}

fn element(text: &mut String, name: &str, value: &Value) {
    let (open, close) = if is_name(name) {
        (name.to_owned(), name)
    } else {
        (format!("entry key=\"{}\"", escape(name)), "entry")
    };
    if value.is_null() {
        let _ = write!(text, "<{open} nil=\"true\"/>");
        return;
    }
    let _ = write!(text, "<{open}>");
    match value {
        Value::Null => {}
        Value::Bool(flag) => {
            let _ = write!(text, "{flag}");
        }
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        Value::String(said) => text.push_str(&escape(said)),
        // JSON that was read is at most 128 deep, so this is too.
        Value::Array(values) => values.iter().for_each(|value| element(text, "item", value)),
        Value::Object(fields) => {
            for (key, value) in fields {
                element(text, key, value);
            }
        }
    }
    let _ = write!(text, "</{close}>");
}

/// Narrower than XML's own rule, and free of names that XML keeps for itself.
fn is_name(name: &str) -> bool {
    let starts_well =
        name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let goes_on_well =
        name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let reserved = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("xml"));
    starts_well && goes_on_well && !reserved
}

/// Text between tags or quotes. Characters that XML cannot carry are replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // A parser would turn these into other ones if they stood as they are.
            '\r' | '\n' | '\t' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_2_3_every_kind_of_value_and_every_character() {
        let value = json!({
            "a": 1, "b": [true, null, "x"], "c": {"d-1": 0.5},
            "odd key": "<&>\"'", "xmlns": 1, "": {}, "t": "a\u{1}b\nü"
        });
        let expected = concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<export>",
            "<entry key=\"\"></entry>",
            "<a>1</a>",
            "<b><item>true</item><item nil=\"true\"/><item>x</item></b>",
            "<c><d-1>0.5</d-1></c>",
            "<entry key=\"odd key\">&lt;&amp;&gt;&quot;&apos;</entry>",
            "<t>a\u{fffd}b&#10;ü</t>",
            "<entry key=\"xmlns\">1</entry>",
            "</export>\n"
        );
        assert_eq!(document("export", &value), expected);
    }
}

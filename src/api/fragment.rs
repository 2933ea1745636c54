//! JSON text that goes into an answer as it was stored.

use serde_json::value::RawValue;

/// `text` as a value of an answer; `otherwise` when there is none. Stored text was checked when it
/// came in; text that is no JSON all the same must not spoil the whole answer.
pub(super) fn fragment<'a>(text: &'a str, otherwise: &'static str) -> &'a RawValue {
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(otherwise))
        .expect("the caller's constant is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_is_passed_through_and_damage_is_contained() {
        assert_eq!(fragment(r#"{"a": 1}"#, "null").get(), r#"{"a": 1}"#);
        assert_eq!(fragment("", "{}").get(), "{}");
        assert_eq!(fragment("{\"a\"", "null").get(), "null");
    }
}

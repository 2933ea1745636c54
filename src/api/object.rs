//! A JSON object read lazily: its keys are known, its values are still text.
//!
//! Bodies of five client families differ in which fields they send and in which type, so nothing
//! is gained by a derived struct per shape. Here every value stays the text the client sent until
//! somebody asks for it, which also is what makes large inputs cheap: they are checked to be JSON
//! once and then copied into the command as they are, without a tree of values in between.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object, in the order sent. A repeated key counts once: the last one.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// Why a field cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {wanted}")]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) wanted: &'static str,
}

/// Why a body cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// Not JSON.
    #[error("malformed JSON: {0}")]
    Malformed(String),
    /// JSON, but no object.
    #[error("the body must be a JSON object")]
    NotAnObject,
}

impl FieldError {
    pub(super) fn new(field: &str, wanted: &'static str) -> Self {
        Self { field: field.to_owned(), wanted }
    }
}

impl<'a> Object<'a> {
    /// Reads a body. Empty and blank bodies are empty objects (contract 1.2).
    ///
    /// # Errors
    /// [`BodyError`] when it is not JSON or not an object.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(object) => Ok(object),
            Err(error) if error.is_data() => Err(BodyError::NotAnObject),
            Err(error) => Err(BodyError::Malformed(error.to_string())),
        }
    }

    /// Reads a value as an object; `None` when it is something else.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields in the order sent.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(name, value)| (&**name, *value))
    }

    /// The value of `key`, JSON null included.
    fn find(&self, key: &str) -> Option<&'a RawValue> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// Whether the client sent `key` at all, even as null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The value of `key` as sent. Null counts as not sent.
    pub(super) fn raw(&self, key: &str) -> Option<&'a RawValue> {
        self.find(key).filter(|value| value.get() != "null")
    }

    /// The value of `key` as JSON text; empty when not sent.
    pub(super) fn json(&self, key: &str) -> String {
        self.raw(key).map(|value| value.get().to_owned()).unwrap_or_default()
    }

    /// A string; numbers are taken as their digits, because ids are often numeric.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<Cow<'a, str>>, FieldError> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        text_of(raw).map(Some).ok_or_else(|| FieldError::new(key, "a string"))
    }

    /// A number; a string of digits is taken for one.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else, or not finite.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, FieldError> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        let number = text_of(raw).and_then(|text| text.trim().parse::<f64>().ok());
        match number.filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(FieldError::new(key, "a number")),
        }
    }

    /// A whole number of at least zero; fractions are cut off.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>, FieldError> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) if number >= 0.0 => Ok(Some(number as u64)),
            Some(_) => Err(FieldError::new(key, "a whole number of at least 0")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, FieldError> {
        match self.raw(key).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(FieldError::new(key, "true or false")),
        }
    }

    /// A list of strings; empty when not sent.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, FieldError> {
        let Some(raw) = self.raw(key) else { return Ok(Vec::new()) };
        let wanted = || FieldError::new(key, "a list of strings");
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wanted())?;
        items
            .into_iter()
            .map(|item| text_of(item).map(Cow::into_owned).ok_or_else(wanted))
            .collect()
    }

    /// A list of anything; empty when not sent.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn list(&self, key: &str) -> Result<Vec<&'a RawValue>, FieldError> {
        let Some(raw) = self.raw(key) else { return Ok(Vec::new()) };
        serde_json::from_str(raw.get()).map_err(|_| FieldError::new(key, "a list"))
    }

    /// An object; empty when not sent.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub(super) fn object(&self, key: &str) -> Result<Self, FieldError> {
        let Some(raw) = self.raw(key) else { return Ok(Self::default()) };
        Self::of(raw).ok_or_else(|| FieldError::new(key, "an object"))
    }

    /// Everything the client sent beside `known`, merged with the object at `into`, as JSON text:
    /// nothing that a client says is lost (contract 1.2). What stands at `into` wins. Empty when
    /// there is nothing.
    ///
    /// # Errors
    /// [`FieldError`] when `into` is not an object.
    pub(super) fn remainder(&self, into: &str, known: &[&str]) -> Result<String, FieldError> {
        let own = self.object(into)?;
        let is_extra = |name: &str| name != into && !known.contains(&name) && !own.has(name);
        let mut extras = self.fields.iter().filter(|(name, _)| is_extra(name)).peekable();
        if extras.peek().is_none() {
            let text = if own.is_empty() { String::new() } else { self.json(into) };
            return Ok(text);
        }
        let mut text = String::with_capacity(128);
        text.push('{');
        for (name, value) in own.fields.iter().chain(extras) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(name).expect("a string is always JSON"));
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        Ok(text)
    }
}

/// The text of a JSON string, without a copy when it has no escapes; the digits of a number.
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' if text.contains('\\') => serde_json::from_str(text).ok().map(Cow::Owned),
        b'"' => Some(Cow::Borrowed(&text[1..text.len() - 1])),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Key(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Object { fields })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A key, borrowed from the body when it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_contract_1_2() {
        assert!(Object::parse(b"").unwrap().is_empty());
        assert!(Object::parse(b" \n").unwrap().is_empty());
        assert!(Object::parse(b"{}").unwrap().is_empty());
        assert_eq!(Object::parse(b"[1]").unwrap_err(), BodyError::NotAnObject);
        assert_eq!(Object::parse(b"7").unwrap_err(), BodyError::NotAnObject);
        for malformed in [&b"{"[..], b"{\"a\":}", b"{\"a\":1}x", b"\xff", b"{\"a\":\"\xff\"}"] {
            let error = Object::parse(malformed).unwrap_err();
            assert!(matches!(error, BodyError::Malformed(_)), "{malformed:?}: {error}");
        }
    }

    #[test]
    fn values_are_read_leniently_but_not_guessed() {
        let body = br#"{"s":"a\"b","n":"7.5","i":3,"neg":-1,"t":true,"z":null,"l":["a",1],"o":{}}"#;
        let object = Object::parse(body).unwrap();
        assert_eq!(object.text("s").unwrap().unwrap(), "a\"b");
        assert_eq!(object.text("i").unwrap().unwrap(), "3");
        assert_eq!(object.number("n").unwrap(), Some(7.5));
        assert_eq!(object.count("i").unwrap(), Some(3));
        assert!(object.count("neg").is_err());
        assert_eq!(object.flag("t").unwrap(), Some(true));
        assert_eq!(object.text("z").unwrap(), None);
        assert!(object.has("z"));
        assert_eq!(object.texts("l").unwrap(), ["a", "1"]);
        assert!(object.object("o").unwrap().is_empty());
        assert_eq!(object.text("t").unwrap_err().to_string(), "t must be a string");
        assert_eq!(object.texts("s").unwrap_err().to_string(), "s must be a list of strings");
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let object = Object::parse(br#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(object.count("a").unwrap(), Some(2));
    }

    #[test]
    fn unknown_fields_join_the_metadata_as_sent() {
        let object =
            Object::parse(br#"{"k":1,"x": [1, 2],"y":"n","metadata":{"y":"own"}}"#).unwrap();
        let text = object.remainder("metadata", &["k"]).unwrap();
        assert_eq!(text, r#"{"y":"own","x":[1, 2]}"#);
        let object = Object::parse(br#"{"k":1,"metadata":{ "a" : 1 }}"#).unwrap();
        assert_eq!(object.remainder("metadata", &["k"]).unwrap(), r#"{ "a" : 1 }"#);
        let object = Object::parse(br#"{"k":1,"metadata":{}}"#).unwrap();
        assert_eq!(object.remainder("metadata", &["k"]).unwrap(), "");
        let object = Object::parse(br#"{"metadata":3}"#).unwrap();
        assert!(object.remainder("metadata", &[]).is_err());
    }
}

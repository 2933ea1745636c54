//! Values of a configuration document by their dotted paths. What is null is not there.

use serde_json::Value;

pub(super) fn flag(document: &Value, path: &str) -> Result<Option<bool>, String> {
    let Some(value) = lookup(document, path) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| format!("{path} must be true or false, not {value}"))
}

pub(super) fn text(document: &Value, path: &str) -> Result<Option<String>, String> {
    let Some(value) = lookup(document, path) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("{path} must be a text, not {value}"))?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn texts(document: &Value, path: &str, max: usize) -> Result<Vec<String>, String> {
    let wrong = || format!("{path} must be a list of at most {max} texts");
    let Some(value) = lookup(document, path) else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| list.len() <= max).ok_or_else(wrong)?;
    let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().ok_or_else(wrong)
}

pub(super) fn lookup<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key)).filter(|value| !value.is_null())
}

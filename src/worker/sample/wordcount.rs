//! `{"path": FILE}` or `{"text": ...}`, `top` -> lines, words and bytes as `wc` counts them, and
//! the most frequent words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, number, text};

const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

pub(super) fn compute(input: &Value) -> Result<Value, Failure> {
    let top = number(input, "top", 10, 10_000)? as usize;
    let content = match input.get("text").and_then(Value::as_str) {
        Some(text) => text.as_bytes().to_vec(),
        None => read(Path::new(text(input, "path")?))?,
    };
    let lines = content.iter().filter(|byte| **byte == b'\n').count();
    let content_text = String::from_utf8_lossy(&content);
    let words = content_text.split_whitespace().count();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let parts = content_text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    for word in parts.filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let distinct = counts.len();
    let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
    // Equal counts stay in the order of the alphabet.
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked.truncate(top);
    let ranked: Vec<Value> =
        ranked.into_iter().map(|(word, count)| json!({ "word": word, "count": count })).collect();
    Ok(json!({
        "lines": lines, "words": words, "bytes": content.len(), "distinct": distinct, "top": ranked
    }))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::reading(path, &error);
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(Failure::Input(format!("{}: over {FILE_BYTES_MAX} bytes", path.display())));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_wc() {
        let input = json!({ "text": "The cat,\nthe dog and the\n bird's cat\n", "top": 2 });
        let result = compute(&input).unwrap();
        assert_eq!(
            result,
            json!({
                "lines": 3, "words": 8, "bytes": 37, "distinct": 5,
                "top": [{"word": "the", "count": 3}, {"word": "cat", "count": 2}]
            })
        );
    }

    #[test]
    fn a_bound_is_a_bound() {
        assert!(matches!(compute(&json!({"text": "", "top": 0})), Err(Failure::Input(_))));
    }
}

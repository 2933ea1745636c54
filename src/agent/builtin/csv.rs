//! Separated values (RFC 4180), with the separator guessed and numbers read as such.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

/// Separators that are tried, in this order.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];
/// Lines that must agree on the number of fields before a text is taken for a table.
const LINES_LOOKED_AT: usize = 10;

/// The records of a text that looks like a table with a heading: every line that is looked at has
/// the same number of fields, more than one.
pub(super) fn guess(text: &str) -> Option<Vec<Value>> {
    let fits = |separator: &char| {
        let lines: Vec<Vec<String>> = Rows::new(text, *separator).take(LINES_LOOKED_AT).collect();
        let width = lines.first().map_or(0, Vec::len);
        let named = lines.first().is_some_and(|line| line.iter().all(|name| is_name(name)));
        width > 1 && lines.len() > 1 && named && lines.iter().all(|line| line.len() == width)
    };
    SEPARATORS.iter().find(|separator| fits(separator)).map(|separator| read(text, *separator))
}

/// Column names are short; a sentence with a comma in it is none.
fn is_name(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().count() <= 64 && text.split_whitespace().count() <= 4
}

/// The records of a table whose first line has the names. Missing fields are left out, fields
/// without a name are called `column_<n>`, and `name_<n>` those whose name another one has before them.
pub(super) fn read(text: &str, separator: char) -> Vec<Value> {
    let mut rows = Rows::new(text, separator);
    let names: Vec<String> = rows.next().unwrap_or_default();
    let mut seen = HashSet::new();
    let nameless = |n: usize| format!("column_{}", n + 1);
    let unique = |(n, name): (usize, &String)| {
        let name = name.trim();
        let mut name = if name.is_empty() { nameless(n) } else { name.to_owned() };
        while !seen.insert(name.clone()) {
            name = format!("{name}_{}", n + 1);
        }
        name
    };
    let names: Vec<String> = names.iter().enumerate().map(unique).collect();
    let record = |row: Vec<String>| {
        let name = |n: usize| names.get(n).cloned().unwrap_or_else(|| nameless(n));
        let fields = row.into_iter().enumerate().map(|(n, field)| (name(n), value(&field)));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    rows.map(record).collect()
}

/// A number, `null` for nothing, a boolean, or text.
fn value(field: &str) -> Value {
    let text = field.trim();
    match text {
        "" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // Leading zeros mean that it is a code, such as a postcode.
    let digits = text.trim_start_matches(['-', '+']);
    let is_code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let number = if is_code || digits.starts_with(char::is_alphabetic) {
        None
    } else if let Ok(whole) = text.parse::<i64>() {
        Some(Number::from(whole))
    } else {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    };
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Line by line; quoted fields may hold separators, line ends and doubled quotes.
struct Rows<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    separator: char,
}

impl<'a> Rows<'a> {
    fn new(text: &'a str, separator: char) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { chars: text.chars().peekable(), separator }
    }

    /// One field and whether it was the last of its line.
    fn field(&mut self) -> (String, bool) {
        let mut field = String::new();
        let mut quoted = false;
        while let Some(c) = self.chars.next() {
            match c {
                '"' if quoted && self.chars.peek() == Some(&'"') => {
                    self.chars.next();
                    field.push('"');
                }
                '"' if quoted => quoted = false,
                '"' if field.trim().is_empty() => {
                    field.clear();
                    quoted = true;
                }
                '\n' if !quoted => return (field, true),
                '\r' if !quoted && self.chars.peek() == Some(&'\n') => {}
                c if c == self.separator && !quoted => return (field, false),
                c => field.push(c),
            }
        }
        (field, true)
    }
}

impl Iterator for Rows<'_> {
    type Item = Vec<String>;

    /// The next line that is not blank.
    fn next(&mut self) -> Option<Vec<String>> {
        while self.chars.peek().is_some() {
            let mut row = Vec::new();
            loop {
                let (field, last) = self.field();
                row.push(field);
                if last {
                    break;
                }
            }
            if row.len() > 1 || !row[0].trim().is_empty() {
                return Some(row);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_recognised_and_read() {
        let text =
            "\u{feff}region,revenue,note\r\nnorth,10,\"a, \"\"b\"\"\nc\"\r\n\r\nsouth,2.5,\n";
        let records = guess(text).unwrap();
        let wanted = json!([
            {"region": "north", "revenue": 10, "note": "a, \"b\"\nc"},
            {"region": "south", "revenue": 2.5, "note": null},
        ]);
        assert_eq!(json!(records), wanted);
        let records = guess("a;b\n1;2\n").unwrap();
        assert_eq!(json!(records), json!([{"a": 1, "b": 2}]));
    }

    /// The last of them took the place of all.
    #[test]
    fn columns_of_one_name_are_all_kept() {
        let records = read("a,b,a,,a\n1,2,3,4,5\n", ',');
        assert_eq!(json!(records), json!([{"a": 1, "b": 2, "a_3": 3, "column_4": 4, "a_5": 5}]));
        let taken = read("a_3,a,a\n1,2,3\n", ',');
        assert_eq!(json!(taken), json!([{"a_3": 1, "a": 2, "a_3_3": 3}]));
    }

    #[test]
    fn prose_is_no_table() {
        for text in [
            "Dear all, the quarter went well, in spite of the weather in the north.\nYours, A.",
            "one line, with a comma",
            "a\nb\nc",
            "a,b\n1,2,3\n",
            "",
        ] {
            assert_eq!(guess(text), None, "{text}");
        }
    }

    #[test]
    fn values_keep_what_they_mean() {
        for (text, wanted) in [
            ("007", json!("007")),
            ("0.5", json!(0.5)),
            ("-3", json!(-3)),
            ("1e3", json!(1000.0)),
            ("NaN", json!("NaN")),
            ("inf", json!("inf")),
            ("True", json!(true)),
            ("2024-01-05", json!("2024-01-05")),
            ("0", json!(0)),
        ] {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn broken_quotes_end_with_the_text() {
        assert_eq!(json!(read("a,b\n\"x,1\n", ',')), json!([{"a": "x,1"}]));
        let wide = read("a,\n1,2,3\n", ',');
        assert_eq!(json!(wide), json!([{"a": 1, "column_2": 2, "column_3": 3}]));
    }
}

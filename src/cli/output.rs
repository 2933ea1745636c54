//! Tables for people, JSON for programs. Both to standard output; talk goes to standard error.

use std::io::Write;

use serde_json::Value;

/// What to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Prints one line of data. A reader that went away (`| head`) is no failure.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one JSON document.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// Prints a JSON document as it came, but for white space: what clients put into it may hold numbers that
/// no float and no 64 bits hold.
pub(crate) fn json_text(text: &[u8]) {
    match text.trim_ascii() {
        [] => line("null"),
        text => line(&indented(&String::from_utf8_lossy(text))),
    }
}

/// JSON text in lines, as `{value:#}` has it; strings and numbers are left alone.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let (mut depth, mut in_string, mut escaped, mut opened) = (0usize, false, false, false);
    for letter in text.chars() {
        if in_string {
            out.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        if letter.is_ascii_whitespace() {
            continue;
        }
        let was_opened = std::mem::replace(&mut opened, matches!(letter, '{' | '['));
        if matches!(letter, '}' | ']') {
            depth = depth.saturating_sub(1);
            if !was_opened {
                line(&mut out, depth);
            }
        } else if was_opened {
            line(&mut out, depth);
        }
        out.push(letter);
        match letter {
            '{' | '[' => depth += 1,
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

/// Says something to people.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Rows under titles, in columns as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // Names and messages come from others: none may give orders to a terminal.
        let clean = |cell: String| cell.replace(char::is_control, " ");
        let row: Vec<String> = cells.into_iter().map(clean).collect();
        assert_eq!(row.len(), self.rows[0].len(), "every row has a cell for every title");
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let format_row = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(format_row).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn print(&self) {
        line(&self.text());
    }
}

/// A value at a JSON pointer, as people would write it; `-` when there is none.
pub(crate) fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            format!("{number:.2}")
        }
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            let all: Vec<String> = items.iter().map(text).collect();
            if all.is_empty() { "-".to_owned() } else { all.join(",") }
        }
        Some(other) => other.to_string(),
    }
}

/// Epoch seconds at a JSON pointer, as a time of day people can read.
pub(crate) fn time(value: &Value, pointer: &str) -> String {
    let seconds = value.pointer(pointer).and_then(Value::as_f64).filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|s| jiff::Timestamp::from_millisecond((s * 1000.0) as i64).ok());
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

/// Prints a whole answer: as it is, or as `name  value` lines.
pub(crate) fn answer(output: Output, value: &Value, fields: &[(&str, &str)]) {
    match output {
        Output::Json => json(value),
        Output::Table => print_fields(cells(value, fields)),
    }
}

/// Names with the cells at their pointers.
pub(crate) fn cells<'a>(
    value: &'a Value,
    fields: &'a [(&str, &str)],
) -> impl Iterator<Item = (String, String)> + 'a {
    fields.iter().map(|(name, pointer)| ((*name).to_owned(), cell(value, pointer)))
}

/// `name  value` lines.
pub(crate) fn print_fields(rows: impl IntoIterator<Item = (String, String)>) {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (name, value) in rows {
        table.row([name, value]);
    }
    table.print();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(["a".to_owned(), "x\ny\u{1b}[2J".to_owned()]);
        table.row(["käse".to_owned(), String::new()]);
        assert_eq!(table.text(), "ID    STATE\na     x y [2J\nkäse");
    }

    #[test]
    fn json_is_printed_in_lines_and_no_number_is_changed() {
        let value =
            json!({"a": [], "b": {}, "c": [1, {"d": "}]\",:\\"}, [[2]]], "e": null, "f": true});
        assert_eq!(indented(&value.to_string()), format!("{value:#}"));
        assert_eq!(indented(&format!("{value:#}")), format!("{value:#}"));
        let exact = r#"{"n":[123456789012345678901234567890,0.1000,1E+2,-0]}"#;
        let lines = indented(exact);
        assert!(
            lines.contains("123456789012345678901234567890,\n    0.1000,\n    1E+2,\n    -0\n")
        );
        assert_eq!(lines.split_whitespace().collect::<String>(), exact);
    }

    #[test]
    fn cells_are_for_people() {
        let value = json!({"a": {"b": 0.125}, "c": ["x", 1], "d": null, "t": 1.5});
        assert_eq!(cell(&value, "/a/b"), "0.12");
        assert_eq!(cell(&value, "/c"), "x,1");
        assert_eq!((cell(&value, "/d"), cell(&value, "/e")), ("-".to_owned(), "-".to_owned()));
        assert_eq!(time(&value, "/t"), "1970-01-01T00:00:01.500Z");
    }
}

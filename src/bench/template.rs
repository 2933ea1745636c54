//! Requests as prepared bytes, with numbers of constant width patched in.
//!
//! A request is built once per member; sending it costs at most a copy. Numbers have a constant
//! width so that neither the content length nor the place of the next number ever changes.

use super::connection::{Target, request_bytes};

/// Stands for a number wherever it occurs in a path or a body. As long as the number itself.
pub const NUMBER: &str = "{number....}";

/// One kind of request.
#[derive(Debug, Clone)]
pub struct Template {
    per_target: Vec<Prepared>,
    /// Numbers start again at this one.
    cycle: u64,
}

#[derive(Debug, Clone)]
struct Prepared {
    bytes: Vec<u8>,
    /// Where the numbers stand.
    numbers: Vec<usize>,
}

impl Template {
    /// Prepares a request for every target. `headers` are whole lines.
    #[must_use]
    pub fn new(targets: &[Target], method: &str, path: &str, headers: &str, body: &str) -> Self {
        let prepared = |target: &Target| {
            let bytes = request_bytes(method, target, path, headers, body.as_bytes());
            let text = String::from_utf8(bytes).expect("made of text only");
            let numbers = text.match_indices(NUMBER).map(|(at, _)| at).collect();
            Prepared { bytes: text.into_bytes(), numbers }
        };
        Self { per_target: targets.iter().map(prepared).collect(), cycle: u64::MAX }
    }

    /// Lets the numbers run from 0 to `cycle - 1` again and again.
    #[must_use]
    pub fn cycling(mut self, cycle: u64) -> Self {
        assert!(cycle > 0, "there is something to choose from");
        self.cycle = cycle;
        self
    }

    /// The bytes of request `n` for a target. With `k` numbers in a request, request `n` holds the
    /// numbers from `n * k` on.
    pub fn request<'a>(&'a self, target: usize, n: u64, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let Prepared { bytes, numbers } = &self.per_target[target];
        if numbers.is_empty() {
            return bytes;
        }
        scratch.clear();
        scratch.extend_from_slice(bytes);
        let first = n * numbers.len() as u64;
        for (number, at) in (first..).zip(numbers) {
            write_number(number % self.cycle, &mut scratch[*at..*at + NUMBER.len()]);
        }
        scratch
    }
}

/// Writes `number` right-aligned with leading zeros.
fn write_number(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

/// Reads a number written by a template at the start of `bytes`.
#[must_use]
pub fn read_number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.get(..NUMBER.len())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The body of one task: type, id prefix (none lets the member choose), input of `size` bytes, and
/// the capability that it asks for.
#[must_use]
pub fn task_json(id_prefix: Option<&str>, size: u32, capability: &str) -> String {
    let id =
        id_prefix.map_or_else(String::new, |prefix| format!(r#""task_id":"{prefix}{NUMBER}","#));
    let input: String = ('a'..='z').cycle().take(size as usize).collect();
    format!(
        r#"{{{id}"task_type":"bench","input_data":"{input}","requirements":{{"capabilities":["{capability}"]}}}}"#
    )
}

/// The body of a batch of `count` such tasks.
#[must_use]
pub fn batch_json(task: &str, count: u32) -> String {
    format!(r#"{{"tasks":[{}]}}"#, vec![task; count as usize].join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Target> {
        vec!["http://a:1".parse().unwrap(), "http://b:2/p".parse().unwrap()]
    }

    fn text(template: &Template, target: usize, n: u64) -> String {
        let mut scratch = Vec::new();
        String::from_utf8(template.request(target, n, &mut scratch).to_vec()).unwrap()
    }

    #[test]
    fn a_number_in_the_path() {
        let template = Template::new(&targets(), "GET", &format!("/t/x-{NUMBER}"), "", "");
        assert_eq!(text(&template, 1, 42), "GET /p/t/x-000000000042 HTTP/1.1\r\nhost: b:2\r\n\r\n");
        let template = template.cycling(10);
        assert!(text(&template, 0, 42).starts_with("GET /t/x-000000000002 "));
    }

    #[test]
    fn every_task_of_every_batch_has_a_number_of_its_own() {
        let task = task_json(Some("r-"), 3, "none");
        let template = Template::new(&targets(), "POST", "/b", "", &batch_json(&task, 3));
        let mut ids = Vec::new();
        for n in 0..4 {
            let request = text(&template, 0, n);
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len()))
                    || head.ends_with(&format!("content-length: {}", body.len()))
            );
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            for task in body["tasks"].as_array().unwrap() {
                assert_eq!(task["input_data"], "abc");
                assert_eq!(task["requirements"]["capabilities"][0], "none");
                ids.push(task["task_id"].as_str().unwrap().to_owned());
            }
        }
        let expected: Vec<String> = (0..12).map(|n| format!("r-{n:012}")).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn a_request_without_numbers_is_not_copied() {
        let template = Template::new(&targets(), "POST", "/t", "", &task_json(None, 8, "none"));
        let mut scratch = Vec::new();
        assert!(!template.request(0, 7, &mut scratch).is_empty());
        assert!(scratch.is_empty());
    }

    #[test]
    fn numbers_are_read_back() {
        assert_eq!(read_number(b"000000000042\",more"), Some(42));
        assert_eq!(read_number(b"00042"), None);
        assert_eq!(read_number(b"00000000004x"), None);
    }
}

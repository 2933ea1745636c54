//! `--watch`: follows something until it ends. A terminal is redrawn in place; anything else gets one
//! line per change, or one JSON document per line.

mod campaign;
mod orchestrator;
mod workflow;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::exit::Failure;
use super::output::{self, Output};
use crate::client::ClientError;
use crate::clock;

pub(super) use campaign::follow as campaign;
pub(super) use orchestrator::follow as orchestrator;
pub(super) use workflow::follow as workflow;

/// How often is looked.
const PERIOD: Duration = Duration::from_millis(500);
/// After so much silence it is said that nobody answers.
const SILENCE: Duration = Duration::from_secs(2);
/// Letters of a progress bar.
const BAR: usize = 32;

/// What was seen at one moment.
struct Look {
    /// For a terminal.
    frame: Vec<String>,
    /// The same in one line. It has no times in it: what makes it different is a change.
    line: String,
    /// For programs.
    value: Value,
    /// How the program ends, once what is followed has ended.
    end: Option<ExitCode>,
}

/// Looks again and again until what is followed ends, or Ctrl-C.
async fn follow<F>(output: Output, look: impl Fn() -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<Look, Failure>>,
{
    let mut screen = Screen::new(output);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let mut looking = pin!(look());
        let mut silent = Duration::ZERO;
        // The client tries all members until its deadline: a change of leader is ridden out here.
        let looked = loop {
            tokio::select! {
                looked = &mut looking => break looked?,
                _ = &mut interrupt => return Ok(screen.left()),
                () = tokio::time::sleep(SILENCE) => {
                    silent += SILENCE;
                    screen.silent(silent);
                }
            }
        };
        screen.show(&looked);
        if let Some(end) = looked.end {
            return Ok(end);
        }
        tokio::select! {
            _ = &mut interrupt => return Ok(screen.left()),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Where it is shown.
struct Screen {
    output: Output,
    terminal: bool,
    /// The frame on the screen.
    drawn: Vec<String>,
    /// The line that was printed last.
    said: String,
}

impl Screen {
    fn new(output: Output) -> Self {
        let terminal = output == Output::Table && std::io::stdout().is_terminal();
        Self { output, terminal, drawn: Vec::new(), said: String::new() }
    }

    fn show(&mut self, look: &Look) {
        if self.terminal {
            print(&redraw(self.drawn.len(), &look.frame));
            self.drawn.clone_from(&look.frame);
        } else if self.said != look.line {
            match self.output {
                Output::Json => output::line(&look.value.to_string()),
                Output::Table => output::line(&format!("{}  {}", now(), look.line)),
            }
            self.said.clone_from(&look.line);
        }
    }

    /// Nobody answers: what is on the screen is old.
    fn silent(&mut self, silent: Duration) {
        let text = format!("no member has answered for {} s", silent.as_secs());
        if !self.terminal {
            output::talk(&text);
            return;
        }
        let before = self.drawn.len();
        if self.drawn.last().is_some_and(|line| line.starts_with(NOTE)) {
            self.drawn.pop();
        }
        self.drawn.push(format!("{NOTE}{text}"));
        print(&redraw(before, &self.drawn));
    }

    /// Whoever watched has seen enough.
    fn left(&self) -> ExitCode {
        output::talk("no longer watched; it goes on");
        ExitCode::SUCCESS
    }
}

/// What the line begins with that says that nobody answers.
const NOTE: &str = "! ";

/// What draws `frame` in place of the `before` lines above the cursor. Lines are cut where the
/// terminal ends: a wrapped one would put all others out of place.
fn redraw(before: usize, frame: &[String]) -> String {
    let mut text = "\u{1b}[?7l\r".to_owned();
    if before > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "\u{1b}[{before}A");
    }
    for line in frame {
        text.push_str(&clean(line));
        text.push_str("\u{1b}[K\n");
    }
    text.push_str("\u{1b}[J\u{1b}[?7h");
    text
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that went away ends the program by itself.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Names and messages come from others: none may give orders to a terminal.
fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// The time of day, in UTC.
fn now() -> String {
    let ms = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).ok();
    time.map_or_else(String::new, |time| time_of_day(&format!("{time:.0}")))
}

/// The time of day of a time as the doors write it.
fn time_of_day(time: &str) -> String {
    time.get(11..19).unwrap_or("-").to_owned()
}

/// What a member answers, or nothing when it says there is nothing of that name.
fn or_nothing(answer: Result<Value, ClientError>) -> Result<Value, Failure> {
    match answer {
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(Value::Null),
        other => Ok(other?),
    }
}

/// `name      value`, the names in one column.
fn row(name: &str, value: &str) -> String {
    format!("{name:<12} {value}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_it() {
        let frame = ["a".to_owned(), "b\u{1b}[2J".to_owned()];
        let first = "\u{1b}[?7l\ra\u{1b}[K\nb?[2J\u{1b}[K\n\u{1b}[J\u{1b}[?7h";
        assert_eq!(redraw(0, &frame), first);
        assert!(redraw(3, &frame).starts_with("\u{1b}[?7l\r\u{1b}[3Aa"));
    }

    #[test]
    fn times_of_day_are_cut_out() {
        assert_eq!(time_of_day("2026-01-31T12:34:56.789Z"), "12:34:56");
        assert_eq!(time_of_day("soon"), "-");
        assert_eq!(now().len(), 8);
    }

    #[test]
    fn what_is_not_there_is_nothing_and_all_else_an_error() {
        let refused = |status| {
            let headers = reqwest::header::HeaderMap::new();
            let problem = crate::client::Problem::read(status, &headers, b"{}");
            Err(ClientError::Refused(Box::new(problem)))
        };
        assert_eq!(or_nothing(refused(404)).unwrap(), Value::Null);
        assert!(or_nothing(refused(403)).is_err());
        assert_eq!(or_nothing(Ok(1.into())).unwrap(), 1);
    }
}

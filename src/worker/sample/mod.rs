//! Small programs that do real work, for `quorate dev` and for trying a worker out: JSON on
//! standard input, JSON on standard output, errors on standard error. Their results can be checked
//! with other tools (`sha256sum`, `wc`, any PGM viewer).

pub mod demo;

mod hash;
mod thumbnail;
mod tune;
mod wordcount;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

/// The longest input that is read.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// By sysexits.h: the input is wrong, and will be wrong on every node.
const BAD_INPUT: u8 = 65;

/// The programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// SHA-256 of every file under a directory.
    Hash,
    /// Lines, words, bytes and the most frequent words of a text file.
    Wordcount,
    /// A grey image made smaller.
    Thumbnail,
    /// One candidate of a campaign that makes a function small.
    Tune,
}

impl Sample {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hash, Self::Wordcount, Self::Thumbnail, Self::Tune];

    /// Its name, which is also the task type `quorate dev` gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Wordcount => "wordcount",
            Self::Thumbnail => "thumbnail",
            Self::Tune => "tune",
        }
    }

    /// What a worker's `--exec` takes to run this sample with the program at `exe`.
    #[must_use]
    pub fn exec(self, exe: &Path) -> String {
        // For the shell: in single quotes, and those that are inside are put outside of them.
        let exe = exe.display().to_string().replace('\'', r"'\''");
        format!("{name}=exec '{exe}' sample {name}", name = self.as_str())
    }

    /// Computes the result for `input`.
    ///
    /// # Errors
    /// [`Failure`], which says whether another try may help.
    pub fn compute(self, input: &Value) -> Result<Value, Failure> {
        match self {
            Self::Hash => hash::compute(input),
            Self::Wordcount => wordcount::compute(input),
            Self::Thumbnail => thumbnail::compute(input),
            Self::Tune => tune::compute(input),
        }
    }

    /// Runs as a program: standard input to standard output.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let done = read_input().and_then(|input| self.compute(&input)).and_then(|result| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{result}").map_err(|error| Failure::Io(error.to_string()))
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                // Where even standard error is gone, the exit code has to do.
                let _ = writeln!(std::io::stderr(), "{}: {failure}", self.as_str());
                failure.exit_code()
            }
        }
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The input makes no sense; it will not on another node either.
    #[error("{0}")]
    Input(String),
    /// Something could not be read or written here and now.
    #[error("{0}")]
    Io(String),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(BAD_INPUT),
            Self::Io(_) => ExitCode::FAILURE,
        }
    }

    fn reading(path: &Path, error: &std::io::Error) -> Self {
        Self::Io(format!("{}: {error}", path.display()))
    }
}

fn read_input() -> Result<Value, Failure> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(INPUT_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| Failure::Io(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| Failure::Input(format!("input: {error}")))
}

/// The text at `key` of the input.
fn text<'a>(input: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let found = input.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.ok_or_else(|| Failure::Input(format!("input needs `{key}`: a text")))
}

/// The number at `key` of the input, or `default`.
fn number(input: &Value, key: &str, default: u64, max: u64) -> Result<u64, Failure> {
    let Some(value) = input.get(key) else { return Ok(default) };
    let found = value.as_u64().filter(|number| (1..=max).contains(number));
    found.ok_or_else(|| Failure::Input(format!("`{key}` is a whole number from 1 to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_odd_names_are_quoted() {
        let exec = Sample::Hash.exec(Path::new("/a b/it's"));
        assert_eq!(exec, r"hash=exec '/a b/it'\''s' sample hash");
    }
}

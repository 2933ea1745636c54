//! Logs: one line per thing that was decided, to standard error, as text for people or as JSON.
//! Standard output belongs to data.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Words and `field=value`.
    #[default]
    Text,
    /// One object per line.
    Json,
}

impl Format {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            // `structured` is family W's word for it.
            "json" | "structured" => Ok(Self::Json),
            "text" | "plain" | "simple" | "detailed" => Ok(Self::Text),
            _ => Err(format!("the log format is text or json, not `{word}`")),
        }
    }
}

/// What goes wrong when logging starts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is neither a level nor a list of directives.
    #[error("log level `{level}`: {reason}")]
    Level {
        /// As given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging was started before.
    #[error("logging is started once per process")]
    Started,
}

/// The directives for `level`: a single word sets ours and leaves the libraries at what matters;
/// anything else is taken as directives (`quorate::cluster=debug,openraft=info`).
///
/// # Errors
/// [`Error::Level`] when it is neither.
pub fn directives(level: &str) -> Result<EnvFilter, Error> {
    let level = level.trim();
    // Python's names are what family W's files hold.
    let word = match level.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        other => other.to_owned(),
    };
    let text = if tracing::level_filters::LevelFilter::from_str(&word).is_ok() {
        // openraft warns of every heartbeat that an unreachable peer misses, twenty a second; what
        // matters of that (leader changes, lost peers) is told by our own rooms.
        format!("warn,openraft=error,quorate={word}")
    } else {
        level.to_owned()
    };
    let bad = |reason: String| Error::Level { level: level.to_owned(), reason };
    // Without this check a misspelt level would become the name of a silent target.
    if !text.contains('=') {
        return Err(bad("must be off, error, warn, info, debug, trace or directives".to_owned()));
    }
    EnvFilter::try_new(&text).map_err(|error| bad(error.to_string()))
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`Error`] when `level` makes no sense or logging runs already.
pub fn start(level: &str, format: Format) -> Result<(), Error> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(directives(level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| Error::Started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_word_leaves_the_libraries_quiet() {
        assert_eq!(directives("INFO").unwrap().to_string(), "openraft=error,quorate=info,warn");
        assert_eq!(directives("WARNING").unwrap().to_string(), "openraft=error,quorate=warn,warn");
        let both = directives("quorate::cluster=debug,openraft=info").unwrap().to_string();
        assert!(both.contains("openraft=info"), "{both}");
        assert!(directives("loud").is_err());
        assert!(directives("quorate=loud").is_err());
    }

    #[test]
    fn formats_are_words() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("xml".parse::<Format>().is_err());
    }
}

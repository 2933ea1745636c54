//! How the program ends, as numbers that scripts can rely on.

use std::fmt;
use std::process::ExitCode;

use crate::client::ClientError;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The cluster refused, or what was asked for failed.
    Failed = 1,
    /// The command line or a file makes no sense.
    Usage = 2,
    /// No member could be reached, or none could serve: certainly not done.
    Unavailable = 3,
    /// It may have been done or not.
    Unknown = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program ends with something else than 0, and with what.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

impl Failure {
    /// The command line or a file makes no sense.
    pub fn usage(cause: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, cause: anyhow::anyhow!("{cause}") }
    }

    /// What was asked for failed.
    pub fn failed(cause: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, cause: anyhow::anyhow!("{cause}") }
    }

    /// The cluster could not be reached or could not serve.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        Self { exit: Exit::Unavailable, cause: anyhow::anyhow!("{cause}") }
    }

    /// The number it ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Setup(_) => Exit::Usage,
            ClientError::Refused(_) | ClientError::Malformed(_) => Exit::Failed,
            ClientError::Unavailable { .. } => Exit::Unavailable,
            ClientError::Unknown { .. } => Exit::Unknown,
        };
        Self { exit, cause: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, cause }
    }
}

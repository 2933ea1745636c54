//! What a dispatch looks like on the wire, and how a worker reads it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A task without a limit of its own gets family W's.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The body of `POST /api/v4/tasks/execute` (contract 6, row 5), with our fencing fields.
/// Fields a worker has no use for are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Dispatch {
    #[serde(default)]
    pub(super) task_id: String,
    #[serde(default)]
    pub(super) task_type: String,
    /// As it was written: a number that no float holds must reach the program whole.
    #[serde(default)]
    pub(super) input_data: Option<Box<RawValue>>,
    /// Seconds.
    #[serde(default)]
    pub(super) timeout: Option<f64>,
    /// Which try; a dispatcher that does not count has just one.
    #[serde(default)]
    pub(super) attempt: u32,
    /// The reign it was dispatched in, echoed with the report.
    #[serde(default)]
    pub(super) epoch: Option<String>,
}

impl Dispatch {
    /// Reads a body, whatever its content type says (contract 1.2).
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let dispatch: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        for (name, value) in [("task_id", &dispatch.task_id), ("task_type", &dispatch.task_type)] {
            if value.is_empty() {
                return Err(format!("{name} is required"));
            }
        }
        Ok(dispatch)
    }

    /// The input as JSON text.
    pub(super) fn input(&self) -> Vec<u8> {
        self.input_data.as_ref().map_or_else(|| "null", |input| input.get()).into()
    }

    /// How long the attempt may run.
    pub(super) fn timeout(&self) -> Duration {
        let given = self.timeout.filter(|seconds| *seconds > 0.0);
        let given = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        given.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX)
    }
}

//! Where long disk work runs: on a thread of its own in production, in line in a simulation, which
//! must not depend on what threads do.

use std::io;

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    Threads,
    Inline,
}

impl Blocking {
    /// Runs `work` and waits for it.
    pub(super) async fn run<T, E>(
        self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<io::Error> + Send + 'static,
    {
        match self {
            Self::Inline => work(),
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => Err(io::Error::other(error).into()),
            },
        }
    }

    /// Runs `work` without waiting for it.
    pub(super) fn start(self, work: impl FnOnce() + Send + 'static) {
        match self {
            Self::Inline => work(),
            Self::Threads => drop(tokio::task::spawn_blocking(work)),
        }
    }
}

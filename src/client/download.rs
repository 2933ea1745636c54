//! Answers that are files: read as they come, never as a whole.

use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::{Client, ClientError, Failed, judge, transport};

/// How long a member may take to begin, which may mean to write the file first.
const BEGIN: Duration = Duration::from_secs(60);
/// How long nothing may come once it has begun.
const SILENCE: Duration = Duration::from_secs(30);

impl Client {
    /// Reads `path` from the first member that gives it, piece by piece. Gives the number of bytes.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ClientError::Malformed`] when the stream broke off, or `take` failed,
    /// with its reason.
    pub async fn download<E: std::fmt::Display>(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, ClientError> {
        let (url, mut response) = self.begin(path).await?;
        let broken = |why: String| ClientError::Malformed(format!("{url}: {why}"));
        let promised = response.content_length();
        let mut received = 0;
        loop {
            let piece = match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(broken(format!("the stream broke off: {error}"))),
                Err(_elapsed) => return Err(broken("the stream fell silent".to_owned())),
            };
            received += piece.len() as u64;
            take(&piece).map_err(|error| broken(error.to_string()))?;
        }
        match promised {
            Some(promised) if promised != received => {
                Err(broken(format!("{received} of {promised} bytes came")))
            }
            Some(_) | None => Ok(received),
        }
    }

    /// Asks members in turn, from the preferred one on, until one begins to answer.
    async fn begin(&self, path: &str) -> Result<(String, Response), ClientError> {
        let until = Instant::now() + self.0.deadline;
        let first = self.0.preferred.load(std::sync::atomic::Ordering::Relaxed);
        let members = self.0.urls.len();
        let mut last = ("no member was asked".to_owned(), None);
        for place in (first..).map(|place| place % members).take(members) {
            let url = self.url(place, path);
            let left = until.saturating_duration_since(Instant::now()).min(BEGIN);
            let request = self.0.http.get(&url).send();
            let failed = match timeout(left, request).await {
                Err(_elapsed) => {
                    Failed::NotStarted { why: format!("{url}: no answer in time"), problem: None }
                }
                Ok(Err(error)) => transport(&url, &error),
                Ok(Ok(response)) if response.status().is_success() => return Ok((url, response)),
                Ok(Ok(response)) => refusal(&url, response).await,
            };
            match failed {
                Failed::Final(error) => return Err(error),
                Failed::NotStarted { why, problem } | Failed::Unknown { why, problem } => {
                    last = (why, problem);
                }
            }
        }
        let (why, problem) = last;
        Err(ClientError::Unavailable { why, problem })
    }
}

async fn refusal(url: &str, response: Response) -> Failed {
    let (status, headers) = (response.status(), response.headers().clone());
    match response.bytes().await {
        Err(error) => transport(url, &error),
        Ok(bytes) => match judge(url, status, headers, bytes) {
            Err(failed) => failed,
            Ok(_) => Failed::Final(ClientError::Malformed(format!("{url}: {status}"))),
        },
    }
}

//! Fetches inputs that only name a URL (contract 4.2), for the types that work on what inputs carry.
//!
//! Whoever submits a task names what is fetched, so it is off unless an operator allows it, and only
//! goes where the list of allowed hosts lets it. What is fetched is bounded per input, per step and, by
//! the places for steps that hold something, per process.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::input::{InputData, InputKind};
use super::super::task::{AgentFailure, AgentTask, FailureCode};
use crate::model::Reach;
use crate::outward::{self, Clients};

/// How long one input may take; the time of the step bounds all of them.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest input that is fetched, and the most for one step.
const INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
const STEP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Inputs of one step that are fetched, and how many of them at once.
const INPUTS_MAX: usize = 32;
const AT_ONCE: usize = 4;
/// Steps that hold something fetched at once; others wait.
const STEPS_MAX: usize = 16;

/// Gives each step its turn.
#[derive(Debug)]
pub(super) struct Fetcher(Arc<Semaphore>);

impl Default for Fetcher {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STEPS_MAX)))
    }
}

/// An input that is to be fetched, by its place.
#[derive(Debug)]
struct Wanted {
    place: usize,
    name: String,
    url: Url,
}

impl Fetcher {
    /// Puts into the inputs of `task` what their URLs lead to. Gives the place that the step then
    /// holds; `None` when nothing was fetched.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for what cannot or may not be fetched, or is too large; `EXECUTION_FAILED`
    /// and `TIMEOUT` when another try may help.
    pub(super) async fn fetch(
        &self,
        task: &mut AgentTask,
        clients: &Clients,
        reach: &Reach,
    ) -> Result<Option<OwnedSemaphorePermit>, AgentFailure> {
        // Without the permission the work itself refuses such an input, with words of its own.
        if !reach.fetch_inputs {
            return Ok(None);
        }
        let wanted = wanted(task, reach)?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let broken = |error| AgentFailure::new(FailureCode::ExecutionFailed, error);
        let client = clients.within(&reach.hosts).map_err(broken)?;
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(|closed| broken(closed.to_string()))?;
        let fetches = wanted.into_iter().map(|wanted| {
            let client = client.clone();
            async move {
                let body = get(&client, &wanted).await?;
                Ok::<_, AgentFailure>((wanted.place, body))
            }
        });
        let mut fetched = futures::stream::iter(fetches).buffered(AT_ONCE);
        let mut bytes = 0;
        while let Some(done) = fetched.next().await {
            let (place, body) = done?;
            bytes += body.len();
            if bytes > STEP_BYTES_MAX {
                let message = format!("the inputs to fetch are over {STEP_BYTES_MAX} bytes");
                return Err(AgentFailure::invalid(message));
            }
            task.inputs[place].data = InputData::Bytes(body);
        }
        Ok(Some(permit))
    }
}

fn wanted(task: &AgentTask, reach: &Reach) -> Result<Vec<Wanted>, AgentFailure> {
    let mut wanted = Vec::new();
    for (place, input) in task.inputs.iter().enumerate() {
        if input.data != InputData::None || input.url.is_empty() {
            continue;
        }
        let name = if input.input_id.is_empty() {
            format!("input_{place}")
        } else {
            input.input_id.clone()
        };
        if matches!(input.kind, InputKind::Image | InputKind::Audio) {
            let (kind, agent_type) = (input.kind.as_str(), &task.agent_type);
            let message = format!(
                "input {name} is {kind}: {agent_type} needs a model for that, and fetches none"
            );
            return Err(AgentFailure::invalid(message));
        }
        let url = outward::target(&input.url, &reach.hosts)
            .map_err(|why| AgentFailure::invalid(format!("input {name}: {why}")))?;
        wanted.push(Wanted { place, name, url });
    }
    if wanted.len() > INPUTS_MAX {
        let message = format!("{} inputs to fetch, at most {INPUTS_MAX}", wanted.len());
        return Err(AgentFailure::invalid(message));
    }
    Ok(wanted)
}

async fn get(client: &Client, wanted: &Wanted) -> Result<Bytes, AgentFailure> {
    let Wanted { name, url, .. } = wanted;
    // The host says which address it was; what stands behind it may be a secret.
    let host = url.host_str().unwrap_or_default();
    let broken = |error: reqwest::Error| {
        let why = outward::innermost(&error);
        let message = format!("input {name} cannot be fetched from {host}: {why}");
        if outward::refusal(&error).is_some() {
            AgentFailure::invalid(message)
        } else if error.is_timeout() {
            AgentFailure::new(FailureCode::Timeout, message)
        } else {
            AgentFailure::new(FailureCode::ExecutionFailed, message)
        }
    };
    let request = client.get(url.clone()).timeout(FETCH_TIMEOUT);
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status();
    if !status.is_success() {
        let message = format!("input {name} cannot be fetched: {host} answered {status}");
        let may_pass = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        return Err(if may_pass {
            AgentFailure::new(FailureCode::ExecutionFailed, message)
        } else {
            AgentFailure::invalid(message)
        });
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > INPUT_BYTES_MAX {
            let message = format!("input {name}: {host} gives over {INPUT_BYTES_MAX} bytes");
            return Err(AgentFailure::invalid(message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;
    use serde_json::json;

    use super::super::super::input::AgentInput;
    use super::super::{Builtins, task};
    use super::*;
    use crate::model::AllowedHosts;
    use crate::outward::testing;

    fn reach(list: &[&str]) -> Reach {
        let hosts = AllowedHosts::parse(list.iter().copied()).unwrap();
        Reach { hosts, fetch_inputs: true }
    }

    fn named(kind: InputKind, url: &str) -> AgentInput {
        AgentInput { kind, url: url.to_owned(), ..AgentInput::default() }
    }

    fn router() -> Router {
        let frames = json!({"frames": [{"frame_id": 1, "timestamp": 0, "objects": []}]});
        Router::new()
            .route("/sales.csv", get(|| async { "region,sales\nnorth,1\nsouth,2\n" }))
            .route("/records", get(|| async { r#"[{"sales": 3}, {"sales": 5}]"# }))
            .route("/frames", get(|| async move { frames.to_string() }))
            .route("/large", get(|| async { "x".repeat(INPUT_BYTES_MAX + 1) }))
            .route("/half", get(|| async { "x\n".repeat(INPUT_BYTES_MAX / 2 - 1) }))
            .route("/away", get(|| async { Redirect::temporary("/sales.csv") }))
            .route("/ill", get(|| async { StatusCode::BAD_GATEWAY }))
    }

    async fn run(agent_type: &str, input: AgentInput) -> Result<serde_json::Value, AgentFailure> {
        let task = task(agent_type, vec![input], &[]);
        Builtins::default().run(task, &reach(&[])).await.map(|done| done.data)
    }

    #[tokio::test]
    async fn contract_4_2_text_csv_json_and_frames_are_fetched() {
        let base = format!("http://{}", testing::serve(router()).await);
        let data = run("data_ingest", named(InputKind::Text, &format!("{base}/sales.csv"))).await;
        assert_eq!(data.unwrap()["records"][1], json!({"region": "south", "sales": 2}));
        let records = named(InputKind::Json, &format!("{base}/records"));
        let data = run("data_analysis", records).await.unwrap();
        assert_eq!(data["summary_statistics"]["mean"], 4.0);
        let frames = named(InputKind::Video, &format!("{base}/frames"));
        assert_eq!(run("video_detection", frames).await.unwrap()["detection_count"], 1);
    }

    #[tokio::test]
    async fn inputs_are_fetched_over_https() {
        let addr = testing::serve_tls(router()).await;
        let input = named(InputKind::Text, &format!("https://localhost:{}/sales.csv", addr.port()));
        let builtins = Builtins::new(testing::clients());
        let done =
            builtins.run(task("data_ingest", vec![input], &[]), &reach(&["localhost"])).await;
        assert_eq!(done.unwrap().data["count"], 2);
    }

    #[tokio::test]
    async fn what_cannot_be_fetched_says_why() {
        let base = format!("http://{}", testing::serve(router()).await);
        use FailureCode::{ExecutionFailed, ValidationError};
        for (url, code, word) in [
            (format!("{base}/large"), ValidationError, "bytes"),
            (format!("{base}/away"), ValidationError, "307"),
            (format!("{base}/none"), ValidationError, "404"),
            (format!("{base}/ill"), ExecutionFailed, "502"),
            // Port 1 of this machine: nobody listens.
            ("http://127.0.0.1:1/".to_owned(), ExecutionFailed, "refused"),
            ("ftp://a/".to_owned(), ValidationError, "no http or https URL"),
        ] {
            let failure = run("data_ingest", named(InputKind::Text, &url)).await.unwrap_err();
            assert_eq!(failure.code, code, "{url}: {failure}");
            assert_eq!(failure.retryable, code == ExecutionFailed, "{url}");
            assert!(failure.message.contains(word), "{url}: {failure}");
        }
        let picture = named(InputKind::Image, &base);
        assert!(run("video_detection", picture).await.unwrap_err().message.contains("model"));
        let halves = vec![named(InputKind::Text, &format!("{base}/half")); 3];
        let failure = Builtins::default()
            .run(task("data_ingest", halves, &[]), &reach(&[]))
            .await
            .unwrap_err();
        assert_eq!(failure.code, ValidationError);
        assert!(failure.message.contains("over 8388608 bytes"), "{failure}");
    }

    #[tokio::test]
    async fn nothing_is_fetched_that_an_operator_did_not_allow() {
        let addr = testing::serve(router()).await;
        let url = format!("http://localhost:{}/sales.csv", addr.port());
        let input = || vec![named(InputKind::Text, &url)];
        let builtins = Builtins::default();
        let off = Reach::default();
        let failure = builtins.run(task("data_ingest", input(), &[]), &off).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::ValidationError);
        assert!(failure.message.contains("fetch_inputs"), "{failure}");
        for list in [&["10.0.0.0/8"][..], &["other.example"]] {
            let failure =
                builtins.run(task("data_ingest", input(), &[]), &reach(list)).await.unwrap_err();
            assert_eq!(failure.code, FailureCode::ValidationError);
            assert!(failure.message.contains("allowed hosts"), "{failure}");
        }
        assert!(
            builtins.run(task("data_ingest", input(), &[]), &reach(&["localhost"])).await.is_ok()
        );
    }
}

//! Does the work of an agent: by what is built in, by a program, or by a model behind HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::builtin::{self, Builtins};
use super::task::{AgentDone, AgentFailure, AgentTask, FailureCode, OUTPUT_BYTES_MAX};
use crate::model::{AllowedHosts, Reach};
use crate::outward::{self, Clients};
use crate::worker::exec::{self, End, Ended, Job};

/// Who does the work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    /// This program.
    #[default]
    Builtin,
    /// A command for `sh -c`: the task as JSON on standard input, the output as JSON on standard
    /// output.
    Exec(String),
    /// An HTTP or HTTPS endpoint: the task as JSON in a POST, the output as JSON in the answer.
    Model(String),
}

/// What an agent reaches others by, and which of those that clients name.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// Whom https believes.
    pub clients: Clients,
    /// What built-in types may call and fetch.
    pub reach: Reach,
}

/// Runs steps. Cloning shares what the built-in types remember.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    agent_id: String,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Builtin(Builtins, Arc<Reach>),
    Exec(String),
    Model(Client, Url),
}

impl Runner {
    /// # Errors
    /// In words: a type that is not built in, a URL that is none.
    pub(super) fn new(
        agent_id: &str,
        agent_type: &str,
        engine: &Engine,
        outside: &Outside,
    ) -> Result<Self, String> {
        let Outside { clients, reach } = outside;
        let how = match engine {
            Engine::Builtin if builtin::knows(agent_type) => {
                How::Builtin(Builtins::new(clients.clone()), Arc::new(reach.clone()))
            }
            Engine::Builtin => {
                let known = builtin::types().collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "agent type `{agent_type}` needs --exec or --model-url; built in are {known}"
                ));
            }
            Engine::Exec(program) => How::Exec(program.clone()),
            Engine::Model(url) => {
                // The operator named it: no list has to allow it.
                let url = outward::target(url, &AllowedHosts::default());
                let url = url.map_err(|error| error.to_string())?;
                let client = clients.builder().build();
                How::Model(client.map_err(|error| outward::innermost(&error))?, url)
            }
        };
        Ok(Self { agent_id: agent_id.to_owned(), how })
    }

    /// Works until it is done, its time is over, or `kill` is cancelled.
    pub(super) async fn run(
        &self,
        task: AgentTask,
        kill: &CancellationToken,
    ) -> Result<AgentDone, AgentFailure> {
        let killed = || AgentFailure::new(FailureCode::Cancelled, "the step was cancelled");
        match &self.how {
            How::Builtin(builtins, reach) => tokio::select! {
                biased;
                () = kill.cancelled() => Err(killed()),
                done = builtins.run(task, reach) => done,
            },
            How::Model(client, url) => tokio::select! {
                biased;
                () = kill.cancelled() => Err(killed()),
                done = ask(client, url.clone(), &task) => done,
            },
            // Ends by itself when killed, and its whole process group with it.
            How::Exec(program) => self.exec(program, &task, kill).await,
        }
    }

    async fn exec(
        &self,
        program: &str,
        task: &AgentTask,
        kill: &CancellationToken,
    ) -> Result<AgentDone, AgentFailure> {
        let job = Job {
            program,
            environment: vec![
                ("QUORATE_TASK_ID", task.task_id.clone()),
                ("QUORATE_AGENT_TASK_ID", task.agent_task_id.clone()),
                ("QUORATE_AGENT_TYPE", task.agent_type.clone()),
                ("QUORATE_AGENT_ID", self.agent_id.clone()),
            ],
            input: task.to_json().to_string().into_bytes(),
            timeout: task.time_limit(),
        };
        let ended = exec::run(job, kill).await;
        if let Some(failure) = failure(&ended) {
            return Err(failure);
        }
        output(&task.agent_type, &ended.stdout, ended.took)
    }
}

fn failure(ended: &Ended) -> Option<AgentFailure> {
    let tail = ended.log_tail();
    let with_tail = |what: String| if tail.is_empty() { what } else { format!("{what}: {tail}") };
    Some(match &ended.end {
        End::Exited(status) if status.success() => return None,
        End::Exited(status) if exec::is_permanent(*status) => {
            AgentFailure::invalid(with_tail(exec::status_text(*status)))
        }
        End::Exited(status) => {
            AgentFailure::new(FailureCode::ExecutionFailed, with_tail(exec::status_text(*status)))
        }
        End::TimedOut => {
            let message = format!("the program ran longer than {:.1} s", ended.took.as_secs_f64());
            AgentFailure::new(FailureCode::Timeout, message)
        }
        End::Killed => AgentFailure::new(FailureCode::Cancelled, "the step was cancelled"),
        End::TooLong => too_large(),
        End::Broken(what) => AgentFailure::new(FailureCode::ExecutionFailed, what.clone()),
    })
}

fn too_large() -> AgentFailure {
    let message = format!("the output is over {OUTPUT_BYTES_MAX} bytes");
    AgentFailure::new(FailureCode::ExecutionFailed, message).for_good()
}

/// What a program or a model said: `{type, data}`, any other JSON, or text.
fn output(agent_type: &str, said: &[u8], took: Duration) -> Result<AgentDone, AgentFailure> {
    if said.len() > OUTPUT_BYTES_MAX {
        return Err(too_large());
    }
    let execution_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let (output_type, data) = match serde_json::from_slice(said) {
        Ok(Value::Object(mut fields))
            if fields.len() == 2
                && fields.get("type").is_some_and(Value::is_string)
                && fields.contains_key("data") =>
        {
            let named = fields.remove("type").and_then(|name| name.as_str().map(str::to_owned));
            (named.unwrap_or_default(), fields.remove("data").unwrap_or_default())
        }
        Ok(value) => (builtin::output_type(agent_type).to_owned(), value),
        Err(_) => {
            ("text_result".to_owned(), json!(String::from_utf8_lossy(said).trim_end_matches('\n')))
        }
    };
    Ok(AgentDone { output_type, data, execution_ms })
}

/// Asks the model. A 4xx says that the task makes no sense to it, 429 that it has no room.
async fn ask(client: &Client, url: Url, task: &AgentTask) -> Result<AgentDone, AgentFailure> {
    let started = Instant::now();
    let broken = |error: reqwest::Error| {
        let late = error.is_timeout() && !error.is_connect();
        let code = if late { FailureCode::Timeout } else { FailureCode::ExecutionFailed };
        AgentFailure::new(code, format!("the model endpoint: {error}"))
    };
    let request = client.post(url).timeout(task.time_limit()).json(&task.to_json());
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > OUTPUT_BYTES_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return output(&task.agent_type, &body, started.elapsed());
    }
    let said: String = String::from_utf8_lossy(&body).chars().take(500).collect();
    let message = format!("the model endpoint answered {status}: {said}");
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => AgentFailure::busy(message),
        status if status.is_client_error() => AgentFailure::invalid(message),
        _ => AgentFailure::new(FailureCode::ExecutionFailed, message),
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;

    use super::super::input::AgentInput;
    use super::*;
    use crate::outward::testing;

    fn task() -> AgentTask {
        AgentTask {
            task_id: "t".to_owned(),
            agent_type: "data_ingest".to_owned(),
            inputs: vec![AgentInput::text("hello")],
            ..AgentTask::default()
        }
    }

    async fn exec(program: &str, task: AgentTask) -> Result<AgentDone, AgentFailure> {
        let engine = Engine::Exec(program.to_owned());
        let runner = Runner::new("me", "data_ingest", &engine, &Outside::default()).unwrap();
        runner.run(task, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn programs_get_the_task_and_give_the_output() {
        let done = exec("cat", task()).await.unwrap();
        assert_eq!(done.output_type, "ingested_data");
        assert_eq!(done.data["inputs"][0]["data"], "hello");
        let done = exec("echo '{\"type\": \"mine\", \"data\": [1]}'", task()).await.unwrap();
        assert_eq!((done.output_type.as_str(), done.data), ("mine", json!([1])));
        let done = exec("echo $QUORATE_AGENT_ID $QUORATE_TASK_ID", task()).await.unwrap();
        assert_eq!((done.output_type.as_str(), done.data), ("text_result", json!("me t")));
    }

    #[tokio::test]
    async fn programs_fail_in_several_ways() {
        let failure = exec("echo bad >&2; exit 65", task()).await.unwrap_err();
        assert_eq!(failure, AgentFailure::invalid("exit code 65: bad"));
        let failure = exec("exit 3", task()).await.unwrap_err();
        assert_eq!((failure.code, failure.retryable), (FailureCode::ExecutionFailed, true));
        let failure = exec("yes", task()).await.unwrap_err();
        assert_eq!((failure.code, failure.retryable), (FailureCode::ExecutionFailed, false));
        let short = AgentTask { timeout: Duration::from_millis(50), ..task() };
        assert_eq!(exec("sleep 60", short).await.unwrap_err().code, FailureCode::Timeout);
    }

    #[tokio::test]
    async fn models_answer_over_http() {
        let router = Router::new()
            .route("/", post(|body: String| async move { body }))
            .route("/busy", post(|| async { StatusCode::TOO_MANY_REQUESTS }))
            .route("/no", post(|| async { (StatusCode::BAD_REQUEST, "no frames") }));
        let base = format!("http://{}", testing::serve(router).await);
        let ask = async |path: &str| {
            let engine = Engine::Model(format!("{base}{path}"));
            let runner = Runner::new("me", "video_detection", &engine, &Outside::default());
            let runner = runner.unwrap();
            runner.run(task(), &CancellationToken::new()).await
        };
        assert_eq!(ask("/").await.unwrap().data["task_id"], "t");
        assert!(ask("/busy").await.unwrap_err().busy);
        let failure = ask("/no").await.unwrap_err();
        assert_eq!(failure.code, FailureCode::ValidationError);
        assert!(failure.message.contains("no frames"), "{failure}");
    }

    #[tokio::test]
    async fn models_answer_over_https() {
        let addr =
            testing::serve_tls(Router::new().route("/", post(|body: String| async { body })));
        let engine = Engine::Model(format!("https://localhost:{}/", addr.await.port()));
        let ask = async |clients: Clients| {
            let outside = Outside { clients, ..Outside::default() };
            let runner = Runner::new("me", "video_detection", &engine, &outside).unwrap();
            runner.run(task(), &CancellationToken::new()).await
        };
        assert_eq!(ask(testing::clients()).await.unwrap().data["task_id"], "t");
        let failure = ask(Clients::default()).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::ExecutionFailed, "nobody vouches: {failure}");
    }

    #[test]
    fn engines_are_checked() {
        let new =
            |agent_type: &str, engine| Runner::new("me", agent_type, &engine, &Outside::default());
        assert!(new("telepathy", Engine::Builtin).unwrap_err().contains("--exec"));
        assert!(new("telepathy", Engine::Exec("cat".to_owned())).is_ok());
        assert!(new("x", Engine::Model("https://a".to_owned())).is_ok());
        assert!(new("x", Engine::Model("ftp://a".to_owned())).unwrap_err().contains("https URL"));
    }
}

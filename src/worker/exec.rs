//! Runs one program: input on its standard input, result from its standard output, both bounded;
//! its whole process group is killed when its time is over or nobody wants it any more.

use std::collections::VecDeque;
use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The longest result that is taken.
const STDOUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The end of standard error that is kept.
const STDERR_BYTES_KEPT: usize = 64 * 1024;
/// The part of that which goes into an error message.
const ERROR_CHARS_MAX: usize = 2000;
/// Between asking a program to stop and killing it.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// How long the pipes of a program that has exited may stay open in its children.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// For `sh -c`.
    pub(crate) program: &'a str,
    /// Added to the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// JSON text.
    pub(crate) input: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) enum End {
    Exited(ExitStatus),
    /// It ran longer than it may.
    TimedOut,
    /// It was killed because nobody wants its result.
    Killed,
    /// It wrote more than is taken.
    TooLong,
    /// It could not be started, or the system failed it.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "{status}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Killed => f.write_str("killed"),
            Self::TooLong => f.write_str("wrote too much"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// The end of standard error, for an error message.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.stderr.trim_end();
        let skipped = log.chars().count().saturating_sub(ERROR_CHARS_MAX);
        log.chars().skip(skipped).collect()
    }
}

/// How a program exited, in words.
pub(crate) fn status_text(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// By the words of sysexits.h: a program that was used wrongly (64) or given bad data (65) will
/// fail on every node alike.
pub(crate) fn is_permanent(status: ExitStatus) -> bool {
    matches!(status.code(), Some(64 | 65))
}

/// Runs `job` until it ends, its time is over, or `kill` is cancelled.
pub(crate) async fn run(job: Job<'_>, kill: &CancellationToken) -> Ended {
    let started = Instant::now();
    let mut stdout = Vec::new();
    let mut stderr = VecDeque::new();
    let end = match spawn(&job) {
        Ok(child) => supervise(child, job, kill, &mut stdout, &mut stderr).await,
        Err(error) => End::Broken(format!("cannot start `sh`: {error}")),
    };
    let stderr = String::from_utf8_lossy(stderr.make_contiguous()).into_owned();
    Ended { end, stdout, stderr, took: started.elapsed() }
}

fn spawn(job: &Job<'_>) -> std::io::Result<Child> {
    Command::new("sh")
        .arg("-c")
        .arg(job.program)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it starts can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn supervise(
    mut child: Child,
    job: Job<'_>,
    kill: &CancellationToken,
    stdout: &mut Vec<u8>,
    stderr: &mut VecDeque<u8>,
) -> End {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (Some(mut stdin), Some(out), Some(err)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return End::Broken("the program has no pipes".to_owned());
    };
    let limit = job.timeout;
    let feed = async move {
        // A program may exit without reading its input; that is its own business.
        let _ = stdin.write_all(&job.input).await;
    };
    let work = async {
        let read = async { tokio::join!(read_all(out, stdout), read_tail(err, stderr)).0 };
        tokio::pin!(read);
        let exited = async {
            tokio::pin!(feed);
            let mut fed = false;
            loop {
                tokio::select! {
                    biased;
                    status = child.wait() => return Ok(status),
                    // Only an early end is of interest: too much output.
                    fits = &mut read => return Err(fits),
                    () = &mut feed, if !fed => fed = true,
                }
            }
        };
        match exited.await {
            Ok(status) => {
                let fits = timeout(PIPE_GRACE, read).await.unwrap_or(true);
                ended(status, fits)
            }
            Err(false) => End::TooLong,
            Err(true) => ended(child.wait().await, true),
        }
    };
    let end = tokio::select! {
        biased;
        () = kill.cancelled() => End::Killed,
        end = timeout(limit, work) => end.unwrap_or(End::TimedOut),
    };
    if matches!(end, End::TimedOut) {
        signal(group, Signal::TERM);
        let _ = timeout(KILL_GRACE, child.wait()).await;
    }
    // Also after a normal exit: what a program leaves running would never be waited for.
    signal(group, Signal::KILL);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "cannot wait for a killed program");
    }
    end
}

fn ended(status: std::io::Result<ExitStatus>, fits: bool) -> End {
    match status {
        Ok(_) if !fits => End::TooLong,
        Ok(status) => End::Exited(status),
        Err(error) => End::Broken(format!("cannot wait for the program: {error}")),
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    // No such process: it is gone already, which is what is wanted.
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// Reads to the end, or gives `false` as soon as there is more than is taken.
async fn read_all(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return true,
            Ok(n) if into.len() + n > STDOUT_BYTES_MAX => return false,
            Ok(n) => into.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Reads to the end, keeping the last bytes.
async fn read_tail(mut from: impl AsyncRead + Unpin, into: &mut VecDeque<u8>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                into.extend(&buffer[..n]);
                into.drain(..into.len().saturating_sub(STDERR_BYTES_KEPT));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(program: &str, input: &str, limit: Duration) -> Ended {
        let job = Job {
            program,
            environment: vec![
                ("QUORATE_TASK_ID", "t".to_owned()),
                ("QUORATE_ATTEMPT", "7".to_owned()),
            ],
            input: input.as_bytes().to_vec(),
            timeout: limit,
        };
        run(job, &CancellationToken::new()).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn input_output_environment_and_log_pass() {
        let ended = sh("cat; echo $QUORATE_TASK_ID $QUORATE_ATTEMPT >&2", "[1]", LONG).await;
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_str()), (&b"[1]"[..], "t 7\n"));
        assert!(matches!(ended.end, End::Exited(status) if status.success()));
        let ended = sh("exit 3", "ignored", LONG).await;
        assert!(matches!(ended.end, End::Exited(status) if status.code() == Some(3)));
    }

    #[tokio::test]
    async fn more_input_and_output_than_a_pipe_holds() {
        let input = "x".repeat(1_000_000);
        let ended = sh("cat", &input, LONG).await;
        assert_eq!(ended.stdout.len(), input.len());
    }

    #[tokio::test]
    async fn the_whole_group_dies_when_time_is_over() {
        // The grandchild ignores the polite signal and would hold the pipes for a minute.
        let ended =
            sh("sh -c 'trap \"\" TERM; sleep 60' & wait", "", Duration::from_millis(50)).await;
        assert!(matches!(ended.end, End::TimedOut));
        assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_up_the_end() {
        let ended = sh("sleep 60 & echo 1", "", LONG).await;
        assert!(matches!(ended.end, End::Exited(_)) && ended.stdout == b"1\n");
        assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    }

    #[tokio::test]
    async fn output_is_bounded_and_the_log_keeps_its_end() {
        let ended = sh("yes", "", LONG).await;
        assert!(matches!(ended.end, End::TooLong));
        let ended = sh("yes | head -c 100000 >&2; echo end >&2", "", LONG).await;
        assert_eq!(ended.stderr.len(), STDERR_BYTES_KEPT);
        assert!(ended.stderr.ends_with("end\n"));
    }

    #[tokio::test]
    async fn a_cancelled_program_is_killed() {
        let kill = CancellationToken::new();
        kill.cancel();
        let job =
            Job { program: "sleep 60", environment: Vec::new(), input: Vec::new(), timeout: LONG };
        assert!(matches!(run(job, &kill).await.end, End::Killed));
    }
}

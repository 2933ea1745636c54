//! Programs that are not ours and run beside the members: found, or installed once by `tools.sh`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::Mutex;

const PLACES: [&str; 6] =
    ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Installers exclude each other.
static INSTALLING: Mutex<()> = Mutex::const_new(());

fn find(program: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(program)).find(|path| path.is_file())
}

/// Where `program` is. When it is missing and cannot be installed either, says so loudly: whoever
/// calls must then skip its test. With `QUORATE_CI` in the environment it fails instead.
#[expect(clippy::disallowed_methods, reason = "where a test runs is no setting")]
pub(crate) async fn tool(program: &str) -> Option<PathBuf> {
    let _installing = INSTALLING.lock().await;
    if let Some(path) = find(program) {
        return Some(path);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/tools.sh");
    let mut command = Command::new(script);
    command.arg(program).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let found = find(program);
    // Where everything is to be verified, a test that does not run is one that fails.
    let must = std::env::var_os("QUORATE_CI").is_some();
    if found.is_none() {
        let said = ran.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        // Past the harness, which swallows what tests that pass have printed.
        let mut terminal = std::io::stderr();
        let why = "is not here and cannot be installed";
        assert!(!must, "{program} {why}: {said:?}");
        let _ = writeln!(terminal, "SKIPPED the tests with {program}: it {why}: {said:?}");
    }
    found
}

/// The environment that such a program gets: none of the developer's.
pub(crate) fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", PLACES.join(":"));
    command
}

/// The text of a file of this repository.
pub(crate) fn repository_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

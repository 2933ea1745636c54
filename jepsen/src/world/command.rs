//! Programs of the system that this one leans on.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a program to its end; its output when it succeeds.
///
/// # Errors
/// With what it said, when it cannot be started or fails.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<String> {
    run_with_input(words, "")
}

/// As [`run`], with text for its standard input.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with_input(words: &[&str], input: &str) -> anyhow::Result<String> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read closes its end; its exit status says what it thinks.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", words.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is there.
pub(crate) fn exists(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).is_file())
}

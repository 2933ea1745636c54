//! The program under test: found, or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The workspace that this program was built from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The program at `given`, or the one beside this program. With `build`, cargo makes sure first
/// that the latter is there and no older than its source.
///
/// # Errors
/// When there is none, or it does not build.
pub(crate) fn find(given: Option<&Path>, build: bool) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.is_file(), "{} is not there", given.display());
        return Ok(given.canonicalize()?);
    }
    let itself = std::env::current_exe()?;
    let beside = itself.parent().context("a program is in a directory")?.join("quorate");
    if build && Path::new(WORKSPACE).join("Cargo.toml").is_file() {
        let target = itself.ancestors().nth(2).context("a program is in a target directory")?;
        cargo(target, &["--bin", "quorate"])?;
    }
    ensure!(beside.is_file(), "{} is not there: build it, or say --quorate", beside.display());
    Ok(beside)
}

/// The program with every sabotage built in; which one is at work is chosen when it is started.
///
/// # Errors
/// When it does not build.
pub(crate) fn with_canaries(features: &[String], build: bool) -> anyhow::Result<PathBuf> {
    let itself = std::env::current_exe()?;
    let target = itself.ancestors().nth(2).context("a program is in a target directory")?;
    let target = target.join("canaries");
    if build {
        cargo(&target, &["--bin", "quorate", "--features", &features.join(",")])?;
    }
    Ok(target.join("release/quorate"))
}

fn cargo(target: &Path, more: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(WORKSPACE)
        .args(["build", "--release", "--locked", "--package", "quorate"])
        .args(more)
        .arg("--target-dir")
        .arg(target)
        .status()
        .context("cannot start cargo; say --quorate PATH instead")?;
    ensure!(status.success(), "the program under test does not build");
    Ok(())
}

//! Into namespaces of its own: the program starts itself again where it may build networks, mount
//! disks and start processes, all of which vanish with it, however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::command;

/// Set in the program that runs inside, to the rights it has there.
const INSIDE: &str = "QUORATE_JEPSEN_INSIDE";

/// How members are connected, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// Namespaces and a switch in user space: every fault.
    Switch,
    /// Namespaces and the kernel's bridge: no delay, reordering, duplicates.
    Bridge,
    /// Loopback and a TCP proxy per link: stalls and delays only.
    Proxy,
}

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Root, in namespaces of its own.
    Root,
    /// Root only inside a user namespace: no loop devices.
    User,
    /// No namespaces.
    None,
}

const OURS: [&str; 6] =
    ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
const AS_ROOT_INSIDE: [&str; 2] = ["--user", "--map-root-user"];

/// What this process may do, as the one outside found out.
pub(crate) fn rights() -> Rights {
    match std::env::var(INSIDE).as_deref() {
        Ok("root") => Rights::Root,
        Ok("user") => Rights::User,
        Ok(_) | Err(_) => Rights::None,
    }
}

/// Makes sure that this process runs where the wanted tier can be built. Replaces this process by
/// one inside namespaces when it is not there yet; returns otherwise.
///
/// # Errors
/// When a tier is asked for that cannot be had here.
pub(crate) fn enter(wanted: Option<Tier>) -> anyhow::Result<()> {
    let asked_for_none = wanted == Some(Tier::Proxy);
    if rights() != Rights::None || asked_for_none {
        return Ok(());
    }
    for (name, extra) in [("root", &[][..]), ("user", &AS_ROOT_INSIDE[..])] {
        let words = [extra, &OURS[..]].concat();
        if works(&words) {
            let itself = std::env::current_exe().context("where this program is")?;
            let error = Command::new("unshare")
                .args(&words)
                .arg("--")
                .arg(itself)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, name)
                .exec();
            return Err(error).context("cannot start itself inside namespaces");
        }
    }
    match wanted {
        Some(tier) => bail!("no namespaces can be made here, and the tier {tier:?} needs them"),
        None => Ok(()),
    }
}

fn works(words: &[&str]) -> bool {
    let tried = Command::new("unshare")
        .args(words)
        .args(["--", "ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success()) && command::exists("nsenter")
}

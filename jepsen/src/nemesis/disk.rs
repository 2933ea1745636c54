//! Disks that lose power, fill up, fail, stall, forget or lie.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::RngExt;

use super::{Kind, Scene, fault, numbers};
use crate::world::{Injection, flip_byte};

pub(super) const FAULTS: &[Kind] = &[
    fault!("power-cut-one", Members, Disks, power_cut_one),
    fault!("power-cut-majority", Members, Disks, power_cut_majority),
    fault!("power-cut-all", Members, Disks, power_cut_all),
    fault!("disk-full", Members, Disks, disk_full),
    fault!("fsync-error", Members, Tracing, fsync_error),
    fault!("slow-fsync", Members, Tracing, slow_fsync),
    fault!("stalled-disk", Members, Disks, stalled_disk),
    fault!("wiped-disk", Members, Nothing, wiped_disk),
    fault!("corrupt-home", Members, Nothing, corrupt_home),
    fault!("corrupt-log", Members, Nothing, corrupt_log),
];

/// How long a member whose disk fails may take to say so and stop.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// How long a member may take to look at its disk and refuse to start.
const REFUSES_WITHIN: Duration = Duration::from_secs(3);
/// Enough that some hit a part of the home that is in use.
const HOME_FLIPS: usize = 400;
/// Shorter than the 20 s after which a member counts a flush as failed.
const STALL_MS: std::ops::Range<u64> = 1000..6000;

async fn power_cut(scene: &mut Scene, places: &[usize]) -> anyhow::Result<()> {
    let fault = scene.begin(places);
    scene.world.cut_power(places)?;
    fault.active(&format!("{}: what was not flushed is gone, mounted again", numbers(places)));
    let down = scene.rng.random_range(0..1500);
    scene.hold_for(Duration::from_millis(down)).await;
    fault.healing();
    scene.start(places)?;
    fault.healed();
    scene.await_back(places).await;
    Ok(())
}

async fn power_cut_one(scene: &mut Scene) -> anyhow::Result<()> {
    let leader_too = scene.rng.random_bool(0.5);
    let place = if leader_too { scene.leader().await? } else { scene.anyone() };
    power_cut(scene, &[place]).await
}

async fn power_cut_majority(scene: &mut Scene) -> anyhow::Result<()> {
    let places = scene.some(scene.world.majority());
    power_cut(scene, &places).await
}

async fn power_cut_all(scene: &mut Scene) -> anyhow::Result<()> {
    let places = scene.some(scene.world.size());
    power_cut(scene, &places).await
}

/// Waits for a member to stop because of its disk; what it said last, as evidence.
async fn stops(scene: &Scene, place: usize, since: u64, patience: Duration) -> Option<String> {
    let world = &scene.world;
    let ended = || world.member(place).process.as_mut()?.ended();
    let status = scene.seen(patience, ended).await?;
    let said = world.member(place).said_since(since);
    Some(format!("m{} stopped, {status}: {}", place + 1, last_line(&said)))
}

/// The last line that has letters in it, without colours.
fn last_line(said: &str) -> String {
    let lines = said.lines().rev().map(str::trim);
    let mut lines = lines.filter(|line| line.chars().any(char::is_alphabetic));
    lines.next().unwrap_or("it said nothing").chars().take(300).collect()
}

async fn disk_full(scene: &mut Scene) -> anyhow::Result<()> {
    let place = scene.anyone();
    let fault = scene.begin(&[place]);
    let since = scene.world.member(place).log_end();
    let bytes = scene.world.member(place).disk.fill()?;
    match stops(scene, place, since, STOPS_WITHIN).await {
        Some(said) => fault.active(&format!("{bytes} bytes of ballast; {said}")),
        None => fault.no_effect("the member did not need more room"),
    }
    fault.healing();
    scene.world.member(place).disk.free()?;
    scene.world.start(place)?;
    fault.healed();
    scene.await_back(&[place]).await;
    Ok(())
}

/// Tampers with system calls of a running member.
pub(super) async fn inject(scene: &Scene, place: usize, what: &str) -> anyhow::Result<Injection> {
    let pid = scene.world.member(place).running().context("it does not run")?.pid();
    Injection::attach(pid, what, scene.world.scratch()).await
}

async fn fsync_error(scene: &mut Scene) -> anyhow::Result<()> {
    let leader_too = scene.rng.random_bool(0.5);
    let place = if leader_too { scene.leader().await? } else { scene.anyone() };
    let fault = scene.begin(&[place]);
    let since = scene.world.member(place).log_end();
    let injection = inject(scene, place, "fdatasync,fsync:error=EIO").await;
    let injection = match injection {
        Ok(injection) => injection,
        Err(why) => {
            fault.no_effect(&format!("{why:#}"));
            fault.healed();
            return Ok(());
        }
    };
    let stopped = stops(scene, place, since, STOPS_WITHIN).await;
    let failed = injection.detach().await;
    match stopped {
        Some(said) if failed > 0 => fault.active(&format!("{failed} flushes failed; {said}")),
        Some(_) => fault.no_effect("the member stopped before a flush failed"),
        None => fault.no_effect(&format!("{failed} flushes failed, and the member went on")),
    }
    fault.healing();
    scene.world.start(place)?;
    fault.healed();
    scene.await_back(&[place]).await;
    Ok(())
}

async fn slow_fsync(scene: &mut Scene) -> anyhow::Result<()> {
    let place = scene.leader().await?;
    let millis = scene.one_of(&[20, 50, 150]);
    let fault = scene.begin(&[place]);
    let what = format!("fdatasync:delay_exit={}", millis * 1000);
    let injection = match inject(scene, place, &what).await {
        Ok(injection) => injection,
        Err(why) => {
            fault.no_effect(&format!("{why:#}"));
            fault.healed();
            return Ok(());
        }
    };
    scene.hold().await;
    fault.healing();
    let slow = injection.detach().await;
    if slow > 0 {
        fault.active(&format!("{slow} flushes of m{} took {millis} ms longer", place + 1));
    } else {
        fault.no_effect("nothing was flushed");
    }
    fault.healed();
    Ok(())
}

async fn stalled_disk(scene: &mut Scene) -> anyhow::Result<()> {
    let leader_too = scene.rng.random_bool(0.5);
    let place = if leader_too { scene.leader().await? } else { scene.anyone() };
    let fault = scene.begin(&[place]);
    scene.world.member(place).disk.freeze()?;
    let time = Duration::from_millis(scene.rng.random_range(STALL_MS));
    fault.active(&format!("the disk of m{} is frozen for {time:?}", place + 1));
    scene.hold_for(time).await;
    fault.healing();
    scene.world.member(place).disk.thaw();
    fault.healed();
    // A member that gave up meanwhile is started again.
    scene.world.start(place)?;
    scene.await_back(&[place]).await;
    Ok(())
}

/// A member loses everything it had, and comes back as another one.
async fn wiped_disk(scene: &mut Scene) -> anyhow::Result<()> {
    let _turn = scene.await_turn().await?;
    let place = scene.follower().await?;
    let before = scene.world.own(place).await.map(|own| own.id);
    let fault = scene.begin(&[place]);
    scene.world.member(place).kill();
    scene.world.member(place).disk.wipe()?;
    fault.healing();
    scene.world.start(place)?;
    scene.await_back(&[place]).await;
    let after = scene.world.own(place).await.map(|own| own.id);
    match (before, after) {
        (Some(before), Some(after)) if before != after && after > 0 => {
            fault.active(&format!("m{}: number {before} became {after}", place + 1));
        }
        (before, after) => fault.no_effect(&format!("its number was {before:?}, is {after:?}")),
    }
    fault.healed();
    scene.await_redundant().await
}

/// Flips a bit while the member is down; gives what it said at its next start, and whether it
/// refused to run.
async fn corrupt(
    scene: &mut Scene,
    place: usize,
    below: &str,
    flips: usize,
) -> anyhow::Result<(String, bool)> {
    let since = scene.world.member(place).log_end();
    ensure!(scene.world.member(place).kill(), "it did not run");
    let file = scene.world.member(place).disk.largest_file(below)?;
    let mut at = Vec::new();
    for _ in 0..flips {
        at.push(flip_byte(&file, scene.rng.random_range(0.05..0.6))?);
    }
    scene.world.start(place)?;
    let refused = stops(scene, place, since, REFUSES_WITHIN).await;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let said = match &refused {
        Some(said) => said.clone(),
        None => {
            let said = scene.world.member(place).said_since(since);
            let opened = said.lines().find(|line| line.contains("RecoveryReport"));
            let opened = opened.and_then(|line| line.split_once("report=")).map(|(_, end)| end);
            opened.unwrap_or("it runs").chars().take(300).collect()
        }
    };
    Ok((format!("{flips} bits of {name} flipped at {:?} ...; {said}", at[0]), refused.is_some()))
}

/// The home is a copy: a member whose home is damaged builds it again by itself.
async fn corrupt_home(scene: &mut Scene) -> anyhow::Result<()> {
    let place = scene.anyone();
    let fault = scene.begin(&[place]);
    let (said, refused) = corrupt(scene, place, "state", HOME_FLIPS).await?;
    if refused {
        fault.no_effect(&format!("it must build its home again, and stopped instead: {said}"));
    } else if said.contains("Intact") {
        fault.no_effect(&format!("no flip hit what is used: {said}"));
    } else {
        fault.active(&said);
    }
    fault.healing();
    scene.await_back(&[place]).await;
    fault.healed();
    Ok(())
}

/// The log is the truth: a member whose log is damaged must not take part with what is left. It is
/// wiped and joins as another one. Only one of the minority is damaged.
async fn corrupt_log(scene: &mut Scene) -> anyhow::Result<()> {
    let _turn = scene.await_turn().await?;
    let place = scene.follower().await?;
    let fault = scene.begin(&[place]);
    let (said, refused) = corrupt(scene, place, "wal", 1).await?;
    fault.active(&said);
    fault.healing();
    if refused {
        scene.world.member(place).disk.wipe()?;
        scene.world.start(place)?;
    }
    scene.await_back(&[place]).await;
    fault.healed();
    scene.await_redundant().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_quoted() {
        assert_eq!(last_line("one\n\n  error: the disk is full  \n\n"), "error: the disk is full");
        assert_eq!(last_line("\n"), "it said nothing");
    }
}

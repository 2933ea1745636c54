//! Members that are killed, stopped, and started again.

use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use rustix::process::Signal;

use super::{EFFECT_PATIENCE, Kind, Scene, fault, numbers};
use crate::world::state_of;

pub(super) const FAULTS: &[Kind] = &[
    fault!("kill-leader", Members, Nothing, kill_leader),
    fault!("kill-follower", Members, Nothing, kill_follower),
    fault!("kill-majority", Members, Nothing, kill_majority),
    fault!("kill-all", Members, Nothing, kill_all),
    fault!("pause-leader", Members, Nothing, pause_leader),
    fault!("pause-majority", Members, Nothing, pause_majority),
    fault!("rolling-restart", Members, Nothing, rolling_restart),
    fault!("restart-storm", Members, Nothing, restart_storm),
];

/// Longer than the longest election, so that another member leads when the paused one wakes.
const PAUSE_MS: std::ops::Range<u64> = 600..3000;
/// How long a member may take to stop by itself.
const STOP: Duration = Duration::from_secs(15);

/// Kills, holds, starts.
async fn kill(scene: &mut Scene, places: &[usize]) -> anyhow::Result<()> {
    let fault = scene.begin(places);
    let killed = places.iter().filter(|place| scene.world.member(**place).kill()).count();
    if killed == places.len() {
        fault.active(&format!("{} dead and reaped", numbers(places)));
    } else {
        fault.no_effect("not all of them ran");
    }
    let down = scene.rng.random_range(0..2000);
    scene.hold_for(Duration::from_millis(down)).await;
    fault.healing();
    scene.start(places)?;
    fault.healed();
    scene.await_back(places).await;
    Ok(())
}

async fn kill_leader(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    kill(scene, &[leader]).await
}

async fn kill_follower(scene: &mut Scene) -> anyhow::Result<()> {
    let follower = scene.follower().await?;
    kill(scene, &[follower]).await
}

async fn kill_majority(scene: &mut Scene) -> anyhow::Result<()> {
    let places = scene.some(scene.world.majority());
    kill(scene, &places).await
}

async fn kill_all(scene: &mut Scene) -> anyhow::Result<()> {
    let places = scene.some(scene.world.size());
    kill(scene, &places).await
}

/// Stops processes where they are, as a hypervisor or a full machine would: their connections stay
/// open, their clocks go on.
async fn pause(scene: &mut Scene, places: &[usize]) -> anyhow::Result<()> {
    let fault = scene.begin(places);
    let mut pids = Vec::new();
    for place in places {
        let mut member = scene.world.member(*place);
        if member.signal(Signal::STOP).is_ok() {
            pids.extend(member.running().map(|process| process.pid()));
        }
    }
    let stopped = || pids.iter().all(|pid| state_of(*pid) == Some('T')).then_some(());
    let seen = scene.seen(EFFECT_PATIENCE, stopped).await;
    match seen {
        Some(()) if pids.len() == places.len() => {
            fault.active(&format!("{} stopped (state T)", numbers(places)));
        }
        Some(()) | None => fault.no_effect("not all of them are stopped"),
    }
    let time = Duration::from_millis(scene.rng.random_range(PAUSE_MS));
    scene.hold_for(time).await;
    fault.healing();
    for place in places {
        // Fails when it was killed meanwhile; then there is nothing to wake.
        let _ = scene.world.member(*place).signal(Signal::CONT);
    }
    fault.healed();
    Ok(())
}

async fn pause_leader(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    pause(scene, &[leader]).await
}

async fn pause_majority(scene: &mut Scene) -> anyhow::Result<()> {
    let places = scene.some(scene.world.majority());
    pause(scene, &places).await
}

/// One member after the other is asked to stop, and started again once it has.
async fn rolling_restart(scene: &mut Scene) -> anyhow::Result<()> {
    let order = scene.some(scene.world.size());
    let fault = scene.begin(&order);
    let mut clean = 0;
    for place in &order {
        let status = stop(scene, *place).await?;
        clean += usize::from(status);
        scene.world.start(*place)?;
        scene.await_back(&[*place]).await;
        if scene.over.is_cancelled() {
            break;
        }
    }
    if clean == order.len() {
        fault.active("all stopped with exit code 0 and were started again");
    } else {
        fault.no_effect(&format!("only {clean} stopped with exit code 0"));
    }
    fault.healing();
    fault.healed();
    Ok(())
}

/// Whether it stopped by itself, cleanly.
async fn stop(scene: &Scene, place: usize) -> anyhow::Result<bool> {
    let asked = scene.world.member(place).signal(Signal::TERM);
    if asked.is_err() {
        return Ok(false);
    }
    let world = &scene.world;
    let ended = || world.member(place).process.as_mut()?.ended();
    let status = scene.seen(STOP, ended).await;
    ensure!(status.is_some(), "m{} does not stop within {STOP:?}", place + 1);
    Ok(status.is_some_and(|status| status.success()))
}

/// Kills members again and again while they start, at any point of their start.
async fn restart_storm(scene: &mut Scene) -> anyhow::Result<()> {
    let victims = scene.some(scene.world.majority());
    let fault = scene.begin(&victims);
    let rounds = scene.rng.random_range(5..12);
    let mut kills = 0;
    for _ in 0..rounds {
        let place = victims[scene.rng.random_range(0..victims.len())];
        kills += usize::from(scene.world.member(place).kill());
        scene.world.start(place)?;
        let time = Duration::from_millis(scene.rng.random_range(10..400));
        scene.hold_for(time).await;
    }
    if kills > 0 {
        fault.active(&format!("{kills} kills of {}", numbers(&victims)));
    } else {
        fault.no_effect("nobody was running when it was killed");
    }
    fault.healing();
    scene.start(&victims)?;
    fault.healed();
    scene.await_back(&victims).await;
    Ok(())
}

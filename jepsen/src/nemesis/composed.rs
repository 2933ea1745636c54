//! Faults that only together show what each alone does not.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::disk::inject;
use super::network::{between, cut};
use super::{EFFECT_PATIENCE, Kind, Scene, fault, numbers};
use crate::world::Injection;

pub(super) const FAULTS: &[Kind] = &[
    fault!("lag-then-crash", Members, Cuts, lag_then_crash),
    fault!("election-then-crash", Members, Disks, election_then_crash),
    fault!("pause-then-isolate", Members, Cuts, pause_then_isolate),
];

/// How much later flushes of voters begin, and votes with them.
const BALLOT_FLUSH: Duration = Duration::from_millis(60);

/// A minority falls behind while the rest goes on acknowledging; then everybody who has what was
/// acknowledged loses power at once, and the minority is let in again. Whatever was acknowledged
/// without being durable is gone now, and nobody is left who remembers it. Plain kills miss this:
/// they leave the page cache, or somebody who remembers. Mostly the flushes of those that go down
/// begin late, so that there is something to forget.
async fn lag_then_crash(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let mut followers: Vec<usize> = scene.world.places().filter(|place| *place != leader).collect();
    followers.shuffle(&mut scene.rng);
    let lagging = followers.split_off(scene.world.majority() - 1);
    let mut ahead = followers;
    ahead.push(leader);
    let all: Vec<usize> = scene.world.places().collect();
    let fault = scene.begin(&all);
    let before = scene.world.counts();
    let layer = scene.world.lay(cut(between(&ahead, &lagging)))?;
    let lag = Duration::from_millis(scene.rng.random_range(300..1500));
    let delay = scene.one_of(&[0, 30, 80]);
    let late = if delay > 0 { ahead.as_slice() } else { &[] };
    let tracers = late_flushes(scene, late, Duration::from_millis(delay)).await;
    scene.hold_for(lag).await;
    let dropped = (scene.world.counts() - before).dropped;
    let has_disks = scene.world.has_disks();
    if has_disks {
        scene.world.cut_power(&ahead)?;
    } else {
        for place in &ahead {
            scene.world.member(*place).kill();
        }
    }
    let how = if has_disks { "lost power" } else { "were killed" };
    let late: usize = tracers.iter().map(Injection::count).sum();
    drop(tracers);
    if dropped > 0 {
        let (lagging, ahead) = (numbers(&lagging), numbers(&ahead));
        let flushes = format!("{late} flushes {delay} ms late");
        fault.active(&format!(
            "{lagging} lagged {lag:?} ({dropped} frames, {flushes}); {ahead} {how}"
        ));
    } else {
        fault.no_effect("nobody lagged: no frame was dropped");
    }
    fault.healing();
    scene.world.lift(layer)?;
    scene.start(&ahead)?;
    fault.healed();
    scene.await_back(&ahead).await;
    Ok(())
}

/// The leader is cut off, another one is elected, and in that moment who voted for it loses power
/// and comes back to the old leader, while the new one is cut off. A voter whose vote was not
/// durable serves the old leader again, in the older term, and the new one comes back and overwrites
/// what they acknowledged. Flushes begin late, so that the moment lasts.
async fn election_then_crash(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let voters: Vec<usize> = scene.world.places().filter(|place| *place != leader).collect();
    let fault = scene.begin(&voters);
    let tracers = late_flushes(scene, &voters, BALLOT_FLUSH).await;
    let layer = scene.world.lay(cut(between(&[leader], &voters)))?;
    let Some(winner) = winner(scene, &voters).await else {
        fault.no_effect("nobody else was elected");
        scene.world.lift(layer)?;
        fault.healed();
        return Ok(());
    };
    let others: Vec<usize> = scene.world.places().filter(|place| *place != winner).collect();
    let voted: Vec<usize> = voters.into_iter().filter(|place| *place != winner).collect();
    scene.world.cut_power(&voted)?;
    let apart = scene.world.lay(cut(between(&[winner], &others)))?;
    scene.world.lift(layer)?;
    drop(tracers);
    scene.start(&voted)?;
    fault.active(&format!("{} lost power when m{} was elected", numbers(&voted), winner + 1));
    scene.hold().await;
    fault.healing();
    scene.world.lift(apart)?;
    fault.healed();
    scene.await_back(&voted).await;
    Ok(())
}

/// Lets flushes of some members begin late, for as long as the tracers live. Without strace the
/// fault is the same, only harder to see.
async fn late_flushes(scene: &Scene, places: &[usize], delay: Duration) -> Vec<Injection> {
    let what = format!("fdatasync:delay_enter={}", delay.as_micros());
    let mut tracers = Vec::new();
    for place in places {
        tracers.extend(inject(scene, *place, &what).await.ok());
    }
    tracers
}

/// The first of some members that says it leads.
async fn winner(scene: &Scene, voters: &[usize]) -> Option<usize> {
    let deadline = tokio::time::Instant::now() + EFFECT_PATIENCE;
    while tokio::time::Instant::now() < deadline && !scene.over.is_cancelled() {
        for place in voters {
            if scene.world.leads(*place).await {
                return Some(*place);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    None
}

/// The leader sleeps through an election and wakes where nobody can tell it: what it answers from
/// memory is old.
async fn pause_then_isolate(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let rest: Vec<usize> = scene.world.places().filter(|place| *place != leader).collect();
    let fault = scene.begin(&[leader]);
    let before = scene.world.counts();
    let paused = scene.world.member(leader).signal(rustix::process::Signal::STOP);
    let layer = scene.world.lay(cut(between(&[leader], &rest)))?;
    let time = Duration::from_millis(scene.rng.random_range(500..1500));
    scene.hold_for(time).await;
    // Fails when it is gone.
    let _ = scene.world.member(leader).signal(rustix::process::Signal::CONT);
    let world = std::sync::Arc::clone(&scene.world);
    let dropped = || Some((world.counts() - before).dropped).filter(|dropped| *dropped > 0);
    let dropped = scene.seen(EFFECT_PATIENCE, dropped).await;
    match dropped {
        Some(dropped) if paused.is_ok() => {
            let member = leader + 1;
            fault.active(&format!("m{member} slept {time:?}, woke alone ({dropped} frames lost)"));
        }
        Some(_) | None => fault.no_effect("the leader was not stopped, or lost no frame"),
    }
    scene.hold().await;
    fault.healing();
    scene.world.lift(layer)?;
    fault.healed();
    Ok(())
}

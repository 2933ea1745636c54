//! Wall clocks that jump, run fast or slow, or go back and forth. Each change is read back from the
//! member's own answers.

use std::time::Duration;

use anyhow::Context;
use rand::RngExt;

use super::{Kind, Scene, fault};
use crate::world::TRUE_TIME as TRUE;

pub(super) const FAULTS: &[Kind] = &[
    fault!("clock-jump", Clock, Clocks, jump),
    fault!("clock-rate", Clock, Clocks, rate),
    fault!("clock-strobe", Clock, Clocks, strobe),
];

/// How far a member may seem off that is not: its answers carry the time they were made.
const TRUE_WITHIN: f64 = 0.3;
/// libfaketime looks at its file once a second.
const READ_BACK: Duration = Duration::from_millis(2500);
const POLL: Duration = Duration::from_millis(100);

fn set(scene: &Scene, place: usize, setting: &str) -> anyhow::Result<()> {
    let member = scene.world.member(place);
    member.clock.as_ref().context("a clock that can be set")?.set(setting)?;
    Ok(())
}

/// The offset that a member shows, once it is of the wanted kind.
async fn offset(scene: &Scene, place: usize, wanted: impl Fn(f64) -> bool) -> Option<f64> {
    let deadline = tokio::time::Instant::now() + READ_BACK;
    while tokio::time::Instant::now() < deadline {
        let offset = scene.world.clock_offset(place).await;
        if let Some(offset) = offset.filter(|offset| wanted(*offset)) {
            return Some(offset);
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

/// Waits until what was set before has worn off, so that it is not taken for the next effect.
async fn true_again(scene: &Scene, place: usize) {
    let _ = offset(scene, place, |offset| offset.abs() < TRUE_WITHIN).await;
}

/// The leader half of the time: it stamps the time of every entry.
async fn target(scene: &mut Scene) -> anyhow::Result<usize> {
    if scene.rng.random_bool(0.5) { scene.leader().await } else { Ok(scene.anyone()) }
}

async fn jump(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    let seconds: i64 = scene.one_of(&[-3600, -60, -5, 5, 60, 3600]);
    true_again(scene, place).await;
    let fault = scene.begin(&[place]);
    set(scene, place, &format!("{seconds:+} x1"))?;
    match offset(scene, place, |offset| (offset - seconds as f64).abs() < 1.0).await {
        Some(seen) => fault.active(&format!("m{} is {seen:.1} s off", place + 1)),
        None => fault.no_effect("the member does not show another time"),
    }
    scene.hold().await;
    fault.healing();
    set(scene, place, TRUE)?;
    fault.healed();
    Ok(())
}

async fn rate(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    let (begin, factor) = (scene.one_of(&["+0", "+30", "-30"]), scene.one_of(&["0.5", "2", "5"]));
    true_again(scene, place).await;
    let fault = scene.begin(&[place]);
    set(scene, place, &format!("{begin} x{factor}"))?;
    match offset(scene, place, |offset| offset.abs() > TRUE_WITHIN).await {
        Some(seen) => {
            fault.active(&format!("m{} runs at {factor}, {seen:.1} s off", place + 1));
        }
        None => fault.no_effect("the member does not show another time"),
    }
    scene.hold().await;
    fault.healing();
    set(scene, place, TRUE)?;
    fault.healed();
    Ok(())
}

async fn strobe(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    true_again(scene, place).await;
    let fault = scene.begin(&[place]);
    let mut turns = 0;
    for _ in 0..3 {
        for seconds in [20.0, -20.0] {
            set(scene, place, &format!("{seconds:+} x1"))?;
            let seen = offset(scene, place, |offset| (offset - seconds).abs() < 1.0).await;
            turns += usize::from(seen.is_some());
        }
        if scene.over.is_cancelled() {
            break;
        }
    }
    if turns > 1 {
        fault.active(&format!("m{} jumped by 40 s {turns} times", place + 1));
    } else {
        fault.no_effect("the member does not show another time");
    }
    fault.healing();
    set(scene, place, TRUE)?;
    fault.healed();
    Ok(())
}

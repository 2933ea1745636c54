//! Wall clocks that jump, run fast or slow, or go back and forth. Each change is read back from the
//! member's own answers.

use std::time::Duration;

use anyhow::Context;
use rand::RngExt;

use super::{Kind, Scene, fault};

pub(super) const FAULTS: &[Kind] = &[
    fault!("clock-jump", Clock, Clocks, jump),
    fault!("clock-rate", Clock, Clocks, rate),
    fault!("clock-strobe", Clock, Clocks, strobe),
];

/// How much of a jump must be seen: answers carry the time they were made, not the time of asking.
const SEEN_PART: f64 = 0.5;
/// libfaketime looks at its file once a second.
const READ_BACK: Duration = Duration::from_millis(2500);
const POLL: Duration = Duration::from_millis(100);

fn set(scene: &Scene, place: usize, setting: &str) -> anyhow::Result<()> {
    let member = scene.world.member(place);
    member.clock.as_ref().context("a clock that can be set")?.set(setting)?;
    Ok(())
}

/// The offset that a member shows, once it is at least so far off.
async fn offset_beyond(scene: &Scene, place: usize, least: f64) -> Option<f64> {
    let deadline = tokio::time::Instant::now() + READ_BACK;
    while tokio::time::Instant::now() < deadline {
        let offset = scene.world.clock_offset(place).await;
        if let Some(offset) = offset.filter(|offset| offset.abs() >= least) {
            return Some(offset);
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

/// The leader half of the time: it stamps the time of every entry.
async fn target(scene: &mut Scene) -> anyhow::Result<usize> {
    if scene.rng.random_bool(0.5) { scene.leader().await } else { Ok(scene.anyone()) }
}

async fn jump(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    let seconds: i64 = scene.one_of(&[-3600, -60, -5, 5, 60, 3600]);
    let fault = scene.begin(&[place]);
    set(scene, place, &format!("{seconds:+}"))?;
    match offset_beyond(scene, place, seconds.unsigned_abs() as f64 * SEEN_PART).await {
        Some(seen) => fault.active(&format!("m{} is {seen:.1} s off", place + 1)),
        None => fault.no_effect("the member does not show another time"),
    }
    scene.hold().await;
    fault.healing();
    set(scene, place, "+0")?;
    fault.healed();
    Ok(())
}

async fn rate(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    let (offset, factor) = (scene.one_of(&["+0", "+30", "-30"]), scene.one_of(&["0.5", "2", "5"]));
    let fault = scene.begin(&[place]);
    set(scene, place, &format!("{offset} x{factor}"))?;
    match offset_beyond(scene, place, 0.4).await {
        Some(seen) => {
            fault.active(&format!("m{} runs at {factor}, {seen:.1} s off", place + 1));
        }
        None => fault.no_effect("the member does not show another time"),
    }
    scene.hold().await;
    fault.healing();
    set(scene, place, "+0")?;
    fault.healed();
    Ok(())
}

async fn strobe(scene: &mut Scene) -> anyhow::Result<()> {
    let place = target(scene).await?;
    let fault = scene.begin(&[place]);
    let mut seen: f64 = 0.0;
    for _ in 0..4 {
        for setting in ["+20", "-20"] {
            set(scene, place, setting)?;
            let offset = offset_beyond(scene, place, 10.0).await;
            seen = offset.map_or(seen, |offset| seen.max(offset.abs()));
        }
        if scene.over.is_cancelled() {
            break;
        }
    }
    if seen > 0.0 {
        fault.active(&format!("m{} went back and forth, up to {seen:.1} s", place + 1));
    } else {
        fault.no_effect("the member does not show another time");
    }
    fault.healing();
    set(scene, place, "+0")?;
    fault.healed();
    Ok(())
}

//! What operators do to a cluster, done often and at bad moments: over the public API alone.

use std::time::Duration;

use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Kind, Scene, fault};

pub(super) const FAULTS: &[Kind] = &[
    fault!("membership-churn", Cluster, Nothing, churn),
    fault!("member-replaced", Members, Nothing, replace),
    fault!("transfer-storm", Cluster, Nothing, transfers),
    fault!("forced-snapshots", Cluster, Nothing, snapshots),
];

/// Changes of the membership wait for the cluster; so do we.
const CHANGE: Duration = Duration::from_secs(8);
const TRIES: usize = 12;
const TRANSFER: Duration = Duration::from_secs(3);

/// Asks through any member, a few times: others may be changing the cluster, too.
async fn change(
    scene: &mut Scene,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<(), String> {
    let mut why = String::new();
    for _ in 0..TRIES {
        let through = scene.anyone();
        let sent = scene.world.send(method.clone(), through, path, body, CHANGE).await;
        match sent {
            Ok((200, _)) => return Ok(()),
            Ok((404, _)) if *method == Method::DELETE => return Ok(()),
            Ok((status, body)) => why = format!("{status} {}", body["code"]),
            Err(error) => why = error.to_string(),
        }
        if scene.over.is_cancelled() {
            break;
        }
        scene.hold_for(Duration::from_millis(300)).await;
    }
    Err(why)
}

/// A voter becomes a learner and a voter again.
async fn churn(scene: &mut Scene) -> anyhow::Result<()> {
    let _turn = scene.await_turn().await?;
    let place = scene.anyone();
    let Some(own) = scene.world.own(place).await else {
        anyhow::bail!("m{} does not say who it is", place + 1);
    };
    let fault = scene.begin(&[place]);
    let members = format!("/api/v1/cluster/members/{}", own.id);
    let demoted = change(scene, &Method::POST, &format!("{members}/demote"), &json!({})).await;
    match demoted {
        Ok(()) => fault.active(&format!("m{} (number {}) was demoted", place + 1, own.id)),
        Err(why) => fault.no_effect(&format!("not demoted: {why}")),
    }
    scene.hold_for(Duration::from_millis(500)).await;
    fault.healing();
    // A learner that has caught up gets its vote back by itself as well.
    let _ = change(scene, &Method::POST, &format!("{members}/promote"), &json!({})).await;
    fault.healed();
    scene.await_redundant().await
}

/// A member is taken out for good; its machine comes back, wiped, as a new one.
async fn replace(scene: &mut Scene) -> anyhow::Result<()> {
    let _turn = scene.await_turn().await?;
    let place = scene.follower().await?;
    let Some(own) = scene.world.own(place).await else {
        anyhow::bail!("m{} does not say who it is", place + 1);
    };
    let fault = scene.begin(&[place]);
    let path = format!("/api/v1/cluster/members/{}", own.id);
    let removed = change(scene, &Method::DELETE, &path, &json!({})).await;
    if let Err(why) = &removed {
        fault.no_effect(&format!("not removed: {why}"));
        fault.healed();
        return Ok(());
    }
    let world = std::sync::Arc::clone(&scene.world);
    let ended = || world.member(place).process.as_mut()?.ended();
    // It is told that it left, and ends; cut off, it does not know.
    let status = scene.seen(Duration::from_secs(5), ended).await;
    scene.world.member(place).kill();
    scene.world.member(place).disk.wipe()?;
    scene.world.start(place)?;
    scene.await_back(&[place]).await;
    let after = scene.world.own(place).await.map(|own| own.id);
    let how = status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
    fault.active(&format!("number {} removed ({how}), back as {after:?}", own.id));
    fault.healing();
    fault.healed();
    scene.await_redundant().await
}

async fn transfers(scene: &mut Scene) -> anyhow::Result<()> {
    let fault = scene.begin(&scene.world.places().collect::<Vec<_>>());
    let times = scene.rng.random_range(4..10);
    let mut moved = 0;
    for _ in 0..times {
        let through = scene.anyone();
        let path = "/api/v1/cluster/transfer-leader";
        let sent = scene.world.send(Method::POST, through, path, &json!({}), TRANSFER).await;
        moved += usize::from(matches!(sent, Ok((200, _))));
        let pause = Duration::from_millis(scene.rng.random_range(50..600));
        scene.hold_for(pause).await;
        if scene.over.is_cancelled() {
            break;
        }
    }
    if moved > 0 {
        fault.active(&format!("leadership moved {moved} times"));
    } else {
        fault.no_effect("no transfer was done");
    }
    fault.healing();
    fault.healed();
    Ok(())
}

async fn snapshots(scene: &mut Scene) -> anyhow::Result<()> {
    let fault = scene.begin(&scene.world.places().collect::<Vec<_>>());
    let mut begun = 0;
    for _ in 0..scene.rng.random_range(3..8) {
        let place = scene.anyone();
        let path = "/api/v1/cluster/snapshot";
        let sent = scene.world.send(Method::POST, place, path, &json!({}), TRANSFER).await;
        begun += usize::from(matches!(sent, Ok((200, _))));
        let pause = Duration::from_millis(scene.rng.random_range(20..400));
        scene.hold_for(pause).await;
        if scene.over.is_cancelled() {
            break;
        }
    }
    if begun > 0 {
        fault.active(&format!("{begun} snapshots begun"));
    } else {
        fault.no_effect("no snapshot was begun");
    }
    fault.healing();
    fault.healed();
    Ok(())
}

//! Partitions and bad links. Links between members are cut here; clients keep reaching everybody,
//! except where a fault says otherwise.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::{EFFECT_PATIENCE, Kind, Scene, fault, numbers};
use crate::world::{Counts, Link, Port, Shape};

pub(super) const FAULTS: &[Kind] = &[
    fault!("partition-halves", Network, Cuts, halves),
    fault!("partition-leader-in-minority", Network, Cuts, leader_in_minority),
    fault!("isolate-leader", Network, Cuts, isolate_leader),
    fault!("isolate-follower", Network, Cuts, isolate_follower),
    fault!("partition-ring", Network, Cuts, ring),
    fault!("one-way-leader-deaf", Network, Cuts, leader_deaf),
    fault!("one-way-leader-mute", Network, Cuts, leader_mute),
    fault!("one-way-random", Network, Cuts, one_way),
    fault!("flapping", Network, Cuts, flapping),
    fault!("delay", Network, Delays, delay),
    fault!("loss", Network, Losses, loss),
    fault!("slow-link", Network, Losses, slow_link),
    fault!("reorder", Network, Reordering, reorder),
    fault!("duplicate", Network, Reordering, duplicate),
    fault!("client-cut", Network, Cuts, client_cut),
    fault!("worker-cut", Network, Workers, worker_cut),
];

/// How often a flapping link changes.
const FLAP: Duration = Duration::from_millis(200);

/// Every directed link between one side and the other.
pub(super) fn between(one: &[usize], other: &[usize]) -> Vec<Link> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs
        .flat_map(|(a, b)| {
            let (a, b) = (Port::Member(a), Port::Member(b));
            [(a, b), (b, a)]
        })
        .collect()
}

/// All members but these.
fn others(scene: &Scene, places: &[usize]) -> Vec<usize> {
    scene.world.places().filter(|place| !places.contains(place)).collect()
}

/// Nothing passes.
pub(super) fn cut(links: Vec<Link>) -> Vec<(Link, Shape)> {
    links.into_iter().map(|link| (link, Shape::CUT)).collect()
}

/// Lays shapes over links for a while. `effect` picks the counter that proves it.
async fn shape(
    scene: &mut Scene,
    places: &[usize],
    what: &str,
    links: Vec<(Link, Shape)>,
    effect: fn(&Counts) -> u64,
) -> anyhow::Result<()> {
    let fault = scene.begin(places);
    let before = scene.world.counts();
    let layer = scene.world.lay(links)?;
    let world = std::sync::Arc::clone(&scene.world);
    let seen = scene
        .seen(EFFECT_PATIENCE, || Some(effect(&(world.counts() - before))).filter(|n| *n > 0))
        .await;
    match seen {
        Some(count) => fault.active(&format!("{what}: {count} frames affected at once")),
        None => fault.no_effect("no frame was affected"),
    }
    scene.hold().await;
    fault.healing();
    scene.world.lift(layer)?;
    fault.healed();
    Ok(())
}

async fn partition(scene: &mut Scene, side: &[usize]) -> anyhow::Result<()> {
    let links = cut(between(side, &others(scene, side)));
    let what = format!("{} cut off", numbers(side));
    shape(scene, side, &what, links, |counts| counts.dropped).await
}

async fn halves(scene: &mut Scene) -> anyhow::Result<()> {
    let minority = scene.world.size() / 2;
    let side = scene.some(minority);
    partition(scene, &side).await
}

async fn leader_in_minority(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let mut side = others(scene, &[leader]);
    side.shuffle(&mut scene.rng);
    side.truncate(scene.world.size() / 2 - 1);
    side.push(leader);
    partition(scene, &side).await
}

async fn isolate_leader(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    partition(scene, &[leader]).await
}

async fn isolate_follower(scene: &mut Scene) -> anyhow::Result<()> {
    let follower = scene.follower().await?;
    partition(scene, &[follower]).await
}

/// Of five, each sees its two neighbours: everybody sees a majority, nobody the same one. Of three,
/// two do not see each other.
async fn ring(scene: &mut Scene) -> anyhow::Result<()> {
    let size = scene.world.size();
    let order = scene.some(size);
    let mut links = Vec::new();
    for (place, member) in order.iter().enumerate() {
        for (other_place, other) in order.iter().enumerate().skip(place + 1) {
            let apart = other_place - place;
            let neighbours = apart.min(size - apart) == 1;
            if (size > 3 && !neighbours) || (size == 3 && (place, other_place) == (0, 1)) {
                links.extend(between(&[*member], &[*other]));
            }
        }
    }
    shape(scene, &order, "a ring", cut(links), |counts| counts.dropped).await
}

async fn leader_deaf(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let from = others(scene, &[leader]);
    let links = from.iter().map(|from| (Port::Member(*from), Port::Member(leader)));
    let links = cut(links.collect());
    shape(scene, &[leader], "the leader hears nothing", links, |counts| counts.dropped).await
}

async fn leader_mute(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let to = others(scene, &[leader]);
    let links = to.iter().map(|to| (Port::Member(leader), Port::Member(*to)));
    let links = cut(links.collect());
    shape(scene, &[leader], "nobody hears the leader", links, |counts| counts.dropped).await
}

async fn one_way(scene: &mut Scene) -> anyhow::Result<()> {
    let pair = scene.some(2);
    let links = cut(vec![(Port::Member(pair[0]), Port::Member(pair[1]))]);
    let what = format!("m{} does not hear m{}", pair[1] + 1, pair[0] + 1);
    shape(scene, &pair, &what, links, |counts| counts.dropped).await
}

async fn flapping(scene: &mut Scene) -> anyhow::Result<()> {
    let victim = scene.anyone();
    let links = cut(between(&[victim], &others(scene, &[victim])));
    let fault = scene.begin(&[victim]);
    let before = scene.world.counts();
    let times = scene.rng.random_range(6..14);
    for _ in 0..times {
        let layer = scene.world.lay(links.clone())?;
        scene.hold_for(FLAP).await;
        scene.world.lift(layer)?;
        scene.hold_for(FLAP).await;
        if scene.over.is_cancelled() {
            break;
        }
    }
    let dropped = (scene.world.counts() - before).dropped;
    if dropped > 0 {
        fault.active(&format!("links of m{} flapped, {dropped} frames lost", victim + 1));
    } else {
        fault.no_effect("no frame was lost");
    }
    fault.healing();
    fault.healed();
    Ok(())
}

/// One shape on every link between members.
async fn everywhere(
    scene: &mut Scene,
    what: &str,
    bad: Shape,
    effect: fn(&Counts) -> u64,
) -> anyhow::Result<()> {
    let all: Vec<usize> = scene.world.places().collect();
    let mut links = Vec::new();
    for (place, member) in all.iter().enumerate() {
        links.extend(between(&[*member], &all[place + 1..]));
    }
    let links = links.into_iter().map(|link| (link, bad)).collect();
    shape(scene, &all, what, links, effect).await
}

async fn delay(scene: &mut Scene) -> anyhow::Result<()> {
    let delay_ms = scene.rng.random_range(20..100);
    let bad = Shape { delay_ms, ..Shape::default() };
    everywhere(scene, &format!("{delay_ms} ms one way"), bad, |counts| counts.delayed).await
}

async fn loss(scene: &mut Scene) -> anyhow::Result<()> {
    let loss_percent = scene.rng.random_range(5..=30);
    let bad = Shape { loss_percent, ..Shape::default() };
    everywhere(scene, &format!("{loss_percent} % lost"), bad, |counts| counts.dropped).await
}

async fn reorder(scene: &mut Scene) -> anyhow::Result<()> {
    let jitter_ms = scene.rng.random_range(5..60);
    let bad = Shape { jitter_ms, ..Shape::default() };
    everywhere(scene, &format!("up to {jitter_ms} ms later"), bad, |counts| counts.delayed).await
}

async fn duplicate(scene: &mut Scene) -> anyhow::Result<()> {
    let duplicate_percent = scene.rng.random_range(10..=60);
    let bad = Shape { duplicate_percent, ..Shape::default() };
    let what = format!("{duplicate_percent} % sent twice");
    everywhere(scene, &what, bad, |counts| counts.duplicated).await
}

async fn slow_link(scene: &mut Scene) -> anyhow::Result<()> {
    let victim = scene.anyone();
    let rate_kbit = scene.one_of(&[128, 256, 512]);
    let bad = Shape { rate_kbit, ..Shape::default() };
    let links = between(&[victim], &others(scene, &[victim]));
    let links = links.into_iter().map(|link| (link, bad)).collect();
    let what = format!("{rate_kbit} kbit/s for m{}", victim + 1);
    shape(scene, &[victim], &what, links, |counts| counts.delayed + counts.dropped).await
}

async fn client_cut(scene: &mut Scene) -> anyhow::Result<()> {
    let victim = scene.anyone();
    let (member, clients) = (Port::Member(victim), Port::Clients);
    let links = cut(vec![(member, clients), (clients, member)]);
    let what = format!("clients do not reach m{}", victim + 1);
    shape(scene, &[victim], &what, links, |counts| counts.dropped).await
}

async fn worker_cut(scene: &mut Scene) -> anyhow::Result<()> {
    let leader = scene.leader().await?;
    let (member, workers) = (Port::Member(leader), Port::Workers);
    let links = cut(vec![(member, workers), (workers, member)]);
    let what = "workers and the leader do not reach each other";
    shape(scene, &[leader], what, links, |counts| counts.dropped).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_cuts_both_ways() {
        let links = between(&[0], &[1, 2]);
        assert_eq!(links.len(), 4);
        assert!(links.contains(&(Port::Member(2), Port::Member(0))));
        assert!(!links.contains(&(Port::Member(1), Port::Member(2))));
    }
}

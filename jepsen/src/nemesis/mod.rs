//! The nemesis: what is done to the cluster while clients use it. One file per group of faults,
//! each fault an episode: choose targets, apply, prove the effect, hold, heal.

mod clock;
mod cluster;
mod composed;
mod disk;
mod network;
mod process;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::BoxFuture;
use jepsen::history::{Fault, Recorder};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

pub(crate) use schedule::{Schedule, once, unleash};

use crate::world::{Tier, World};

/// Faults of one lane follow each other; faults of different lanes overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Network,
    /// Processes and disks: at most one such fault at a time.
    Members,
    Clock,
    Cluster,
}

/// What a world must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Links that can be cut.
    Cuts,
    /// Links that can be slow.
    Delays,
    /// Links that lose or limit.
    Losses,
    /// Frames that overtake each other or come twice.
    Reordering,
    /// Links of the workers.
    Workers,
    /// A disk of its own for every member.
    Disks,
    /// strace.
    Tracing,
    /// Clocks that can be set.
    Clocks,
}

/// What carries out one fault, from the choice of its targets to the end of its effects.
pub(crate) type Episode = for<'a> fn(&'a mut Scene) -> BoxFuture<'a, anyhow::Result<()>>;

/// A fault that can be asked for.
pub(crate) struct Kind {
    pub name: &'static str,
    pub lane: Lane,
    pub need: Need,
    pub episode: Episode,
}

/// What the library says, loudly, of a change of the membership that found no leader.
const NO_LEADER: &str = "has to forward request to";

impl Kind {
    /// Parts of lines of level ERROR in the logs of members that this fault explains.
    pub(crate) fn errors(&self) -> &'static [&'static str] {
        match self.name {
            "disk-full" => &["No space left", "the disk is full", "shutdown failed"],
            "fsync-error" => &["Input/output error", "shutdown failed"],
            "stalled-disk" | "slow-fsync" => &["a flush hangs", "flush"],
            "power-cut-one"
            | "power-cut-majority"
            | "power-cut-all"
            | "lag-then-crash"
            | "election-then-crash" => &["Input/output error", "shutdown failed"],
            "corrupt-home" | "corrupt-log" => &["damaged", "corrupt", "aside", NO_LEADER],
            "wiped-disk" | "member-replaced" | "membership-churn" => &[NO_LEADER],
            _ => &[],
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A row of the table of faults.
macro_rules! fault {
    ($name:literal, $lane:ident, $need:ident, $episode:path) => {
        $crate::nemesis::Kind {
            name: $name,
            lane: $crate::nemesis::Lane::$lane,
            need: $crate::nemesis::Need::$need,
            episode: |scene| Box::pin($episode(scene)),
        }
    };
}
use fault;

/// Every fault there is.
pub(crate) fn all() -> Vec<&'static Kind> {
    let groups = [
        network::FAULTS,
        process::FAULTS,
        disk::FAULTS,
        clock::FAULTS,
        cluster::FAULTS,
        composed::FAULTS,
    ];
    groups.into_iter().flatten().collect()
}

/// The faults of these names; `all` stands for every one, and a group's name for its members.
///
/// # Errors
/// On a name that is none.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<&'static Kind>> {
    let mut found: Vec<&'static Kind> = Vec::new();
    for name in names {
        let group: &[Kind] = match name.as_str() {
            "network" => network::FAULTS,
            "process" => process::FAULTS,
            "disk" => disk::FAULTS,
            "clock" => clock::FAULTS,
            "cluster" => cluster::FAULTS,
            "none" => &[],
            "all" => {
                found.extend(all());
                continue;
            }
            one => match all().into_iter().find(|kind| kind.name == one) {
                Some(kind) => std::slice::from_ref(kind),
                None => bail!("no fault is called {one}; `jepsen list` names them"),
            },
        };
        found.extend(group);
    }
    found.sort_by_key(|kind| kind.name);
    found.dedup_by_key(|kind| kind.name);
    Ok(found)
}

/// A fault that this program names itself.
pub(crate) fn named_one(name: &str) -> &'static Kind {
    let found = all().into_iter().find(|kind| kind.name == name);
    found.expect("this program names faults that there are")
}

/// Whether a world can do it, and why not.
pub(crate) fn able(world: &World, need: Need) -> Result<(), String> {
    let proxied = world.tier == Tier::Proxy;
    let able = match need {
        Need::Nothing | Need::Cuts => true,
        Need::Delays => world.tier != Tier::Bridge,
        Need::Losses | Need::Workers => !proxied,
        Need::Reordering => world.tier == Tier::Switch,
        Need::Disks => world.has_disks(),
        Need::Tracing => std::path::Path::new("/usr/bin/strace").exists(),
        Need::Clocks => world.has_clocks(),
    };
    if able { Ok(()) } else { Err(format!("this world has not: {need:?}")) }
}

/// What an episode acts on. Each lane has its own, with its own generator.
pub(crate) struct Scene {
    pub world: Arc<World>,
    pub recorder: Recorder,
    pub rng: StdRng,
    /// Cancelled when the faults must end.
    pub over: CancellationToken,
    /// The name under which the present episode is recorded.
    pub name: &'static str,
    /// How long faults are held, at least and at most.
    pub hold: (Duration, Duration),
    /// Held while a vote, or what a vote stands on, is taken away: see [`Scene::await_turn`].
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// How long to wait for somebody to lead before a fault is aimed at the leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the effect of what was done.
const EFFECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a member may take to serve again.
const BACK_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

impl Scene {
    /// The record of this episode, right before it is applied.
    fn begin(&self, places: &[usize]) -> Fault {
        let numbers: Vec<u64> = places.iter().map(|place| *place as u64 + 1).collect();
        self.recorder.fault(self.name, &numbers)
    }

    /// The member that leads.
    async fn leader(&self) -> anyhow::Result<usize> {
        self.world.await_leader(LEADER_PATIENCE).await
    }

    /// A member that follows.
    async fn follower(&mut self) -> anyhow::Result<usize> {
        let leader = self.world.leader().await;
        let others: Vec<usize> =
            self.world.places().filter(|place| Some(*place) != leader).collect();
        ensure!(!others.is_empty(), "nobody follows");
        Ok(others[self.rng.random_range(0..others.len())])
    }

    /// Any member.
    fn anyone(&mut self) -> usize {
        self.rng.random_range(0..self.world.size())
    }

    /// `count` members, by chance.
    fn some(&mut self, count: usize) -> Vec<usize> {
        let mut places: Vec<usize> = self.world.places().collect();
        places.shuffle(&mut self.rng);
        places.truncate(count);
        places
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.rng).expect("every list of choices in this program has some")
    }

    /// Keeps the fault up for a while.
    async fn hold(&mut self) {
        let (least, most) = self.hold;
        let millis = self.rng.random_range(least.as_millis()..=most.as_millis());
        let time = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        self.hold_for(time).await;
    }

    async fn hold_for(&self, time: Duration) {
        // Cut short when the run ends, so that healing always has its time.
        let _ = tokio::time::timeout(time, self.over.cancelled()).await;
    }

    /// Waits until `seen` gives something.
    async fn seen<T>(&self, patience: Duration, mut seen: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(found) = seen() {
                return Some(found);
            }
            if tokio::time::Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every member has a vote and answers, and nobody else is about to change that.
    /// Before a member loses its vote, or all it has: two such losses at a time are more than a
    /// cluster promises to survive.
    async fn await_turn(&self) -> anyhow::Result<OwnedMutexGuard<()>> {
        let turn = Arc::clone(&self.turn).lock_owned();
        let turn = tokio::time::timeout(BACK_PATIENCE, turn).await;
        let turn = turn.context("the loss of a vote before this one takes too long")?;
        self.await_redundant().await?;
        Ok(turn)
    }

    /// Waits until every member has a vote and answers.
    async fn await_redundant(&self) -> anyhow::Result<()> {
        let (size, deadline) = (self.world.size(), tokio::time::Instant::now() + BACK_PATIENCE);
        loop {
            if let Some(leader) = self.world.leader().await
                && let Some(own) = self.world.own(leader).await
                && own.tolerance == size - self.world.majority()
                && (own.voters, own.changing) == (size, false)
            {
                return Ok(());
            }
            let late = tokio::time::Instant::now() >= deadline || self.over.is_cancelled();
            ensure!(!late, "the cluster does not come to have {size} voters that answer");
            tokio::time::sleep(POLL * 2).await;
        }
    }

    /// Starts members again.
    fn start(&self, places: &[usize]) -> anyhow::Result<()> {
        places.iter().try_for_each(|place| self.world.start(*place))
    }

    /// Waits until members serve; one that does not is left to the end of the run.
    async fn await_back(&self, places: &[usize]) {
        let deadline = tokio::time::Instant::now() + BACK_PATIENCE;
        for place in places {
            while tokio::time::Instant::now() < deadline && !self.over.is_cancelled() {
                if matches!(self.world.get(*place, "/readyz").await, Some((200, _))) {
                    break;
                }
                tokio::time::sleep(POLL * 2).await;
            }
        }
    }
}

/// Members by their numbers, for people.
fn numbers(places: &[usize]) -> String {
    let names: Vec<String> = places.iter().map(|place| format!("m{}", place + 1)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let mut names: Vec<&str> = all().iter().map(|kind| kind.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn groups_and_names_are_found_once() {
        let names = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&names).unwrap().iter().map(|kind| kind.name).collect()
        };
        assert_eq!(names(&["kill-leader", "kill-leader"]), ["kill-leader"]);
        assert!(names(&["process", "kill-leader"]).len() > 5);
        assert_eq!(names(&["all"]).len(), all().len());
        assert!(names(&["none"]).is_empty());
        assert!(named(&["no-such-fault".to_owned()]).is_err());
    }
}

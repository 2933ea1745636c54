//! After the faults: everything healed, everybody back, and how long that took.

use std::collections::BTreeMap;
use std::time::Duration;

use jepsen::checker::{Validity, Verdict};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::world::{CALL_TIMEOUT, Own, World};

/// The promise: after healing, the cluster serves within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(5);
/// Every member is there again within this time, or the run is a failure.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// Members agree on the state at one index within this time, once nobody writes.
const AGREES_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(25);
/// A member that ends more often than this after it was healed is given up.
const STARTS_MAX: u32 = 6;
/// What a member says when its log cannot be used any more. Its data directory is wiped, as its
/// operators are told to do.
const LOG_IS_LOST: [&str; 5] =
    ["damaged", "went back in time", "corrupt", "MEMBER_REMOVED", "left"];

/// What became of the cluster after everything was healed.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Until a write was acknowledged.
    pub writes_after: Option<Duration>,
    /// Until every member served linearizable reads and voted.
    pub whole_after: Option<Duration>,
    /// Members that had to be wiped, and what they had said.
    pub wiped: Vec<String>,
    /// Why it is not whole, when it is not.
    pub trouble: String,
}

/// Heals everything, starts everybody, and waits until the cluster is whole.
///
/// # Errors
/// When the world itself fails: the network does not answer, a program cannot be started.
pub(crate) async fn recover(world: &World) -> anyhow::Result<Recovery> {
    let mut recovery = Recovery::default();
    world.heal()?;
    for place in world.places() {
        world.start(place)?;
    }
    let healed = Instant::now();
    let mut starts: BTreeMap<usize, u32> = BTreeMap::new();
    while healed.elapsed() < WHOLE_WITHIN {
        for place in world.places() {
            revive(world, place, &mut starts, &mut recovery)?;
        }
        if recovery.writes_after.is_none() && writes(world).await {
            recovery.writes_after = Some(healed.elapsed());
        }
        match is_whole(world).await {
            Ok(()) if recovery.writes_after.is_some() => {
                recovery.whole_after = Some(healed.elapsed());
                return Ok(recovery);
            }
            Ok(()) => "no write was acknowledged".clone_into(&mut recovery.trouble),
            Err(why) => recovery.trouble = why,
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(recovery)
}

/// Starts a member that has ended, wiped when it cannot use what it has.
fn revive(
    world: &World,
    place: usize,
    starts: &mut BTreeMap<usize, u32>,
    recovery: &mut Recovery,
) -> anyhow::Result<()> {
    let mut member = world.member(place);
    if member.is_running() {
        return Ok(());
    }
    let count = starts.entry(place).or_default();
    *count += 1;
    if *count > STARTS_MAX {
        return Ok(());
    }
    let since = member.log_end().saturating_sub(2000);
    let said = member.said_since(since);
    if *count > 1 && LOG_IS_LOST.iter().any(|words| said.contains(words)) {
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        recovery.wiped.push(format!("m{}: {last}", place + 1));
        member.disk.wipe()?;
    }
    drop(member);
    world.start(place)
}

/// Whether some member takes a write: the cancelling of a task that does not exist goes through the
/// log and changes nothing that any checker looks at.
async fn writes(world: &World) -> bool {
    let path = "/api/v1/tasks/no-such-task-of-anybody";
    let asks = world.places().map(|place| async move {
        let sent = world.send(Method::DELETE, place, path, &json!({}), CALL_TIMEOUT).await;
        matches!(sent, Ok((404, body)) if body["code"] == "TASK_NOT_FOUND")
    });
    futures::future::join_all(asks).await.into_iter().any(|taken| taken)
}

/// # Errors
/// With the first thing that is missing.
async fn is_whole(world: &World) -> Result<(), String> {
    for place in world.places() {
        let name = format!("m{}", place + 1);
        let own = world.own(place).await.ok_or_else(|| format!("{name} does not answer"))?;
        if own.role != "voter" || own.voters != world.size() || own.changing {
            let Own { role, voters, changing, .. } = own;
            return Err(format!("{name} is a {role} of {voters} voters, changing: {changing}"));
        }
        match world.get(place, "/readyz").await {
            Some((200, _)) => {}
            other => return Err(format!("{name} is not ready: {other:?}")),
        }
        match world.get(place, "/api/v1/config?consistency=linearizable").await {
            Some((200, _)) => {}
            other => return Err(format!("{name} serves no linearizable read: {other:?}")),
        }
    }
    Ok(())
}

/// All members show one digest at one index. To be asked when nobody writes.
pub(crate) async fn agreement(world: &World) -> Verdict {
    let property = "equal state digests at equal index";
    let began = Instant::now();
    let mut seen: BTreeMap<u64, BTreeMap<String, usize>> = BTreeMap::new();
    let mut last = Vec::new();
    while began.elapsed() < AGREES_WITHIN {
        let owns = futures::future::join_all(world.places().map(|place| world.own(place))).await;
        last = owns.into_iter().flatten().map(|own| (own.applied, own.digest)).collect();
        for (place, (index, digest)) in last.iter().enumerate() {
            let digests = seen.entry(*index).or_default();
            digests.insert(digest.clone(), place);
            if digests.len() > 1 {
                let what = format!("at index {index}: {digests:?}");
                return Verdict::new("run", property, Validity::Invalid, what);
            }
        }
        if last.len() == world.size() && last.windows(2).all(|pair| pair[0] == pair[1]) {
            let (index, digest) = &last[0];
            let what = format!("{} members at index {index}: {digest}", last.len());
            return Verdict::new("run", property, Validity::Valid, what);
        }
        tokio::time::sleep(POLL * 4).await;
    }
    let what = format!("members did not come to one index within {AGREES_WITHIN:?}: {last:?}");
    Verdict::new("run", property, Validity::Invalid, what)
}

impl Recovery {
    /// What is promised of it, as verdicts.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let figures = json!({
            "writes_after_ms": self.writes_after.map(|time| time.as_millis()),
            "whole_after_ms": self.whole_after.map(|time| time.as_millis()),
            "wiped": self.wiped,
        });
        let (validity, summary) = match self.writes_after {
            Some(time) if time <= SERVES_WITHIN => (Validity::Valid, format!("after {time:.1?}")),
            Some(time) => (Validity::Invalid, format!("only after {time:.1?}")),
            None => (Validity::Invalid, "never".to_owned()),
        };
        let serves = Verdict::new("run", "serves within 5 s of healing", validity, summary);
        let (validity, summary) = match self.whole_after {
            Some(time) => {
                let wiped = self.wiped.len();
                (Validity::Valid, format!("after {time:.1?}, {wiped} members wiped on the way"))
            }
            None => (Validity::Invalid, format!("not within {WHOLE_WITHIN:?}: {}", self.trouble)),
        };
        let whole = Verdict::new("run", "every member votes and serves again", validity, summary);
        vec![serves.figures(figures), whole]
    }
}

//! A backup of this member's state at one log index, made of a snapshot that is taken for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::core::Core;
use super::error::MembershipCode;
use super::membership::{ChangeResult, refuse};
use crate::clock;
use crate::storage::{Backup, BackupHead, SnapshotData};

/// From one look for the snapshot to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A snapshot that was asked for while another was written may have to be asked for again.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A backup that holds at least everything up to `index`.
///
/// # Errors
/// This member has no place in a cluster, has stopped, or took longer than `limit`.
pub(crate) async fn backup(core: &Core, index: u64, limit: Duration) -> ChangeResult<Backup> {
    let Some(seat) = core.seat.get() else {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    };
    let snapshot = fresh_snapshot(core, index, limit).await?;
    let head = BackupHead {
        created_at_ms: clock::now_ms(),
        cluster_id: seat.cluster_id,
        member_id: seat.member_id,
        member_name: core.member.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        term: core.current().term,
    };
    Backup::new(head, snapshot).or_else(|error| refuse(MembershipCode::Stopped, error.to_string()))
}

/// The newest snapshot, once it holds what was applied up to `index`. Nothing is written when the
/// newest does already.
async fn fresh_snapshot(core: &Core, index: u64, limit: Duration) -> ChangeResult<SnapshotData> {
    let until = Instant::now() + limit;
    let (mut asked, mut seen): (Option<Instant>, u64) = (None, 0);
    loop {
        if let Some(why) = core.why_ended() {
            return refuse(MembershipCode::Stopped, why);
        }
        let newest = core.snapshots.current();
        let at = newest.as_ref().and_then(|data| data.meta().last_log_id).map(|id| id.index);
        match (newest, at) {
            (Some(data), Some(at)) if at >= index => return Ok(data),
            (_, at) => {
                // One that was under way when this was asked for is of an earlier moment.
                let another = at.unwrap_or_default() > seen;
                seen = at.unwrap_or_default();
                if another || asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
                    ask(core).await?;
                    asked = Some(Instant::now());
                }
            }
        }
        if Instant::now() >= until {
            let text = format!("the snapshot was not written within {} ms", limit.as_millis());
            return refuse(MembershipCode::Timeout, text);
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn ask(core: &Core) -> ChangeResult<()> {
    let Some(raft) = core.raft() else {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    };
    match raft.trigger().snapshot().await {
        Ok(()) => Ok(()),
        Err(fatal) => refuse(MembershipCode::Stopped, fatal.to_string()),
    }
}

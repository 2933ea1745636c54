//! The settings openraft runs with. Several of its defaults are wrong for us; each line that
//! differs says why.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::error::StartError;
use super::options::Retention;
use crate::canary::{self, Canary};

/// Heartbeats and elections, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// 50 / 150 / 300: a leader that dies is replaced in about half a second.
    #[default]
    Default,
    /// 30 / 100 / 200: for one LAN and a disk of its own for the log.
    Lan,
    /// Anything else; `election_min_ms` must be well above the slowest fsync and round trip.
    Custom {
        /// From one heartbeat to the next.
        heartbeat_ms: u64,
        /// The shortest election timeout.
        election_min_ms: u64,
        /// The longest.
        election_max_ms: u64,
    },
}

impl Timing {
    /// Heartbeat interval, shortest and longest election timeout, in milliseconds.
    #[must_use]
    pub fn millis(self) -> (u64, u64, u64) {
        match self {
            Self::Default => (50, 150, 300),
            Self::Lan => (30, 100, 200),
            Self::Custom { heartbeat_ms, election_min_ms, election_max_ms } => {
                (heartbeat_ms, election_min_ms, election_max_ms)
            }
        }
    }

    /// The longest election timeout: what a silent connection or a missing leader is given.
    #[must_use]
    pub fn election_max(self) -> Duration {
        Duration::from_millis(self.millis().2)
    }
}

/// Builds and checks the settings.
///
/// # Errors
/// [`StartError::Raft`] when the timing makes no sense.
pub fn raft_config(timing: Timing, retention: Retention) -> Result<Config, StartError> {
    let (heartbeat_interval, election_timeout_min, election_timeout_max) = timing.millis();
    let config = Config {
        cluster_name: "quorate".to_owned(),
        heartbeat_interval,
        election_timeout_min,
        election_timeout_max,
        // A leader that lost an unflushed tail in a crash must not lead on in its old term: it
        // would give log ids out a second time, and acknowledged writes would be lost.
        enable_leader_restore: Some(canary::active(Canary::LeaderRestore)),
        // A member that was cut off must not depose a working leader when it comes back.
        enable_pre_vote: Some(true),
        // Without it a partial partition can leave the cluster without a leader for good.
        quorum_loss_probe_interval: Some(2 * election_timeout_max),
        // Never: a log that went backwards is a lost disk, and it must not be papered over.
        allow_log_reversion: None,
        // The log's flusher groups commits by itself; lingering only adds latency.
        api_batch_linger_ms: 0,
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(retention.snapshot_every),
        max_in_snapshot_log_to_keep: retention.keep,
        purge_batch_size: 4096.min(retention.keep.max(1)),
        // Well above what stays in the log, so that a short outage does not force a snapshot.
        replication_lag_threshold: 2 * (retention.keep + retention.snapshot_every),
        // One piece of a snapshot; the whole has no bound of time of its own. A member that lost
        // its power in the middle is sent nothing else until this has passed.
        install_snapshot_timeout: 2_000,
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Raft(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mandatory_settings_are_set() {
        for (timing, expected) in [(Timing::Default, (50, 150, 300)), (Timing::Lan, (30, 100, 200))]
        {
            let config = raft_config(timing, Retention::default()).unwrap();
            assert_eq!(
                (
                    config.heartbeat_interval,
                    config.election_timeout_min,
                    config.election_timeout_max
                ),
                expected
            );
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
            assert!(config.quorum_loss_probe_interval >= Some(2 * config.election_timeout_max));
            assert_eq!(config.allow_log_reversion, None);
            assert_eq!(config.api_batch_linger_ms, 0);
            assert_eq!(config.max_payload_entries, 1024);
            assert_eq!(config.max_append_entries, Some(4096));
            assert_eq!(config.snapshot_policy, SnapshotPolicy::LogsSinceLast(100_000));
            assert!(config.max_in_snapshot_log_to_keep >= 10_000);
            assert!(config.replication_lag_threshold > config.max_in_snapshot_log_to_keep);
            assert!(config.enable_tick && config.enable_heartbeat && config.enable_elect);
        }
    }

    #[test]
    fn a_senseless_timing_is_refused() {
        let timing =
            Timing::Custom { heartbeat_ms: 200, election_min_ms: 100, election_max_ms: 300 };
        assert!(raft_config(timing, Retention::default()).is_err());
    }

    /// Reads through a leader's lease are stale after a follower restarts: no file of this crate
    /// may name that policy, this one aside, which has to.
    #[test]
    fn no_read_trusts_a_lease() {
        fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push(path);
                }
            }
        }
        let mut files = Vec::new();
        sources(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
        assert!(files.len() > 20);
        let forbidden = ["Lease", "Read"].concat();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains(&forbidden), "{} names {forbidden}", file.display());
        }
    }
}

//! The rows there is one of: epoch, counters, configuration, cluster.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::policy::{Config, Policy};
use super::rows::{Rows, decode};
use super::{Fatal, State, TableId};
use crate::model::{BotTotals, Epoch, MemberId, TimeMs};

/// What one entry adds to the age of the state at most. Longer than what lies between two entries of
/// a cluster at work, and so short that a clock would have to leap dozens of times to matter.
pub(super) const AGED_PER_ENTRY_MAX_MS: TimeMs = 10_000;

/// Totals that apply keeps, so that nobody has to scan for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Time of the newest entry: the state machine's own clock.
    pub last_at_ms: TimeMs,
    /// How long what is remembered for a while has aged. Follows `last_at_ms` by at most
    /// ten seconds an entry, so no leap of a leader's clock makes the state forget.
    pub aged_ms: TimeMs,
    /// Sequence number of the newest task.
    pub last_seq: u64,
    /// Tasks ever accepted.
    pub tasks_submitted: u64,
    /// Tasks that ended with a result.
    pub tasks_completed: u64,
    /// Tasks that ended without one: failed, timed out, dead letters.
    pub tasks_failed: u64,
    /// Tasks that a client ended.
    pub tasks_cancelled: u64,
    /// Attempts that were placed on a node.
    pub attempts: u64,
    /// Attempts that were retried.
    pub retries: u64,
    /// Sum over completed tasks of the time from acceptance to result.
    pub response_ms_total: u64,
    /// Number of the newest delivery.
    pub deliveries: u64,
    /// Since when scheduling is paused; 0 while it is not.
    pub paused_since_ms: TimeMs,
}

impl Counters {
    /// Moves both clocks on, for an entry that says it is `at_ms`; answers the time of the entry.
    pub(super) fn pass_time(&mut self, at_ms: TimeMs) -> TimeMs {
        self.aged_ms = self.aged_at(at_ms);
        self.last_at_ms = self.last_at_ms.max(at_ms);
        self.last_at_ms
    }

    /// How old the state is for an entry that says it is `at_ms`.
    pub(super) fn aged_at(&self, at_ms: TimeMs) -> TimeMs {
        let passed = at_ms.saturating_sub(self.last_at_ms);
        self.aged_ms.saturating_add(passed.min(AGED_PER_ENTRY_MAX_MS))
    }
}

/// Totals of campaigns that apply keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CampaignTotals {
    /// Number of the newest run.
    pub(super) runs: u64,
    /// Number of the newest agent command.
    pub(super) commands: u64,
    /// Structures of candidates ever made.
    pub(super) structures: u64,
    /// Structures with a result.
    pub(super) labeled: u64,
    /// Steps that ended.
    pub(super) ended: RunTotals,
}

/// Upper bounds of [`RunTotals::within`], in milliseconds.
pub const RUN_BOUNDS_MS: [u64; 10] =
    [10, 50, 100, 500, 1000, 5000, 10_000, 30_000, 60_000, 300_000];

/// Totals of the steps that ended, of all orchestrators (contract 3.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTotals {
    /// How many.
    pub count: u64,
    /// Iterations that they began.
    pub advanced: u64,
    /// Simulations that they launched.
    pub simulations: u64,
    /// Milliseconds that all of them took.
    pub took_ms: u64,
    /// How many took at most as long as the bound in the same place of [`RUN_BOUNDS_MS`].
    pub within: [u64; RUN_BOUNDS_MS.len()],
}

impl RunTotals {
    pub(super) fn add(&mut self, took_ms: u64, advanced: u64, simulations: u64) {
        self.count += 1;
        self.advanced += advanced;
        self.simulations += simulations;
        self.took_ms = self.took_ms.saturating_add(took_ms);
        for (count, bound) in self.within.iter_mut().zip(RUN_BOUNDS_MS) {
            *count += u64::from(took_ms <= bound);
        }
    }
}

/// Who this cluster is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClusterRow {
    /// Random name of the cluster; 0 before it has one.
    pub(super) cluster_id: u128,
    /// The highest member number ever given out.
    pub(super) last_member_id: MemberId,
}

#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum SingleId {
    Epoch = 1,
    Counters = 2,
    Config = 3,
    Cluster = 4,
    KeptLearners = 5,
    Campaigns = 6,
    Bots = 7,
}

/// One row: its value, and its hash once it was stored.
#[derive(Debug, Default)]
struct Single<V> {
    value: V,
    hash: Option<u64>,
}

impl<V: Serialize + DeserializeOwned> Single<V> {
    fn put(&mut self, rows: &mut Rows, id: SingleId) {
        let key = vec![TableId::Singles as u8, id as u8];
        self.hash = Some(rows.put(key, self.hash, &self.value));
    }

    fn load(&mut self, value: &[u8], hash: u64, what: &str) -> Result<(), Fatal> {
        *self = Self { value: decode(value, what)?, hash: Some(hash) };
        Ok(())
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Singles {
    epoch: Single<Epoch>,
    counters: Single<Counters>,
    counters_changed: bool,
    config: Single<Config>,
    cluster: Single<ClusterRow>,
    /// Members whose vote an operator took away.
    kept_learners: Single<BTreeSet<MemberId>>,
    campaigns: Single<CampaignTotals>,
    bots: Single<BotTotals>,
    policy: Policy,
}

impl Singles {
    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        match key {
            [1] => self.epoch.load(value, hash, "epoch"),
            [2] => self.counters.load(value, hash, "counters"),
            [3] => {
                self.config.load(value, hash, "configuration")?;
                self.policy =
                    Policy::from_document(&self.config.value.document()).map_err(Fatal::new)?;
                Ok(())
            }
            [4] => self.cluster.load(value, hash, "cluster"),
            [5] => self.kept_learners.load(value, hash, "kept learners"),
            [6] => self.campaigns.load(value, hash, "campaign totals"),
            [7] => self.bots.load(value, hash, "bot totals"),
            _ => Err(Fatal::new(format!("unknown single row {key:02x?}"))),
        }
    }
}

impl State {
    /// The open reign; term 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.singles.epoch.value
    }

    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.singles.epoch.value = epoch;
        self.singles.epoch.put(&mut self.rows, SingleId::Epoch);
    }

    /// Totals since the cluster began.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.singles.counters.value
    }

    /// Changes the totals. They are written once per entry, by [`Self::flush_counters`].
    pub(super) fn edit_counters<T>(&mut self, edit: impl FnOnce(&mut Counters) -> T) -> T {
        let before = self.singles.counters.value;
        let answer = edit(&mut self.singles.counters.value);
        self.singles.counters_changed |= before != self.singles.counters.value;
        answer
    }

    pub(super) fn flush_counters(&mut self) {
        if std::mem::take(&mut self.singles.counters_changed) {
            self.singles.counters.put(&mut self.rows, SingleId::Counters);
        }
    }

    /// The orchestrator configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.singles.config.value
    }

    /// The values of the configuration that are acted on.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.singles.policy
    }

    pub(super) fn set_config(&mut self, config: Config, policy: Policy) {
        let aged_anew = policy.aging_ms != self.singles.policy.aging_ms;
        self.singles.config.value = config;
        self.singles.policy = policy;
        self.singles.config.put(&mut self.rows, SingleId::Config);
        if aged_anew {
            self.rebuild_queue();
            self.rebuild_waves();
        }
    }

    /// The random name of the cluster; 0 before it has one.
    #[must_use]
    pub fn cluster_id(&self) -> u128 {
        self.singles.cluster.value.cluster_id
    }

    /// The highest number a member was ever given: a lower one that is not among
    /// [`State::members`] has left for good.
    #[must_use]
    pub fn last_member_id(&self) -> MemberId {
        self.singles.cluster.value.last_member_id
    }

    /// Totals of the steps that ended since the cluster began.
    #[must_use]
    pub fn run_totals(&self) -> &RunTotals {
        &self.campaign_totals().ended
    }

    pub(super) fn campaign_totals(&self) -> &CampaignTotals {
        &self.singles.campaigns.value
    }

    pub(super) fn edit_campaign_totals(&mut self, edit: impl FnOnce(&mut CampaignTotals)) {
        edit(&mut self.singles.campaigns.value);
        self.singles.campaigns.put(&mut self.rows, SingleId::Campaigns);
    }

    /// Totals of bots, their assignments and workflows since the cluster began.
    #[must_use]
    pub fn bot_totals(&self) -> &BotTotals {
        &self.singles.bots.value
    }

    pub(super) fn edit_bot_totals(&mut self, edit: impl FnOnce(&mut BotTotals)) {
        edit(&mut self.singles.bots.value);
        self.singles.bots.put(&mut self.rows, SingleId::Bots);
    }

    /// The number of a run that is about to begin.
    pub(super) fn next_run_id(&mut self) -> u64 {
        self.edit_campaign_totals(|totals| totals.runs += 1);
        self.campaign_totals().runs
    }

    pub(super) fn cluster_row(&self) -> ClusterRow {
        self.singles.cluster.value
    }

    pub(super) fn set_cluster_row(&mut self, row: ClusterRow) {
        self.singles.cluster.value = row;
        self.singles.cluster.put(&mut self.rows, SingleId::Cluster);
    }

    pub(super) fn kept_learners(&self) -> &BTreeSet<MemberId> {
        &self.singles.kept_learners.value
    }

    /// Notes whether a member stays a learner; gives whether that is news.
    pub(super) fn keep_learner(&mut self, member_id: MemberId, keep: bool) -> bool {
        let kept = &mut self.singles.kept_learners.value;
        let news = if keep { kept.insert(member_id) } else { kept.remove(&member_id) };
        if news {
            self.singles.kept_learners.put(&mut self.rows, SingleId::KeptLearners);
        }
        news
    }
}

//! The rows a run of entries changed: what the durable home is told, in one batch.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The tables of the durable home. The number is the first byte of every stored key, so it is
/// never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TableId {
    /// Single rows: epoch, counters, configuration, cluster id.
    Singles = 1,
    /// Members by number.
    Members = 2,
    /// Nodes by id.
    Nodes = 3,
    /// Tasks by their place in the order of submission.
    Tasks = 4,
    /// Large payloads in chunks: never loaded, read on demand.
    Blobs = 5,
    /// Answers to requests, one row per log entry.
    Requests = 6,
    /// Ids of deleted tasks, one row per deletion.
    Tombstones = 7,
    /// Drills by number.
    Drills = 8,
    /// Their reports, in pages.
    DrillPages = 9,
    /// Definitions of pipelines by task type.
    Pipelines = 10,
    /// Deliveries by number.
    Deliveries = 11,
    /// Alerts by id.
    Alerts = 12,
    /// Decisions of the autoscaler by number.
    Scalings = 13,
    /// Logins that were ended early.
    Revocations = 14,
    /// Orchestrators by name.
    Orchestrators = 15,
    /// Their schedules.
    Schedules = 16,
    /// The ledger of slots by schedule and nominal time.
    Slots = 17,
    /// Steps of orchestrators by number.
    Runs = 18,
    /// Their decisions, in pages.
    DecisionPages = 19,
    /// Campaigns by id.
    Campaigns = 20,
    /// Their iterations by number.
    Iterations = 21,
    /// What candidates tried.
    CandidateNotes = 22,
    /// Lines of their logs.
    CampaignLines = 23,
    /// Structures by id.
    Structures = 24,
    /// Models by name.
    Models = 25,
    /// Jobs that ended well, by minute.
    JobMinutes = 26,
    /// What agents asked for, by number.
    AgentCommands = 27,
    /// Instruments by id.
    Instruments = 28,
    /// The newest best candidates, by number.
    Discoveries = 29,
    /// Accounts of people by id.
    Accounts = 30,
    /// Swarms by number.
    Swarms = 31,
    /// Bots of no swarm by index.
    Bots = 32,
    /// Records of bots of swarms, in blocks.
    BotBlocks = 33,
    /// Waves of assignments by number.
    Waves = 34,
    /// What came of them, in blocks.
    WaveBlocks = 35,
    /// Workflows by number.
    Workflows = 36,
    /// Starts of tasks by the key of their rate limit.
    RateLogs = 37,
}

impl TableId {
    /// Every table that is loaded into memory at start; the others are read on demand.
    #[must_use]
    pub fn is_resident(self) -> bool {
        self != Self::Blobs
    }

    /// The table whose stored number is `byte`.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Singles),
            2 => Some(Self::Members),
            3 => Some(Self::Nodes),
            4 => Some(Self::Tasks),
            5 => Some(Self::Blobs),
            6 => Some(Self::Requests),
            7 => Some(Self::Tombstones),
            8 => Some(Self::Drills),
            9 => Some(Self::DrillPages),
            10 => Some(Self::Pipelines),
            11 => Some(Self::Deliveries),
            12 => Some(Self::Alerts),
            13 => Some(Self::Scalings),
            14 => Some(Self::Revocations),
            15 => Some(Self::Orchestrators),
            16 => Some(Self::Schedules),
            17 => Some(Self::Slots),
            18 => Some(Self::Runs),
            19 => Some(Self::DecisionPages),
            20 => Some(Self::Campaigns),
            21 => Some(Self::Iterations),
            22 => Some(Self::CandidateNotes),
            23 => Some(Self::CampaignLines),
            24 => Some(Self::Structures),
            25 => Some(Self::Models),
            26 => Some(Self::JobMinutes),
            27 => Some(Self::AgentCommands),
            28 => Some(Self::Instruments),
            29 => Some(Self::Discoveries),
            30 => Some(Self::Accounts),
            31 => Some(Self::Swarms),
            32 => Some(Self::Bots),
            33 => Some(Self::BotBlocks),
            34 => Some(Self::Waves),
            35 => Some(Self::WaveBlocks),
            36 => Some(Self::Workflows),
            37 => Some(Self::RateLogs),
            _ => None,
        }
    }
}

/// A set of rows to write and to delete. The last change of a key wins; order does not matter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Full stored key (table byte first) to new value, or `None` to delete.
    pub rows: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values, to bound a batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

/// The state digest: a sum over all rows of a 64-bit hash of key and value. It does not depend on
/// the order of changes, so it can be kept as rows come and go, and computed again from a scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Wrapping sum of [`row_hash`].
    pub sum: u64,
    /// Number of rows.
    pub rows: u64,
}

impl Digest {
    /// Adds a row.
    pub fn add(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
        self.rows += 1;
    }

    /// Takes a row away.
    pub fn remove(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_sub(hash);
        self.rows -= 1;
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.sum, self.rows)
    }
}

/// The hash of one row: its full stored key and its value.
#[must_use]
pub fn row_hash(key: &[u8], value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(value, xxhash_rust::xxh3::xxh3_64(key))
}

//! Where workloads act: the members there are, the recorder, the seed, how much to do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;

/// The members of the cluster by the harness's own number, each with its base URL
/// (`http://host:port`). A number stays with its seat: a member that lost its disk and came back
/// under a new Raft id keeps it. Cloning shares the list, so it can change while workloads run.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<RwLock<BTreeMap<u64, String>>>);

impl Members {
    /// A list of `(number, URL)`.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (u64, String)>) -> Self {
        Self(Arc::new(RwLock::new(members.into_iter().collect())))
    }

    /// Adds a member, or moves it.
    pub fn set(&self, number: u64, url: impl Into<String>) {
        self.0.write().insert(number, url.into());
    }

    /// Takes a member out for good. One that is merely down stays in: clients keep trying it.
    pub fn remove(&self, number: u64) {
        self.0.write().remove(&number);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, String)> {
        self.0.read().iter().map(|(number, url)| (*number, url.clone())).collect()
    }

    /// One of them, by chance.
    #[must_use]
    pub fn pick(&self, rng: &mut StdRng) -> Option<(u64, String)> {
        let members = self.0.read();
        if members.is_empty() {
            return None;
        }
        let place = rng.random_range(0..members.len());
        members.iter().nth(place).map(|(number, url)| (*number, url.clone()))
    }
}

/// How much a workload does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Clients at once. Per key never more than ten, whatever is asked for.
    pub clients: usize,
    /// Operations per second of all clients of one workload together, at most.
    pub rate: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self { clients: 10, rate: 100.0 }
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The members.
    pub members: Members,
    /// Where everything goes.
    pub recorder: Recorder,
    /// Makes every choice of every workload; see [`Self::rng`].
    pub seed: u64,
    /// Cancelled when [`super::Workload::run`] must end. Fake workers keep serving until
    /// [`Self::over`].
    pub stop: CancellationToken,
    /// Cancelled when [`super::Workload::finish`] is over everywhere and fake workers may go.
    pub over: CancellationToken,
    /// How much.
    pub load: Load,
    /// Addresses of this machine on which fake workers listen, one each in turn; members must
    /// reach them.
    pub worker_hosts: Vec<IpAddr>,
}

impl Stage {
    /// A stage on loopback.
    #[must_use]
    pub fn new(members: Members, recorder: Recorder, seed: u64) -> Self {
        Self {
            members,
            recorder,
            seed,
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            load: Load::default(),
            worker_hosts: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        }
    }

    /// The same stage with at most so many operations per second.
    #[must_use]
    pub fn slowed(&self, rate_max: f64) -> Self {
        let load = Load { rate: self.load.rate.min(rate_max), ..self.load };
        Self { load, ..self.clone() }
    }

    /// The generator of `who`, from the seed: the same run makes the same choices however its
    /// tasks are scheduled.
    #[must_use]
    pub fn rng(&self, who: &str) -> StdRng {
        // FNV-1a: stable across versions of the standard library, which its own hasher is not.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.seed;
        for byte in who.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        StdRng::seed_from_u64(hash)
    }
}

//! The world of a run: real members as processes, with networks, disks and clocks that can be made
//! to fail. Everything lives in namespaces of this process and ends with it.

mod bridge;
mod clock;
mod command;
mod disk;
mod enter;
mod links;
mod member;
mod netns;
mod observe;
mod process;
mod proxy;
mod scratch;
mod strace;
mod switch;
mod sys;
mod trial;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use parking_lot::Mutex;

pub(crate) use clock::TRUE_TIME;
pub(crate) use disk::flip_byte;
pub(crate) use enter::{Rights, Tier, enter, rights};
pub(crate) use links::{Counts, Link, Port, Shape};
pub(crate) use observe::{Own, TIMEOUT as CALL_TIMEOUT};
pub(crate) use process::{state_of, threads_of};
pub(crate) use strace::Injection;
pub(crate) use trial::TrialDisk;

use bridge::Bridge;
use disk::Disk;
use links::{Layers, Matrix};
use member::{Addresses, Member};
use proxy::{Door, Proxies};
use scratch::Scratch;
use switch::Switch;

const HTTP_PORT: u16 = 9000;
const PEER_PORT: u16 = 7000;

/// What a world is built from.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The program under test.
    pub program: String,
    /// 3 or 5.
    pub members: usize,
    /// The tier that was asked for.
    pub tier: Option<Tier>,
    /// Of the switch's choices.
    pub seed: u64,
    /// Whether members live by clocks that can be set. Others run without a library between them
    /// and the system.
    pub clocks: bool,
    /// Further environment of the members.
    pub environment: Vec<(String, String)>,
    /// Where logs go.
    pub store: PathBuf,
    /// Whether disks stay after the run.
    pub keep: bool,
}

#[derive(Debug)]
enum Network {
    Switch(Switch),
    Bridge(Bridge),
    Proxy(Proxies),
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct World {
    pub plan: Plan,
    pub tier: Tier,
    /// Each has a lock of its own: faults of different kinds overlap. Before the network and the
    /// scratch directory, because members must be gone before both.
    members: Vec<Mutex<Member>>,
    network: Network,
    layers: Layers,
    layer_names: AtomicU64,
    http: reqwest::Client,
    scratch: Scratch,
}

impl World {
    /// Builds the best world that can be had here; no member runs yet.
    ///
    /// # Errors
    /// When the tier that was asked for cannot be built, or no tier at all.
    pub(crate) async fn build(plan: Plan) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(&plan.store)?;
        let scratch = Scratch::new(plan.keep)?;
        let tier = match plan.tier {
            Some(tier) => tier,
            None if rights() == Rights::None => Tier::Proxy,
            None => Tier::Switch,
        };
        let (network, addresses) = match tier {
            Tier::Proxy => proxied(plan.members).await?,
            Tier::Switch | Tier::Bridge => namespaced(&plan, tier)?,
        };
        let peers: Vec<String> =
            addresses.iter().map(|addresses| addresses.peer_told.to_string()).collect();
        let mut members = Vec::new();
        for (place, addresses) in addresses.into_iter().enumerate() {
            let member = settle(&plan, &scratch.dir, tier, place, addresses)?;
            std::fs::write(&member.file, member.config(&peers))?;
            members.push(Mutex::new(member));
        }
        Ok(Arc::new(Self {
            layers: Layers::new(plan.members),
            layer_names: AtomicU64::new(1),
            http: observe::client()?,
            tier,
            members,
            network,
            scratch,
            plan,
        }))
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn majority(&self) -> usize {
        self.size() / 2 + 1
    }

    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..self.size()
    }

    pub(crate) fn member(&self, place: usize) -> parking_lot::MutexGuard<'_, Member> {
        self.members[place].lock()
    }

    /// Where clients reach a member.
    pub(crate) fn url(&self, place: usize) -> String {
        format!("http://{}", self.member(place).addresses.http_told)
    }

    /// The address on which fake workers listen.
    pub(crate) fn worker_host(&self) -> IpAddr {
        match self.tier {
            Tier::Proxy => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Tier::Switch | Tier::Bridge => netns::address(self.size() + 1, self.size()),
        }
    }

    /// A directory for what faults need.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch.dir
    }

    /// Starts a member unless it runs.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(&self, place: usize) -> anyhow::Result<()> {
        let pid = self.member(place).start(&self.plan.program)?;
        if let Network::Proxy(proxies) = &self.network {
            proxies.started(place, pid);
        }
        Ok(())
    }

    /// Cuts the power of several members at the same time: disks first, then processes; what was
    /// not flushed is gone when they are started again.
    ///
    /// # Errors
    /// When a disk is no disk of its own, or does not come back.
    pub(crate) fn cut_power(&self, places: &[usize]) -> anyhow::Result<()> {
        for place in places {
            self.member(*place).disk.cut_power()?;
        }
        for place in places {
            self.member(*place).kill();
        }
        for place in places {
            let member = self.member(*place);
            member.disk.remount().with_context(|| format!("mount the disk of {}", member.name))?;
        }
        Ok(())
    }

    /// Lays shapes over links; the number lifts them again.
    ///
    /// # Errors
    /// When the tier cannot do it.
    pub(crate) fn lay(&self, links: Vec<(Link, Shape)>) -> anyhow::Result<u64> {
        let name = self.layer_names.fetch_add(1, Ordering::Relaxed);
        let laid = self.apply(self.layers.add(name, links));
        if laid.is_err() {
            self.layers.remove(name);
        }
        laid.map(|()| name)
    }

    /// # Errors
    /// When the network does not answer.
    pub(crate) fn lift(&self, name: u64) -> anyhow::Result<()> {
        self.apply(self.layers.remove(name))
    }

    fn apply(&self, matrix: Matrix) -> anyhow::Result<()> {
        match &self.network {
            Network::Switch(switch) => {
                switch.apply(matrix);
                Ok(())
            }
            Network::Bridge(bridge) => bridge.apply(&matrix),
            Network::Proxy(proxies) => proxies.apply(matrix),
        }
    }

    /// What the network did to frames so far.
    pub(crate) fn counts(&self) -> Counts {
        match &self.network {
            Network::Switch(switch) => switch.counts(),
            Network::Bridge(bridge) => bridge.counts(),
            Network::Proxy(proxies) => proxies.counts(),
        }
    }

    /// Everything as it should be: links, clocks and disks healed, what is stopped goes on. Dead
    /// members stay dead.
    ///
    /// # Errors
    /// When the network does not answer.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        self.apply(self.layers.clear())?;
        for place in self.places() {
            let mut member = self.member(place);
            // Fails when it does not run, or was not stopped: both are fine.
            let _ = member.signal(rustix::process::Signal::CONT);
            member.disk.thaw();
            member.disk.free()?;
            if let Some(clock) = &member.clock {
                clock.set(TRUE_TIME)?;
            }
        }
        Ok(())
    }

    /// Kills all members, and takes the disks down.
    pub(crate) fn end(&self) {
        for place in self.places() {
            let mut member = self.member(place);
            member.disk.thaw();
            member.kill();
        }
    }

    pub(crate) fn has_disks(&self) -> bool {
        self.members.iter().all(|member| member.lock().disk.is_looped())
    }

    pub(crate) fn has_clocks(&self) -> bool {
        self.members.iter().all(|member| member.lock().clock.is_some())
    }

    /// One line on what this world is made of.
    pub(crate) fn describe(&self) -> String {
        let network = match self.tier {
            Tier::Switch => {
                "namespaces and a user-space switch (cut, one-way, loss, delay, reordering, duplicates, rate)"
            }
            Tier::Bridge => "namespaces and a bridge (cut, one-way, loss, rate)",
            Tier::Proxy => "loopback and TCP proxies (stall, delay)",
        };
        let disks = if self.has_disks() { "ext4 on loop devices" } else { "plain directories" };
        let clocks = if self.has_clocks() { "libfaketime" } else { "the machine's" };
        format!("{} members; network: {network}; disks: {disks}; clocks: {clocks}", self.size())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        if self.tier != Tier::Proxy {
            netns::tear_down(self.size());
        }
    }
}

fn settle(
    plan: &Plan,
    scratch: &Path,
    tier: Tier,
    place: usize,
    addresses: Addresses,
) -> anyhow::Result<Member> {
    let name = format!("m{}", place + 1);
    let disk = match rights() {
        Rights::Root => Disk::looped(scratch, &name).or_else(|why| {
            println!("no disks of their own for members: {why:#}");
            Disk::plain(scratch, &name)
        })?,
        Rights::User | Rights::None => Disk::plain(scratch, &name)?,
    };
    let prefix = match tier {
        // Members must not outlive this program where no namespace takes care of that.
        Tier::Proxy => ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned).to_vec(),
        Tier::Switch | Tier::Bridge => {
            let namespace = format!("--net=/run/netns/{}", netns::namespace(place));
            vec!["nsenter".to_owned(), namespace, "--".to_owned()]
        }
    };
    Ok(Member {
        clock: if plan.clocks {
            clock::Clock::new(scratch.join(format!("{name}.clock")))
        } else {
            None
        },
        file: plan.store.join(format!("{name}.yaml")),
        log: plan.store.join(format!("{name}.log")),
        environment: plan.environment.clone(),
        process: None,
        name,
        addresses,
        disk,
        prefix,
    })
}

fn namespaced(plan: &Plan, tier: Tier) -> anyhow::Result<(Network, Vec<Addresses>)> {
    let ports = netns::build(plan.members, tier).context("build the network")?;
    let at = |port: usize| netns::address(port, plan.members);
    let network = match tier {
        Tier::Bridge => {
            let (clients, workers) = (at(plan.members), at(plan.members + 1));
            Network::Bridge(Bridge::start(
                plan.members,
                &clients.to_string(),
                &workers.to_string(),
            )?)
        }
        Tier::Switch | Tier::Proxy => {
            Network::Switch(Switch::start(&ports, plan.members, plan.seed)?)
        }
    };
    let addresses = (0..plan.members).map(|place| {
        let http = SocketAddr::new(at(place), HTTP_PORT);
        let peer = SocketAddr::new(at(place), PEER_PORT);
        Addresses { http, http_told: http, peer, peer_told: peer }
    });
    Ok((network, addresses.collect()))
}

async fn proxied(members: usize) -> anyhow::Result<(Network, Vec<Addresses>)> {
    let mut proxies = Proxies::new(members);
    let mut all = Vec::new();
    // Held until all are known, so that no two are the same.
    let mut held = Vec::new();
    for place in 0..members {
        let mut free = || -> anyhow::Result<SocketAddr> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        };
        let (http, peer) = (free()?, free()?);
        let http_told = proxies.front(place, Door::Clients, http).await?;
        let peer_told = proxies.front(place, Door::Peers, peer).await?;
        all.push(Addresses { http, http_told, peer, peer_told });
    }
    Ok((Network::Proxy(proxies), all))
}

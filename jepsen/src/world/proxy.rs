//! The last network tier: no namespaces, members on loopback, and a TCP proxy in front of each
//! member's peer address and client address. Bytes are held back or delayed, never lost: TCP has
//! no loss to see. Which member connects is found by who owns the socket.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::links::{Counters, Counts, Matrix, Port, Shape};

const BUFFER: usize = 16 * 1024;
/// How soon a healed link is noticed.
const POLL: Duration = Duration::from_millis(5);

/// What all connections look at.
#[derive(Debug)]
struct Shared {
    members: usize,
    matrix: Mutex<Arc<Matrix>>,
    counters: Counters,
    /// The process of each member that runs.
    pids: Mutex<BTreeMap<usize, u32>>,
}

/// All proxies of a run; they stop when dropped.
#[derive(Debug)]
pub(crate) struct Proxies {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What stands behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Peers,
    Clients,
}

impl Proxies {
    pub(crate) fn new(members: usize) -> Self {
        let shared = Shared {
            members,
            matrix: Mutex::new(Arc::new(Matrix::new(members))),
            counters: Counters::default(),
            pids: Mutex::default(),
        };
        Self { shared: Arc::new(shared), tasks: JoinSet::new() }
    }

    /// A proxy in front of one address of a member; gives its own address.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) async fn front(
        &mut self,
        member: usize,
        door: Door,
        behind: SocketAddr,
    ) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, from)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let source = match door {
                        Door::Clients => Port::Clients,
                        Door::Peers => Port::Member(shared.who(from).await.unwrap_or(member)),
                    };
                    shared.carry(near, behind, source, Port::Member(member)).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(address)
    }

    pub(crate) fn started(&self, member: usize, pid: u32) {
        self.shared.pids.lock().insert(member, pid);
    }

    /// # Errors
    /// When the matrix asks for more than a proxy can do.
    pub(crate) fn apply(&self, matrix: Matrix) -> anyhow::Result<()> {
        let able = |shape: Shape| {
            shape.loss_percent == 0 && shape.duplicate_percent == 0 && shape.rate_kbit == 0
        };
        let workers = Port::Workers.index(self.shared.members);
        let asks_too_much = matrix
            .touched()
            .any(|(from, to, shape)| !able(shape) || from == workers || to == workers);
        ensure!(
            !asks_too_much,
            "a TCP proxy can only stall and delay, and has no links of workers"
        );
        *self.shared.matrix.lock() = Arc::new(matrix);
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counters.read()
    }
}

impl Shared {
    fn shape(&self, from: Port, to: Port) -> Shape {
        let matrix = Arc::clone(&self.matrix.lock());
        matrix.at(from.index(self.members), to.index(self.members))
    }

    /// As [`Self::owner_of`], off the threads that carry bytes: the kernel lists every socket of the
    /// machine for it, which takes a while.
    async fn who(self: &Arc<Self>, address: SocketAddr) -> Option<usize> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || shared.owner_of(address)).await.ok()?
    }

    /// The member whose process holds the socket with this local address.
    fn owner_of(&self, address: SocketAddr) -> Option<usize> {
        let inode = inode_of(&fs::read_to_string("/proc/net/tcp").ok()?, address)?;
        let pids = self.pids.lock().clone();
        pids.into_iter().find(|(_, pid)| holds(*pid, &inode)).map(|(member, _)| member)
    }

    async fn carry(self: &Arc<Self>, near: TcpStream, behind: SocketAddr, source: Port, to: Port) {
        // Nobody can connect over a link that is cut.
        self.pause(source, to).await;
        self.pause(to, source).await;
        let Ok(far) = TcpStream::connect(behind).await else { return };
        // Small answers must not wait for each other; without it they are merely slower.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_read, near_write), (far_read, far_write)) =
            (near.into_split(), far.into_split());
        tokio::select! {
            () = self.pump(near_read, far_write, source, to) => {}
            () = self.pump(far_read, near_write, to, source) => {}
        }
    }

    /// Waits while a link is cut.
    async fn pause(&self, from: Port, to: Port) {
        if self.shape(from, to).cut {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        while self.shape(from, to).cut {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn pump(&self, mut read: OwnedReadHalf, mut write: OwnedWriteHalf, from: Port, to: Port) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let shape = self.shape(from, to);
            if shape.delay_ms > 0 {
                self.counters.delayed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(u64::from(shape.delay_ms))).await;
            }
            self.pause(from, to).await;
            self.counters.passed.fetch_add(1, Ordering::Relaxed);
            if write.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
}

/// The inode of the socket with this local address, from the text of `/proc/net/tcp`.
fn inode_of(table: &str, address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_le_bytes(address.ip().octets());
    let wanted = format!("{ip:08X}:{:04X}", address.port());
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&wanted.as_str()))?;
    row.get(9).map(|inode| (*inode).to_owned())
}

fn holds(pid: u32, inode: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let wanted = format!("socket:[{inode}]");
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.into_iter().any(|link| link.as_os_str() == wanted.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::links::Layers;

    #[test]
    fn a_socket_is_found_by_its_address() {
        let table = "  sl  local_address rem_address   st\n   \
            0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4711 1\n";
        assert_eq!(inode_of(table, "127.0.0.1:8080".parse().unwrap()).unwrap(), "4711");
        assert_eq!(inode_of(table, "127.0.0.1:8081".parse().unwrap()), None);
    }

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_cut_link_stalls_and_goes_on_after_it_is_healed() {
        let mut proxies = Proxies::new(2);
        let address = proxies.front(0, Door::Clients, echo().await).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        let layers = Layers::new(2);
        // One way only: the request arrives, the answer does not.
        let one_way = vec![((Port::Member(0), Port::Clients), Shape::CUT)];
        proxies.apply(layers.add(1, one_way)).unwrap();
        stream.write_all(b"b").await.unwrap();
        let wait = Duration::from_millis(100);
        assert!(tokio::time::timeout(wait, stream.read_exact(&mut byte)).await.is_err());
        assert!(proxies.counts().dropped > 0);
        proxies.apply(layers.clear()).unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b");
    }

    #[tokio::test]
    async fn a_member_is_known_by_its_socket() {
        let proxies = Proxies::new(2);
        proxies.started(1, std::process::id());
        let stream = TcpStream::connect(echo().await).await.unwrap();
        assert_eq!(proxies.shared.owner_of(stream.local_addr().unwrap()), Some(1));
        assert_eq!(proxies.shared.owner_of("127.0.0.1:1".parse().unwrap()), None);
    }
}

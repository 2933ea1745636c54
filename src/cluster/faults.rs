//! Faults that an operator causes on purpose: a member that takes no part, links that are cut, a
//! disk that is slow.
//!
//! Every fault carries the moment it ends, and this member ends it by itself then: whoever caused
//! it may die meanwhile. The table is bounded. While it is empty, a read or write of a peer
//! connection costs one relaxed load more.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::net::BoxedStream;
use crate::model::{DrillId, MemberId};
use crate::storage::Slowdown;

/// The most faults at once on one member.
pub const FAULTS_MAX: usize = 64;
/// The longest a fault lasts unless it is renewed.
pub const FAULT_MAX: Duration = Duration::from_secs(120);

/// What clients of a silent member see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Nothing: their requests hang until the fault is over, as with a process that is stopped.
    Hang,
    /// A refusal at once, as with a process that is gone.
    Refused,
}

/// Which way a link is cut, as seen from this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the peer sends does not arrive here.
    In,
    /// What this member sends does not arrive there.
    Out,
}

/// Something that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This member neither sends to peers nor hears them.
    Silence(Clients),
    /// The link to one peer is cut one way.
    Cut {
        /// Which peer.
        peer: MemberId,
        /// Which way.
        direction: Direction,
    },
    /// Each flush of the log takes longer.
    SlowDisk {
        /// By how much; at most [`Slowdown::DELAY_MAX`].
        delay: Duration,
    },
}

impl Fault {
    /// Whether `other` is the same fault, if perhaps with other figures.
    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Silence(_), Self::Silence(_)) => true,
            (Self::SlowDisk { .. }, Self::SlowDisk { .. }) => true,
            (Self::Cut { .. }, Self::Cut { .. }) => self == other,
            (Self::Silence(_) | Self::Cut { .. } | Self::SlowDisk { .. }, _) => false,
        }
    }
}

/// A fault in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveFault {
    /// What is broken.
    pub fault: Fault,
    /// For which drill.
    pub drill_id: DrillId,
    /// When it ends by itself.
    pub until: Instant,
}

/// See the module's description.
#[derive(Debug)]
pub struct Faults {
    on: AtomicBool,
    table: Mutex<Table>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
    slowdown: Arc<Slowdown>,
}

#[derive(Debug, Default)]
struct Table {
    active: Vec<ActiveFault>,
    /// Connections that wait at a cut. At most two per connection.
    stalled: Vec<Waker>,
}

impl Table {
    fn stops(&self, peer: MemberId, direction: Direction) -> bool {
        self.active.iter().any(|active| match active.fault {
            Fault::Silence(_) => true,
            Fault::Cut { peer: cut, direction: way } => cut == peer && way == direction,
            Fault::SlowDisk { .. } => false,
        })
    }
}

impl Faults {
    pub(crate) fn new(slowdown: Arc<Slowdown>) -> Self {
        let (on, table) = (AtomicBool::new(false), Mutex::default());
        Self { on, table, changes: watch::Sender::new(0), slowdown }
    }

    /// Causes a fault for `lasting`, or makes one that is in force last so long from now on. False
    /// when there are too many.
    pub fn cause(&self, fault: Fault, drill_id: DrillId, lasting: Duration) -> bool {
        let active =
            ActiveFault { fault, drill_id, until: Instant::now() + lasting.min(FAULT_MAX) };
        let mut table = self.table.lock();
        match table.active.iter().position(|known| known.fault.is_same(fault)) {
            Some(known) => table.active[known] = active,
            None if table.active.len() >= FAULTS_MAX => return false,
            None => {
                table.active.push(active);
                tracing::warn!(?fault, drill_id, "a drill breaks something");
            }
        }
        self.settle(table);
        true
    }

    /// Ends the faults of one drill, or all; gives how many there were.
    pub fn heal(&self, drill_id: Option<DrillId>) -> usize {
        self.end(|active| drill_id.is_none_or(|drill_id| active.drill_id == drill_id))
    }

    /// Ends one fault; false when it was not in force.
    pub fn heal_one(&self, fault: Fault) -> bool {
        self.end(|active| active.fault.is_same(fault)) > 0
    }

    /// Everything in force.
    #[must_use]
    pub fn list(&self) -> Vec<ActiveFault> {
        self.table.lock().active.clone()
    }

    /// What clients see while this member is silent.
    #[must_use]
    pub fn silence(&self) -> Option<Clients> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        self.table.lock().active.iter().find_map(|active| match active.fault {
            Fault::Silence(clients) => Some(clients),
            Fault::Cut { .. } | Fault::SlowDisk { .. } => None,
        })
    }

    /// Returns once this member does not let its clients hang.
    pub async fn until_heard(&self) {
        let mut changes = self.changes.subscribe();
        while self.silence() == Some(Clients::Hang) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn end(&self, which: impl Fn(&ActiveFault) -> bool) -> usize {
        let mut table = self.table.lock();
        let before = table.active.len();
        table.active.retain(|active| !which(active));
        let ended = before - table.active.len();
        if ended > 0 {
            tracing::warn!(ended, left = table.active.len(), "faults of drills are over");
            self.settle(table);
        }
        ended
    }

    /// Makes everything else follow the table.
    fn settle(&self, mut table: parking_lot::MutexGuard<'_, Table>) {
        let slow = table.active.iter().find_map(|active| match active.fault {
            Fault::SlowDisk { delay } => Some((delay, active.until)),
            Fault::Silence(_) | Fault::Cut { .. } => None,
        });
        match slow {
            Some((delay, until)) => self.slowdown.begin(delay, until),
            None => self.slowdown.end(),
        }
        self.on.store(!table.active.is_empty(), Ordering::Relaxed);
        let stalled = std::mem::take(&mut table.stalled);
        drop(table);
        for waker in stalled {
            waker.wake();
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Ends faults whose time is over, until the member stops.
    pub(crate) async fn watch_over(self: Arc<Self>) {
        let mut changes = self.changes.subscribe();
        loop {
            let next = self.table.lock().active.iter().map(|active| active.until).min();
            let over = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = over => {
                    let now = Instant::now();
                    self.end(|active| active.until <= now);
                }
            }
        }
    }

    /// Ready when bytes may cross the link to `peer` in this direction. 0 is a peer that is not
    /// known yet: only silence stops it.
    fn poll_crossing(
        &self,
        peer: MemberId,
        direction: Direction,
        context: &Context<'_>,
    ) -> Poll<()> {
        if !self.on.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut table = self.table.lock();
        if !table.stops(peer, direction) {
            return Poll::Ready(());
        }
        if !table.stalled.iter().any(|waker| waker.will_wake(context.waker())) {
            table.stalled.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Returns once a connection to or from `peer` may be opened.
    pub(crate) async fn crossing(&self, peer: MemberId) {
        for direction in [Direction::Out, Direction::In] {
            poll_fn(|context| self.poll_crossing(peer, direction, context)).await;
        }
    }

    /// A connection that stands still while its link is cut, and goes on where it was afterwards,
    /// as TCP does.
    pub(crate) fn gate(self: &Arc<Self>, stream: BoxedStream, peer: MemberId) -> BoxedStream {
        Box::new(Gate { stream, peer, faults: Arc::clone(self) })
    }
}

/// See [`Faults::gate`].
struct Gate {
    stream: BoxedStream,
    peer: MemberId,
    faults: Arc<Faults>,
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.faults.poll_crossing(self.peer, Direction::In, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.faults.poll_crossing(self.peer, Direction::Out, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn faults() -> Arc<Faults> {
        Arc::new(Faults::new(Arc::default()))
    }

    fn cut(peer: MemberId, direction: Direction) -> Fault {
        Fault::Cut { peer, direction }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_link_stands_still_and_goes_on() {
        let faults = faults();
        let (here, mut there) = tokio::io::duplex(64);
        let mut here = faults.gate(Box::new(here), 2);
        let mut byte = [0];
        assert!(faults.cause(cut(2, Direction::In), 1, SECOND * 9));
        there.write_all(b"a").await.unwrap();
        assert!(timeout(SECOND, here.read_exact(&mut byte)).await.is_err(), "it is cut");
        here.write_all(b"b").await.unwrap();
        there.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b", "the other way it is not");
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            here.read_exact(&mut byte).await.unwrap();
            byte
        });
        tokio::task::yield_now().await;
        assert_eq!(faults.heal(Some(7)), 0, "of another drill");
        assert_eq!(faults.heal(Some(1)), 1);
        assert_eq!(timeout(SECOND, reading).await.unwrap().unwrap(), *b"a", "woken by the heal");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself() {
        let faults = faults();
        tokio::spawn(Arc::clone(&faults).watch_over());
        assert!(faults.cause(Fault::Silence(Clients::Hang), 1, SECOND * 3));
        let heard = tokio::spawn({
            let faults = Arc::clone(&faults);
            async move { faults.until_heard().await }
        });
        tokio::time::sleep(SECOND * 2).await;
        assert_eq!(faults.silence(), Some(Clients::Hang));
        // Renewed, it lasts longer.
        assert!(faults.cause(Fault::Silence(Clients::Hang), 1, SECOND * 3));
        tokio::time::sleep(SECOND * 2).await;
        assert_eq!(faults.list().len(), 1);
        assert!(!heard.is_finished());
        tokio::time::sleep(SECOND * 2).await;
        assert!(faults.list().is_empty());
        assert!(heard.is_finished());
        faults.crossing(2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_bounded_in_number_and_time() {
        let faults = faults();
        for peer in 1..=FAULTS_MAX as u64 {
            assert!(faults.cause(cut(peer, Direction::Out), 1, SECOND * 999));
        }
        assert!(!faults.cause(cut(99, Direction::Out), 1, SECOND));
        assert!(faults.cause(cut(1, Direction::Out), 2, SECOND * 999), "renewed, not added");
        let latest = faults.list().iter().map(|active| active.until).max().unwrap();
        assert_eq!(latest, Instant::now() + FAULT_MAX);
        assert!(faults.heal_one(cut(5, Direction::Out)));
        assert!(!faults.heal_one(cut(5, Direction::Out)));
        assert_eq!((faults.heal(Some(2)), faults.heal(None)), (1, FAULTS_MAX - 2));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_stops_everybody_and_a_cut_one_peer() {
        let faults = faults();
        let crosses = async |peer| timeout(SECOND, faults.crossing(peer)).await.is_ok();
        assert!(crosses(0).await && crosses(2).await);
        faults.cause(cut(2, Direction::In), 1, SECOND * 60);
        assert!(!crosses(2).await && crosses(3).await && crosses(0).await);
        faults.cause(Fault::Silence(Clients::Refused), 1, SECOND * 60);
        assert!(!crosses(3).await && !crosses(0).await);
        assert_eq!(faults.silence(), Some(Clients::Refused));
        faults.until_heard().await;
    }
}

//! A network switch in user space: one packet socket per port, one thread. It can do to frames what
//! this kernel cannot (there is no netem here), needs no package, and takes a new matrix within a
//! fraction of a millisecond.
//!
//! The MAC address of port `i` ends in `i + 1`, so the destination of a frame is read from it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, netdevice};
use socket2::Socket;

use super::links::{Counters, Counts, Matrix, Shape};
use super::sys;

/// The segmentation header in front of every frame.
const VNET_HEADER: usize = 10;
/// Segmented frames may be as large as this, header and all.
const FRAME_BYTES_MAX: usize = 70_000;
/// Frames taken from one port before the others get their turn.
const BURST: usize = 64;
/// Frames that wait for their time; more are dropped, as a real queue does.
const WAITING_MAX: usize = 20_000;
/// A slow link queues this much before it drops.
const RATE_QUEUE: Duration = Duration::from_millis(200);
/// How soon a new matrix is noticed while nothing is sent.
const IDLE: Duration = Duration::from_millis(20);

/// The MAC address of a port.
pub(crate) fn mac(port: usize) -> String {
    format!("02:77:00:00:00:{:02x}", port + 1)
}

/// A running switch; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Switch {
    matrix: Arc<Mutex<Arc<Matrix>>>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts it between these interfaces, in the order of the ports.
    ///
    /// # Errors
    /// When an interface is missing or packet sockets are refused.
    pub(crate) fn start(interfaces: &[String], members: usize, seed: u64) -> anyhow::Result<Self> {
        let probe = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let open = |name: &String| {
            let index = netdevice::name_to_index(&probe, name)?;
            sys::packet_socket(index).with_context(|| format!("a packet socket on {name}"))
        };
        let ports: Vec<Socket> = interfaces.iter().map(open).collect::<anyhow::Result<_>>()?;
        let matrix = Arc::new(Mutex::new(Arc::new(Matrix::new(members))));
        let (counters, stop) = (Arc::new(Counters::default()), Arc::new(AtomicBool::new(false)));
        let queue = Queue {
            next_free: vec![None; ports.len() * ports.len()],
            ports,
            counters: Arc::clone(&counters),
            rng: StdRng::seed_from_u64(seed),
            waiting: BinaryHeap::new(),
            sequence: 0,
        };
        let (shared, stopping) = (Arc::clone(&matrix), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || queue.run(&shared, &stopping))?;
        Ok(Self { matrix, counters, stop, thread: Some(thread) })
    }

    /// From the next frame on.
    pub(crate) fn apply(&self, matrix: Matrix) {
        *self.matrix.lock() = Arc::new(matrix);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counters.read()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A switch that panicked has said so; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// A frame on its way: when it is due, its number, where it goes, its bytes.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Queue {
    ports: Vec<Socket>,
    counters: Arc<Counters>,
    rng: StdRng,
    waiting: BinaryHeap<Waiting>,
    sequence: u64,
    /// When each rate-limited link is free again.
    next_free: Vec<Option<Instant>>,
}

impl Queue {
    fn run(mut self, matrix: &Mutex<Arc<Matrix>>, stop: &AtomicBool) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            let now_matrix = Arc::clone(&matrix.lock());
            self.send_due();
            for from in 0..self.ports.len() {
                for _ in 0..BURST {
                    let mut port = &self.ports[from];
                    match port.read(&mut buffer) {
                        Ok(length) => self.forward(&now_matrix, from, &buffer[..length]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // Nothing there, or the interface is going down with its member.
                        Err(_) => break,
                    }
                }
            }
        }
    }

    /// Until a frame arrives or one is due.
    fn wait(&self) {
        let due = self.waiting.peek().map(|Reverse((due, ..))| *due);
        let now = Instant::now();
        let wait = due.map_or(IDLE, |due| due.saturating_duration_since(now).min(IDLE));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut fds: Vec<PollFd<'_>> = self
            .ports
            .iter()
            .map(|port| PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN))
            .collect();
        // An error (a signal) is as good as a wake-up.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, to, frame))) = self.waiting.pop() {
                self.send(to, &frame);
            }
        }
    }

    fn send(&self, to: usize, frame: &[u8]) {
        let mut port = &self.ports[to];
        // A member that is gone, or a full queue: lost, as on any network.
        let _ = port.write(frame);
    }

    fn forward(&mut self, matrix: &Matrix, from: usize, frame: &[u8]) {
        let Some(destination) = frame.get(VNET_HEADER..VNET_HEADER + 6) else { return };
        if destination[0] & 1 == 1 {
            for to in (0..self.ports.len()).filter(|to| *to != from) {
                self.pass(matrix.at(from, to), from, to, frame);
            }
            return;
        }
        let to = usize::from(destination[5]).wrapping_sub(1);
        if destination[..5] == [0x02, 0x77, 0, 0, 0] && to < self.ports.len() && to != from {
            self.pass(matrix.at(from, to), from, to, frame);
        }
    }

    fn pass(&mut self, shape: Shape, from: usize, to: usize, frame: &[u8]) {
        if shape.cut || self.chance(shape.loss_percent) {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.counters.passed.fetch_add(1, Ordering::Relaxed);
        self.emit(shape, from, to, frame);
        if self.chance(shape.duplicate_percent) {
            self.counters.duplicated.fetch_add(1, Ordering::Relaxed);
            self.emit(shape, from, to, frame);
        }
    }

    fn emit(&mut self, shape: Shape, from: usize, to: usize, frame: &[u8]) {
        let now = Instant::now();
        let jitter = if shape.jitter_ms == 0 {
            Duration::ZERO
        } else {
            Duration::from_micros(self.rng.random_range(0..u64::from(shape.jitter_ms) * 1000))
        };
        let mut due = now + Duration::from_millis(u64::from(shape.delay_ms)) + jitter;
        if shape.rate_kbit > 0 {
            let free = self.next_free[from * self.ports.len() + to].filter(|at| *at > now);
            let start = free.unwrap_or(now);
            if start > now + RATE_QUEUE {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let micros = (frame.len() as u64 * 8000) / u64::from(shape.rate_kbit);
            let sent = start + Duration::from_micros(micros);
            self.next_free[from * self.ports.len() + to] = Some(sent);
            due = due.max(sent);
        }
        if due <= now {
            self.send(to, frame);
        } else if self.waiting.len() < WAITING_MAX {
            self.counters.delayed.fetch_add(1, Ordering::Relaxed);
            self.sequence += 1;
            self.waiting.push(Reverse((due, self.sequence, to, frame.to_vec())));
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }
}

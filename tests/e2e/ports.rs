//! Ports that stay free for a member that is stopped and comes back.
//!
//! A port the system picks (bind to 0) may be given to an outgoing connection while its member is
//! down. These lie below the range that the system picks from, in blocks: whoever holds the first
//! port of a block owns the others, so that several runs at once do not meet.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 28_500;
const BLOCK: u16 = 800;
const BLOCKS: u16 = 5;

struct Block {
    _mark: TcpListener,
    next: AtomicU16,
    end: u16,
}

static OWN: LazyLock<Block> = LazyLock::new(|| {
    let starts = (0..BLOCKS).map(|number| FIRST + number * BLOCK);
    let taken = starts.filter_map(|start| Some((start, TcpListener::bind(local(start)).ok()?)));
    let (start, mark) = taken.into_iter().next().expect("a block of ports is free");
    Block { _mark: mark, next: AtomicU16::new(start + 1), end: start + BLOCK }
});

fn local(port: u16) -> (std::net::Ipv4Addr, u16) {
    (std::net::Ipv4Addr::LOCALHOST, port)
}

/// A port that nobody listens on, and that nobody else of this run is given.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = OWN.next.fetch_add(1, Ordering::Relaxed);
        assert!(port < OWN.end, "the tests need more than {BLOCK} ports");
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
}

/// `127.0.0.1:port` of a free port.
pub(crate) fn free_addr() -> String {
    format!("127.0.0.1:{}", free_port())
}

//! In which pieces a snapshot goes to another member: a network that notes what is written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quorate::cluster::net::{BoxFuture, BoxedStream, Listener};
use quorate::cluster::{Boot, Cluster, ClusterOptions, Net, Retention, TcpNet};
use quorate::model::{RequestId, TaskId};
use quorate::state::{Command, TaskSpec};
use quorate::storage::{Disk, Storage, StorageOptions};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::house::{PATIENCE, eventually, free_addrs, has_task, options, propose, start};

const PIECE: usize = 8192;
/// What a frame holds beside its piece, at most.
const HEAD: usize = 256;

/// The lengths of all frames that were written.
type Frames = Arc<Mutex<Vec<usize>>>;

/// TCP, whose frames are measured on the way out.
struct Measured(Frames);

impl Net for Measured {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let (connecting, frames) = (TcpNet.connect(addr), Arc::clone(&self.0));
        Box::pin(async move {
            let inner = connecting.await?;
            let scale = Scale { inner, frames, prefix: Vec::new(), left: 0 };
            Ok(Box::new(scale) as BoxedStream)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        TcpNet.bind(addr)
    }
}

struct Scale {
    inner: BoxedStream,
    frames: Frames,
    /// What is there of the length in front of the next frame.
    prefix: Vec<u8>,
    /// What is to come of the frame under way.
    left: usize,
}

impl Scale {
    fn note(&mut self, mut written: &[u8]) {
        while !written.is_empty() {
            if self.left > 0 {
                let step = self.left.min(written.len());
                self.left -= step;
                written = &written[step..];
                continue;
            }
            self.prefix.push(written[0]);
            written = &written[1..];
            if let Ok(prefix) = <[u8; 4]>::try_from(&*self.prefix) {
                self.left = u32::from_be_bytes(prefix) as usize;
                self.frames.lock().push(self.left);
                self.prefix.clear();
            }
        }
    }
}

impl AsyncRead for Scale {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Scale {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.note(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Text that nothing makes shorter.
fn noise(seed: u64, len: usize) -> String {
    let mut word = seed;
    let next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", word >> 32)
    };
    std::iter::repeat_with(next).take(len / 8).collect()
}

async fn submit(member: &Cluster, number: u64) {
    let task = TaskSpec {
        task_id: Some(TaskId::trusted(&format!("t-{number}"))),
        task_type: "count".to_owned(),
        input: format!("{:?}", noise(number + 1, 16_384)),
        timeout_ms: 60_000,
        ..TaskSpec::default()
    };
    let command = Command::SubmitTasks(vec![task]);
    let request_id: RequestId = quorate::clock::mint_request_id();
    member.propose(request_id, "tester", command).await.unwrap();
}

/// Whatever `cluster.snapshot.chunk_bytes` said, a snapshot went in pieces of 1 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_in_pieces_of_the_configured_size() {
    let root = tempfile::tempdir().unwrap();
    let addrs = free_addrs(2);
    let frames = Frames::default();
    let boot = Boot::Expect { expect: 1, peers: Vec::new() };
    let retention = Retention { keep: 0, piece_bytes: PIECE as u64, ..Retention::default() };
    let founding = ClusterOptions { retention, ..options("m1", &addrs[0], boot) };
    let storage = Storage::open(StorageOptions::new(Disk::Dir(root.path().join("m1"))));
    let net = Arc::new(Measured(Arc::clone(&frames)));
    let founder = Cluster::start(founding, storage.await.unwrap(), net).await.unwrap();
    eventually("it leads", || founder.leadership().borrow().is_some().then_some(())).await;
    const TASKS: u64 = 16;
    for number in 0..TASKS {
        submit(&founder, number).await;
    }
    // A backup waits for a snapshot, behind which the log is purged before the next entry.
    let reached = founder.view().applied().map_or(0, |log_id| log_id.index);
    founder.backup(reached, PATIENCE).await.unwrap();
    propose(&founder, "last").await;
    let boot = Boot::Join { peers: vec![addrs[0].clone()] };
    let newcomer = start(&root.path().join("m2"), options("m2", &addrs[1], boot)).await;
    eventually("it has the tasks", || has_task(&newcomer, "last").then_some(())).await;
    assert_eq!(newcomer.metrics().snapshots_installed, 1, "it was sent the log instead");
    let frames = frames.lock().clone();
    assert!(frames.iter().all(|bytes| *bytes <= PIECE + HEAD), "{frames:?}");
    let whole = frames.iter().filter(|bytes| **bytes > PIECE).count();
    assert!(whole >= 16, "{whole} pieces, of a snapshot of 256 KiB: {frames:?}");
    newcomer.stop().await;
    founder.stop().await;
}

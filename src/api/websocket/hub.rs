//! What all clients of a member share: their number, and each frame, made once.
//!
//! A task follows the member's events while there are clients, and only then. Frames wait for each
//! client in one bounded ring; a client that falls so far behind that the ring has turned is told
//! so and dropped, and can come back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval_at};

use super::frames;
use crate::api::App;
use crate::api::web4ai::status;
use crate::storage::{EventBatch, EventFollower};

/// Frames that wait for the slowest client.
const FRAMES_MAX: usize = 1024;
/// Events taken in one step.
const BATCH_MAX: usize = 256;
/// From one status to the next (contract 2.4).
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug)]
pub(in crate::api) struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    frames: broadcast::Sender<Utf8Bytes>,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    clients: usize,
    /// The task that makes frames runs.
    pumping: bool,
}

impl Default for Hub {
    fn default() -> Self {
        let frames = broadcast::Sender::new(FRAMES_MAX);
        Self(Arc::new(Shared { frames, inside: Mutex::default() }))
    }
}

/// One client's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// Every frame from the moment of entering on.
    pub(super) frames: broadcast::Receiver<Utf8Bytes>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.inside.lock().clients -= 1;
    }
}

impl Hub {
    /// How many clients are connected.
    pub(super) fn clients(&self) -> usize {
        self.0.inside.lock().clients
    }

    /// Says something to all clients.
    #[cfg(test)]
    pub(in crate::api) fn say(&self, frame: &str) {
        self.0.send(frame.into());
    }

    /// Takes a place among at most `max`; `None` when there is none left.
    pub(super) fn enter(&self, app: &App, max: usize) -> Option<Place> {
        let mut inside = self.0.inside.lock();
        if inside.clients >= max {
            return None;
        }
        inside.clients += 1;
        let frames = self.0.frames.subscribe();
        if !inside.pumping {
            inside.pumping = true;
            let (app, shared) = (app.clone(), Arc::clone(&self.0));
            // Followed from now on, so that nothing is lost before the task runs.
            let events = app.cluster().view().events().follow(None);
            tokio::spawn(async move { pump(&app, &shared, events).await });
        }
        Some(Place { shared: Arc::clone(&self.0), frames })
    }
}

impl Shared {
    /// Whether the last client has left; then the task ends, and the next client starts another.
    fn is_done(&self) -> bool {
        let mut inside = self.inside.lock();
        inside.pumping = inside.clients > 0;
        !inside.pumping
    }

    fn send(&self, frame: Utf8Bytes) {
        // Without receivers there is nobody to miss it.
        let _ = self.frames.send(frame);
    }
}

async fn pump(app: &App, shared: &Shared, mut events: EventFollower) {
    let mut ticks = interval_at(tokio::time::Instant::now() + STATUS_EVERY, STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = app.closing().cancelled() => return,
            _ = ticks.tick() => {
                if shared.is_done() {
                    return;
                }
                shared.send(frames::network_status(&status::data_text(app)));
            }
            batch = events.next(BATCH_MAX) => match batch {
                EventBatch::Gap { resumes_after } => {
                    shared.send(frames::unknown_until(resumes_after));
                }
                EventBatch::Events(events) => {
                    let frames = events.iter().filter_map(|event| frames::event(event));
                    frames.for_each(|frame| shared.send(frame));
                    // Clients on the same thread get their turn.
                    tokio::task::yield_now().await;
                }
            },
        }
    }
}

//! One client of the WebSocket, from its first frame to its last.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::frames::{self, Question};
use super::hub::Place;
use crate::api::App;
use crate::api::settings::Timing;
use crate::api::web4ai::{nodes, status};
use crate::security::{Action, Area, Permission, Principal};

/// To see status and events.
const LOOK: Permission = Permission(Area::Metrics, Action::Read);
/// How long a client may take to take its leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module's description.
pub(super) struct Session {
    app: App,
    /// `None` when nobody asks who it is.
    principal: Option<Principal>,
    place: Place,
    timing: Timing,
}

/// Why a session ends: what the last frame says, if there is one.
enum End {
    /// The client left, or its connection broke.
    Gone,
    /// The client says so, and waits for the same.
    Left,
    Told(u16, &'static str),
}

impl Session {
    pub(super) fn new(
        app: App,
        principal: Option<Principal>,
        place: Place,
        timing: Timing,
    ) -> Self {
        Self { app, principal, place, timing }
    }

    pub(super) async fn run(mut self, mut socket: WebSocket) {
        match self.converse(&mut socket).await {
            End::Gone => {}
            End::Left => {
                // The answer is ready below us, and is sent with whatever is read next (RFC 6455, 5.5.1).
                let _ = timeout(CLOSE_TIMEOUT, socket.recv()).await;
            }
            End::Told(code, reason) => {
                let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                let farewell = socket.send(Message::Close(Some(frame)));
                // Whether it still hears that changes nothing.
                let _ = timeout(CLOSE_TIMEOUT, farewell).await;
            }
        }
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> End {
        let first = frames::initial_status(&status::data_text(&self.app));
        if let Err(end) = self.send(socket, Message::Text(first)).await {
            return end;
        }
        let Timing { ping_every, ping_timeout } = self.timing;
        let mut pings = interval_at(Instant::now() + ping_every, ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let closing = self.app.closing().clone();
        loop {
            let said = tokio::select! {
                () = closing.cancelled() => return End::Told(close_code::AWAY, "this member stops"),
                frame = self.place.frames.recv() => match frame {
                    Ok(frame) => Some(Message::Text(frame)),
                    Err(RecvError::Lagged(count)) => return self.drop_slow(socket, count).await,
                    Err(RecvError::Closed) => return End::Gone,
                },
                message = socket.recv() => {
                    heard = Instant::now();
                    match message {
                        None | Some(Err(_)) => return End::Gone,
                        Some(Ok(Message::Close(_))) => return End::Left,
                        Some(Ok(Message::Text(text))) => self.answer(text.as_bytes()),
                        // Pings are answered below us.
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => None,
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > ping_every + ping_timeout {
                        return End::Told(close_code::POLICY, "no sign of life");
                    }
                    if !self.may(LOOK) {
                        return End::Told(close_code::POLICY, "no longer let in");
                    }
                    Some(Message::Ping(bytes::Bytes::new()))
                }
            };
            if let Some(message) = said
                && let Err(end) = self.send(socket, message).await
            {
                return end;
            }
        }
    }

    /// A client that takes nothing for so long is given up.
    async fn send(&self, socket: &mut WebSocket, message: Message) -> Result<(), End> {
        let closing = self.app.closing();
        tokio::select! {
            biased;
            sent = timeout(self.timing.ping_timeout, socket.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(End::Gone),
            },
            () = closing.cancelled() => Err(End::Told(close_code::AWAY, "this member stops")),
        }
    }

    /// Frames were lost before this client took them: it is told how many, and has to come back.
    async fn drop_slow(&self, socket: &mut WebSocket, count: u64) -> End {
        match self.send(socket, Message::Text(frames::missed(count))).await {
            Ok(()) => End::Told(close_code::AGAIN, "too slow for what happens"),
            Err(end) => end,
        }
    }

    fn may(&self, permission: Permission) -> bool {
        self.app.still_admits(self.principal.as_ref(), permission)
    }

    fn answer(&self, frame: &[u8]) -> Option<Message> {
        let text = match frames::question(frame) {
            Question::Alerts => frames::subscription_confirmed(),
            Question::NodeDetails(_) if !self.may(status::NODES_READ) => {
                frames::error("Insufficient permissions")
            }
            Question::NodeDetails(node_id) => {
                let data = nodes::node_text(&self.app, &node_id);
                frames::node_details(&node_id, data.as_deref())
            }
            Question::NotJson => frames::error("Invalid JSON message"),
            Question::Other => return None,
        };
        Some(Message::Text(text))
    }
}

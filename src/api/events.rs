//! `GET /api/v1/events`: what happens, as server-sent events, resumable on any member.
//!
//! Ids are `<log index>-<ordinal>`, the same on every member, so `Last-Event-ID` goes on where
//! another member stopped. A reader that asks for more than the ring holds, or comes with an id that this
//! log has not reached, gets one `gap` event and what came after; it must list again. Readers are bounded, and a slow one is slowed down by its
//! own connection: nothing is buffered for it. One whose key or login ended is cut at the next
//! keep-alive, however much happens.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::error::ApiError;
use super::params::Params;
use super::reply::write_stamp;
use crate::cluster::Consistency;
use crate::security::{Action, Area, Permission, Principal};
use crate::state::{Event, Fact};
use crate::storage::{EventBatch, EventFollower, EventPosition};

/// Events written in one piece.
const BATCH_MAX: usize = 256;
/// A comment is sent after so much silence, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a reader is told that has missed something.
const GAP: &str = "gap";
/// To see what happens.
const LOOK: Permission = Permission(Area::Metrics, Action::Read);

/// The names that [`name`] gives.
const TYPES: [&str; 43] = [
    "epoch_opened",
    "node_registered",
    "node_status_changed",
    "node_removed",
    "task_submitted",
    "task_assigned",
    "task_started",
    "task_retried",
    "task_queued",
    "task_ended",
    "tasks_retired",
    "config_changed",
    "member_changed",
    "drill_begun",
    "drill_ended",
    "steps_opened",
    "pipeline_changed",
    "node_drained",
    "delivery_queued",
    "delivery_ended",
    "alert_changed",
    "scaling_decided",
    "orchestrator_changed",
    "slot_decided",
    "run_begun",
    "run_ended",
    "campaign_changed",
    "iteration_begun",
    "iteration_ended",
    "budget_warned",
    "jobs_requested",
    "agent_command",
    "bot_created",
    "bot_removed",
    "swarm_created",
    "swarm_scaled",
    "swarm_removed",
    "bot_assigned",
    "swarm_assigned",
    "assignments_leased",
    "assignments_released",
    "assignments_reported",
    "workflow_changed",
];

/// The name of an event on the wire; the same word as its `type`.
fn name(fact: &Fact) -> &'static str {
    match fact {
        Fact::EpochOpened { .. } => "epoch_opened",
        Fact::NodeRegistered { .. } => "node_registered",
        Fact::NodeStatusChanged { .. } => "node_status_changed",
        Fact::NodeRemoved { .. } => "node_removed",
        Fact::TaskSubmitted { .. } => "task_submitted",
        Fact::TaskAssigned { .. } => "task_assigned",
        Fact::TaskStarted { .. } => "task_started",
        Fact::TaskRetried { .. } => "task_retried",
        Fact::TaskQueued { .. } => "task_queued",
        Fact::TaskEnded { .. } => "task_ended",
        Fact::TasksRetired { .. } => "tasks_retired",
        Fact::ConfigChanged { .. } => "config_changed",
        Fact::MemberChanged { .. } => "member_changed",
        Fact::DrillBegun { .. } => "drill_begun",
        Fact::DrillEnded { .. } => "drill_ended",
        Fact::StepsOpened { .. } => "steps_opened",
        Fact::PipelineChanged { .. } => "pipeline_changed",
        Fact::NodeDrained { .. } => "node_drained",
        Fact::DeliveryQueued { .. } => "delivery_queued",
        Fact::DeliveryEnded { .. } => "delivery_ended",
        Fact::AlertChanged { .. } => "alert_changed",
        Fact::ScalingDecided { .. } => "scaling_decided",
        Fact::Campaign(fact) => fact.as_str(),
        Fact::Bot(fact) => fact.as_str(),
    }
}

fn position_text((index, ordinal): EventPosition) -> String {
    format!("{index}-{ordinal}")
}

/// `<index>-<ordinal>`, or an index alone for everything after that entry.
fn parse_position(text: &str) -> Option<EventPosition> {
    match text.trim().split_once('-') {
        Some((index, ordinal)) => Some((index.parse().ok()?, ordinal.parse().ok()?)),
        None => Some((text.trim().parse().ok()?, u32::MAX)),
    }
}

/// Where a reader starts; `None` is now. A header comes from a reader that reconnects, so it wins.
fn start(headers: &HeaderMap, params: &Params) -> Result<Option<EventPosition>, ApiError> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let wanted = header.filter(|text| !text.is_empty()).or_else(|| params.get("from"));
    match wanted {
        None | Some("" | "now") => Ok(None),
        Some(text) => parse_position(text).map(Some).ok_or_else(|| {
            let text = "from and Last-Event-ID are now, an index, or the id of an event";
            ApiError::bad_request("INVALID_QUERY", text)
        }),
    }
}

/// Which types a reader wants; none is all of them. One that there is not would leave it waiting for ever.
fn types(params: &Params) -> Result<Vec<String>, ApiError> {
    let types = params.get("types").unwrap_or_default();
    let types = types.split(',').map(str::trim).filter(|word| !word.is_empty());
    let known = |word: &str| match TYPES.contains(&word) || word == GAP {
        true => Ok(word.to_owned()),
        false => {
            let text = format!("types: there is no event {word}; {}", TYPES.join(", "));
            Err(ApiError::bad_request("INVALID_QUERY", text))
        }
    };
    types.map(known).collect()
}

/// Where to begin after `start`. A position that nobody has reached is one of another log, from before
/// a restore, say: what came after it is gone.
async fn reachable(
    app: &App,
    start: Option<EventPosition>,
) -> Result<Option<EventPosition>, ApiError> {
    let Some((index, _)) = start else { return Ok(None) };
    let local = Consistency::Local { max_age: None, min_index: None };
    // A member that is a little behind has to ask what the others have.
    for consistency in [local, Consistency::Linearizable] {
        if index <= app.barrier(consistency).await?.index {
            return Ok(start);
        }
    }
    Ok(Some((0, 0)))
}

/// One reader.
struct Reader {
    app: App,
    /// `None` when nobody asked who it is.
    principal: Option<Principal>,
    /// When it is next asked whether it may still be here.
    check_at: Instant,
    follower: EventFollower,
    types: Vec<String>,
    closing: CancellationToken,
    greeted: bool,
    _permit: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct GapData {
    r#type: &'static str,
    resumes_after: String,
}

#[derive(Serialize)]
struct EventData<'a> {
    index: u64,
    ordinal: u32,
    at_ms: u64,
    #[serde(flatten)]
    fact: &'a Fact,
}

impl Reader {
    /// The next piece of the stream; `None` when the member closes.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(b"retry: 1000\n: connected\n\n"));
        }
        // Started once: events that this reader does not want are silence to it.
        let silence = tokio::time::sleep(KEEP_ALIVE);
        tokio::pin!(silence);
        loop {
            if self.check_at <= Instant::now() {
                if !self.app.still_admits(self.principal.as_ref(), LOOK) {
                    return None;
                }
                self.check_at = Instant::now() + KEEP_ALIVE;
            }
            let batch = tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                batch = self.follower.next(BATCH_MAX) => batch,
                () = tokio::time::sleep_until(self.check_at) => continue,
                () = &mut silence => {
                    return Some(Bytes::from_static(b": keep-alive\n\n"));
                }
            };
            let text = self.render(&batch);
            if !text.is_empty() {
                return Some(Bytes::from(text));
            }
        }
    }

    fn render(&self, batch: &EventBatch) -> String {
        match batch {
            EventBatch::Gap { resumes_after } => {
                let id = position_text(*resumes_after);
                let data = GapData { r#type: GAP, resumes_after: id.clone() };
                frame(&id, GAP, &data)
            }
            EventBatch::Events(events) => events
                .iter()
                .filter(|event| self.wants(event))
                .map(|event| event_frame(event))
                .collect(),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        self.types.is_empty() || self.types.iter().any(|wanted| wanted == name(&event.fact))
    }
}

fn event_frame(event: &Event) -> String {
    let Event { index, ordinal, at_ms, fact } = event;
    let data = EventData { index: *index, ordinal: *ordinal, at_ms: *at_ms, fact };
    frame(&position_text((*index, *ordinal)), name(fact), &data)
}

fn frame(id: &str, name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("events are plain data");
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok(piece), reader))
    })
}

/// See the module's description. `?from=now|<index>|<id>`, `?types=task_ended,...`.
pub(super) async fn events(
    State(app): State<App>,
    principal: Option<Extension<Principal>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let start = start(&headers, &params)?;
    let types = types(&params)?;
    let permit = std::sync::Arc::clone(app.streams()).try_acquire_owned().map_err(|_| {
        ApiError::unavailable("TOO_MANY_STREAMS", "too many event streams are open", 5)
    })?;
    let start = reachable(&app, start).await?;
    let local = Consistency::Local { max_age: None, min_index: None };
    let stamp = app.barrier(local).await?;
    let reader = Reader {
        follower: app.cluster().view().events().follow(start),
        types,
        closing: app.closing().clone(),
        principal: principal.map(|Extension(principal)| principal),
        check_at: Instant::now() + KEEP_ALIVE,
        app,
        greeted: false,
        _permit: permit,
    };
    let mut response = Response::new(Body::from_stream(stream(reader)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    write_stamp(headers, &stamp);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskId;

    #[test]
    fn positions_survive_their_text_form() {
        assert_eq!(parse_position("7-3"), Some((7, 3)));
        assert_eq!(parse_position(&position_text((7, 3))), Some((7, 3)));
        assert_eq!(parse_position("7"), Some((7, u32::MAX)));
        assert_eq!(parse_position("x-1"), None);
        assert_eq!(parse_position(""), None);
    }

    #[test]
    fn the_types_are_those_that_events_have() {
        let told = |source: &'static str, from: &str| {
            let arms = source.split_once(from).unwrap().1.split("\n}\n").next().unwrap();
            let words =
                arms.lines().filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","));
            words.collect::<Vec<_>>()
        };
        let facts = [
            told(include_str!("events.rs"), "fn name("),
            told(include_str!("../state/event.rs"), "impl CampaignFact {"),
            told(include_str!("../state/bot_command.rs"), "impl BotFact {"),
        ];
        assert_eq!(facts.concat(), TYPES);
        let page = include_str!("../../docs/api.md");
        let missing: Vec<_> =
            TYPES.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
        assert_eq!(missing, [&""; 0]);
    }

    #[test]
    fn frames_name_their_event_as_their_type_does() {
        let fact = Fact::TaskSubmitted { task_id: TaskId::trusted("t\n") };
        let event = Event { index: 7, ordinal: 1, at_ms: 9, fact };
        let expected = "id: 7-1\nevent: task_submitted\n\
            data: {\"index\":7,\"ordinal\":1,\"at_ms\":9,\
            \"type\":\"task_submitted\",\"task_id\":\"t\\n\"}\n\n";
        assert_eq!(event_frame(&event), expected);
    }
}

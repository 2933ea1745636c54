//! The doors of assignments (contract 5.1, 5.2): work for one bot or a whole swarm, what a bot has to
//! do, and what it has done.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::time::Instant;

use super::pieces::{self, Frame};
use super::shape;
use super::single::propose;
use super::view::{Assignment, Works, Writer};
use super::waits::{Bell, look_until};
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso_micros;
use crate::clock;
use crate::model::{AssignmentPlace, AssignmentState, DerivedId};
use crate::state::{
    BOT_RESULT_MAX, BotCommand, BotOutcome, BotReport, Outcome, State as Tables, Verdict,
};

/// Assignments of a bot in one answer, when nothing is said.
const LIMIT: u64 = 100;

fn found(state: &Tables, place: AssignmentPlace) -> Option<Assignment> {
    let view = state.assignment(place)?;
    Some(Works::default().assignment(state, &view))
}

fn assignment_body(app: &App, row: &Assignment) -> Result<Body, ApiError> {
    let mut text = Vec::new();
    let written = Writer::new(app.cluster().view()).assignment(&mut text, row);
    written.map_err(|error| pieces::unreadable(&error))?;
    Ok(text.into())
}

/// `POST /bots/{id}/tasks`.
pub(in crate::api) async fn assign(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let bot = shape::bot_id(&id)?;
    let work = shape::work(&shape::object(&body)?)?;
    drop(body);
    let command = BotCommand::AssignBot { bot, work };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::Assigned { wave, first, .. }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let place = AssignmentPlace { wave, index: first };
    let mut stamp = app.caught_up(ticket, index).await?;
    let (task, row) =
        app.show(&mut stamp, |state| (state.assignment_id(place), found(state, place)));
    // Whoever asks again long afterwards may find it forgotten.
    let missing = || shape::task_not_found(&task.to_string(), &id);
    let body = assignment_body(&app, &row.ok_or_else(missing)?)?;
    Ok(shape::with_status(reply::written_body(ticket, index, body), StatusCode::CREATED))
}

/// `POST /swarms/{id}/tasks`: the same to every bot that is in the swarm now.
pub(in crate::api) async fn assign_swarm(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let swarm = shape::swarm_id(&id)?;
    let work = shape::work(&shape::object(&body)?)?;
    drop(body);
    let task_type = work.task_type.clone();
    let command = BotCommand::AssignSwarm { swarm, work };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::Assigned { wave, count, .. }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    // Of a repetition it is the time of the first.
    let mut stamp = app.caught_up(ticket, index).await?;
    let made = app.show(&mut stamp, |state| Some(state.wave(wave)?.row.assigned_at_ms));
    let answer = json!({
        "swarm_id": swarm,
        "task_type": task_type,
        "assignments": count,
        "status": "distributed",
        "timestamp": iso_micros(made.unwrap_or_else(clock::now_ms)),
        "wave": Some(wave).filter(|wave| *wave > 0),
    });
    Ok(shape::with_status(reply::written(ticket, index, &answer), StatusCode::CREATED))
}

/// Which assignments are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Open,
    In(AssignmentState),
}

impl Wanted {
    fn parse(word: Option<&str>) -> Result<Self, ApiError> {
        Ok(match word.map(str::trim).unwrap_or_default() {
            "" => Self::All,
            "assigned" => Self::Open,
            "waiting" => Self::In(AssignmentState::Waiting),
            "leased" => Self::In(AssignmentState::Leased),
            "completed" => Self::In(AssignmentState::Completed),
            "failed" => Self::In(AssignmentState::Failed),
            _ => {
                let text = "status must be assigned, waiting, leased, completed or failed";
                return Err(ApiError::bad_request("INVALID_QUERY", text));
            }
        })
    }

    fn holds(self, state: AssignmentState) -> bool {
        match self {
            Self::All => true,
            Self::Open => !state.is_ended(),
            Self::In(wanted) => state == wanted,
        }
    }
}

const BOT_TASKS: ListKind = ListKind {
    name: "bot_tasks",
    sorts: &["assigned_at"],
    descending: true,
    filters: &["status"],
    own: &["limit"],
};

/// Which of a bot's assignments are asked for.
struct Asked {
    bot: DerivedId,
    wanted: Wanted,
    query: ListQuery,
    limit: usize,
}

impl Asked {
    fn of(id: &str, params: &Params) -> Result<Self, ApiError> {
        let (bot, wanted) = (shape::bot_id(id)?, Wanted::parse(params.get("status"))?);
        let (query, limit) = (ListQuery::parse(&BOT_TASKS, params)?, params.limit(LIMIT)?);
        if !query.window.is_open() {
            let text = "assignments of a bot go with status, order, limit and cursor alone";
            return Err(ApiError::bad_request("INVALID_QUERY", text));
        }
        Ok(Self { bot, wanted, query, limit })
    }

    /// Where the page begins: behind a place of this bot.
    fn after(&self) -> Result<Option<AssignmentPlace>, ApiError> {
        let Some(place) = self.query.place()? else { return Ok(None) };
        let numbers = place.strip_prefix(&format!("{}/", self.bot));
        let numbers = numbers.and_then(|numbers| {
            let (wave, index) = numbers.split_once('/')?;
            Some(AssignmentPlace { wave: wave.parse().ok()?, index: index.parse().ok()? })
        });
        numbers.map(Some).ok_or_else(invalid_cursor)
    }

    /// A page, and the cursor of the next one; `None` when the bot is not there.
    fn page(
        &self,
        state: &Tables,
        after: Option<AssignmentPlace>,
    ) -> Option<(Vec<Assignment>, Option<String>)> {
        let place = state.bot_place(self.bot)?;
        let (wanted, way) = (|state| self.wanted.holds(state), (after, self.query.descending));
        let page = state.assignment_page(place, wanted, way, self.limit);
        let mut works = Works::default();
        let rows = page.rows.iter().map(|view| works.assignment(state, view)).collect();
        let cursor = |next: AssignmentPlace| {
            self.query.cursor(&format!("{}/{}/{}", self.bot, next.wave, next.index))
        };
        Some((rows, page.next.map(cursor)))
    }

    /// Whether there is something to be shown behind a place, or where to look on, or that the bot is
    /// gone. An empty page that has a cursor is an answer: what is wanted may lie behind it.
    fn has_answer(&self, state: &Tables, after: Option<AssignmentPlace>) -> bool {
        let Some(place) = state.bot_place(self.bot) else { return true };
        let (wanted, way) = (|state| self.wanted.holds(state), (after, self.query.descending));
        let page = state.assignment_page(place, wanted, way, 1);
        !page.rows.is_empty() || page.next.is_some()
    }
}

/// `GET /bots/{id}/tasks?status=&order=&limit=&cursor=&wait=`: the newest first unless `order=asc`, of
/// those that are retained. With `wait` it is answered when there is something, or after so many
/// seconds.
pub(in crate::api) async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let (asked, wait) = (Asked::of(&id, &params)?, shape::wait_of(&params)?);
    let place = if wait.is_zero() { None } else { Some(app.waits().enter()?) };
    let until = Instant::now() + wait;
    let mut stamp = app.admit(&params).await?;
    let asked = Asked { query: asked.query.in_cluster(app.cluster().cluster_id()), ..asked };
    let after = asked.after()?;
    if place.is_some() {
        let view = app.cluster().view();
        let look = || view.read(|state| asked.has_answer(state, after)).then_some(());
        look_until(&app, Bell::Assignments, until, look).await;
    }
    drop(place);
    let page = app.show(&mut stamp, |state| asked.page(state, after));
    let (rows, cursor) = page.ok_or_else(|| shape::bot_not_found(&id))?;
    let object = json!({"bot_id": asked.bot, "count": rows.len(), "next_cursor": cursor});
    let mut writer = Writer::new(app.cluster().view());
    let frame = Frame::of_object(reply::encode(&object), "tasks");
    let body = pieces::body(frame, rows.into_iter(), move |to, row| writer.assignment(to, &row))?;
    Ok(reply::read_body(&stamp, body))
}

/// Why an assignment cannot be completed.
fn refusal(verdict: Verdict, task: &str, bot: &str) -> Option<ApiError> {
    Some(match verdict {
        Verdict::Accepted | Verdict::Repeated => return None,
        Verdict::NotFound => shape::task_not_found(task, bot),
        Verdict::Stale => ApiError::conflict("STALE_ATTEMPT", "the attempt is over"),
        Verdict::Held => {
            let text = "somebody holds a lease of the task, and no attempt was named";
            ApiError::conflict("TASK_LEASED", text)
        }
        Verdict::Ended => ApiError::conflict("TASK_ENDED", "the task has failed"),
        Verdict::TooLarge => {
            let text = format!("result holds at most {BOT_RESULT_MAX} bytes");
            ApiError::bad_request("INVALID_BOT", text)
        }
    })
}

/// `POST /bots/{id}/tasks/{task}/complete`. Again it gives the same record and counts nothing. The
/// body may name the `attempt` of a lease and give a `result`.
pub(in crate::api) async fn complete(
    State(app): State<App>,
    Path((id, task)): Path<(String, String)>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let missing = || shape::task_not_found(&task, &id);
    let parse = |text: &str| DerivedId::parse(text).ok_or_else(missing);
    let (bot, task_id) = (parse(&id)?, parse(&task)?);
    let body = Object::parse(&body)?;
    let attempt = super::batches::tried(&body)?;
    let (bot_id, text) = (Some(bot), body.json("result"));
    let report = BotReport { task: task_id, bot: bot_id, attempt, text, permanent: false };
    let command = BotCommand::CompleteAssignments { items: vec![report] };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::Judged { verdicts }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let verdict = verdicts.first().copied().ok_or_else(|| key_reused(ticket.request_id))?;
    if let Some(refusal) = refusal(verdict, &task, &id) {
        return Err(refusal.with_request_id(ticket.request_id));
    }
    let mut stamp = app.caught_up(ticket, index).await?;
    let row = app.show(&mut stamp, |state| {
        state.assignment_place(task_id).and_then(|place| found(state, place))
    });
    let body = match row {
        Some(row) => assignment_body(&app, &row)?,
        // It was the oldest of those that had ended, and nothing more is known of it.
        None => reply::encode(&json!({
            "task_id": task_id, "bot_id": bot, "task_type": null, "task_data": null,
            "status": "completed", "assigned_at": null, "completed_at": null,
        }))
        .into(),
    };
    Ok(reply::written_body(ticket, index, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BotPlace, RequestId};
    use crate::state::{BotReport, BotSpec, BotWork, Command, Envelope, LogEntry, encode_entry};

    fn apply(state: &mut Tables, index: u64, commands: impl Iterator<Item = BotCommand>) {
        let envelope = |(at, command)| Envelope {
            request_id: RequestId(u128::from(index) << 64 | at),
            principal: String::new(),
            command: Command::Bot(Box::new(command)),
        };
        let envelopes = (1..).zip(commands).map(envelope).collect();
        let applied =
            state.apply(index, &encode_entry(&LogEntry { at_ms: index, envelopes })).unwrap();
        assert!(applied.replies.iter().all(Result::is_ok));
    }

    /// A bot with so many assignments that are done.
    fn busy(thousands: u64) -> (Tables, DerivedId) {
        let mut state = Tables::default();
        apply(&mut state, 1, [BotCommand::CreateBot(BotSpec::default())].into_iter());
        let bot = state.bot_id(BotPlace::default());
        for turn in 0..thousands {
            let work = BotWork::default();
            let assign = std::iter::repeat_n(BotCommand::AssignBot { bot, work }, 1000);
            apply(&mut state, 2 * turn + 2, assign);
            let item = |number| BotReport {
                task: state.assignment_id(AssignmentPlace { wave: number, index: 0 }),
                bot: None,
                attempt: None,
                text: String::new(),
                permanent: false,
            };
            let items = (turn * 1000 + 1..=turn * 1000 + 1000).map(item).collect();
            let complete = BotCommand::CompleteAssignments { items };
            apply(&mut state, 2 * turn + 3, [complete].into_iter());
        }
        (state, bot)
    }

    /// Who waited for what lies behind 20,000 others was answered when its time was over.
    #[test]
    fn a_page_that_is_empty_and_has_a_cursor_is_an_answer_for_those_who_wait() {
        let (state, bot) = busy(21);
        for (query, has_answer) in
            [("status=failed", true), ("status=completed", true), ("status=assigned", false)]
        {
            let asked = Asked::of(&bot.to_string(), &Params::of(query)).unwrap();
            assert_eq!(asked.has_answer(&state, None), has_answer, "{query}");
        }
        let asked = Asked::of(&bot.to_string(), &Params::of("status=failed")).unwrap();
        let (rows, cursor) = asked.page(&state, None).unwrap();
        assert!(rows.is_empty() && cursor.is_some());
    }

    #[test]
    fn contract_5_2_words_of_status() {
        use AssignmentState::{Completed, Failed, Leased, Waiting};
        for (word, wanted) in [
            ("", &[Waiting, Leased, Completed, Failed][..]),
            ("assigned", &[Waiting, Leased]),
            ("waiting", &[Waiting]),
            ("leased", &[Leased]),
            ("completed", &[Completed]),
            ("failed", &[Failed]),
        ] {
            let parsed = Wanted::parse(Some(word)).unwrap();
            let held = [Waiting, Leased, Completed, Failed].into_iter();
            assert!(held.filter(|state| parsed.holds(*state)).eq(wanted.iter().copied()), "{word}");
        }
        assert!(Wanted::parse(Some("done")).is_err());
    }
}

//! Doors that take many assignments at once. Each item is judged on its own, and has its verdict at
//! its place: `accepted`, `repeated`, `stale`, `held`, `ended`, `not_found` or `too_large`.

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::json;

use super::shape;
use super::single::propose;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object, text_of};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::DerivedId;
use crate::state::{
    BOT_ITEMS_MAX, BOT_RESULT_MAX, BotCommand, BotOutcome, BotReport, LeaseRef, Outcome, Verdict,
};

/// What is done to all items of a batch.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) enum Batch {
    /// `POST /assignments/complete`.
    Complete,
    /// `POST /assignments/fail`.
    Fail,
    /// `POST /bots/leases/renew`.
    Renew,
    /// `POST /bots/leases/release`.
    Release,
}

/// The try that is named, if one is: lists show 0 for what nobody has tried yet.
pub(super) fn tried(item: &Object<'_>) -> Result<Option<u32>, ApiError> {
    Ok(attempt(item)?.filter(|attempt| *attempt > 0))
}

fn attempt(item: &Object<'_>) -> Result<Option<u32>, ApiError> {
    let Some(number) = shape::integer(item, "attempt")? else { return Ok(None) };
    let wrong = |_| FieldError::new("attempt", "the number of a try");
    Ok(Some(u32::try_from(number).map_err(wrong)?))
}

/// The items of a list, 1 to 1000.
fn items<'a>(body: &Object<'a>, key: &'static str) -> Result<Vec<Object<'a>>, ApiError> {
    let wanted = || ApiError::from(FieldError::new(key, "a list of 1 to 1000 objects"));
    let items = body.list(key)?;
    if items.is_empty() || items.len() > BOT_ITEMS_MAX {
        return Err(wanted());
    }
    items.into_iter().map(|item| Object::of(item).ok_or_else(wanted)).collect()
}

/// What an item names; `None` when it is no id of anything.
fn task_id(item: &Object<'_>) -> Result<Option<DerivedId>, ApiError> {
    let text = item.text("task_id")?.ok_or_else(|| FieldError::new("task_id", "a string"))?;
    Ok(DerivedId::parse(&text))
}

fn lease(item: &Object<'_>) -> Result<Parsed<LeaseRef>, ApiError> {
    let attempt = attempt(item)?.ok_or_else(|| FieldError::new("attempt", "a number"))?;
    let lease = task_id(item)?.map(|task| LeaseRef { task, attempt });
    Ok(lease.ok_or(Verdict::NotFound))
}

/// The start of an error that is longer than is kept: it is for people.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(BOT_RESULT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// An item, or what is said of it without asking anybody.
type Parsed<T> = Result<T, Verdict>;

/// The end of a try: with a result as JSON text, or with the text of an error.
fn report(item: &Object<'_>, completes: bool) -> Result<Parsed<BotReport>, ApiError> {
    let bot = match item.text("bot_id")? {
        None => None,
        Some(text) => match DerivedId::parse(&text) {
            Some(bot) => Some(bot),
            None => return Ok(Err(Verdict::NotFound)),
        },
    };
    let text = if completes {
        item.json("result")
    } else {
        let said = item.raw("error");
        // An error that is no text is kept as it was sent.
        let text = said.map(|raw| text_of(raw).unwrap_or_else(|| raw.get().into()));
        cut(text.map(|text| text.into_owned()).unwrap_or_default())
    };
    let attempt = tried(item)?;
    // As nodes say it of tasks.
    let permanent = !completes && item.flag("retryable")? == Some(false);
    let Some(task) = task_id(item)? else { return Ok(Err(Verdict::NotFound)) };
    // It shall not go through the log for nothing.
    if text.len() > BOT_RESULT_MAX {
        return Ok(Err(Verdict::TooLarge));
    }
    Ok(Ok(BotReport { task, bot, attempt, text, permanent }))
}

/// What is proposed for a batch, with the places of the items that are in it.
struct Asked {
    command: Option<BotCommand>,
    /// By item: its verdict, unless it is among those that are proposed.
    known: Vec<Option<Verdict>>,
}

fn sorted<T>(parsed: Vec<Parsed<T>>, command: impl FnOnce(Vec<T>) -> BotCommand) -> Asked {
    let known = parsed.iter().map(|item| item.as_ref().err().copied()).collect();
    let named: Vec<T> = parsed.into_iter().flatten().collect();
    Asked { command: (!named.is_empty()).then(|| command(named)), known }
}

impl Batch {
    fn read(self, body: &Object<'_>) -> Result<Asked, ApiError> {
        let leases =
            || items(body, "leases")?.iter().map(lease).collect::<Result<Vec<_>, ApiError>>();
        let reports = |completes| {
            let items = items(body, "items")?;
            items.iter().map(|item| report(item, completes)).collect::<Result<Vec<_>, ApiError>>()
        };
        Ok(match self {
            Self::Complete => {
                sorted(reports(true)?, |items| BotCommand::CompleteAssignments { items })
            }
            Self::Fail => sorted(reports(false)?, |items| BotCommand::FailAssignments { items }),
            Self::Renew => {
                let lease_ms = shape::lease_ms(body)?;
                sorted(leases()?, |leases| BotCommand::RenewLeases { leases, lease_ms })
            }
            Self::Release => sorted(leases()?, |leases| BotCommand::ReleaseLeases { leases }),
        })
    }
}

/// The door of a kind of batch.
pub(in crate::api) fn judging(batch: Batch) -> MethodRouter<App> {
    post(move |State(app), ticket, caller, body| judge(app, ticket, caller, body, batch))
}

async fn judge(
    app: App,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
    batch: Batch,
) -> Result<Response, ApiError> {
    let Asked { command, known } = batch.read(&shape::object(&body)?)?;
    drop(body);
    let Some(command) = command else {
        return Ok(reply::json(reply::encode(&json!({"verdicts": known}))));
    };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let named = known.iter().filter(|verdict| verdict.is_none()).count();
    let judged = match outcome {
        Outcome::Bot(BotOutcome::Judged { verdicts }) if verdicts.len() == named => verdicts,
        _ => return Err(key_reused(ticket.request_id)),
    };
    let mut judged = judged.into_iter();
    let verdict = |known: Option<Verdict>| known.or_else(|| judged.next());
    let verdicts: Vec<Option<Verdict>> = known.into_iter().map(verdict).collect();
    Ok(reply::written(ticket, index, &json!({"verdicts": verdicts})))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12345678-1234-4234-8234-123456789abc";

    fn read(batch: Batch, body: &str) -> Result<Asked, ApiError> {
        batch.read(&Object::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn items_are_read_each_on_its_own() {
        let body = format!(
            r#"{{"items":[{{"task_id":"{ID}","attempt":3,"result":{{"a":1}}}},{{"task_id":"x"}}]}}"#
        );
        let asked = read(Batch::Complete, &body).unwrap();
        assert_eq!(asked.known, [None, Some(Verdict::NotFound)]);
        let task = DerivedId::parse(ID).unwrap();
        let text = r#"{"a":1}"#.to_owned();
        let report = BotReport { task, bot: None, attempt: Some(3), text, permanent: false };
        assert_eq!(asked.command, Some(BotCommand::CompleteAssignments { items: vec![report] }));
        assert!(read(Batch::Fail, r#"{"items":[{"task_id":"x"}]}"#).unwrap().command.is_none());
    }

    #[test]
    fn errors_are_texts_and_results_are_json() {
        for (error, wanted) in [
            ("\"no\\tpaper\"", "no\tpaper"),
            ("7", "7"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("null", ""),
        ] {
            let body = format!(r#"{{"items":[{{"task_id":"{ID}","error":{error}}}]}}"#);
            let Some(BotCommand::FailAssignments { items }) =
                read(Batch::Fail, &body).unwrap().command
            else {
                panic!("{body}")
            };
            assert_eq!(items[0].text, wanted);
        }
    }

    /// One long result took the whole batch with it.
    #[test]
    fn a_long_result_spoils_no_other_and_a_long_error_is_cut() {
        let long = "é".repeat(BOT_RESULT_MAX);
        let item = |key: &str, text: &str| format!(r#"{{"task_id":"{ID}","{key}":"{text}"}}"#);
        let body = |key| format!(r#"{{"items":[{},{}]}}"#, item(key, &long), item(key, "x"));
        let asked = read(Batch::Complete, &body("result")).unwrap();
        assert_eq!(asked.known, [Some(Verdict::TooLarge), None]);
        let Some(BotCommand::CompleteAssignments { items }) = asked.command else { panic!() };
        assert_eq!((items.len(), items[0].text.as_str()), (1, "\"x\""));
        let asked = read(Batch::Fail, &body("error")).unwrap();
        let Some(BotCommand::FailAssignments { items }) = asked.command else { panic!() };
        assert_eq!((items.len(), items[0].text.len()), (2, BOT_RESULT_MAX));
    }

    #[test]
    fn a_failure_for_good_is_said_as_nodes_say_it() {
        for (said, permanent) in
            [("", false), (r#","retryable":true"#, false), (r#","retryable":false"#, true)]
        {
            let body = format!(r#"{{"items":[{{"task_id":"{ID}"{said}}}]}}"#);
            for (batch, permanent) in [(Batch::Fail, permanent), (Batch::Complete, false)] {
                let command = read(batch, &body).unwrap().command;
                let Some(
                    BotCommand::FailAssignments { items }
                    | BotCommand::CompleteAssignments { items },
                ) = command
                else {
                    panic!("{body}")
                };
                assert_eq!(items[0].permanent, permanent, "{body}");
            }
        }
        let body = format!(r#"{{"items":[{{"task_id":"{ID}","retryable":7}}]}}"#);
        assert!(read(Batch::Fail, &body).is_err());
    }

    #[test]
    fn what_makes_no_batch_is_refused() {
        let many = format!(r#"{{"leases":[{}1]}}"#, "1,".repeat(1000));
        for body in [
            "{}",
            r#"{"leases":[]}"#,
            r#"{"leases":{}}"#,
            r#"{"leases":[1]}"#,
            r#"{"leases":[{"task_id":"x"}]}"#,
            r#"{"leases":[{"attempt":1}]}"#,
            r#"{"leases":[{"task_id":"x","attempt":-1}]}"#,
            r#"{"leases":[{"task_id":"x","attempt":4294967296}]}"#,
            &many,
        ] {
            assert!(read(Batch::Release, body).is_err(), "{body:.60}");
        }
        let body = r#"{"leases":[{"task_id":"x","attempt":1}],"lease_seconds":0}"#;
        assert!(read(Batch::Renew, body).is_err());
    }
}

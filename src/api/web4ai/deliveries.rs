//! What was told to others, and is to be (contract 6, rows 12 and 13).

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, Window, number_cursor};
use crate::api::params::Params;
use crate::api::reply;
use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{Delivery, DeliveryBody};

const LIMIT: u64 = 100;

/// Its cursors are numbers of deliveries, which never change.
const DELIVERIES: ListKind = ListKind {
    name: "deliveries",
    sorts: &["created_at"],
    descending: true,
    filters: &["task_id", "status", "kind"],
    own: &[],
};

#[derive(Serialize)]
struct DeliveryView<'a> {
    delivery_id: u64,
    kind: &'a str,
    url: &'a str,
    task_id: Option<&'a str>,
    status: &'static str,
    tries: u32,
    error: Option<&'a str>,
    created_at: String,
    ended_at: Option<String>,
}

impl<'a> DeliveryView<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let task_id = match &delivery.body {
            DeliveryBody::Task(task_id) => Some(task_id.as_str()),
            DeliveryBody::Text(_) => None,
        };
        // A channel's URL is a secret of its receiver; a callback's is the submitter's own.
        let url = if task_id.is_some() { delivery.url.as_str() } else { "***" };
        Self {
            delivery_id: delivery.delivery_id,
            kind: &delivery.kind,
            url,
            task_id,
            status: delivery.state.as_str(),
            tries: delivery.tries,
            error: delivery.error.as_deref(),
            created_at: iso(delivery.created_at_ms),
            ended_at: iso_or_null(delivery.ended_at_ms),
        }
    }
}

#[derive(Serialize)]
struct Deliveries<'a> {
    success: bool,
    deliveries: Vec<DeliveryView<'a>>,
    count: usize,
    /// All that match.
    total: usize,
    due: usize,
    next_cursor: Option<String>,
}

/// What a delivery must be to be listed.
struct Wanted<'a> {
    task_id: Option<&'a str>,
    status: Option<&'a str>,
    kind: Option<&'a str>,
    window: Window,
}

impl Wanted<'_> {
    fn holds(&self, delivery: &Delivery) -> bool {
        let is_of = |wanted: &str| match &delivery.body {
            DeliveryBody::Task(task_id) => task_id.as_str() == wanted,
            DeliveryBody::Text(_) => false,
        };
        self.task_id.is_none_or(is_of)
            && self.status.is_none_or(|wanted| delivery.state.as_str() == wanted)
            && self.kind.is_none_or(|wanted| delivery.kind == wanted)
            && self.window.holds(delivery.created_at_ms)
    }
}

/// `GET /api/v1/deliveries?task_id=&status=due|delivered|given_up&kind=&order=&cursor=`, the newest
/// first.
pub(in crate::api) async fn deliveries(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let query = ListQuery::parse(&DELIVERIES, &params)?;
    let after = number_cursor(&params)?;
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let wanted = Wanted {
        task_id: said("task_id"),
        status: said("status"),
        kind: said("kind"),
        window: query.window,
    };
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let matching = || state.deliveries().filter(|delivery| wanted.holds(delivery));
        let is_behind = |delivery: &&Delivery| query.is_behind(after, delivery.delivery_id);
        let mut found: Vec<&Delivery> = match query.descending {
            true => matching().rev().filter(is_behind).take(limit + 1).collect(),
            false => matching().filter(is_behind).take(limit + 1).collect(),
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().map(|delivery| delivery.delivery_id.to_string());
        reply::encode(&Deliveries {
            success: true,
            count: found.len(),
            total: matching().count(),
            deliveries: found.into_iter().map(DeliveryView::of).collect(),
            due: state.due_deliveries_len(),
            next_cursor: last.filter(|_| more),
        })
    });
    Ok(reply::read(&stamp, body))
}

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
use crate::model::{Delivery, DeliveryBody, DeliveryId, DeliveryState};
use crate::state::State as Tables;

const LIMIT: u64 = 100;
/// Rows looked at for one page, and counted one by one.
const SCAN_MAX: usize = 10_000;

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
    /// All that match; null when only counting many rows would tell.
    total: Option<usize>,
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
    fn is_all(&self) -> bool {
        [self.task_id, self.status, self.kind].iter().all(Option::is_none) && self.window.is_open()
    }

    /// Whether it is all that are still to be made.
    fn is_due(&self) -> bool {
        let is_status_alone = Wanted { status: None, ..*self }.is_all();
        is_status_alone && self.status == Some(DeliveryState::Due.as_str())
    }

    /// How many match, where that is known or soon counted: the state is held meanwhile.
    fn total(&self, state: &Tables) -> Option<usize> {
        if self.is_all() {
            Some(state.deliveries_len())
        } else if self.is_due() {
            Some(state.due_deliveries_len())
        } else {
            let few = state.deliveries_len() <= SCAN_MAX;
            few.then(|| state.deliveries().filter(|delivery| self.holds(delivery)).count())
        }
    }

    /// The page behind `after`, and where to go on. It ends early when few match.
    fn page<'s>(
        &self,
        state: &'s Tables,
        (after, descending): (Option<DeliveryId>, bool),
        limit: usize,
    ) -> (Vec<&'s Delivery>, Option<DeliveryId>) {
        let (mut found, mut last) = (Vec::new(), None);
        for (looked_at, delivery) in state.deliveries_behind(after, descending).enumerate() {
            let matches = self.holds(delivery);
            if looked_at == SCAN_MAX || (matches && found.len() == limit) {
                return (found, last);
            }
            if matches {
                found.push(delivery);
            }
            last = Some(delivery.delivery_id);
        }
        (found, None)
    }

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
    if let Some(word) = said("status").filter(|word| DeliveryState::parse(word).is_none()) {
        let text = format!("status must be due, delivered or given_up, not {word}");
        return Err(ApiError::bad_request("INVALID_QUERY", text));
    }
    let wanted = Wanted {
        task_id: said("task_id"),
        status: said("status"),
        kind: said("kind"),
        window: query.window,
    };
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let (found, next) = wanted.page(state, (after, query.descending), limit);
        reply::encode(&Deliveries {
            success: true,
            count: found.len(),
            total: wanted.total(state),
            deliveries: found.into_iter().map(DeliveryView::of).collect(),
            due: state.due_deliveries_len(),
            next_cursor: next.map(|delivery_id| delivery_id.to_string()),
        })
    });
    Ok(reply::read(&stamp, body))
}

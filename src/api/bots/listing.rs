//! Pages of family B's lists: `limit` and `cursor`, in the order in which things were made.

use serde_json::{Value, json};

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::params::Params;

/// A page of a list that is walked one way only, from a place of numbers.
pub(super) struct Walk {
    query: ListQuery,
}

impl Walk {
    /// # Errors
    /// 400 for what the list cannot do.
    pub(super) fn of(kind: &ListKind, params: &Params) -> Result<Self, ApiError> {
        let query = ListQuery::parse(kind, params)?;
        if query.descending != kind.descending || !query.window.is_open() {
            let text = "the list is in the order in which things were made, and goes with limit \
                        and cursor alone";
            return Err(ApiError::bad_request("INVALID_QUERY", text));
        }
        Ok(Self { query })
    }

    /// The same in the cluster that the reader was admitted to.
    pub(super) fn in_cluster(self, app: &App) -> Self {
        Self { query: self.query.in_cluster(app.cluster().cluster_id()) }
    }

    pub(super) fn limit(&self) -> usize {
        self.query.limit
    }

    /// The numbers of the last row that was shown.
    ///
    /// # Errors
    /// 400 for a cursor of another list.
    pub(super) fn after(&self) -> Result<Option<(u64, u32)>, ApiError> {
        let Some(place) = self.query.place()? else { return Ok(None) };
        let numbers = place
            .split_once('/')
            .and_then(|(high, low)| Some((high.parse().ok()?, low.parse().ok()?)));
        numbers.map(Some).ok_or_else(invalid_cursor)
    }

    /// The answer: `rows` under `name`, of which each has a place; one more than the limit says that
    /// there are more.
    pub(super) fn answer(
        &self,
        name: &str,
        mut rows: Vec<((u64, u32), Value)>,
        total: u64,
    ) -> Value {
        let more = rows.len() > self.limit();
        rows.truncate(self.limit());
        let last = rows.last().filter(|_| more);
        let cursor = last.map(|((high, low), _)| self.query.cursor(&format!("{high}/{low}")));
        let mut answer = json!({"count": rows.len(), "total": total, "next_cursor": cursor});
        answer[name] = rows.into_iter().map(|(_, row)| row).collect();
        answer
    }
}

//! Lists that are short enough to be looked at whole: one page of them, in the order that was asked
//! for, with a cursor for the rest.

use serde::Serialize;

use super::error::ApiError;
use super::list_query::{ListQuery, invalid_cursor};

/// What stands beside the rows of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PageView {
    /// Rows of the page.
    pub(super) count: usize,
    /// The cursor for the next one; null at the end.
    pub(super) next_cursor: Option<String>,
}

/// The place of a row: the figure it is sorted by (0 when that is its name), and its name.
pub(super) type Place = (u64, String);

/// Digits of a figure in a cursor.
const DIGITS: usize = 20;

fn parse_place(text: &str) -> Option<Place> {
    let (figure, name) = text.split_at_checked(DIGITS)?;
    Some((figure.parse().ok()?, name.to_owned()))
}

/// Leaves one page of `rows`, whose places differ.
///
/// # Errors
/// 400 `INVALID_CURSOR`.
pub(super) fn cut<T>(query: &ListQuery, rows: &mut Vec<(Place, T)>) -> Result<PageView, ApiError> {
    let after = query.place()?;
    let after = after.map(|text| parse_place(&text).ok_or_else(invalid_cursor)).transpose()?;
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    if query.descending {
        rows.reverse();
    }
    rows.retain(|(place, _)| match &after {
        None => true,
        Some(after) if query.descending => place < after,
        Some(after) => place > after,
    });
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let cursor = |((figure, name), _): &(Place, T)| query.cursor(&format!("{figure:020}{name}"));
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    Ok(PageView { count: rows.len(), next_cursor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::list_query::ListKind;
    use crate::api::params::Params;

    const KIND: ListKind =
        ListKind { name: "things", sorts: &["size"], descending: false, filters: &[], own: &[] };

    /// Walks through six rows, two of each size, in pages of `limit`.
    fn walk(limit: usize, order: &str) -> Vec<String> {
        let (mut cursor, mut names) = (String::new(), Vec::new());
        loop {
            let params = Params::of(&format!("limit={limit}&order={order}&cursor={cursor}"));
            let query = ListQuery::parse(&KIND, &params).unwrap().in_cluster(Some(7));
            let all = ["f", "a", "e", "b", "d", "c"];
            let row =
                |(n, name): (usize, &&'static str)| ((n as u64 / 2, (*name).to_owned()), *name);
            let mut rows: Vec<_> = all.iter().enumerate().map(row).collect();
            let page = cut(&query, &mut rows).unwrap();
            assert_eq!(page.count, rows.len());
            names.extend(rows.iter().map(|(_, name)| (*name).to_owned()));
            match page.next_cursor {
                Some(next) => cursor = next,
                None => return names,
            }
        }
    }

    #[test]
    fn every_row_is_shown_once_in_either_order() {
        let up = ["a", "f", "b", "e", "c", "d"];
        let down: Vec<&str> = up.iter().rev().copied().collect();
        for limit in 1..8 {
            assert_eq!(walk(limit, "asc"), up, "{limit}");
            assert_eq!(walk(limit, "desc"), down, "{limit}");
        }
    }
}

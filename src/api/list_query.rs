//! What every list understands beside its family's own parameters: `limit`, `cursor`, `sort`,
//! `order`, `created_after`, `created_before`, and filters that depend on the list.
//!
//! A cursor holds the place of the last row that was shown, as the value it is sorted by, and not
//! a number of rows: rows that come and go between two pages move nothing that stays. It is sealed
//! with the list, the order, the filters and the cluster it is of, so that one that is damaged or
//! of another walk is refused instead of showing something else.

use std::fmt::Write as _;

use super::error::ApiError;
use super::params::Params;
use super::wire_time::parse_time;
use crate::model::TimeMs;

const LIMIT_DEFAULT: u64 = 50;
/// Rows of one page.
const LIMIT_MAX: u64 = 1000;
/// Longer than any cursor of ours: ids have at most 256 bytes, in two hexadecimal digits each.
const CURSOR_BYTES_MAX: usize = 2048;
const SEAL_DIGITS: usize = 16;

/// What one list can do.
#[derive(Debug)]
pub(super) struct ListKind {
    pub(super) name: &'static str,
    /// What it can be sorted by; the first is the default.
    pub(super) sorts: &'static [&'static str],
    /// Whether it begins at the end unless asked otherwise.
    pub(super) descending: bool,
    /// What it can be filtered by.
    pub(super) filters: &'static [&'static str],
    /// Parameters that the family's own form of the list has, too.
    pub(super) own: &'static [&'static str],
}

const COMMON: [&str; 6] = ["limit", "cursor", "sort", "order", "created_after", "created_before"];

impl ListKind {
    /// Whether `params` ask for a page, and not for the list as the family knows it.
    pub(super) fn asked(&self, params: &Params) -> bool {
        let keys = COMMON.iter().chain(self.filters);
        keys.filter(|key| !self.own.contains(key)).any(|key| params.get(key).is_some())
    }
}

/// A time that rows must be of. Both ends are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) after: Option<TimeMs>,
    pub(super) before: Option<TimeMs>,
}

impl Window {
    pub(super) fn holds(&self, at: TimeMs) -> bool {
        self.after.is_none_or(|after| at > after) && self.before.is_none_or(|before| at < before)
    }

    /// Whether it leaves anything out.
    pub(super) fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// The parameters of one page, checked.
#[derive(Debug)]
pub(super) struct ListQuery {
    pub(super) limit: usize,
    pub(super) sort: &'static str,
    pub(super) descending: bool,
    pub(super) window: Window,
    cursor: Option<String>,
    /// Everything that a cursor must have been made for.
    scope: String,
}

impl ListQuery {
    /// # Errors
    /// 400 `INVALID_QUERY` naming what cannot be used.
    pub(super) fn parse(kind: &ListKind, params: &Params) -> Result<Self, ApiError> {
        let said = |key: &str| params.get(key).map(str::trim).filter(|text| !text.is_empty());
        let invalid = |text: String| ApiError::bad_request("INVALID_QUERY", text);
        if said("offset").is_some() {
            let text = "offset goes with status and limit alone; use cursor for further pages";
            return Err(invalid(text.to_owned()));
        }
        let sort = match said("sort") {
            None => kind.sorts[0],
            Some(word) => *kind.sorts.iter().find(|sort| **sort == word).ok_or_else(|| {
                invalid(format!("sort must be {}, not {word}", kind.sorts.join(" or ")))
            })?,
        };
        let descending = match said("order") {
            None => kind.descending,
            Some("asc") => false,
            Some("desc") => true,
            Some(word) => return Err(invalid(format!("order must be asc or desc, not {word}"))),
        };
        let time = |key: &str| {
            let wanted =
                || invalid(format!("{key} must be seconds since the epoch or an ISO-8601 time"));
            said(key).map(|text| parse_time(text).ok_or_else(wanted)).transpose()
        };
        let window = Window { after: time("created_after")?, before: time("created_before")? };
        let limit = params.number("limit")?.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let mut scope = format!("{}\n{sort}\n{descending}\n{window:?}", kind.name);
        for filter in kind.filters {
            let _ = write!(scope, "\n{filter}={:?}", said(filter));
        }
        let cursor = said("cursor").map(str::to_owned);
        Ok(Self { limit: limit as usize, sort, descending, window, cursor, scope })
    }

    /// The same in a cluster. Cursors are sealed with its name, so whoever has none yet must wait
    /// with them until it is admitted to read.
    pub(super) fn in_cluster(mut self, cluster_id: Option<u128>) -> Self {
        let _ = write!(self.scope, "\n{:032x}", cluster_id.unwrap_or_default());
        self
    }

    fn seal(&self, place: &str) -> u64 {
        let sealed = format!("{}\n{place}", self.scope);
        xxhash_rust::xxh3::xxh3_64(sealed.as_bytes())
    }

    /// The cursor for going on after `place`.
    pub(super) fn cursor(&self, place: &str) -> String {
        let mut cursor = format!("{:016x}", self.seal(place));
        for byte in place.bytes() {
            let _ = write!(cursor, "{byte:02x}");
        }
        cursor
    }

    /// The place to go on after; `None` at the first page.
    ///
    /// # Errors
    /// 400 `INVALID_CURSOR` for one that [`Self::cursor`] did not give for this very list.
    pub(super) fn place(&self) -> Result<Option<String>, ApiError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let (seal, place) = opened(cursor).ok_or_else(invalid_cursor)?;
        if seal != self.seal(&place) {
            return Err(invalid_cursor());
        }
        Ok(Some(place))
    }
}

/// The cursor of a list whose rows have numbers that never change: that of the last row.
///
/// # Errors
/// 400 `INVALID_CURSOR`.
pub(super) fn number_cursor(params: &Params) -> Result<Option<u64>, ApiError> {
    let Some(cursor) = params.get("cursor").filter(|cursor| !cursor.is_empty()) else {
        return Ok(None);
    };
    let text = "cursor is what an earlier page gave";
    let after = cursor.parse().map_err(|_| ApiError::bad_request("INVALID_CURSOR", text));
    after.map(Some)
}

/// What a cursor that does not belong to a list is answered.
pub(super) fn invalid_cursor() -> ApiError {
    let text = "cursor must be next_cursor of an answer to the same query";
    ApiError::bad_request("INVALID_CURSOR", text)
}

fn opened(cursor: &str) -> Option<(u64, String)> {
    if cursor.len() > CURSOR_BYTES_MAX || !cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (seal, place) = cursor.split_at_checked(SEAL_DIGITS)?;
    let pairs = place.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    let place: Vec<u8> = pairs.map(byte).collect::<Option<_>>()?;
    Some((u64::from_str_radix(seal, 16).ok()?, String::from_utf8(place).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ListKind = ListKind {
        name: "things",
        sorts: &["id", "age"],
        descending: false,
        filters: &["status"],
        own: &["limit"],
    };

    fn query(text: &str) -> Result<ListQuery, ApiError> {
        Ok(ListQuery::parse(&KIND, &Params::of(text))?.in_cluster(Some(7)))
    }

    #[test]
    fn a_cursor_is_good_for_its_own_walk_only() {
        let first = query("status=a&limit=3").unwrap();
        let cursor = first.cursor("ä/7");
        let with = |text: &str| query(&format!("{text}&cursor={cursor}")).unwrap().place();
        assert_eq!(with("status=a&limit=9").unwrap().as_deref(), Some("ä/7"));
        for foreign in ["status=b", "", "status=a&order=desc", "status=a&sort=age"] {
            assert_eq!(with(foreign).unwrap_err().code(), "INVALID_CURSOR", "{foreign}");
        }
        let params = Params::of(&format!("status=a&cursor={cursor}"));
        let elsewhere = ListQuery::parse(&KIND, &params).unwrap().in_cluster(Some(8));
        assert!(elsewhere.place().is_err(), "of another cluster");
        let mut damaged = cursor.clone().into_bytes();
        for at in 0..damaged.len() {
            let kept = damaged[at];
            damaged[at] = if kept == b'0' { b'1' } else { b'0' };
            let text = format!("status=a&cursor={}", String::from_utf8_lossy(&damaged));
            assert!(query(&text).unwrap().place().is_err(), "digit {at}");
            damaged[at] = kept;
        }
        for text in ["7", "zz", "0123456789abcdef0", "%C3%A4", &"0".repeat(3000)] {
            assert!(query(&format!("cursor={text}")).unwrap().place().is_err(), "{text}");
        }
        assert_eq!(query("cursor=").unwrap().place().unwrap(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_limits_are_bounded() {
        for wrong in ["sort=size", "order=up", "created_after=soon", "limit=-1", "offset=3"] {
            assert_eq!(query(wrong).unwrap_err().code(), "INVALID_QUERY", "{wrong}");
        }
        for (text, limit) in [("", 50), ("limit=0", 1), ("limit=7", 7), ("limit=99999", 1000)] {
            assert_eq!(query(text).unwrap().limit, limit, "{text}");
        }
        let window = query("created_after=1700000000&created_before=2023-11-14T22:13:21Z");
        let window = window.unwrap().window;
        assert!(window.holds(1_700_000_000_001) && window.holds(1_700_000_000_999));
        assert!(!window.holds(1_700_000_000_000) && !window.holds(1_700_000_001_000));
    }

    #[test]
    fn the_familys_own_parameters_ask_for_no_page() {
        for (text, asked) in
            [("", false), ("limit=1", false), ("cursor=", true), ("status=a", true), ("x=1", false)]
        {
            assert_eq!(KIND.asked(&Params::of(text)), asked, "{text}");
        }
    }
}

//! Pages of family N's lists: `skip` and `limit` (its server), or `page` and `page_size` (its SDK).

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::params::Params;

/// Rows when nothing was said, and at most.
pub(super) const SIZE: u64 = 20;
const SIZE_MAX: u64 = 100;

/// Which rows of a list are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Page {
    /// How many are passed over.
    pub(in crate::api) skip: usize,
    /// How many are shown, 1 to 100.
    pub(in crate::api) size: usize,
}

impl Page {
    /// What the query asks for.
    pub(in crate::api) fn of(params: &Params) -> Result<Self, ApiError> {
        let invalid = |text: &str| ApiError::bad_request("INVALID_QUERY", text);
        let size = params.number("page_size")?.or(params.number("limit")?).unwrap_or(SIZE);
        if size == 0 || size > SIZE_MAX {
            return Err(invalid("limit is 1 to 100"));
        }
        let skip = match params.number("page")? {
            None => params.skip("skip")?,
            Some(0) => return Err(invalid("page is 1 or more")),
            Some(page) => usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX),
        };
        Ok(Self { skip, size: size as usize })
    }

    /// The rows of this page.
    pub(in crate::api) fn take<T>(self, rows: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        rows.skip(self.skip).take(self.size)
    }

    /// The list that is answered with: the rows of this page under `name`.
    pub(in crate::api) fn list(self, name: &str, rows: Vec<Value>) -> Value {
        let mut list = json!({"page": self.skip / self.size + 1, "page_size": self.size});
        list[name] = rows.into();
        list
    }

    /// As [`Self::list`], of so many rows on all pages.
    pub(in crate::api) fn list_of(self, name: &str, rows: Vec<Value>, total: usize) -> Value {
        let mut list = self.list(name, rows);
        list["total"] = total.into();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_3_6_pages_of_the_server_and_of_the_sdk() {
        let page =
            |query: &str| Page::of(&Params::of(query)).map(|page| (page.skip, page.size)).ok();
        assert_eq!(page(""), Some((0, 20)));
        assert_eq!(page("skip=7&limit=3"), Some((7, 3)));
        assert_eq!(page("page=3&page_size=50"), Some((100, 50)));
        for wrong in ["limit=0", "limit=101", "page=0", "page_size=1000", "skip=x"] {
            assert_eq!(page(wrong), None, "{wrong}");
        }
        let rows: Vec<u32> = Page { skip: 2, size: 2 }.take(0..10).collect();
        assert_eq!(rows, [2, 3]);
    }
}

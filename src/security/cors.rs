//! Which pages of other origins may use the API (contract 1.6).

use serde_json::Value;

/// Origins of family N's pages, which send cookies and are let in when nobody says otherwise.
const PAGES: [&str; 3] =
    ["http://localhost:3000", "http://localhost:3002", "http://localhost:8002"];

/// See the module's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cors {
    /// Any page, without cookies; family N's also with them.
    #[default]
    Any,
    /// These, with cookies.
    Listed(Vec<String>),
    /// None.
    Off,
}

/// What an answer says to the page that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsAnswer {
    /// `*`.
    Any,
    /// The origin itself, and that cookies are taken.
    Echo,
    /// Nothing.
    None,
}

impl Cors {
    pub(super) fn read(enabled: bool, origins: Option<&Value>, faults: &mut Vec<String>) -> Self {
        if !enabled {
            return Self::Off;
        }
        let texts: Vec<String> = match origins {
            None => return Self::Any,
            Some(Value::String(text)) => text.split(',').map(|one| one.trim().to_owned()).collect(),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            Some(_) => {
                faults.push("security.cors_origins must be a list of origins".to_owned());
                return Self::Listed(Vec::new());
            }
        };
        let trimmed = texts.iter().map(|one| one.trim_end_matches('/').to_owned());
        if texts.iter().any(|one| one == "*") { Self::Any } else { Self::Listed(trimmed.collect()) }
    }

    /// Whether cookies that come with a page of `origin` count for a request to `host` that changes
    /// something. A page that is not listed could otherwise act for whoever looks at it; programs
    /// that are no browsers name no origin.
    #[must_use]
    pub fn takes_cookies(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> bool {
        let Some(from) = origin else { return true };
        let own = [&b"http://"[..], b"https://"].into_iter().find_map(|it| from.strip_prefix(it));
        let is_own = own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host));
        is_own || self.answer(origin) == CorsAnswer::Echo
    }

    /// What to say to a page of `origin`.
    #[must_use]
    pub fn answer(&self, origin: Option<&[u8]>) -> CorsAnswer {
        let is = |one: &str| origin == Some(one.as_bytes());
        match self {
            Self::Any if PAGES.into_iter().any(is) => CorsAnswer::Echo,
            Self::Any => CorsAnswer::Any,
            Self::Listed(list) if list.iter().any(|one| is(one)) => CorsAnswer::Echo,
            Self::Listed(_) | Self::Off => CorsAnswer::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_1_6_origins_are_echoed_when_they_are_listed() {
        let read = |enabled, origins: Option<Value>| {
            Cors::read(enabled, origins.as_ref(), &mut Vec::new())
        };
        let page = Some(&b"http://localhost:3000"[..]);
        let other = Some(&b"https://evil.example"[..]);
        let any = read(true, None);
        assert_eq!((any.answer(page), any.answer(other)), (CorsAnswer::Echo, CorsAnswer::Any));
        assert_eq!(any.answer(None), CorsAnswer::Any);
        assert_eq!(read(true, Some(json!(["https://a", "*"]))), Cors::Any);
        let listed = read(true, Some(json!(["https://a.example/"])));
        assert_eq!(listed.answer(Some(b"https://a.example")), CorsAnswer::Echo);
        assert_eq!(
            (listed.answer(page), listed.answer(other)),
            (CorsAnswer::None, CorsAnswer::None)
        );
        assert_eq!(
            read(true, Some(json!("https://a,https://b"))).answer(Some(b"https://b")),
            CorsAnswer::Echo
        );
        assert_eq!(read(false, None).answer(page), CorsAnswer::None);
        assert_eq!(read(true, Some(json!(7))).answer(other), CorsAnswer::None);
    }

    #[test]
    fn contract_1_6_cookies_are_taken_from_listed_pages_and_from_its_own() {
        let takes = |cors: &Cors, origin: Option<&str>, host: &str| {
            cors.takes_cookies(origin.map(str::as_bytes), Some(host.as_bytes()))
        };
        let (any, off) = (Cors::Any, Cors::Off);
        let listed = Cors::Listed(vec!["https://a.example".to_owned()]);
        for (cors, origin, host, taken) in [
            (&any, None, "q:9000", true),
            (&any, Some("http://localhost:3000"), "q:9000", true),
            (&any, Some("https://evil.example"), "q:9000", false),
            (&any, Some("null"), "q:9000", false),
            (&any, Some("https://Q:9000"), "q:9000", true),
            (&any, Some("https://q:9001"), "q:9000", false),
            (&listed, Some("https://a.example"), "q:9000", true),
            (&listed, Some("http://localhost:3000"), "q:9000", false),
            (&off, Some("https://a.example"), "q:9000", false),
            (&off, Some("http://q:9000"), "q:9000", true),
        ] {
            assert_eq!(takes(cors, origin, host), taken, "{cors:?} {origin:?}");
        }
        assert!(!any.takes_cookies(Some(b"http://"), None));
    }
}

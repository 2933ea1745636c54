//! The pages that people read: the fleet's at `/` and `/dashboard`, family N's at `/orchestrator`
//! (contract 2.3, C9).
//!
//! A page is one document. It holds no figure of its own: a script in it asks the doors that
//! everybody asks, so that whoever may not read them sees a field for a key and nothing else. The
//! policy sent with it names the page's own style and script by their hashes, so nothing that got
//! into it in another way would run, and nothing is fetched from elsewhere.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::App;
use super::probes;

const STYLE: &str = include_str!("page.css");
/// What both scripts use.
const SHARED: &str = include_str!("shared.js");

/// What `GET /` answers those who say nothing about what they read (contract C9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// What serves here, as JSON.
    Info,
    /// The fleet's page.
    Page,
}

/// A page as it is sent.
struct Page {
    html: String,
    policy: HeaderValue,
}

static FLEET: LazyLock<Page> =
    LazyLock::new(|| Page::new("Fleet", include_str!("fleet.html"), include_str!("fleet.js")));
static ORCHESTRATOR: LazyLock<Page> = LazyLock::new(|| {
    let (body, script) = (include_str!("orchestrator.html"), include_str!("orchestrator.js"));
    Page::new("Orchestrator", body, script)
});

impl Page {
    fn new(title: &str, body: &str, script: &str) -> Self {
        let script = format!("\"use strict\";\n{SHARED}\n{script}");
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(&script),
            hash(STYLE)
        );
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{title} - Quorate</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\
             <script>{script}</script>\n</body>\n</html>\n"
        );
        let policy = HeaderValue::from_str(&policy).expect("hashes are plain text");
        Self { html, policy }
    }

    fn response(&self) -> Response {
        let mut response = self.html.clone().into_response();
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, fixed("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
        headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
        // A member that was upgraded shows its new page at once.
        headers.insert(header::CACHE_CONTROL, fixed("no-cache"));
        response
    }
}

/// Whether `Accept` names `kind`; `*/*` says nothing.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    values.filter_map(|value| value.to_str().ok()).any(|text| text.contains(kind))
}

/// `GET /`: the page for those who read HTML, JSON for those who read that, and for all others what
/// the listener is for.
pub(super) async fn root(app: State<App>, headers: HeaderMap, front: Front) -> Response {
    let page = accepts(&headers, "text/html")
        || (front == Front::Page && !accepts(&headers, "application/json"));
    let mut response = if page { FLEET.response() } else { probes::root(app).await };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// `GET /dashboard`.
pub(super) async fn dashboard() -> Response {
    FLEET.response()
}

/// `GET /orchestrator`.
pub(super) async fn orchestrator() -> Response {
    ORCHESTRATOR.response()
}

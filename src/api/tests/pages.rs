//! The pages: who gets one, what keeps them safe, and what they ask (contract 2.3, C9).

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Answer, World};
use crate::api::{Front, router_with};

impl World {
    async fn get_accepting(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept);
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[track_caller]
fn is_page(answer: &Answer) -> bool {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    match answer.header("content-type") {
        "text/html; charset=utf-8" => true,
        "application/json" => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn contract_c9_the_root_is_a_page_for_those_who_read_html() {
    let mut world = World::new().await;
    assert!(is_page(&world.get_accepting("/", BROWSER).await));
    assert!(!is_page(&world.get_accepting("/", "*/*").await), "the default is JSON");
    assert!(!is_page(&world.get("/").await));
    assert_eq!(world.get("/").await.header("vary"), "Accept");
    world.router = router_with(world.app.clone(), Front::Page);
    assert!(is_page(&world.get("/").await), "family W's listener has its page there");
    assert!(is_page(&world.get_accepting("/", "*/*").await));
    assert!(!is_page(&world.get_accepting("/", "application/json").await));
}

#[tokio::test]
async fn contract_c9_the_dashboards_are_always_pages() {
    let world = World::new().await;
    for (path, title) in [("/dashboard", "Fleet"), ("/orchestrator", "Orchestrator")] {
        for accept in [BROWSER, "application/json"] {
            let page = world.get_accepting(path, accept).await;
            assert!(is_page(&page), "{path}");
            assert!(page.text.contains(&format!("<title>{title} - Quorate</title>")), "{path}");
        }
        assert_eq!(world.post(path, "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    // Only that very path: family N's doors begin with the same word.
    assert!(!is_page(&world.get_accepting("/orchestrator/state", BROWSER).await));
    assert!(!is_page(&world.get_accepting("/orchestrator/stats", BROWSER).await));
}

/// What stands between two tags.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

#[tokio::test]
async fn pages_run_their_own_script_alone_and_fetch_nothing_from_elsewhere() {
    let world = World::new().await;
    for path in ["/dashboard", "/orchestrator"] {
        let page = world.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        for (from, to, rule) in
            [("<script>", "</script>", "script-src"), ("<style>", "</style>", "style-src")]
        {
            let hash = STANDARD.encode(Sha256::digest(between(&page.text, from, to)));
            assert!(policy.contains(&format!("{rule} 'sha256-{hash}';")), "{path} {policy}");
        }
        assert!(policy.contains("connect-src 'self'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        for word in ["http://", "https://", "innerHTML", " style=", "onclick", " src="] {
            let body = page.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!body.contains(word), "{word} in {path}");
        }
        assert_eq!(page.text.matches("<script").count(), 1, "{path}");
    }
}

#[tokio::test]
async fn pages_ask_doors_that_are_there() {
    let world = World::new().await;
    let (fleet, mut asked) = (world.get("/dashboard").await.text, 0);
    for piece in fleet.split("api(").skip(1) {
        let Some(path) = piece.get(1..).and_then(|rest| rest.split(['"', '`']).next()) else {
            continue;
        };
        if !piece.starts_with(['"', '`']) {
            continue;
        }
        let path = format!("/api/v1/{}", path.replace("${NODES_MAX}", "50"));
        let with = if path.contains('?') { '&' } else { '?' };
        world.get(&format!("{path}{with}consistency=local")).await.ok();
        asked += 1;
    }
    assert_eq!(asked, 7, "six figures and the configuration");
    for piece in world.get("/orchestrator").await.text.split("ask(\"").skip(1) {
        let path = piece.split('"').next().unwrap();
        world.get(path).await.ok();
        asked += 1;
    }
    assert_eq!(asked, 11);
}

#[tokio::test]
async fn pages_hold_no_data_and_need_no_key_where_their_figures_do() {
    let world = World::of_roles().await;
    for path in ["/", "/dashboard", "/orchestrator"] {
        let page = world.get_accepting(path, BROWSER).await;
        assert!(is_page(&page), "{path}");
        assert!(page.text.contains("id=\"keytext\""), "a field for a key");
        assert!(!page.text.contains("web4ai_main_orchestrator"), "{path}");
    }
    let status = world.get("/api/v1/status?nodes=summary&consistency=local").await;
    assert_eq!(status.status, StatusCode::UNAUTHORIZED);
    let key = ("authorization", "Bearer readonly-key");
    world.ask("GET", "/api/v1/status?nodes=summary&consistency=local", &[key], "").await.ok();
}

#[tokio::test]
async fn routers_of_two_listeners_count_their_requests_together() {
    let mut world = World::new().await;
    world.get("/livez").await;
    world.router = router_with(world.app.clone(), Front::Page);
    world.get("/livez").await;
    let text = world.get("/metrics").await.text;
    let wanted = "web4ai_requests_total{method=\"GET\",endpoint=\"/livez\",status=\"200\"}";
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(wanted)).collect();
    assert_eq!(lines, [format!("{wanted} 2")]);
}

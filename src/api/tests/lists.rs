//! Filters, orders, cursors and counts of every list, and the families' own forms beside them.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;

fn names(rows: &Value, key: &str) -> Vec<String> {
    let rows = rows.as_array().unwrap_or_else(|| panic!("no list: {rows}")).iter();
    rows.map(|row| row[key].as_str().unwrap_or_else(|| row.as_str().unwrap()).to_owned()).collect()
}

/// All pages of a list: the names at `rows`, page by page.
async fn walk(world: &World, path: &str, rows: &str, key: &str) -> Vec<Vec<String>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}&cursor={cursor}")).await.ok();
        assert_eq!(page["count"], page[rows].as_array().unwrap().len());
        pages.push(names(&page[rows], key));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return pages,
        }
        assert!(pages.len() < 100, "{path} has no end");
    }
}

async fn some_tasks(world: &World) {
    world.register("n1").await;
    world.register("n2").await;
    for number in 0..6 {
        let task_type = if number % 2 == 0 { "even" } else { "odd" };
        let body = json!({"task_id": format!("t{number}"), "task_type": task_type,
            "requirements": {"capabilities": if number == 5 { vec!["gpu"] } else { vec![] }}});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
    }
    for (task_id, node_id) in [("t0", "n1"), ("t1", "n2"), ("t2", "n1")] {
        world.place(task_id, node_id).await;
    }
    let done = r#"{"status":"completed","attempt":1}"#;
    world.post("/api/v1/tasks/t2/result", done).await.ok();
    world.post("/api/v1/tasks/t0/result", done).await.ok();
    world.call("DELETE", "/api/v1/tasks/t4", "").await.ok();
}

#[tokio::test]
async fn tasks_are_filtered_and_sorted() {
    let world = World::new().await;
    some_tasks(&world).await;
    for (query, expected) in [
        ("sort=created_at", "t0 t1 t2 t3 t4 t5"),
        ("order=desc", "t5 t4 t3 t2 t1 t0"),
        ("sort=completed_at", "t2 t0 t4"),
        ("sort=completed_at&order=desc&status=completed", "t0 t2"),
        ("task_type=even", "t0 t2 t4"),
        ("task_type=even&status=completed", "t0 t2"),
        ("node_id=n1", "t0 t2"),
        ("node_id=n2&status=active", "t1"),
        ("capability=gpu", "t5"),
        ("status=cancelled", "t4"),
        ("status=assigned&order=asc", "t1"),
        ("created_before=2000-01-01T00:00:00Z", ""),
        ("created_after=2000-01-01T00:00:00Z&order=desc&limit=2", "t5 t4"),
        ("created_after=2999-01-01T00:00:00Z", ""),
        ("created_before=2999-01-01T00:00:00Z&limit=2", "t0 t1"),
    ] {
        let page = world.get(&format!("/api/v1/tasks?{query}")).await.ok();
        assert_eq!(names(&page["items"], "task_id").join(" "), expected, "{query}");
        assert_eq!(page["summary"]["pending_count"], 2, "{query}");
    }
    let page = world.get("/api/v1/tasks?task_type=even").await.ok();
    assert_eq!(names(&page["tasks"]["completed"], "task_id"), ["t0", "t2"], "family W's place");
    assert_eq!((&page["total"], &page["next_cursor"]), (&Value::Null, &Value::Null));
    let page = world.get("/api/v1/tasks?status=failed&order=asc").await.ok();
    assert_eq!(page["total"], 1, "known without counting rows");
}

#[tokio::test]
async fn one_bucket_is_filtered_too() {
    let world = World::new().await;
    some_tasks(&world).await;
    let page = world.get("/api/v1/tasks/completed?node_id=n1&limit=1&cursor=").await.ok();
    assert_eq!(
        (names(&page["tasks"], "task_id"), &page["count"]),
        (vec!["t0".to_owned()], &json!(1))
    );
    let next = page["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/tasks/completed?node_id=n1&limit=1&cursor={next}");
    let page = world.get(&path).await.ok();
    assert_eq!(
        (names(&page["tasks"], "task_id"), &page["next_cursor"]),
        (vec!["t2".to_owned()], &Value::Null)
    );
    let elsewhere = world.get(&format!("/api/v1/tasks/failed?node_id=n1&cursor={next}")).await;
    assert_eq!(elsewhere.json()["code"], "INVALID_CURSOR");
}

#[tokio::test]
async fn contract_2_3_without_parameters_lists_are_the_familys_own() {
    let world = World::new().await;
    some_tasks(&world).await;
    let keys = |body: Value| -> Vec<String> { body.as_object().unwrap().keys().cloned().collect() };
    for (path, expected) in [
        ("/api/v1/nodes", "active_nodes nodes success total_nodes"),
        ("/api/v1/agents", "agents success total_agents"),
        ("/api/v1/tasks", "success summary tasks"),
        ("/api/v1/tasks?status=failed&limit=1&offset=1", "success summary tasks"),
        ("/api/v1/tasks/failed", "count success tasks total"),
        ("/api/v1/drills", "count drills success"),
        ("/api/v1/backups", "backups fault interval_ms keep member_id scheduled success"),
    ] {
        let mut found = keys(world.get(path).await.ok());
        found.sort();
        assert_eq!(found.join(" "), expected, "{path}");
    }
}

#[tokio::test]
async fn a_walk_over_tasks_is_not_moved_by_what_happens_meanwhile() {
    let world = World::new().await;
    for number in 0..6 {
        world.submit(&format!("t{number}")).await;
    }
    let first = world.get("/api/v1/tasks?status=pending&limit=2&order=desc").await.ok();
    assert_eq!(names(&first["items"], "task_id"), ["t5", "t4"]);
    // Rows before and behind the cursor leave the list, others come.
    world.call("DELETE", "/api/v1/tasks/t4", "").await.ok();
    world.call("DELETE", "/api/v1/tasks/t2", "").await.ok();
    world.submit("t6").await;
    let next = first["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/tasks?status=pending&limit=9&order=desc&cursor={next}");
    let second = world.get(&path).await.ok();
    assert_eq!(names(&second["items"], "task_id"), ["t3", "t1", "t0"]);
    assert_eq!(second["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_filter_that_matches_nothing_looks_at_a_bounded_number_of_rows() {
    let world = World::new().await;
    for _ in 0..11 {
        let tasks: Vec<_> = (0..1000).map(|_| json!({"task_type": "t"})).collect();
        world.post("/api/v1/tasks/batch", &json!({"tasks": tasks}).to_string()).await.ok();
    }
    world.submit("last").await;
    let page = world.get("/api/v1/tasks?task_type=none").await.ok();
    assert_eq!(page["count"], 0);
    let next = page["next_cursor"].as_str().expect("the page ended early");
    let page = world.get(&format!("/api/v1/tasks?task_type=none&cursor={next}")).await.ok();
    assert_eq!((&page["count"], &page["next_cursor"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn nodes_are_filtered_sorted_and_paged() {
    let world = World::new().await;
    for (node_id, load, capability) in
        [("a", 0.5, "x"), ("b", 0.1, "y"), ("c", 0.9, "x"), ("d", 0.1, "x")]
    {
        let body = json!({"host": "h", "load_score": load, "capabilities": [capability]});
        world.post(&format!("/api/v1/nodes/{node_id}/register"), &body.to_string()).await.ok();
    }
    let status = r#"{"status":"maintenance"}"#;
    world.call("PUT", "/api/v1/nodes/c/status", status).await.ok();
    for (query, expected) in [
        ("limit=10", "a b c d"),
        ("order=desc", "d c b a"),
        ("sort=load_score", "b d a c"),
        ("sort=load_score&order=desc", "c a d b"),
        ("capability=x&status=active", "a d"),
        ("status=maintenance", "c"),
        ("node_id=b", "b"),
        ("created_before=2000-01-01T00:00:00Z", ""),
    ] {
        let page = world.get(&format!("/api/v1/nodes?{query}")).await.ok();
        assert_eq!(names(&page["order"], "").join(" "), expected, "{query}");
        assert_eq!(
            page["nodes"].as_object().unwrap().len(),
            page["count"].as_u64().unwrap() as usize
        );
        assert_eq!((&page["total_nodes"], &page["active_nodes"]), (&json!(4), &json!(3)));
    }
    let pages = walk(&world, "/api/v1/nodes?sort=load_score&limit=3", "order", "").await;
    assert_eq!(pages, [vec!["b", "d", "a"], vec!["c"]]);
    let pages = walk(&world, "/api/v1/nodes?limit=1&capability=x&order=desc", "order", "").await;
    assert_eq!(pages, [["d"], ["c"], ["a"]]);
    let page = world.get("/api/v1/nodes?capability=x&limit=1").await.ok();
    assert_eq!((&page["count"], &page["total"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn agents_are_filtered_and_paged_under_their_own_keys() {
    let world = World::new().await;
    for (node_id, agents) in [
        ("n1", json!([{"agent_id": "a", "status": "online"}, {"agent_id": "c", "status": "busy"}])),
        ("n2", json!([{"agent_id": "a", "status": "busy", "capabilities": ["x"]}])),
    ] {
        let body = json!({"host": "h", "agents": agents});
        world.post(&format!("/api/v1/nodes/{node_id}/register"), &body.to_string()).await.ok();
    }
    let whole = world.get("/api/v1/agents").await.ok();
    let keys: BTreeSet<String> = whole["agents"].as_object().unwrap().keys().cloned().collect();
    let pages = walk(&world, "/api/v1/agents?limit=1", "order", "").await;
    assert_eq!(pages, [["a"], ["n2/a"], ["c"]]);
    assert_eq!(pages.into_iter().flatten().collect::<BTreeSet<_>>(), keys);
    let pages = walk(&world, "/api/v1/agents?limit=2&order=desc", "order", "").await;
    assert_eq!(pages, [vec!["c", "n2/a"], vec!["a"]]);
    for (query, expected) in
        [("status=busy", "n2/a c"), ("capability=x", "n2/a"), ("node_id=n1", "a c")]
    {
        let page = world.get(&format!("/api/v1/agents?{query}")).await.ok();
        assert_eq!(names(&page["order"], "").join(" "), expected, "{query}");
        assert_eq!(page["agents"][page["order"][0].as_str().unwrap()]["source"], "web4ai");
    }
}

#[tokio::test]
async fn drills_are_filtered_and_paged() {
    use crate::model::{DrillKind, DrillState};
    use crate::state::{Command, Outcome};
    let world = World::new().await;
    for (kind, state) in [
        (DrillKind::Failover, DrillState::Passed),
        (DrillKind::Pause, DrillState::Failed),
        (DrillKind::Failover, DrillState::Failed),
    ] {
        let begin = Command::BeginDrill {
            kind,
            target: "m".to_owned(),
            started_by: "ops".to_owned(),
            lease_ms: 60_000,
        };
        let Outcome::DrillBegun { drill_id } = world.commit(begin).await else { panic!() };
        let (summary, report) = (String::new(), "{}".to_owned());
        world.commit(Command::EndDrill { drill_id, state, summary, report }).await;
    }
    let ids = |page: &Value| -> Vec<u64> {
        let rows = page["drills"].as_array().unwrap().iter();
        rows.map(|row| row["drill_id"].as_u64().unwrap()).collect()
    };
    let page = world.get("/api/v1/drills?limit=2").await.ok();
    assert_eq!((ids(&page), &page["total"]), (vec![3, 2], &json!(3)));
    let next = page["next_cursor"].as_str().unwrap();
    let page = world.get(&format!("/api/v1/drills?limit=2&cursor={next}")).await.ok();
    assert_eq!((ids(&page), &page["next_cursor"]), (vec![1], &Value::Null));
    let page = world.get("/api/v1/drills?kind=failover&status=failed").await.ok();
    assert_eq!(ids(&page), [3]);
    let page = world.get("/api/v1/drills?order=asc").await.ok();
    assert_eq!(ids(&page), [1, 2, 3]);
}

#[tokio::test]
async fn lists_refuse_what_they_cannot_do() {
    let world = World::new().await;
    some_tasks(&world).await;
    let page = world.get("/api/v1/nodes?limit=1").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    for list in ["nodes", "agents", "tasks", "tasks/failed", "drills", "backups"] {
        for (query, code) in [
            ("sort=colour".to_owned(), "INVALID_QUERY"),
            ("order=sideways".to_owned(), "INVALID_QUERY"),
            ("created_after=yesterday".to_owned(), "INVALID_QUERY"),
            ("cursor=4711".to_owned(), "INVALID_CURSOR"),
            (format!("limit=1&order=desc&cursor={cursor}"), "INVALID_CURSOR"),
            (format!("cursor={cursor}00"), "INVALID_CURSOR"),
        ] {
            let answer = world.get(&format!("/api/v1/{list}?{query}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{list} {query}: {}", answer.text);
            assert_eq!(answer.json()["code"], code, "{list} {query}");
            assert_eq!(answer.json()["success"], false);
        }
    }
    for path in
        ["/api/v1/nodes?status=odd", "/api/v1/tasks?status=odd", "/api/v1/tasks?order=asc&offset=1"]
    {
        assert_eq!(world.get(path).await.json()["code"], "INVALID_QUERY", "{path}");
    }
}

#[tokio::test]
async fn detailed_nodes_are_filtered_sorted_and_paged_like_nodes() {
    let world = World::new().await;
    for (node_id, load) in [("a", 0.5), ("b", 0.1), ("c", 0.9)] {
        let body = json!({"host": "h", "load_score": load});
        world.post(&format!("/api/v1/nodes/{node_id}/register"), &body.to_string()).await.ok();
    }
    let list = "/api/v1/dashboard/nodes/detailed";
    let whole = world.get(list).await.ok();
    assert_eq!((&whole["total_nodes"], whole.get("count")), (&json!(3), None), "the family's form");
    let pages = walk(&world, &format!("{list}?sort=load_score&limit=2"), "nodes", "node_id").await;
    assert_eq!(pages, [vec!["b", "a"], vec!["c"]]);
    let page = world.get(&format!("{list}?node_id=c")).await.ok();
    assert_eq!((&page["total"], &page["total_nodes"]), (&json!(1), &json!(3)));
    assert!(page["nodes"][0]["uptime_hours"].is_f64(), "{page}");
    let cursor = world.get("/api/v1/nodes?limit=1").await.ok()["next_cursor"].clone();
    let foreign = world.get(&format!("{list}?limit=1&cursor={}", cursor.as_str().unwrap())).await;
    assert_eq!(foreign.json()["code"], "INVALID_CURSOR");
}

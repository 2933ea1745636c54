//! Three members that serve one API, whoever of them is asked.

use reqwest::Method;
use serde_json::json;

use crate::house::House;
use crate::http::{number, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_serve_the_same_api() {
    let house = House::found(3).await;
    let leader = house.leader().await;
    let mut epochs = Vec::new();
    for place in 0..3 {
        let id = house.id(place).await;
        let task_id = format!("through-{place}");
        let task = json!({ "task_id": task_id, "task_type": "x", "input_data": { "n": place } });
        // Whoever is asked, followers included, the write is committed when it is answered...
        let written = house.submit(place, &task).await;
        assert_eq!(text(&written.body, "/task_id"), task_id);
        assert_eq!(written.header("x-quorate-member"), Some(id));
        let index = written.header("x-quorate-index").unwrap();
        // ...and every member knows of it from then on, without being told an index.
        for other in 0..3 {
            let url = house.url(other, &format!("/api/v1/tasks/{task_id}"));
            let read = house.http.get(&url).await.unwrap();
            assert_eq!(read.status, 200, "{}", read.body);
            assert!(read.header("x-quorate-index").unwrap() >= index, "an older state was served");
            let mode = read.headers.get("x-quorate-consistency").unwrap();
            assert_eq!(mode, "linearizable");
            assert_eq!(read.header("x-quorate-leader"), Some(house.id(leader).await));
            assert!(read.header("x-quorate-age-ms").is_some());
            epochs.push(read.headers.get("x-quorate-epoch").unwrap().clone());
        }
        // A local read can be told what it must have seen.
        let path = format!("/api/v1/tasks/{task_id}?consistency=local&min_index={index}");
        let local = house.http.get(&house.url((place + 1) % 3, &path)).await.unwrap();
        assert_eq!(local.status, 200, "{}", local.body);
        assert_eq!(local.headers.get("x-quorate-consistency").unwrap(), "local");
    }
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "one reign: {epochs:?}");
    repeated_requests_have_one_outcome(&house).await;
    house.agree().await;
}

/// The same key through another member: the first outcome, and no second task.
async fn repeated_requests_have_one_outcome(house: &House) {
    let task = json!({ "task_type": "x" });
    let mut ids = Vec::new();
    for place in 0..3 {
        let url = house.url(place, "/api/v1/tasks");
        let limit = crate::http::CALL;
        let sent = house.http.send(Method::POST, &url, Some(&task), Some("order-7"), limit).await;
        ids.push(text(&sent.unwrap().body, "/task_id"));
        let request = house.http.read(&house.url(place, "/api/v1/requests/order-7")).await;
        assert_eq!(text(&request, "/state"), "committed");
        assert_eq!(text(&request, "/outcome/task_id"), ids[0]);
    }
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let list = house.http.read(&house.url(0, "/api/v1/tasks")).await;
    assert_eq!(number(&list, "/summary/pending_count"), 4);
}

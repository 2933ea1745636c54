//! What a member says of itself when the others are gone.

use crate::house::House;
use crate::http::{PATIENCE, until};

/// A leader without followers went on to say that the store is connected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_5_5_a_member_without_a_quorum_is_disconnected() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    let url = house.url(leader, "/health");
    assert_eq!(house.http.read(&url).await["redis"], "connected");
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    others.iter().for_each(|place| house.kill(*place));
    until("that it says so", PATIENCE, || async {
        let reply = house.http.get(&url).await.ok()?;
        if reply.status != 503 {
            return None;
        }
        assert_eq!(reply.body["redis"], "disconnected", "{:?}", reply.body);
        assert_eq!(reply.body["status"], "unhealthy");
        Some(())
    })
    .await;
    house.start(others[0]);
    until("that it is well again", PATIENCE, || async {
        let body = house.http.get(&url).await.ok()?.body;
        (body["redis"] == "connected").then_some(())
    })
    .await;
}

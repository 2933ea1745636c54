//! Requests that take several commands: what is answered when not all of them are made.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::errors::read;
use super::nanoos::campaign;
use super::{Answer, World};
use crate::api::ticket::{Caller, Ticket};
use crate::model::{DerivedId, RequestId, TaskId};
use crate::state::{BotCommand, BotOutcome, Command, Outcome};

async fn keyed(world: &World, method: &str, path: &str, body: Value) -> Answer {
    world.keyed(method, path, "k", &body.to_string()).await
}

/// The id of a part of the request that [`keyed`] sends.
fn part(number: usize) -> RequestId {
    let first = RequestId::from_key("k");
    if number == 0 { first } else { RequestId::from_key(&format!("{first}/{number}")) }
}

fn scaling(swarm: &str, count: u32) -> Command {
    let swarm = DerivedId::parse(swarm).unwrap();
    Command::Bot(Box::new(BotCommand::ScaleSwarm { swarm, count }))
}

/// Commits a part, as the request that is then sent again did.
async fn made(world: &World, number: usize, command: Command) -> Outcome {
    world.cluster.propose(part(number), "", command).await.unwrap().reply.unwrap()
}

/// That it is not known, and by which id to ask for it.
#[track_caller]
fn is_unknown(answer: &Answer, request_id: RequestId) {
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text);
    let body = answer.json();
    let told = (&body["code"], &body["request_id"]);
    assert_eq!(told, (&json!("OUTCOME_UNKNOWN"), &json!(request_id.to_string())));
}

/// It was answered as one that certainly did not happen.
#[tokio::test]
async fn a_shrink_that_got_half_way_is_of_an_unknown_outcome() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(9).await;
    made(&world, 0, scaling(&swarm, 5)).await;
    world.cluster.stop().await;
    let answer = keyed(&world, "PATCH", &format!("/swarms/{swarm}"), json!({"count": 1})).await;
    is_unknown(&answer, RequestId::from_key("k"));
}

#[tokio::test]
async fn a_removal_of_a_campaign_that_got_half_way_is_of_an_unknown_outcome() {
    let world = World::new().await;
    let id = campaign(&world, json!({"name": "c"})).await;
    world.post(&format!("/api/v1/campaigns/{id}/cancel"), "").await.ok();
    // What is removed in parts is large; of all that, the first part leaves such an outcome.
    let task_ids = vec![TaskId::trusted("a"), TaskId::trusted("b")];
    let outcome = made(&world, 0, Command::PurgeTasks { task_ids }).await;
    assert!(matches!(outcome, Outcome::Judged { .. }));
    world.cluster.stop().await;
    let answer = keyed(&world, "DELETE", &format!("/api/v1/campaigns/{id}"), json!({})).await;
    is_unknown(&answer, RequestId::from_key("k"));
}

/// It made all its parts anew, found them recorded, and had no part left for what remained.
#[tokio::test]
async fn a_shrink_that_took_all_its_parts_goes_on_when_it_is_sent_again() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(9).await;
    let parts = (0..1000).map(|number| made(&world, number, scaling(&swarm, 5)));
    for outcome in futures::future::join_all(parts).await {
        assert_eq!(outcome, Outcome::Bot(BotOutcome::SwarmScaled { count: 5 }));
    }
    let path = format!("/swarms/{swarm}");
    for _ in 0..2 {
        let scaled = keyed(&world, "PATCH", &path, json!({"count": 1})).await.ok();
        assert_eq!(scaled["bot_count"], 1, "{scaled}");
    }
    world.patch(&path, r#"{"count":3}"#).await.ok();
    let again = keyed(&world, "PATCH", &path, json!({"count": 1})).await.ok();
    assert_eq!(again["bot_count"], 3, "it has been made, and is not made again");
}

/// A request that has more to do than it may take is told so, and each time it is sent goes further.
#[tokio::test]
async fn a_request_that_took_all_its_parts_is_of_an_unknown_outcome() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(5_000).await;
    for _ in 0..400 {
        world.post(&format!("/swarms/{swarm}/tasks"), "{}").await;
    }
    let (ticket, caller) = (Ticket::minted(), Caller::default());
    let part = |outcome: &Outcome| *outcome != Outcome::Bot(BotOutcome::SwarmScaled { count: 1 });
    let mut counts = vec![5_000];
    let written = loop {
        assert!(counts.len() < 20, "it never ends: {counts:?}");
        let command = scaling(&swarm, 1);
        match world.app.write_parts(ticket, &caller, &command, (part, 1)).await {
            Ok(written) => break written,
            Err(error) => is_unknown(&read(error).await, ticket.request_id),
        }
        let shown = world.get(&format!("/swarms/{swarm}?bot_ids=false")).await.ok();
        counts.push(shown["bot_count"].as_u64().unwrap());
    };
    assert!(counts.len() > 1 && counts.is_sorted_by(|one, other| one > other), "{counts:?}");
    let again = world.app.write_parts(ticket, &caller, &scaling(&swarm, 1), (part, 1)).await;
    assert_eq!(again.unwrap().outcome, written.outcome);
}

/// A later write named itself in the error, which the client never sent. Only where what came before
/// it took effect it is more than not started.
#[tokio::test]
async fn a_write_that_is_not_started_is_so_unless_parts_were_made_before_it() {
    let world = World::new().await;
    world.cluster.stop().await;
    let (first, caller) = (Ticket::minted(), Caller::default());
    let write = async |ticket: Ticket| {
        let command = Command::RevokeSession { session_id: "s".to_owned(), left_ms: 1 };
        read(world.app.write(ticket, &caller, command).await.unwrap_err()).await
    };
    for ticket in [first, first.part(0), first.nth(1)] {
        let answer = write(ticket).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
        assert_eq!(answer.json()["request_id"], first.request_id.to_string());
    }
    let answer = write(first.part(1)).await;
    is_unknown(&answer, first.request_id);
    let wanted = format!("/api/v1/requests/{}", first.request_id);
    assert!(answer.json()["detail"].as_str().unwrap().contains(&wanted), "{}", answer.text);
}

//! A steady trickle of real work.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Call, Client};
use crate::clock;
use crate::worker::sample::demo;

/// Between two sample tasks.
const PERIOD: Duration = Duration::from_millis(500);

/// Submits a task every half second until it is dropped. Each is sent under a key of its own, so a
/// task whose answer was lost is not submitted twice.
pub(super) async fn flow(client: Client, samples: PathBuf) {
    let mut ticks = tokio::time::interval(PERIOD);
    for number in 0.. {
        ticks.tick().await;
        let call = Call::post("/api/v1/tasks", &demo::task(&samples, number));
        if let Err(error) = client.call(call.key(clock::mint_request_id().to_string())).await {
            tracing::warn!(%error, number, "a sample task was not taken");
        }
    }
}

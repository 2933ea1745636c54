//! Looks at every member all the time: who it says leads, in which term and epoch, how far it is
//! and what its state adds up to. No two members lead in one term, epochs only grow, and members
//! that have applied the same have the same.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::json;
use tokio::time::sleep;

use super::{HarnessError, Stage, Workload};
use crate::checker::{Verdict, reigns};
use crate::client::{Client, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "observe";
/// Between two looks at a member. Members gather reports of their peers twice a second at most.
const EVERY: Duration = Duration::from_millis(250);
/// Looks at the end, when members are idle and stand at the same index.
const LAST_LOOKS: usize = 12;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Observe;

async fn look(stage: &Stage, client: &Client) {
    let looks = stage.members.all().into_iter().map(|(number, url)| async move {
        let request = Request::get("/api/v1/cluster");
        let reply = client.send_within(&url, &request, Duration::from_secs(1)).await;
        let note = match reply.kind {
            Kind::Ok => {
                let told = &reply.body;
                let rows = told["members"].as_array().map(Vec::as_slice).unwrap_or_default();
                let row = |row: &serde_json::Value| {
                    json!({"id": row["id"], "role": row["role"], "state": row["state"],
                        "applied": row["applied"], "last_log": row["last_log"],
                        "digest": row["digest"]})
                };
                let rows: Vec<_> = rows.iter().map(row).collect();
                Note::new(NAME, "cluster").value(json!({"id": told["member_id"],
                    "leader": told["leader"], "term": told["term"], "epoch": told["epoch"],
                    "ended": told["ended"], "members": rows}))
            }
            _ => Note { error: reply.error, ..Note::new(NAME, "silent") },
        };
        stage.recorder.observe("observer", Note { node: Some(number), ..note });
    });
    join_all(looks).await;
}

impl Workload for Observe {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            while !stage.stop.is_cancelled() {
                look(stage, &client).await;
                sleep(EVERY).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            for _ in 0..LAST_LOOKS {
                look(stage, &client).await;
                sleep(EVERY).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![reigns::leaders(history), reigns::epochs(history), reigns::digests(history)]
    }
}

//! Calls beside the load: setting up, counters before and after, who leads.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::args::LoadArgs;
use super::connection::{Connection, Target, request_bytes};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a call is offered to all members before it fails.
const ROUNDS_MAX: u32 = 5;
const PAUSE_BETWEEN_ROUNDS: Duration = Duration::from_millis(200);

/// Asks any member, one call per connection.
#[derive(Debug, Clone)]
pub(super) struct Control {
    targets: Vec<Target>,
    headers: String,
}

impl Control {
    /// Talks to the members of `load`.
    #[must_use]
    pub(super) fn new(load: &LoadArgs) -> Self {
        Self { targets: load.url.clone(), headers: load.header.concat() }
    }

    /// One call to one member: status and JSON body (null when it has none, a text when it is none).
    ///
    /// # Errors
    /// When it does not answer within ten seconds.
    pub(super) async fn call_one(
        &self,
        target: &Target,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<(u16, Value)> {
        let request = request_bytes(method, target, path, &self.headers, body);
        let call = async {
            let mut connection = Connection::open(target).await?;
            let reply = connection.exchange(&request).await?;
            let text = || String::from_utf8_lossy(reply.body).into_owned().into();
            let body = serde_json::from_slice(reply.body).unwrap_or_else(|_| text());
            std::io::Result::Ok((
                reply.status,
                if reply.body.is_empty() { Value::Null } else { body },
            ))
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {CALL_TIMEOUT:?}"));
        answer.and_then(|answer| Ok(answer?)).with_context(|| format!("{method} {target:?} {path}"))
    }

    /// A call that must succeed, on whichever member answers it; asked again for about a second
    /// when none does or the cluster says 503.
    ///
    /// # Errors
    /// The last failure, or the refusal with its body.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("no member is known");
        for _ in 0..ROUNDS_MAX {
            for target in &self.targets {
                match self.call_one(target, method, path, body).await {
                    Ok((status, value)) if (200..300).contains(&status) => return Ok(value),
                    Ok((503, value)) => last = anyhow::anyhow!("{method} {path}: 503 {value}"),
                    Ok((status, value)) => bail!("{method} {path}: {status} {value}"),
                    Err(error) => last = error,
                }
            }
            tokio::time::sleep(PAUSE_BETWEEN_ROUNDS).await;
        }
        Err(last)
    }

    /// Counters that say what a run did to the cluster; null where a member does not tell.
    pub(super) async fn counters(&self) -> Value {
        let status = self.first("/api/v1/status").await;
        let cluster = self.first("/api/v1/cluster").await;
        let last_log = members_of(&cluster).filter_map(|member| member["last_log"].as_u64()).max();
        json!({
            "tasks": status["data"]["tasks"],
            "nodes": status["data"]["nodes"]["active"],
            "leader": cluster["leader"],
            "term": cluster["term"],
            "epoch": cluster["epoch"],
            "last_log": last_log,
        })
    }

    /// What the cluster says of itself, from the first member that answers; null when none does.
    pub(super) async fn cluster(&self) -> Value {
        self.first("/api/v1/cluster").await
    }

    async fn first(&self, path: &str) -> Value {
        for target in &self.targets {
            if let Ok((200, value)) = self.call_one(target, "GET", path, b"").await {
                return value;
            }
        }
        Value::Null
    }

    /// The members this generator knows, in the order they were given.
    #[must_use]
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }
}

fn members_of(cluster: &Value) -> impl Iterator<Item = &Value> {
    cluster["members"].as_array().into_iter().flatten()
}

/// Where the leader serves clients, by what the cluster says; `None` while nobody leads.
#[must_use]
pub(super) fn leader_address(cluster: &Value) -> Option<String> {
    let leader = cluster.get("leader").filter(|leader| !leader.is_null())?;
    let member = members_of(cluster).find(|member| &member["id"] == leader)?;
    let address = member["http"].as_str()?;
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    Some(address.trim_end_matches('/').to_owned())
}

/// Whether somebody leads and every member is in touch and caught up within `lag_max` entries.
#[must_use]
pub(super) fn is_whole(cluster: &Value, lag_max: u64) -> bool {
    let fine = |member: &Value| {
        member["state"] != "unreachable" && member["lag"].as_u64().unwrap_or(0) <= lag_max
    };
    leader_address(cluster).is_some() && members_of(cluster).all(fine)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};

    use super::*;
    use crate::bench::drive::tests::{load, serve};

    fn cluster() -> Value {
        json!({"leader": 2, "term": 4, "epoch": 9, "members": [
            {"id": 1, "http": "127.0.0.1:9000", "state": "follower", "lag": 3, "last_log": 97},
            {"id": 2, "http": "http://127.0.0.1:9100/", "state": "leader", "last_log": 100},
        ]})
    }

    #[test]
    fn the_leader_is_found_by_its_id() {
        let mut cluster = cluster();
        assert_eq!(leader_address(&cluster).as_deref(), Some("127.0.0.1:9100"));
        cluster["leader"] = json!(1);
        assert_eq!(leader_address(&cluster).as_deref(), Some("127.0.0.1:9000"));
        cluster["leader"] = Value::Null;
        assert_eq!(leader_address(&cluster), None);
        assert_eq!(leader_address(&Value::Null), None);
    }

    #[test]
    fn a_cluster_is_whole_when_all_are_in_touch_and_caught_up() {
        assert!(is_whole(&cluster(), 3));
        assert!(!is_whole(&cluster(), 2));
        let mut broken = cluster();
        broken["members"][0]["state"] = json!("unreachable");
        assert!(!is_whole(&broken, 1000));
        assert!(!is_whole(&Value::Null, 1000));
    }

    #[tokio::test]
    async fn counters_are_gathered_and_missing_ones_are_null() {
        let router = Router::new().route("/api/v1/cluster", get(|| async { Json(cluster()) }));
        let control = Control::new(&load(vec![serve(router).await], 1));
        let counters = control.counters().await;
        assert_eq!((&counters["leader"], &counters["last_log"]), (&json!(2), &json!(100)));
        assert_eq!(counters["tasks"], Value::Null);
    }

    #[tokio::test]
    async fn a_call_is_repeated_while_the_cluster_has_no_leader() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let handler = move || async move {
            match seen.fetch_add(1, Ordering::Relaxed) {
                0 => (StatusCode::SERVICE_UNAVAILABLE, "{}"),
                _ => (StatusCode::OK, r#"{"success":true}"#),
            }
        };
        let refused = || async { (StatusCode::BAD_REQUEST, r#"{"error":"no"}"#) };
        let router = Router::new().route("/x", post(handler)).route("/no", post(refused));
        let control = Control::new(&load(vec![serve(router).await], 1));
        assert_eq!(control.call("POST", "/x", b"{}").await.unwrap()["success"], json!(true));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        let error = control.call("POST", "/no", b"{}").await.unwrap_err().to_string();
        assert!(error.contains("400") && error.contains("no"), "{error}");
    }
}

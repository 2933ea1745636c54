//! Nodes in this process: real HTTP servers that execute a task by answering at once.
//!
//! They keep the contract of a family W node: registered over the public API, kept alive by
//! heartbeats, dispatched to by `POST /api/v4/tasks/execute`, every other path is unknown.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::FleetArgs;
use super::connection::Inbox;
use super::control::Control;
use super::flights::{Flights, attempt_in, task_id_in};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const EXECUTE: &[u8] = b"POST /api/v4/tasks/execute ";

/// Nodes that serve and are registered. Dropping it stops them without signing off.
pub(super) struct Fleet {
    control: Control,
    ids: Vec<String>,
    /// Owns the servers and the heartbeats: dropped with the fleet.
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts and registers the nodes; they offer `capability` alone, so that they get the tasks
    /// of this run and no others.
    ///
    /// # Errors
    /// When a port cannot be bound or a registration is refused.
    pub(super) async fn start(
        args: &FleetArgs,
        control: &Control,
        capability: &str,
        flights: &Flights,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut ids = Vec::new();
        for n in 0..args.nodes {
            let listener = TcpListener::bind((args.node_host.as_str(), 0)).await;
            let listener = listener.with_context(|| format!("binding to {}", args.node_host))?;
            let port = listener.local_addr()?.port();
            let work = Duration::from_millis(args.work_ms);
            tasks.spawn(serve(listener, flights.clone(), work));

            let id = format!("{capability}-{n}");
            let body = json!({
                "host": args.node_host, "port": port, "node_type": "worker", "version": "bench",
                "capabilities": [capability], "capacity": args.capacity,
            });
            let path = format!("/api/v1/nodes/{id}/register");
            control.call("POST", &path, body.to_string().as_bytes()).await?;
            ids.push(id);
        }
        tasks.spawn(beat(control.clone(), ids.clone()));
        Ok(Self { control: control.clone(), ids, _tasks: tasks })
    }

    /// Signs all nodes off.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub(super) async fn retire(self) -> anyhow::Result<()> {
        for id in &self.ids {
            self.control.call("DELETE", &format!("/api/v1/nodes/{id}"), b"").await?;
        }
        Ok(())
    }
}

/// Keeps the nodes alive. A lost heartbeat is no error: the next one follows.
async fn beat(control: Control, ids: Vec<String>) {
    let body = br#"{"status":"active","load_score":0.0,"cpu_usage":0.0,"memory_usage":0.0}"#;
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        for id in &ids {
            let path = format!("/api/v1/nodes/{id}/heartbeat");
            if let Err(error) = control.call("POST", &path, body).await {
                tracing::warn!(node = %id, error = %format!("{error:#}"), "heartbeat failed");
            }
        }
    }
}

async fn serve(listener: TcpListener, flights: Flights, work: Duration) {
    // Connections end with the set, that is with the node.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, flights.clone(), work));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection until it breaks.
async fn answer(mut stream: TcpStream, flights: Flights, work: Duration) {
    let mut inbox = Inbox::new();
    let mut reply = Vec::new();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    while let Ok(Some(message)) = inbox.message(&mut stream).await {
        let close = message.close;
        reply.clear();
        match task_id_in(message.body).filter(|_| message.head.starts_with(EXECUTE)) {
            Some(task_id) => {
                flights.arrived(task_id, attempt_in(message.body), Instant::now());
                write_result(&mut reply, task_id);
                if !work.is_zero() {
                    tokio::time::sleep(work).await;
                }
            }
            None => reply.extend_from_slice(
                b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n\
                  content-length: 17\r\n\r\n{\"success\":false}",
            ),
        }
        if stream.write_all(&reply).await.is_err() || close {
            return;
        }
    }
}

fn write_result(reply: &mut Vec<u8>, task_id: &[u8]) {
    let (start, end) = (br#"{"success":true,"task_id":""#, br#"","result":{"ok":true}}"#);
    let length = start.len() + task_id.len() + end.len();
    write!(
        reply,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    .expect("a vector takes every write");
    for part in [&start[..], task_id, &end[..]] {
        reply.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::connection::{Connection, Target, request_bytes};

    #[tokio::test]
    async fn a_node_executes_tasks_and_knows_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let flights = Flights::new("r-");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, flights.clone(), Duration::ZERO));
        let mut connection = Connection::open(&target).await.unwrap();
        let body = br#"{"task_id":"r-000000000007","task_type":"bench","attempt":1}"#;

        let request = request_bytes("POST", &target, "/api/v4/tasks/execute", "", body);
        let reply = connection.exchange(&request).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(reply.body).unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(
            (&value["success"], &value["task_id"]),
            (&json!(true), &json!("r-000000000007"))
        );
        assert_eq!(flights.sums().stray, 1, "nobody had submitted it");

        for path in ["/api/tasks", "/api/health"] {
            let request = request_bytes("POST", &target, path, "", body);
            assert_eq!(connection.exchange(&request).await.unwrap().status, 404);
        }
        assert_eq!(flights.sums().stray, 1);
    }
}

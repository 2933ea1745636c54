//! Members of one cluster as processes, and what can be done to them.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Http, PATIENCE, Reply, number, text, until};
use crate::ports::free_addr;
use crate::process::Process;

/// How long a member may take to stop when asked to.
pub(crate) const STOP: Duration = Duration::from_secs(20);

/// What a member is told at start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) http: String,
    pub(crate) peer: String,
    /// Where it serves gRPC, if it does.
    pub(crate) grpc: Option<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) expect: usize,
    /// Further lines below `cluster:`, two spaces deep.
    pub(crate) more: String,
}

impl Setup {
    /// The configuration file.
    pub(crate) fn text(&self) -> String {
        let Self { name, data, http, peer, grpc, peers, expect, more } = self;
        let grpc = grpc.as_ref().map(|addr| format!("  - {{ profile: grpc, addr: \"{addr}\" }}\n"));
        let grpc = grpc.unwrap_or_default();
        format!(
            "cluster:\n  name: {name}\n  data_dir: {}\n  peers: {}\n  bootstrap_expect: {expect}\n  \
             join: true\n{more}listeners:\n  - {{ profile: web4ai, addr: \"{http}\" }}\n  \
             - {{ profile: peer, addr: \"{peer}\" }}\n{grpc}logging:\n  level: info\n",
            json!(data),
            json!(peers),
        )
    }
}

pub(crate) struct Member {
    pub(crate) setup: Setup,
    home: PathBuf,
    process: Option<Process>,
}

/// A cluster.
pub(crate) struct House {
    pub(crate) http: Http,
    pub(crate) members: Vec<Member>,
    dir: TempDir,
    more: String,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) id: u64,
    pub(crate) role: String,
    pub(crate) applied: u64,
    pub(crate) digest: String,
}

impl House {
    /// Founds a cluster and waits until every member serves.
    pub(crate) async fn found(count: usize) -> Self {
        Self::found_with(count, "").await
    }

    /// As [`House::found`], with further lines of configuration below `cluster:`.
    pub(crate) async fn found_with(count: usize, more: &str) -> Self {
        let mut house = Self::build(count, more);
        for place in 0..count {
            house.start(place);
        }
        house.all_ready().await;
        house
    }

    /// Members with names and addresses; none runs yet.
    pub(crate) fn build(count: usize, more: &str) -> Self {
        let dir = TempDir::with_prefix("quorate-e2e-").unwrap();
        let (http, members) = (Http::new(), Vec::new());
        let mut house = Self { http, members, dir, more: more.to_owned() };
        let peers: Vec<String> = (0..count).map(|_| free_addr()).collect();
        for (place, peer) in peers.iter().enumerate() {
            let name = format!("m{}", place + 1);
            let setup = Setup { expect: count, ..house.setup(&name, peer, &peers) };
            house.add(setup);
        }
        house
    }

    /// A setup for a member of this cluster that does not found one.
    pub(crate) fn setup(&self, name: &str, peer: &str, peers: &[String]) -> Setup {
        Setup {
            name: name.to_owned(),
            data: self.dir.path().join(name).join("data"),
            http: free_addr(),
            peer: peer.to_owned(),
            grpc: None,
            peers: peers.to_vec(),
            expect: 0,
            more: self.more.clone(),
        }
    }

    /// Adds a member that does not run yet; gives its place.
    pub(crate) fn add(&mut self, setup: Setup) -> usize {
        let home = self.dir.path().join(&setup.name);
        std::fs::create_dir_all(&home).unwrap();
        self.members.push(Member { setup, home, process: None });
        self.members.len() - 1
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn peers(&self) -> Vec<String> {
        self.members.iter().map(|member| member.setup.peer.clone()).collect()
    }

    pub(crate) fn start(&mut self, place: usize) {
        let Member { setup, home, process } = &mut self.members[place];
        let file = home.join("member.yaml");
        std::fs::write(&file, setup.text()).unwrap();
        let words = ["server", "--config", file.to_str().unwrap()];
        *process = Some(Process::start(&setup.name, &words, &home.join("log")));
    }

    /// What a member has said so far.
    pub(crate) fn said(&self, place: usize) -> String {
        self.members[place].process.as_ref().unwrap().said()
    }

    /// How long a member's log is, to tell later what it said since.
    pub(crate) fn log_length(&self, place: usize) -> usize {
        let path = self.members[place].home.join("log");
        std::fs::metadata(path).map_or(0, |metadata| metadata.len() as usize)
    }

    pub(crate) fn process(&mut self, place: usize) -> &mut Process {
        self.members[place].process.as_mut().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, place: usize) {
        self.process(place).kill();
        self.members[place].process = None;
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self, place: usize) -> ExitStatus {
        let process = self.process(place);
        process.signal(Signal::TERM);
        let status = process.exit(STOP).await;
        self.members[place].process = None;
        status
    }

    pub(crate) fn signal(&mut self, place: usize, signal: Signal) {
        self.process(place).signal(signal);
    }

    pub(crate) fn runs(&self, place: usize) -> bool {
        self.members[place].process.is_some()
    }

    /// Places of those that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|place| self.runs(*place)).collect()
    }

    pub(crate) fn url(&self, place: usize, path: &str) -> String {
        format!("http://{}{path}", self.members[place].setup.http)
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.members.len()).map(|place| self.url(place, "")).collect()
    }

    /// Waits until a member can take requests.
    pub(crate) async fn ready(&mut self, place: usize) {
        let (http, url) = (self.http.clone(), self.url(place, "/readyz?verbose"));
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = http.get(&url).await;
            if matches!(&reply, Ok(reply) if reply.status == 200) {
                return;
            }
            let name = self.members[place].setup.name.clone();
            if let Some(status) = self.process(place).ended() {
                panic!("{name} ended: {status}");
            }
            assert!(tokio::time::Instant::now() < end, "{name} is not ready: {reply:?}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until every member that runs can take requests.
    pub(crate) async fn all_ready(&mut self) {
        for place in self.running() {
            self.ready(place).await;
        }
    }

    pub(crate) async fn status(&self, place: usize) -> Option<Value> {
        let reply = self.http.get(&self.url(place, "/api/v1/cluster")).await.ok()?;
        (reply.status == 200).then_some(reply.body)
    }

    /// What a member says of itself.
    pub(crate) async fn own(&self, place: usize) -> Option<Own> {
        let status = self.status(place).await?;
        let id = number(&status, "/member_id");
        let row = status["members"].as_array()?.iter().find(|row| row["id"] == id)?.clone();
        Some(Own {
            id,
            role: text(&row, "/role"),
            applied: number(&row, "/applied"),
            digest: text(&row, "/digest"),
        })
    }

    /// The number of a member.
    pub(crate) async fn id(&self, place: usize) -> u64 {
        let own = || async { self.own(place).await.map(|own| own.id).filter(|id| *id > 0) };
        until("the number of a member", PATIENCE, own).await
    }

    /// The place of the member that leads, by its own account and that of the newest term.
    pub(crate) async fn leader(&self) -> usize {
        let running = self.running();
        until("a leader", PATIENCE, || self.find_leader(&running)).await
    }

    /// As [`House::leader`], among `places` only, in one look.
    pub(crate) async fn find_leader(&self, places: &[usize]) -> Option<usize> {
        let mut found: Option<(u64, usize)> = None;
        for place in places.iter().copied() {
            let Some(status) = self.status(place).await else { continue };
            let leads = status["leader"] == status["member_id"] && status["leader"] != 0;
            let term = number(&status, "/term");
            if leads && found.is_none_or(|(newest, _)| term > newest) {
                found = Some((term, place));
            }
        }
        found.map(|(_, place)| place)
    }

    /// Numbers of all that vote, as `place` sees it.
    pub(crate) async fn voters(&self, place: usize) -> Vec<u64> {
        let Some(status) = self.status(place).await else { return Vec::new() };
        let rows = status["members"].as_array().cloned().unwrap_or_default();
        let voters = rows.iter().filter(|row| row["role"] == "voter");
        voters.map(|row| number(row, "/id")).collect()
    }

    /// Waits until those that run are at one index, and finds their digests equal there.
    pub(crate) async fn agree(&self) -> Own {
        let places = self.running();
        let all = until("members at one index", PATIENCE, || async {
            let mut all = Vec::new();
            for place in &places {
                all.push(self.own(*place).await?);
            }
            let first = all.first()?.applied;
            all.iter().all(|own| own.applied == first).then_some(all)
        });
        let all = all.await;
        assert!(all.iter().all(|own| own.digest == all[0].digest), "members differ: {all:?}");
        all[0].clone()
    }

    /// Submits a task through a member; it must be taken.
    pub(crate) async fn submit(&self, place: usize, task: &Value) -> Reply {
        self.http.write(Method::POST, &self.url(place, "/api/v1/tasks"), task).await
    }

    /// Waits until a task is over; gives it.
    pub(crate) async fn ended(&self, place: usize, task_id: &str) -> Value {
        let url = self.url(place, &format!("/api/v1/tasks/{task_id}"));
        until(&format!("the end of {task_id}"), PATIENCE, || async {
            let reply = self.http.get(&url).await.ok()?;
            let task = reply.body["task"].clone();
            let over = ["completed", "failed", "timeout", "cancelled"];
            over.contains(&text(&task, "/status").as_str()).then_some(task)
        })
        .await
    }
}

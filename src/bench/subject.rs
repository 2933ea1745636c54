//! The system on which a failover is measured: what its clients write and read back, who leads, and
//! when it is whole again. Everything else of the measurement is the same for all of them.

use anyhow::Context;
use serde_json::Value;

use super::args::{LoadArgs, System};
use super::control::{Control, is_whole, leader_address};
use super::etcd;
use super::members::{READY, wait_ready};
use super::scenario::{NOWHERE, run_id};
use super::template::{NUMBER, Template, task_json};

/// A member this many entries behind has caught up.
const LAG_MAX: u64 = 1000;

/// A cluster of one of the systems that are known.
pub(super) struct Subject {
    system: System,
    control: Control,
    load: LoadArgs,
    /// Leads the ids of this run, so that no other run has written them.
    prefix: String,
}

impl Subject {
    /// The cluster behind the URLs of `load`.
    #[must_use]
    pub(super) fn new(system: System, load: &LoadArgs) -> Self {
        // Nine letters and three make whole groups of base64, and a sound id of a task.
        let prefix = format!("{}run", run_id());
        Self { system, control: Control::new(load), load: load.clone(), prefix }
    }

    /// One durable write per request, each under an id of its own that holds its number.
    #[must_use]
    pub(super) fn writes(&self) -> Template {
        let (path, body) = match self.system {
            System::Quorate => {
                ("/api/v1/tasks", task_json(Some(&self.prefix), self.load.size, NOWHERE))
            }
            System::Etcd => (etcd::PUT, etcd::put_json(&self.prefix, self.load.size)),
        };
        Template::new(&self.load.url, "POST", path, &self.load.header.concat(), &body)
    }

    /// The linearizable read of the write of the same number.
    #[must_use]
    pub(super) fn reads(&self) -> Template {
        let (urls, headers, prefix) = (&self.load.url, self.load.header.concat(), &self.prefix);
        match self.system {
            System::Quorate => {
                let path = format!("/api/v1/tasks/{prefix}{NUMBER}?consistency=linearizable");
                Template::new(urls, "GET", &path, &headers, "")
            }
            System::Etcd => {
                Template::new(urls, "POST", etcd::RANGE, &headers, &etcd::range_json(prefix))
            }
        }
    }

    /// Whether the answer to such a read says that the write is there; `None` when it says neither.
    #[must_use]
    pub(super) fn holds(&self, status: u16, body: &[u8]) -> Option<bool> {
        match (self.system, status) {
            (System::Quorate, 200) => Some(true),
            (System::Quorate, 404) => Some(false),
            (System::Etcd, 200) => serde_json::from_slice(body).ok().map(|body| etcd::holds(&body)),
            _ => None,
        }
    }

    /// Which of the members leads; `None` while none is known to.
    ///
    /// # Errors
    /// When the leader is none of the members that were given.
    pub(super) async fn leader(&self) -> anyhow::Result<Option<usize>> {
        match self.system {
            System::Quorate => self.place_of_leader(&self.control.cluster().await),
            System::Etcd => Ok(etcd::leader(&self.statuses().await)),
        }
    }

    /// The leader, when every member follows it and has caught up.
    ///
    /// # Errors
    /// Like [`Subject::leader`].
    pub(super) async fn whole(&self) -> anyhow::Result<Option<usize>> {
        match self.system {
            System::Quorate => {
                let cluster = self.control.cluster().await;
                if is_whole(&cluster, LAG_MAX) { self.place_of_leader(&cluster) } else { Ok(None) }
            }
            System::Etcd => Ok(etcd::whole(&self.statuses().await, LAG_MAX)),
        }
    }

    /// Waits until a member that was started again takes requests.
    ///
    /// # Errors
    /// Like [`wait_ready`].
    pub(super) async fn ready(&self, member: usize) -> anyhow::Result<()> {
        let path = match self.system {
            System::Quorate => READY,
            System::Etcd => etcd::HEALTH,
        };
        wait_ready(&self.control, &self.control.targets()[member], path).await
    }

    /// For calls beside the load.
    #[must_use]
    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    fn place_of_leader(&self, cluster: &Value) -> anyhow::Result<Option<usize>> {
        let Some(leader) = leader_address(cluster) else { return Ok(None) };
        let place = self.control.targets().iter().position(|target| target.authority == leader);
        let none = || format!("the leader serves at {leader}, which is no --url");
        place.with_context(none).map(Some)
    }

    async fn statuses(&self) -> Vec<Option<Value>> {
        let mut statuses = Vec::new();
        for target in self.control.targets() {
            let answer = self.control.call_one(target, "POST", etcd::STATUS, b"{}").await;
            statuses.push(answer.ok().filter(|(code, _)| *code == 200).map(|(_, status)| status));
        }
        statuses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::drive::tests::load;

    fn subject(system: System) -> Subject {
        Subject::new(system, &load(vec!["a:1".parse().unwrap()], 1))
    }

    fn text(template: &Template, number: u64) -> String {
        String::from_utf8(template.request(0, number, &mut Vec::new()).to_vec()).unwrap()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for system in [System::Quorate, System::Etcd] {
            let subject = subject(system);
            let id = format!("{}000000000042", subject.prefix);
            for template in [subject.writes(), subject.reads()] {
                assert!(text(&template, 42).contains(&id), "{system:?}");
                assert!(!text(&template, 43).contains(&id), "{system:?}");
            }
        }
    }

    #[test]
    fn an_answer_says_that_a_write_is_there_or_lost_or_nothing() {
        let quorate = subject(System::Quorate);
        assert_eq!(quorate.holds(200, b"{}"), Some(true));
        assert_eq!(quorate.holds(404, b"{}"), Some(false));
        assert_eq!(quorate.holds(503, b"{}"), None);
        let etcd = subject(System::Etcd);
        assert_eq!(etcd.holds(200, br#"{"count":"1"}"#), Some(true));
        assert_eq!(etcd.holds(200, br#"{"header":{}}"#), Some(false));
        assert_eq!(etcd.holds(200, b"<html>"), None);
        assert_eq!(etcd.holds(404, b"{}"), None, "a proxy's or an older gateway's");
    }
}

//! Causing the fault, keeping it up, and healing.
//!
//! What is broken on a member is a lease of a few seconds that is renewed while the drill goes on:
//! when nobody renews it, because the drill was killed or cut off, the member heals by itself.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::admin::{Admin, Begun};
use super::plan::{Method, Plan};
use super::run::Error;
use super::view::ClusterView;
use super::{Options, Way};
use crate::client::{Call, ClientError};

/// How long a fault lasts on a member unless it is renewed.
const LEASE: Duration = Duration::from_secs(4);
/// From one renewal to the next.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to come back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(50);

/// What can be done to processes that are ours. Members are known by their names.
pub trait Hands: Send {
    /// `kill -9`.
    fn kill<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Stops it in order.
    fn stop<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Starts it again.
    fn start<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// The fault of one drill.
pub(super) struct Act {
    admin: Admin,
    begun: Begun,
    view: ClusterView,
    hands: Option<Box<dyn Hands>>,
    /// Faults on members, kept up.
    leases: Vec<(u64, Value)>,
    renewing: Option<AbortHandle>,
    /// Ours, killed and not started again.
    down: Vec<u64>,
    /// Theirs, killed, with the moment: expected back.
    expected: Vec<(u64, Instant)>,
}

impl Drop for Act {
    fn drop(&mut self) {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
    }
}

impl Act {
    pub(super) fn new(
        admin: Admin,
        begun: Begun,
        view: ClusterView,
        hands: Option<Box<dyn Hands>>,
    ) -> Self {
        Self {
            admin,
            begun,
            view,
            hands,
            leases: Vec::new(),
            renewing: None,
            down: Vec::new(),
            expected: Vec::new(),
        }
    }

    fn name(&self, id: u64) -> String {
        self.view.member(id).map(|member| member.name.clone()).unwrap_or_default()
    }

    /// Breaks what the plan says. Returns when it is broken; a restart one by one is over then.
    pub(super) async fn cause(&mut self, plan: &Plan, options: &Options) -> Result<(), Error> {
        match plan.method {
            Method::Kill => self.kill(plan.leader, false).await,
            Method::KillAll => {
                for id in plan.targets.clone() {
                    self.kill(id, true).await?;
                }
                self.bring_back().await
            }
            Method::RestartOneByOne => {
                let (last, first): (Vec<u64>, Vec<u64>) =
                    plan.targets.iter().partition(|id| **id == plan.leader);
                for id in first.into_iter().chain(last) {
                    self.restart(id).await?;
                }
                Ok(())
            }
            Method::HandOver => {
                let to = options.to.map(|to| to.to_string());
                let body = json!({ "to": to });
                let call = Call::post("/api/v1/cluster/transfer-leader", &body);
                self.admin.call(plan.leader, call).await?;
                Ok(())
            }
            Method::Silence | Method::Hang | Method::Cut | Method::SlowDisk => {
                self.leases = leases(plan, options, &self.view);
                for (member, fault) in &self.leases {
                    lease(&self.admin, self.begun, *member, fault).await?;
                }
                self.keep_up();
                Ok(())
            }
            Method::Rehearse => Ok(()),
        }
    }

    /// Ends what was caused; says what was found not to be in force any more.
    pub(super) async fn heal(&mut self) -> Result<Option<String>, Error> {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        self.bring_back().await?;
        let leases = std::mem::take(&mut self.leases);
        if leases.is_empty() {
            return Ok(None);
        }
        let healed = self.admin.heal(Some(self.begun.drill_id)).await;
        let mut members: Vec<u64> = leases.iter().map(|(member, _)| *member).collect();
        members.dedup();
        for member in members {
            let caused = leases.iter().filter(|(of, _)| *of == member).count() as u64;
            let name = self.view.name(member);
            match healed.get(&member) {
                Some(Ok(count)) if *count >= caused => {}
                Some(Ok(count)) => {
                    let text =
                        format!("{name} had only {count} of {caused} faults in force at the end");
                    return Ok(Some(text));
                }
                Some(Err(error)) => {
                    return Ok(Some(format!("{name} could not be healed: {error}")));
                }
                None => return Ok(Some(format!("{name} could not be reached to heal it"))),
            }
        }
        Ok(None)
    }

    fn keep_up(&mut self) {
        let (admin, begun, leases) = (self.admin.clone(), self.begun, self.leases.clone());
        let renewing = tokio::spawn(async move {
            loop {
                sleep(RENEW_EVERY).await;
                if let Err(error) = renew(&admin, begun, &leases).await {
                    tracing::warn!(%error, "a fault could not be renewed");
                }
            }
        });
        self.renewing = Some(renewing.abort_handle());
    }

    async fn kill(&mut self, id: u64, force: bool) -> Result<(), Error> {
        let name = self.name(id);
        if let Some(hands) = &mut self.hands {
            self.down.push(id);
            return hands.kill(&name).await.map_err(Error::Hands);
        }
        self.expected.push((id, Instant::now()));
        self.end_process(id, "kill", force).await
    }

    async fn end_process(&self, id: u64, how: &str, force: bool) -> Result<(), Error> {
        let Begun { drill_id, index } = self.begun;
        let body = json!({ "drill_id": drill_id, "index": index, "how": how, "force": force });
        // Once: whoever comes back a moment later must not be killed again.
        let call = Call::post("/api/v1/admin/stop", &body).once();
        match self.admin.call(id, call).await {
            // The answer of a process that is killed rarely gets out.
            Ok(_) | Err(ClientError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn restart(&mut self, id: u64) -> Result<(), Error> {
        let name = self.name(id);
        let asked = Instant::now();
        if let Some(hands) = &mut self.hands {
            self.down.push(id);
            hands.stop(&name).await.map_err(Error::Hands)?;
        } else {
            self.expected.push((id, asked));
            self.end_process(id, "restart", false).await?;
        }
        self.bring_back().await?;
        self.until_whole().await
    }

    /// Starts what is ours, and waits for everybody who was ended.
    async fn bring_back(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        for id in std::mem::take(&mut self.down) {
            let name = self.name(id);
            if let Some(hands) = &mut self.hands {
                hands.start(&name).await.map_err(Error::Hands)?;
            }
            self.expected.push((id, now));
        }
        for (id, since) in std::mem::take(&mut self.expected) {
            self.until_back(id, since).await?;
        }
        Ok(())
    }

    /// Waits for a process that is younger than the moment `since`.
    async fn until_back(&self, id: u64, since: Instant) -> Result<(), Error> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        loop {
            if let Ok(account) = self.admin.account(id).await
                && u128::from(account.uptime_ms) <= since.elapsed().as_millis()
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotBack(self.view.name(id)));
            }
            sleep(PAUSE).await;
        }
    }

    async fn until_whole(&self) -> Result<(), Error> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        loop {
            if self.admin.cluster().await.is_ok_and(|view| view.is_whole()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotWhole);
            }
            sleep(PAUSE * 2).await;
        }
    }
}

/// Causes a fault, or makes it last longer.
async fn lease(admin: &Admin, begun: Begun, member: u64, fault: &Value) -> Result<(), ClientError> {
    let mut body = fault.clone();
    body["drill_id"] = begun.drill_id.into();
    body["index"] = begun.index.into();
    body["lasting_ms"] = (LEASE.as_millis() as u64).into();
    let call = Call::post("/api/v1/admin/faults", &body).deadline(LEASE);
    admin.call(member, call).await.map(drop)
}

async fn renew(admin: &Admin, begun: Begun, leases: &[(u64, Value)]) -> Result<(), ClientError> {
    let calls = leases.iter().map(|(member, fault)| lease(admin, begun, *member, fault));
    join_all(calls).await.into_iter().collect()
}

/// The faults that a plan needs, by member.
fn leases(plan: &Plan, options: &Options, view: &ClusterView) -> Vec<(u64, Value)> {
    let fault = match plan.method {
        Method::Silence => json!({ "fault": "silence", "clients": "refused" }),
        Method::Hang => json!({ "fault": "silence", "clients": "hang" }),
        Method::SlowDisk => {
            json!({ "fault": "slow-disk", "delay_ms": options.delay.as_millis() as u64 })
        }
        Method::Cut => return cuts(&plan.targets, options.way, view),
        Method::Kill
        | Method::KillAll
        | Method::HandOver
        | Method::RestartOneByOne
        | Method::Rehearse => return Vec::new(),
    };
    plan.targets.iter().map(|id| (*id, fault.clone())).collect()
}

/// Links between those inside and those outside are cut at the inside's end.
fn cuts(inside: &[u64], way: Way, view: &ClusterView) -> Vec<(u64, Value)> {
    let directions: &[&str] = match way {
        Way::Both => &["in", "out"],
        Way::In => &["in"],
        Way::Out => &["out"],
    };
    let mut cuts = Vec::new();
    for member in inside {
        let outside = view.members.iter().filter(|other| !inside.contains(&other.id));
        for other in outside {
            for direction in directions {
                let fault = json!({ "fault": "cut", "peer": other.id, "direction": direction });
                cuts.push((*member, fault));
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::super::view::MemberView;
    use super::*;

    #[test]
    fn links_to_everybody_outside_are_cut_and_none_inside() {
        let member = |id| MemberView { id, ..MemberView::default() };
        let view = ClusterView { members: (1..=5).map(member).collect(), ..ClusterView::default() };
        let found = cuts(&[2, 4], Way::Both, &view);
        assert_eq!(found.len(), 2 * 3 * 2);
        let crosses = |(member, fault): &(u64, Value)| {
            [2, 4].contains(member) && [1, 3, 5].contains(&fault["peer"].as_u64().unwrap())
        };
        assert!(found.iter().all(crosses), "{found:?}");
        let out = cuts(&[2], Way::Out, &view);
        assert_eq!(out.len(), 4);
        assert!(out.iter().all(|(_, fault)| fault["direction"] == "out"));
    }
}

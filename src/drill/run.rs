//! Conducting a drill, from the record that it begins to the record of what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::act::{Act, Hands};
use super::admin::{Admin, Begun};
use super::node::Node;
use super::phases::{ClockOffset, Story};
use super::plan::{Method, Plan};
use super::probes::{self, Aftermath, Probes};
use super::report::{self, Told};
use super::samples::{Samples, longest_gap};
use super::verdict::{Evidence, Verdict, judge};
use super::view::{Account, ClusterView};
use crate::client::{Call, ClientError};
use crate::model::{DrillKind, DrillState};

/// How long members may take to be in step after the fault.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long acknowledged work may take to be done after that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Beyond what it plans to take, a drill keeps others out for so long; for as long again for each
/// member that it restarts.
const LEASE_SPARE: Duration = Duration::from_secs(60);

/// Why a drill gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A member could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The probe node has no listener.
    #[error("the probe node cannot listen: {0}")]
    Listen(std::io::Error),
    /// Our own processes.
    #[error("{0:#}")]
    Hands(anyhow::Error),
    /// Probes failed before anything was broken.
    #[error("nothing was broken, because the probes do not work: {0}")]
    Probes(String),
    /// A member that was ended is not there again.
    #[error("{0} did not come back")]
    NotBack(String),
    /// The members are not in step.
    #[error("not all members came in step again")]
    NotWhole,
}

/// What happened when, since the first probe.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) fault: Duration,
    pub(super) healed: Duration,
    /// None when not all members were in step in time.
    pub(super) whole: Option<Duration>,
    pub(super) end: Duration,
    /// What was found not to be in force when it was to be healed.
    pub(super) slipped: Option<String>,
    pub(super) interrupted: bool,
    pub(super) rehearsals: Vec<Value>,
}

struct Drill<'a> {
    options: &'a Options,
    plan: &'a Plan,
    admin: &'a Admin,
    begun: Begun,
    start: Instant,
    samples: Arc<Mutex<Samples>>,
    stop: CancellationToken,
    tell: &'a (dyn Fn(&str) + Sync),
}

/// Conducts the drill that was planned; gives its report, which the cluster has stored, and how it
/// ended. `stop` ends it early; it heals then, too.
///
/// # Errors
/// [`Error`] when it could not be carried through. Everything is healed then as well.
pub async fn conduct(
    options: &Options,
    plan: &Plan,
    admin: &Admin,
    view: &ClusterView,
    hands: Option<Box<dyn Hands>>,
    stop: CancellationToken,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Value, DrillState), Error> {
    let restarted = match plan.method {
        Method::RestartOneByOne | Method::KillAll => plan.targets.len(),
        Method::Kill
        | Method::Silence
        | Method::HandOver
        | Method::Hang
        | Method::Cut
        | Method::SlowDisk
        | Method::Rehearse => 0,
    };
    let spare = LEASE_SPARE * u32::try_from(1 + restarted).unwrap_or(u32::MAX);
    let lease = options.before + options.hold + options.after + spare;
    let begun = admin.begin(plan, &options.started_by, lease).await?;
    tell(&format!("drill {}: {} of {}", begun.drill_id, plan.kind.as_str(), plan.target));
    let mut act = Act::new(admin.clone(), begun, view.clone(), hands);
    let drill = Drill {
        options,
        plan,
        admin,
        begun,
        start: Instant::now(),
        samples: Arc::default(),
        stop,
        tell,
    };
    let result = drill.run(&mut act).await;
    // Whatever happened: nothing stays broken.
    let result = act.heal().await.and(result);
    let (report, verdict) = match result {
        Ok(done) => done,
        Err(error) => {
            let state = match &error {
                Error::NotBack(_) | Error::NotWhole => DrillState::Failed,
                Error::Client(_) | Error::Listen(_) | Error::Hands(_) | Error::Probes(_) => {
                    DrillState::Aborted
                }
            };
            let summary: String = error.to_string().chars().take(200).collect();
            if let Err(more) = admin.end(begun.drill_id, state, &summary, &Value::Null).await {
                tell(&format!("the cluster did not take the end of the drill: {more}"));
            }
            return Err(error);
        }
    };
    let summary = report::summary(&report, &verdict);
    if let Err(error) = admin.end(begun.drill_id, verdict.state, &summary, &report).await {
        tell(&format!("the cluster did not take the report: {error}"));
    }
    Ok((report, verdict.state))
}

impl Drill<'_> {
    /// The name of the probe node, which is what its tasks need.
    fn capability(&self) -> String {
        format!("drill-{}-{}", self.begun.drill_id, self.begun.index)
    }

    async fn run(&self, act: &mut Act) -> Result<(Value, Verdict), Error> {
        let capability = self.capability();
        let node = match &self.options.node {
            None => None,
            Some(place) => {
                let (client, samples) = (self.admin.all().clone(), Arc::clone(&self.samples));
                Some(Node::start(place, &capability, client, samples, self.start).await?)
            }
        };
        let (rate, samples) = (self.options.rate, Arc::clone(&self.samples));
        let drill_id = self.begun.drill_id;
        let probes = Probes::start(self.admin, drill_id, &capability, rate, self.start, samples)?;
        let went = self.course(act, node.is_some()).await;
        if went.is_err() {
            // What hangs for the fault must not keep the probes.
            act.heal().await?;
        }
        probes.stop().await;
        let aftermath = self.aftermath(&probes, node.is_some()).await;
        if let Some(node) = &node {
            node.leave().await?;
        }
        let (course, aftermath) = (went?, aftermath?);
        self.conclude(&course, &aftermath).await
    }

    /// Before, the fault, after.
    async fn course(&self, act: &mut Act, dispatches: bool) -> Result<Course, Error> {
        let Options { before, hold, after, .. } = *self.options;
        let mut course = Course { interrupted: self.pause(before).await, ..Course::default() };
        if !course.interrupted {
            self.check_probes(dispatches)?;
        }
        (course.fault, course.healed) = (self.start.elapsed(), self.start.elapsed());
        if !course.interrupted {
            (self.tell)(&self.plan.steps[1]);
            act.cause(self.plan, self.options).await?;
            course.rehearsals = self.rehearse().await;
            if !self.ends_by_itself() {
                course.interrupted = self.pause(hold).await;
            }
            course.slipped = act.heal().await?;
            course.healed = self.start.elapsed();
            (self.tell)(&format!(
                "over after {:.1} s",
                (course.healed - course.fault).as_secs_f64()
            ));
        }
        course.whole = self.until_whole().await;
        if !course.interrupted {
            course.interrupted = self.pause(after).await;
        }
        course.end = self.start.elapsed();
        Ok(course)
    }

    /// Nothing has to be healed, so nothing is waited for.
    fn ends_by_itself(&self) -> bool {
        match self.plan.method {
            Method::RestartOneByOne | Method::KillAll | Method::Rehearse | Method::HandOver => true,
            Method::Kill | Method::Silence | Method::Hang | Method::Cut | Method::SlowDisk => false,
        }
    }

    /// True when the drill is to end.
    async fn pause(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = sleep(duration) => false,
        }
    }

    /// Nothing is broken unless everything that will be measured can be seen.
    fn check_probes(&self, dispatches: bool) -> Result<(), Error> {
        let samples = self.samples.lock();
        let fail = |text: String| Err(Error::Probes(text));
        if samples.acknowledged().next().is_none() {
            return fail("no write was acknowledged".to_owned());
        }
        for id in self.admin.ids() {
            let answered = samples.good_reads().any(|read| read.member == id);
            if !answered && !self.options.degraded {
                return fail(format!("member {id} answered no read"));
            }
        }
        if dispatches && samples.arrivals.is_empty() {
            let text = "no dispatch reached the probe node: say where the leader reaches it \
                        (--listen, --advertise), or do without (--no-dispatch)";
            return fail(text.to_owned());
        }
        Ok(())
    }

    async fn rehearse(&self) -> Vec<Value> {
        if self.plan.method != Method::Rehearse {
            return Vec::new();
        }
        let body = json!({ "drill_id": self.begun.drill_id, "index": self.begun.index });
        let mut rehearsals = Vec::new();
        for id in &self.plan.targets {
            let call = Call::post("/api/v1/admin/rehearse", &body);
            let call = call.deadline(Duration::from_secs(60)).once();
            let mut told = match self.admin.call_patiently(*id, call).await {
                Ok(body) => body,
                Err(error) => json!({ "error": error.to_string() }),
            };
            told["member"] = (*id).into();
            rehearsals.push(told);
        }
        rehearsals
    }

    async fn until_whole(&self) -> Option<Duration> {
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        loop {
            if self.admin.cluster().await.is_ok_and(|view| view.is_whole()) {
                return Some(self.start.elapsed());
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn aftermath(&self, probes: &Probes, dispatches: bool) -> Result<Aftermath, Error> {
        let samples = self.samples.lock().clone();
        let acknowledged = samples.acknowledged().map(|write| write.task_id.clone()).collect();
        let patience = if dispatches { DRAIN_TIMEOUT } else { Duration::ZERO };
        let looked = probes::look_up(self.admin, probes.floor(), acknowledged, patience).await?;
        if dispatches {
            return Ok(looked);
        }
        let written = samples.writes.into_iter().map(|write| write.task_id).collect();
        probes::cancel(self.admin, written).await;
        Ok(Aftermath { undone: Vec::new(), ..looked })
    }

    async fn conclude(
        &self,
        course: &Course,
        aftermath: &Aftermath,
    ) -> Result<(Value, Verdict), Error> {
        let mut accounts: BTreeMap<u64, (Account, ClockOffset)> = BTreeMap::new();
        for id in self.admin.ids() {
            if let Ok(account) = self.admin.account_and_clock(id, self.start).await {
                accounts.insert(id, account);
            }
        }
        let now = self.admin.cluster().await?;
        let samples = self.samples.lock().clone();
        let old = (self.plan.leader, self.plan.term);
        let story = Story { accounts: &accounts, old, fault: course.fault, samples: &samples };
        let evidence = self.evidence(course, aftermath, &story, &now);
        let verdict = judge(&evidence, &self.options.limits);
        let told = Told {
            begun: self.begun,
            options: self.options,
            plan: self.plan,
            course,
            story: &story,
            evidence: &evidence,
            aftermath,
            verdict: &verdict,
        };
        Ok((report::build(&told), verdict))
    }

    fn evidence(
        &self,
        course: &Course,
        aftermath: &Aftermath,
        story: &Story<'_>,
        now: &ClusterView,
    ) -> Evidence {
        let (samples, from, to) = (story.samples, course.fault, course.end);
        let dispatch_gap = self.options.node.as_ref();
        let during = samples.acknowledged().filter(|write| write.ended >= from);
        Evidence {
            no_effect: self.no_effect(course, story),
            interrupted: course.interrupted,
            write_gap: longest_gap(samples.write_moments(), from, to),
            read_gap: longest_gap(samples.read_moments(), from, to),
            dispatch_gap: dispatch_gap.map(|_| longest_gap(samples.arrival_moments(), from, to)),
            lost: aftermath.lost.len(),
            doubled: samples.doubled().len(),
            stale: samples.stale,
            undone: aftermath.undone.len(),
            writes: during.count(),
            not_whole: course.whole.is_none(),
            differing: differing(now),
            rehearsals_failed: rehearsals_failed(&course.rehearsals),
        }
    }

    /// Why it cannot be told whether the fault took effect.
    fn no_effect(&self, course: &Course, story: &Story<'_>) -> Option<String> {
        if let Some(slipped) = &course.slipped {
            return Some(slipped.clone());
        }
        let loses_leader = match self.plan.method {
            Method::Kill | Method::Silence | Method::HandOver => true,
            Method::Hang | Method::Cut => self.plan.targets.contains(&self.plan.leader),
            Method::RestartOneByOne | Method::KillAll => true,
            Method::SlowDisk | Method::Rehearse => false,
        };
        let opened = story.reigns().iter().any(|(_, _, reign)| reign.epoch_open_ms.is_some());
        if loses_leader && !opened {
            let one_way = self.plan.kind == DrillKind::Partition && self.plan.margin.voters > 0;
            let text = if one_way && self.options.way != super::Way::Both {
                "nobody else took office, although the leader was cut off one way"
            } else {
                "nobody else took office"
            };
            return Some(text.to_owned());
        }
        None
    }
}

/// Members that have applied the same and hold something else.
fn differing(view: &ClusterView) -> bool {
    let mut digests: BTreeMap<u64, &str> = BTreeMap::new();
    view.members
        .iter()
        .filter(|member| !member.digest.is_empty())
        .any(|member| *digests.entry(member.applied).or_insert(&member.digest) != member.digest)
}

fn rehearsals_failed(rehearsals: &[Value]) -> Vec<String> {
    let failed = rehearsals.iter().filter_map(|told| {
        let member = told.get("member").and_then(Value::as_u64).unwrap_or_default();
        match (told.get("error").and_then(Value::as_str), told.get("matches")) {
            (Some(error), _) => Some(format!("member {member}: {error}")),
            (None, Some(Value::Bool(false))) => {
                Some(format!("member {member}: its backup gives another state"))
            }
            (None, _) => None,
        }
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::super::view::MemberView;
    use super::*;

    #[test]
    fn digests_are_compared_at_one_index_only() {
        let member = |applied, digest: &str| MemberView {
            applied,
            digest: digest.to_owned(),
            ..MemberView::default()
        };
        let view = |members| ClusterView { members, ..ClusterView::default() };
        assert!(!differing(&view(vec![member(5, "a"), member(5, "a"), member(6, "b")])));
        assert!(differing(&view(vec![member(5, "a"), member(6, "c"), member(5, "b")])));
        assert!(!differing(&view(vec![member(5, "a"), member(5, "")])), "it did not answer");
    }

    #[test]
    fn a_rehearsal_fails_by_an_error_or_by_another_state() {
        let told = [
            json!({ "member": 1, "matches": true }),
            json!({ "member": 2, "matches": false }),
            json!({ "member": 3, "error": "damaged" }),
            json!({ "member": 4, "matches": null }),
        ];
        let failed = rehearsals_failed(&told);
        assert_eq!(failed, ["member 2: its backup gives another state", "member 3: damaged"]);
    }
}

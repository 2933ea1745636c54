//! The dispatcher: hands placed attempts to their nodes and records what they answer.
//!
//! The state is its queue: whatever is `Assigned` has to be handed over. Events tell it what is
//! new; at the start of a reign, and after a gap in the events, it looks through the state.
//! Nothing is sent that is not committed. Towards nodes this is at-least-once: a call may be made
//! again by the next leader, under the same task and attempt, which the node can tell.
//!
//! Answers are recorded in batches: while one batch is on its way the next one collects, so that
//! there is no timer and an idle system answers at once.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::error;

use super::cancels::Cancels;
use super::duty::{DutyError, Reign};
use super::handover::{Job, agent_job, hand_over, job};
use super::ladder::{self, Climbed, Reach, Target};
use super::lanes::{Attempt, Lanes};
use super::metrics::DutyName;
use super::recording::recorded_at_once;
use super::reply::failed;
use super::seat::{Feed, Happened, Seat};
use crate::model::{NodeId, Task, TaskFailure, TaskStatus};
use crate::state::{Command, Dispatch, DispatchResult, Event, Fact, State, TaskOutcome};

/// No calls are started while so many answers wait to be recorded.
const UNRECORDED_MAX: usize = 8192;
/// Calls started in one go, which bounds the time the state is locked for.
const LAUNCH_MAX: usize = 256;

/// How long a reign's last answers may take to be recorded.
const WIND_DOWN: Duration = Duration::from_millis(250);

/// A call that is under way, by its task in the runtime.
struct Flight {
    attempt: Attempt,
    node_id: NodeId,
}

type Recording = Pin<Box<dyn Future<Output = Result<Vec<Attempt>, DutyError>> + Send>>;
/// What a cancel call learnt: whether the node understands such calls, if it answered.
type Cancelled = (NodeId, Option<bool>);

/// See the module's description.
pub(super) struct Dispatcher<S: Seat> {
    reign: Arc<Reign<S>>,
    feed: S::Feed,
    lanes: Lanes,
    calls: JoinSet<Climbed>,
    flights: HashMap<Id, Flight>,
    cancels: Cancels,
    cancel_calls: JoinSet<Cancelled>,
    answers: Vec<Dispatch>,
    recording: Option<Recording>,
}

impl<S: Seat> Dispatcher<S> {
    /// Rebuilds the queue from the state.
    #[must_use]
    pub(super) fn rebuild(reign: Arc<Reign<S>>) -> Self {
        // Events are followed from before the state is looked at, so that none falls between.
        let feed = reign.seat.events();
        let mut dispatcher = Self {
            reign,
            feed,
            lanes: Lanes::default(),
            calls: JoinSet::new(),
            flights: HashMap::new(),
            cancels: Cancels::default(),
            cancel_calls: JoinSet::new(),
            answers: Vec::new(),
            recording: None,
        };
        dispatcher.look_through();
        dispatcher.lanes.inherit();
        dispatcher
    }

    /// How many attempts are queued, under way or being recorded.
    #[must_use]
    pub(super) fn waiting(&self) -> usize {
        self.lanes.waiting()
    }

    /// Works until the reign ends. Calls under way are then dropped: the next leader makes them
    /// again.
    ///
    /// # Errors
    /// [`DutyError`] when the reign cannot go on.
    pub(super) async fn run(mut self) -> Result<(), DutyError> {
        let ended = self.reign.ended.clone();
        loop {
            let started = Instant::now();
            let launched = self.launch();
            self.record();
            self.reign.metrics.in_flight.set(self.flights.len() as u64);
            self.reign.metrics.went_round(DutyName::Dispatcher, started.elapsed());
            tokio::select! {
                biased;
                () = ended.cancelled() => return self.wind_down().await,
                recorded = recorded(&mut self.recording) => {
                    self.recording = None;
                    for attempt in recorded? {
                        self.lanes.forget(&attempt);
                    }
                }
                happened = self.feed.next() => self.follow(happened)?,
                Some(landed) = self.calls.join_next_with_id() => {
                    self.land(landed);
                    while let Some(landed) = self.calls.try_join_next_with_id() {
                        self.land(landed);
                    }
                }
                Some(Ok((node_id, understood))) = self.cancel_calls.join_next() => {
                    self.cancelled(&node_id, understood);
                }
                // There was more to launch than goes in one go.
                () = std::future::ready(()), if launched == LAUNCH_MAX => {}
            }
        }
    }

    /// What nodes answered already is recorded if that is still possible: a leader that stops in
    /// peace leaves nothing to be done twice that it knows the result of.
    async fn wind_down(mut self) -> Result<(), DutyError> {
        let all = async {
            while self.recording.is_some() || !self.answers.is_empty() {
                self.record();
                recorded(&mut self.recording).await?;
                self.recording = None;
            }
            Ok(())
        };
        // The reign is over either way; whatever is left, the next one finds in the state.
        tokio::time::timeout(WIND_DOWN, all).await.unwrap_or(Ok(()))
    }

    fn follow(&mut self, happened: Happened) -> Result<(), DutyError> {
        match happened {
            Happened::Events(events) => {
                for event in &events {
                    self.note(event);
                }
            }
            Happened::Gap => {
                self.reign.metrics.event_gaps.add(1);
                self.look_through();
            }
            Happened::Closed => return Err(DutyError::Failed("the events ended".to_owned())),
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        match &event.fact {
            Fact::TaskAssigned { task_id, node_id, attempt } => {
                self.lanes.add(task_id, *attempt, node_id);
            }
            Fact::TaskEnded { task_id, status, node_id: _, attempt, taken_from } => {
                // Whoever still works on it need not.
                let is_asked = *status == TaskStatus::Cancelled;
                self.take_away((task_id.clone(), *attempt), taken_from.as_ref(), is_asked);
            }
            Fact::TaskRetried { task_id, attempt, not_before_ms: _, taken_from }
            | Fact::TaskQueued { task_id, attempt, taken_from } => {
                self.take_away((task_id.clone(), *attempt), taken_from.as_ref(), false);
            }
            Fact::NodeRegistered { node_id, new: _ } => self.lanes.unlearn(node_id),
            Fact::NodeRemoved { node_id } => self.lanes.remove(node_id),
            Fact::EpochOpened { .. }
            | Fact::NodeStatusChanged { .. }
            | Fact::TaskSubmitted { .. }
            | Fact::TaskStarted { .. }
            | Fact::TasksRetired { .. }
            | Fact::ConfigChanged { .. }
            | Fact::MemberChanged { .. }
            | Fact::DrillBegun { .. }
            | Fact::DrillEnded { .. }
            | Fact::StepsOpened { .. }
            | Fact::PipelineChanged { .. }
            | Fact::NodeDrained { .. }
            | Fact::DeliveryQueued { .. }
            | Fact::DeliveryEnded { .. }
            | Fact::AlertChanged { .. }
            | Fact::ScalingDecided { .. }
            | Fact::Campaign(_)
            | Fact::Bot(_) => {}
        }
    }

    /// Finds everything in the state that has to be handed over. What is no longer to be handed
    /// over is found when its turn comes.
    fn look_through(&mut self) {
        let Self { reign, lanes, .. } = self;
        reign.seat.read(|view| {
            for task in view.live_tasks().filter(|task| task.status == TaskStatus::Assigned) {
                if let Some(execution) = &task.execution {
                    lanes.add(&task.task_id, execution.attempt, &execution.node_id);
                }
            }
        });
    }

    /// Starts as many calls as the bounds allow; gives how many.
    fn launch(&mut self) -> usize {
        if self.lanes.turns_len() == 0
            || self.answers.len() >= UNRECORDED_MAX
            || self.flights.len() >= self.reign.options.in_flight_max
        {
            return 0;
        }
        let Self { reign, lanes, answers, .. } = self;
        let jobs = reign.seat.read(|view| take_jobs(view, reign, lanes, answers));
        let launched = jobs.len();
        for job in jobs {
            let (attempt, node_id) = (job.attempt.clone(), job.target.node_id.clone());
            let target = job.step.is_none().then(|| job.target.clone());
            let call = self.calls.spawn(hand_over(Arc::clone(&self.reign), job));
            self.flights
                .insert(call.id(), Flight { attempt: attempt.clone(), node_id: node_id.clone() });
            self.lanes.launched(&attempt, &node_id, call);
            if let Some(target) = target {
                self.lanes.set_target(&target);
            }
        }
        self.reign.metrics.dispatched.add(launched as u64);
        launched
    }

    /// A call ended: what it says of the node, and of the attempt.
    fn land(&mut self, landed: Result<(Id, Climbed), JoinError>) {
        let (id, climbed) = match landed {
            Ok((id, climbed)) => (id, climbed),
            Err(broken) if broken.is_cancelled() => {
                if let Some(flight) = self.flights.remove(&broken.id()) {
                    self.lanes.ended(&flight.node_id);
                }
                return;
            }
            Err(broken) => {
                error!(%broken, "a dispatch panicked");
                let result = failed(TaskFailure::Retryable, "the dispatch broke".to_owned());
                (broken.id(), Climbed { result, rung: None, reach: Reach::Silent })
            }
        };
        let Some(Flight { attempt, node_id }) = self.flights.remove(&id) else { return };
        self.lanes.ended(&node_id);
        if let Some(rung) = climbed.rung {
            self.lanes.set_rung(&node_id, rung);
        }
        let fleet = &self.reign.fleet;
        match climbed.reach {
            Reach::Answered => fleet.reached(&node_id),
            Reach::Busy(wait) => fleet.hold(&node_id, wait),
            Reach::Full => fleet.full(&node_id),
            Reach::Unreachable => fleet.unreachable(&node_id),
            Reach::Silent => {}
        }
        if self.lanes.landed(&attempt) {
            let result = self.weigh(climbed.result);
            let again = self.lanes.is_inherited(&attempt);
            let (task_id, attempt) = attempt;
            self.answers.push(Dispatch { task_id, attempt, again, result });
        }
    }

    /// Counts an answer.
    fn weigh(&self, result: DispatchResult) -> DispatchResult {
        let metrics = &self.reign.metrics;
        match &result {
            DispatchResult::Acknowledged => metrics.acknowledged.add(1),
            DispatchResult::Finished(TaskOutcome::Completed { .. }) => metrics.completed.add(1),
            DispatchResult::Finished(TaskOutcome::Failed { .. }) => {
                metrics.dispatch_failures.add(1);
            }
            DispatchResult::Refused { .. } => {
                metrics.refused.add(1);
                // It is the node that is left alone for so long. The task may go elsewhere at
                // once; the scheduler passes a held node over.
                return DispatchResult::Refused { retry_after_ms: 0 };
            }
        }
        result
    }

    /// Sends what was answered on its way into the log, if nothing else is on it.
    fn record(&mut self) {
        if self.recording.is_some() || self.answers.is_empty() {
            return;
        }
        let count = self.reign.seat.read(|view| recorded_at_once(view, &self.answers));
        let rest = self.answers.split_off(count);
        let batch = std::mem::replace(&mut self.answers, rest);
        self.recording = Some(Box::pin(record_all(Arc::clone(&self.reign), batch)));
    }

    /// Breaks off the call for an attempt that is over, and tells `holder`, who may be at it.
    fn take_away(&mut self, attempt: Attempt, holder: Option<&NodeId>, is_asked: bool) {
        let told = self.lanes.withdraw(&attempt);
        if let Some(node_id) = holder.filter(|_| told) {
            self.cancel(node_id, attempt, is_asked);
        }
    }

    /// Tells a node, out of courtesy, that an attempt is not wanted any more. One that was taken out
    /// is told where it was called last; to an agent, the end of its call says as much.
    fn cancel(&mut self, node_id: &NodeId, attempt: Attempt, is_asked: bool) {
        let agent_port = self.reign.options.agent_port;
        let known = self.reign.seat.read(|view| {
            let node = view.node(node_id)?;
            Some((!node.is_agent()).then(|| Target::of(node, agent_port)))
        });
        let Some(target) = known.unwrap_or_else(|| self.lanes.target(node_id)) else { return };
        self.cancels.push(target, attempt, is_asked);
        self.send_cancels();
    }

    /// A cancel call ended.
    fn cancelled(&mut self, node_id: &NodeId, understood: Option<bool>) {
        if let Some(understood) = understood {
            self.lanes.cancelled(node_id, understood);
        }
        self.cancels.ended(node_id, understood.is_some());
        self.send_cancels();
    }

    /// Starts as many cancel calls as may be under way.
    fn send_cancels(&mut self) {
        while let Some((target, (task_id, number))) = self.cancels.next() {
            if !self.lanes.may_cancel(&target.node_id) {
                self.cancels.ended(&target.node_id, false);
                continue;
            }
            // Its program may go by the task's id alone, and would stop the next try.
            let is_back = self.reign.seat.read(|view| {
                let held = view.open_task(&task_id).and_then(|task| task.execution.as_ref());
                held.is_some_and(|at| at.attempt != number && at.node_id == target.node_id)
            });
            if is_back {
                self.cancels.ended(&target.node_id, true);
                continue;
            }
            self.reign.metrics.cancels.add(1);
            let rung = self.lanes.rung(&target.node_id);
            let caller = Arc::clone(&self.reign.caller);
            self.cancel_calls.spawn(async move {
                let call = ladder::cancel(caller.as_ref(), &target, &task_id, number, rung);
                // One that breaks must not keep its place.
                let understood = AssertUnwindSafe(call).catch_unwind().await.unwrap_or(None);
                (target.node_id, understood)
            });
        }
    }
}

/// Takes what may be started now off the lanes, node by node in turn. Attempts of nodes that are
/// to be left alone go back to the scheduler: they were never started.
fn take_jobs<S: Seat>(
    view: &State,
    reign: &Reign<S>,
    lanes: &mut Lanes,
    answers: &mut Vec<Dispatch>,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    // Each node has its turn at most once, so that nodes without room end the round.
    for _ in 0..lanes.turns_len() {
        if jobs.len() >= LAUNCH_MAX {
            break;
        }
        let Some(node_id) = lanes.next_turn() else { break };
        let held = reign.fleet.held_for(&node_id).is_some();
        let (flying, all) = lanes.flying(&node_id);
        let Some(node) = view.node(&node_id) else {
            lanes.remove(&node_id);
            continue;
        };
        if node.losing.is_some() {
            // Its attempts are about to be taken from it.
            lanes.end_turn(node_id);
            continue;
        }
        let room = (node.capacity as usize)
            .saturating_sub(flying)
            .min(reign.options.in_flight_max.saturating_sub(all + jobs.len()))
            .min(LAUNCH_MAX - jobs.len());
        let mut taken = 0;
        while held || taken < room {
            let Some(attempt) = lanes.pop(&node_id) else { break };
            let Some(task) = wanted(view, &attempt, &node_id) else {
                lanes.forget(&attempt);
                continue;
            };
            if held {
                lanes.landed(&attempt);
                let again = lanes.is_inherited(&attempt);
                let (task_id, attempt) = attempt;
                let result = DispatchResult::Refused { retry_after_ms: 0 };
                answers.push(Dispatch { task_id, attempt, again, result });
                continue;
            }
            let target = Target::of(node, reign.options.agent_port);
            // A copy, or a step of a node, works on its task's payloads.
            let owner = task.step_of.as_ref().and_then(|of| view.open_task(&of.task_id));
            let mut job = job(task, owner, attempt, target, lanes.rung(&node_id));
            job.step = agent_job(view, task, node);
            jobs.push(job);
            taken += 1;
        }
        lanes.end_turn(node_id);
    }
    jobs
}

/// The task, if this attempt of it is still to be handed to this node.
fn wanted<'a>(view: &'a State, (task_id, attempt): &Attempt, node_id: &NodeId) -> Option<&'a Task> {
    let task = view.open_task(task_id).filter(|task| task.status == TaskStatus::Assigned)?;
    let execution = task.execution.as_ref()?;
    (execution.attempt == *attempt && execution.node_id == *node_id).then_some(task)
}

/// Proposes a batch until it is certain that it is in the log. Proposing it twice is harmless:
/// an attempt that has moved on takes no second answer.
async fn record_all<S: Seat>(
    reign: Arc<Reign<S>>,
    batch: Vec<Dispatch>,
) -> Result<Vec<Attempt>, DutyError> {
    loop {
        let (epoch, dispatches) = (reign.epoch, batch.clone());
        if reign.propose(Command::RecordDispatches { epoch, dispatches }).await?.is_some() {
            return Ok(batch.into_iter().map(|row| (row.task_id, row.attempt)).collect());
        }
    }
}

/// Waits for the batch on its way, or for ever when there is none.
async fn recorded(recording: &mut Option<Recording>) -> Result<Vec<Attempt>, DutyError> {
    match recording {
        Some(recording) => recording.await,
        None => std::future::pending().await,
    }
}

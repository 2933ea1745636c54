//! The guard: reigns begin and end strictly in turn, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::leader::http::{Answer, Call, CallError, NodeCaller};
use crate::leader::metrics::DutyName;
use crate::leader::record::ReignEnd;
use crate::leader::seat::SeatError;
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{AllowedHosts, Epoch};
use crate::outward::{Mail, MailError, Sent};
use crate::state::{Command, Rejection};

struct Nobody;

impl NodeCaller for Nobody {
    fn post(&self, _call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Timeout)))
    }

    fn get(
        &self,
        _url: String,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Timeout)))
    }

    fn mail(&self, _: Mail, _: &AllowedHosts) -> BoxFuture<'static, Result<Sent, MailError>> {
        Box::pin(std::future::ready(Err(MailError::Timeout)))
    }
}

struct Run {
    solo: Arc<Solo>,
    leadership: Leadership,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run() -> Run {
    let (solo, shutdown) = (Solo::new(), CancellationToken::new());
    let leadership = Leadership::new(LeaderOptions::default(), Outward::new(Arc::new(Nobody)));
    let task = tokio::spawn({
        let (leadership, solo, shutdown) = (leadership.clone(), solo.clone(), shutdown.clone());
        async move { leadership.run(solo, shutdown).await }
    });
    Run { solo, leadership, shutdown, task }
}

impl Run {
    async fn until_serving(&self, epoch: Option<Epoch>) {
        let mut serving = self.leadership.serving();
        let wait = serving.wait_for(|now| *now == epoch);
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap();
    }

    async fn until_ended(&self, reigns: usize) {
        let ended = || {
            let reigns = self.leadership.reigns();
            reigns.iter().filter(|record| record.end.is_some()).count()
        };
        let wait = async {
            while ended() < reigns {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    }

    async fn finish(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
        assert_eq!(self.leadership.duties_running(), 0);
        assert_eq!(*self.leadership.serving().borrow(), None);
    }
}

fn epoch(term: u64) -> Option<Epoch> {
    Some(Epoch { term, member: 1 })
}

#[tokio::test(start_paused = true)]
async fn a_reign_opens_its_epoch_before_its_gate_and_leaves_nothing_behind() {
    let run = run();
    assert_eq!(run.leadership.duties_running(), 0);
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    assert_eq!(run.solo.state.read().epoch(), epoch(3).unwrap());
    assert_eq!(run.leadership.duties_running(), DutyName::ALL.len());
    run.solo.leading.send_replace(None);
    run.until_ended(1).await;
    assert_eq!(run.leadership.duties_running(), 0);
    let record = run.leadership.reigns().remove(0);
    assert_eq!(record.end, Some(ReignEnd::LeadershipLost));
    let steps = [
        record.barrier,
        record.epoch_open,
        record.gate_open,
        record.duties_started,
        record.gate_closed,
        record.duties_ended,
    ];
    let steps: Vec<Duration> = steps.into_iter().map(Option::unwrap).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    run.finish().await;
}

/// One refused batch of one duty ended the reign, and then every reign that followed.
#[tokio::test(start_paused = true)]
async fn a_refused_batch_holds_up_its_duty_alone() {
    let run = run();
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    *run.solo.refuse_next.lock() = Some(Rejection::BatchSize { len: 0, max: 1 });
    run.solo.register("n", |_| {});
    let task_id = run.solo.submit("t", |_| {});
    run.solo
        .until("it is placed after the pause", |state| {
            state.task(&task_id).is_some_and(|task| task.attempt > 0)
        })
        .await;
    assert!(run.solo.refuse_next.lock().is_none(), "a batch was refused before");
    assert_eq!(run.leadership.duties_running(), DutyName::ALL.len());
    assert_eq!((run.leadership.reigns().len(), *run.solo.hand_overs.lock()), (1, 0));
    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lost_and_won_again_unnoticed_is_a_new_reign() {
    let run = run();
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    run.solo.leading.send_replace(None);
    run.solo.leading.send_replace(Some(5));
    run.until_serving(epoch(5)).await;
    let reigns = run.leadership.reigns();
    assert_eq!(reigns.len(), 2);
    assert!(reigns[0].duties_ended.is_some(), "the first has ended before the second began");
    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_barrier_never_opens_the_gate_and_hands_over() {
    let run = run();
    *run.solo.barrier.lock() = Err(SeatError::NotStarted("no quorum".to_owned()));
    run.solo.leading.send_replace(Some(3));
    run.until_ended(1).await;
    let record = run.leadership.reigns().remove(0);
    assert!(matches!(record.end, Some(ReignEnd::NotEstablished(_))), "{record:?}");
    assert_eq!(record.gate_open, None);
    // The pause over, it tries again in the same term.
    *run.solo.barrier.lock() = Ok(());
    run.until_serving(epoch(3)).await;
    assert!(*run.solo.hand_overs.lock() >= 1);
    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn doubt_ends_a_reign_although_raft_sees_nothing() {
    let run = run();
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    *run.solo.barrier.lock() = Err(SeatError::NotStarted("no quorum".to_owned()));
    run.until_serving(None).await;
    run.until_ended(1).await;
    let end = run.leadership.reigns().remove(0).end;
    assert!(matches!(end, Some(ReignEnd::InDoubt(_))), "{end:?}");
    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_epoch_in_the_log_ends_a_reign_at_the_next_proposal() {
    let run = run();
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    run.solo.commit(Command::OpenEpoch(Epoch { term: 9, member: 2 })).unwrap();
    run.solo.register("n", |_| {});
    let task = run.solo.submit("t", |_| {});
    run.until_ended(1).await;
    assert_eq!(run.leadership.reigns()[0].end, Some(ReignEnd::LeadershipLost));
    let status = run.solo.status(&task);
    assert_eq!(status, Some(crate::model::TaskStatus::Pending), "apply refused the old epoch");
    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_member_fails_the_duty_and_the_reign() {
    let run = run();
    run.solo.leading.send_replace(Some(3));
    run.until_serving(epoch(3)).await;
    run.solo.fail_next.lock().push((SeatError::Stopped("disk".to_owned()), false));
    run.solo.register("n", |_| {});
    run.solo.submit("t", |_| {});
    run.until_ended(1).await;
    let end = run.leadership.reigns().remove(0).end;
    assert!(matches!(&end, Some(ReignEnd::DutyFailed(why)) if why.contains("disk")), "{end:?}");
    run.finish().await;
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Win,
    Lose,
    Doubt,
    Trust,
    FailDuty,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Win),
        Just(Step::Lose),
        Just(Step::Doubt),
        Just(Step::Trust),
        Just(Step::FailDuty),
        (0u64..3000).prop_map(Step::Wait),
    ]
}

/// Plays the steps and gives every state the gate was seen in.
async fn play(steps: Vec<Step>) -> Vec<Option<Epoch>> {
    let run = run();
    let mut serving = run.leadership.serving();
    let seen = tokio::spawn(async move {
        let mut seen = vec![*serving.borrow_and_update()];
        while serving.changed().await.is_ok() {
            seen.push(*serving.borrow_and_update());
        }
        seen
    });
    let mut term = 0;
    for step in steps {
        match step {
            Step::Win => {
                term += 1;
                run.solo.leading.send_replace(Some(term));
            }
            Step::Lose => drop(run.solo.leading.send_replace(None)),
            Step::Doubt => *run.solo.barrier.lock() = Err(SeatError::Unknown),
            Step::Trust => *run.solo.barrier.lock() = Ok(()),
            Step::FailDuty => {
                run.solo.fail_next.lock().push((SeatError::Stopped("x".to_owned()), false));
                let name = format!("t{}", crate::clock::random());
                run.solo.register(&name, |_| {});
                run.solo.submit(&name, |_| {});
            }
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        // The gate is open only between two complete sets of duties: while it is closed for good,
        // none runs. `serve` itself asserts that none is left when a reign begins.
        tokio::task::yield_now().await;
    }
    let leadership = run.leadership.clone();
    run.finish().await;
    let records = leadership.reigns();
    for pair in records.windows(2) {
        assert!(pair[0].end.is_some(), "one reign at a time: {pair:?}");
        assert_eq!(pair[0].gate_open.is_some(), pair[0].duties_ended.is_some(), "{pair:?}");
    }
    drop(leadership);
    seen.await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn begin_and_end_strictly_alternate(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = runtime.block_on(play(steps));
        for pair in seen.windows(2) {
            // A watch may skip a state, but it can never show two open gates of one term apart,
            // nor an older epoch after a newer one.
            if let (Some(before), Some(after)) = (pair[0], pair[1]) {
                prop_assert!(before < after, "{:?}", seen);
            }
        }
        let open: Vec<Epoch> = seen.iter().flatten().copied().collect();
        prop_assert!(open.is_sorted(), "{:?}", seen);
    }
}

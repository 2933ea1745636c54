//! Who changes settings while everything works by them, and ends logins before their time.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::state::{Command, Outcome, Rejection};

use crate::stage::{Phase, Stage};

/// What is changed, and to what. Times stay short, and nothing is given up for a smaller bound.
const VALUES: [(&str, &[&str]); 6] = [
    (
        "network.load_balance_algorithm",
        &[
            r#""round_robin""#,
            r#""weighted_round_robin""#,
            r#""least_connections""#,
            r#""resource_aware""#,
            r#""latency_optimized""#,
        ],
    ),
    (
        "agents.load_balancing",
        &[r#""least_loaded""#, r#""round_robin""#, r#""weighted""#, r#""random""#],
    ),
    ("tasks.aging_seconds", &["0", "1", "300"]),
    ("tasks.retry_delay_ms", &["50", "100", "200"]),
    ("network.node_timeout", &["2", "3"]),
    ("performance.health_checks.interval", &["0", "1"]),
];
/// What makes no sense: it is refused, and changes nothing.
const NONSENSE: [(&str, &str); 3] = [
    ("tasks.aging_seconds", "-1"),
    ("network.node_timeout", "0"),
    ("agents.load_balancing", r#""any""#),
];

pub(crate) async fn run(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(100 + clock::random() % 400)).await;
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        match stage.phase() {
            Phase::Healed => return,
            Phase::Chaos if member.member_id() != 0 && ready => act(&stage, &member).await,
            Phase::Founding | Phase::Chaos => {}
        }
    }
}

async fn act(stage: &Stage, member: &Cluster) {
    match clock::random() % 10 {
        0..6 if stage.plan.faults.keeper => set(stage, member).await,
        6 if stage.plan.faults.keeper => spoil(stage, member).await,
        _ => log_out(stage, member).await,
    }
}

async fn set(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let (path, values) = VALUES[random as usize % VALUES.len()];
    let value = values[(random >> 8) as usize % values.len()];
    if let Some(Ok(Outcome::ConfigPatched { revision })) = patch(member, path, value).await {
        stage.book().cover("settings");
        stage.invariants.set(revision, path, value);
    }
}

async fn spoil(stage: &Stage, member: &Cluster) {
    let (path, value) = NONSENSE[clock::random() as usize % NONSENSE.len()];
    match patch(member, path, value).await {
        None | Some(Err(Rejection::InvalidConfig(_))) => {}
        Some(other) => {
            let what = format!("{path} = {value} was answered with {other:?}");
            stage.book().violation("settings are kept", &what);
        }
    }
}

async fn patch(member: &Cluster, path: &str, value: &str) -> Option<Result<Outcome, Rejection>> {
    let command = Command::PatchConfig {
        path: path.to_owned(),
        value: value.to_owned(),
        expected_revision: None,
    };
    let answer = member.propose(clock::mint_request_id(), "keeper", command).await;
    answer.ok().map(|committed| committed.reply)
}

/// Ends a login; now and then one that was ended already, for shorter or longer.
async fn log_out(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let serial = stage.next_serial();
    let again = random.is_multiple_of(4);
    let session_id = format!("login{}", if again { serial % 4 } else { serial });
    let left_ms = 200 + (random >> 8) % 8000;
    // Not later than that of the entry: the state only ages.
    let aged_ms = member.view().read(|state| state.counters().aged_ms);
    stage.invariants.logs_out(&session_id);
    let command = Command::RevokeSession { session_id: session_id.clone(), left_ms };
    let answer = member.propose(clock::mint_request_id(), "user", command).await;
    match answer.map(|committed| (committed.index, committed.reply)) {
        Ok((index, Ok(Outcome::Done))) => {
            stage.book().cover("logged_out");
            stage.invariants.logged_out(index, &session_id, aged_ms + left_ms);
        }
        Ok((_, other)) => {
            let what = format!("a logout was answered with {other:?}");
            stage.book().violation("logouts are kept", &what);
        }
        Err(_) => {}
    }
}

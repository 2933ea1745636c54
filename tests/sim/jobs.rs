//! What jobs of campaigns give: a score, and what was used. Both follow from the job and its attempt, so
//! that whoever judges a run can work out what must have been settled.

use std::collections::BTreeMap;

use quorate::model::{CampaignPlan, JobTemplate, MICRO, Resource};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// The task type of candidates.
const TYPE: &str = "tune";
/// Under which name a candidate's input says what it is promised.
const PROMISED: &str = "promised";
/// Under which name it says that it uses more than that, sometimes.
const GREEDY: &str = "greedy";

/// The task of a candidate that is promised so many tokens.
pub(crate) fn template(promised: u64, greedy: bool, random: u64) -> JobTemplate {
    JobTemplate {
        task_type: TYPE.to_owned(),
        input: format!(r#"{{"{PROMISED}":{promised},"{GREEDY}":{greedy}}}"#),
        timeout_ms: 1500 + random % 2000,
        max_retries: (random >> 16) as u32 % 4,
        per_job: BTreeMap::from([(Resource::Tokens, promised * MICRO)]),
        ..JobTemplate::default()
    }
}

/// Whether its jobs use more than they are promised.
pub(crate) fn is_greedy(plan: &CampaignPlan) -> bool {
    plan.job.input.contains(&format!(r#""{GREEDY}":true"#))
}

/// Whether a task is a job whose result says something.
fn is_job(task_id: &str) -> bool {
    task_id.starts_with("job.")
}

/// Tokens that an attempt at a job uses, in whole units.
fn tokens(task_id: &str, attempt: u64, promised: u64, greedy: bool) -> u64 {
    let most = if greedy { 4 * promised } else { promised };
    draw(task_id, attempt, 1) % (most + 1)
}

fn draw(task_id: &str, attempt: u64, salt: u64) -> u64 {
    xxh3_64(format!("{task_id}@{attempt}/{salt}").as_bytes())
}

/// What a node gives for an attempt that ends well, as JSON text.
pub(crate) fn result_of(task_id: &str, attempt: u64, input: &Value) -> String {
    if !is_job(task_id) {
        return format!("\"{task_id}\"");
    }
    let promised = input[PROMISED].as_u64().unwrap_or(0);
    let tokens = tokens(task_id, attempt, promised, input[GREEDY] == true);
    let score = draw(task_id, attempt, 2) % 1000;
    format!(
        r#"{{"score":0.{score:03},"parameters":{{"x":{score}}},"usage":{{"tokens":{tokens}}}}}"#
    )
}

/// What must be settled for a job that used something: one that gave a result used what that says, any
/// other one what it was promised. In millionths.
pub(crate) fn tokens_used(
    plan: &CampaignPlan,
    task_id: &str,
    attempt: u64,
    completed: bool,
) -> u64 {
    let promised = plan.job.per_job.get(&Resource::Tokens).copied().unwrap_or(0);
    if !completed {
        return promised;
    }
    tokens(task_id, attempt, promised / MICRO, is_greedy(plan)) * MICRO
}

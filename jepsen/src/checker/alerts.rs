//! What must hold of alerts: what the cluster shows of them, what it tells of their transitions in
//! its events, and what receivers were told. Each transition of an alert is one delivery per channel,
//! numbers of deliveries grow in the order of the log, and the webhook is told the transition's own
//! number, so the two channels can be laid beside each other, and both beside the events.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::streams::{EventId, all_events, covered};
use super::{Findings, Verdict};
use crate::history::{Call, History, Kind, Op};

const NAME: &str = "alerts";
const CHANNELS: [&str; 2] = ["webhook", "slack"];

/// Status and severity.
type Place = (String, String);

/// What receivers were told: by alert, then channel, then delivery.
type Told = BTreeMap<String, BTreeMap<String, BTreeMap<u64, Post>>>;

/// A delivery as it was told first.
struct Post {
    place: Place,
    /// Only the webhook is told.
    transition: Option<u64>,
    line: u64,
}

/// All checks of alerts.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    vec![deliveries(history), transitions(history), acknowledged(history)]
}

fn place(value: &Value) -> Place {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("severity"))
}

/// What receivers were told, and how many posts that took.
fn told(history: &History, findings: &mut Findings) -> (Told, usize) {
    let (mut told, mut posts) = (Told::new(), 0);
    let mut numbers: BTreeMap<u64, String> = BTreeMap::new();
    for op in history.observed(NAME, "told") {
        posts += 1;
        let alert = op.key.clone().unwrap_or_default();
        let channel = op.value["channel"].as_str().unwrap_or_default().to_owned();
        let Some(delivery) = op.value["delivery"].as_u64() else {
            findings.add(format!("a post about {alert} has no number"), &[op.index]);
            continue;
        };
        let (place, transition) = (place(&op.value), op.value["transition"].as_u64());
        let about = format!("{alert} over the {channel}");
        let first = numbers.entry(delivery).or_insert_with(|| about.clone());
        if *first != about {
            findings.add(format!("delivery {delivery} is {first}, and {about}"), &[op.index]);
        }
        let posts = told.entry(alert).or_default().entry(channel).or_default();
        let post = posts.entry(delivery).or_insert_with(|| Post {
            place: place.clone(),
            transition,
            line: op.index,
        });
        if (&post.place, post.transition) != (&place, transition) {
            let text = format!("delivery {delivery} of {about} was told as two things");
            findings.add(text, &[post.line, op.index]);
        }
    }
    (told, posts)
}

/// The transitions of each alert, in order, as the webhook was told of them.
fn by_webhook(told: &Told) -> BTreeMap<&str, Vec<&Place>> {
    told.iter()
        .map(|(alert, channels)| {
            let posts = channels.get(CHANNELS[0]).into_iter().flat_map(BTreeMap::values);
            (alert.as_str(), posts.map(|post| &post.place).collect())
        })
        .collect()
}

/// How many transitions each alert has had, by what members show at the end.
fn totals(history: &History) -> BTreeMap<&str, u64> {
    let mut totals = BTreeMap::new();
    for op in history.observed(NAME, "final") {
        for alert in op.value.as_array().into_iter().flatten() {
            let total = totals.entry(alert["id"].as_str().unwrap_or_default()).or_insert(0);
            *total = alert["transitions"].as_u64().unwrap_or(0).max(*total);
        }
    }
    totals
}

/// Every transition was delivered to each channel, under one number.
fn deliveries(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let (told, posts) = told(history, &mut findings);
    let totals = totals(history);
    let none = BTreeMap::new();
    let mut delivered = 0;
    for (alert, total) in &totals {
        let channels = told.get(*alert);
        for channel in CHANNELS {
            let posts = channels.and_then(|channels| channels.get(channel)).unwrap_or(&none);
            delivered += posts.len();
            if posts.len() as u64 != *total {
                let text = format!("{alert} has had {total} transitions, the {channel} was told");
                findings.add(format!("{text} of {}: {:?}", posts.len(), posts.keys()), &[]);
            }
            for (wanted, (delivery, post)) in (1..).zip(posts) {
                if let Some(transition) = post.transition.filter(|number| *number != wanted) {
                    let text = format!("delivery {delivery} tells transition {transition} of");
                    findings.add(format!("{text} {alert}, due was {wanted}"), &[post.line]);
                }
            }
        }
    }
    let mut listed = false;
    for op in history.observed(NAME, "deliveries") {
        listed = true;
        missing(op, &told, &mut findings);
    }
    let transitions: u64 = totals.values().sum();
    let looked_at = format!("{transitions} transitions of {} alerts, {posts} posts", totals.len());
    Verdict::of(NAME, "every transition is told, under one number", looked_at, findings)
        .unless_too_little(transitions > 0 && listed, "nothing changed, or nothing was listed")
        .unless_too_little(posts > delivered, "no post was ever repeated")
        .figures(json!({"alerts": totals.len(), "transitions": transitions, "posts": posts}))
}

/// Everything that the cluster lists was delivered, and to whom it was.
fn missing(op: &Op, told: &Told, findings: &mut Findings) {
    let channels = told.values().flat_map(BTreeMap::values);
    let known: BTreeSet<u64> = channels.flat_map(|posts| posts.keys().copied()).collect();
    for item in op.value.as_array().into_iter().flatten() {
        let (delivery, status) = (item[0].as_u64().unwrap_or(0), &item[2]);
        if status != "delivered" {
            findings.add(format!("delivery {delivery} is {status}"), &[op.index]);
        } else if !known.contains(&delivery) {
            findings.add(format!("nobody was told delivery {delivery}"), &[op.index]);
        }
    }
}

/// Whether an alert may go from `old` to `new`.
fn is_legal(old: Option<&Place>, (status, severity): &Place) -> bool {
    let was_on = old.filter(|(status, _)| status != "resolved");
    match (was_on, status.as_str()) {
        (None, "active") => true,
        (Some((_, was)), "active") => was != severity,
        (Some((on, was)), "acknowledged") => on == "active" && was == severity,
        (Some((_, was)), "resolved") => was == severity,
        _ => false,
    }
}

/// The transitions of alerts as the events tell them, each with where it stands in the log.
fn by_events(history: &History) -> BTreeMap<&str, Vec<(EventId, Place)>> {
    let mut all: BTreeMap<&str, Vec<(EventId, Place)>> = BTreeMap::new();
    for (id, data) in all_events(history) {
        if data["type"] == "alert_changed" {
            let alert = data["alert_id"].as_str().unwrap_or_default();
            let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
            all.entry(alert).or_default().push((id, (text("state"), text("severity"))));
        }
    }
    all
}

/// Whether somebody was told everything from the beginning on.
fn is_whole(history: &History) -> bool {
    let covered = covered(history);
    covered.len() == 1 && covered[0].0.0 == 0
}

/// Transitions are legal, alike for everybody, and reads go through them in order.
fn transitions(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let (told, _) = told(history, &mut Findings::default());
    let webhook = by_webhook(&told);
    for (alert, places) in &webhook {
        let mut old = None;
        for (number, place) in places.iter().enumerate() {
            if !is_legal(old, place) {
                let text = format!("{alert} went from {old:?} to {place:?}, transition");
                findings.add(format!("{text} {}", number + 1), &[]);
            }
            old = Some(*place);
        }
    }
    let whole = is_whole(history);
    if whole {
        let events = by_events(history);
        let alerts: BTreeSet<&str> = webhook.keys().chain(events.keys()).copied().collect();
        for alert in alerts {
            let by_event = events.get(alert).into_iter().flatten().map(|(_, place)| place);
            let by_event: Vec<&Place> = by_event.collect();
            if webhook.get(alert) != Some(&by_event) {
                let text = format!("{alert}: events tell {by_event:?}, the webhook was told");
                findings.add(format!("{text} {:?}", webhook.get(alert)), &[]);
            }
        }
    }
    let reads = reads(history, &webhook, &mut findings);
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    for op in &finals {
        shown(op, &webhook, &mut findings);
        if op.value != finals[0].value {
            let text = format!("member {} shows other alerts in the end", op.node.unwrap_or(0));
            findings.add(text, &[finals[0].index, op.index]);
        }
    }
    let looked_at = format!(
        "{reads} reads, {} members in the end, events {}",
        finals.len(),
        if whole { "whole" } else { "with gaps" }
    );
    Verdict::of(NAME, "transitions are legal and seen alike", looked_at, findings)
        .unless_too_little(reads > 0 && !finals.is_empty(), "nothing was read")
}

/// What is shown of an alert is what it was after so many transitions.
fn shown(op: &Op, webhook: &BTreeMap<&str, Vec<&Place>>, findings: &mut Findings) {
    for alert in op.value.as_array().into_iter().flatten() {
        let id = alert["id"].as_str().unwrap_or_default();
        let number = alert["transitions"].as_u64().unwrap_or(0);
        let before = usize::try_from(number).unwrap_or(usize::MAX).checked_sub(1);
        let was = before.and_then(|at| webhook.get(id)?.get(at).copied());
        if was != Some(&place(alert)) {
            let text = format!("{id} is shown as {:?} after transition {number}", place(alert));
            findings.add(format!("{text}, told was {was:?}"), &[op.index]);
        }
    }
}

/// Reads that were linearizable: none goes back behind one that had ended before it began. Gives how
/// many there were.
fn reads(
    history: &History,
    webhook: &BTreeMap<&str, Vec<&Place>>,
    findings: &mut Findings,
) -> usize {
    let calls = history.calls(NAME);
    let reads = || calls.iter().filter(|call| call.invoke.f == "read" && call.is_ok());
    let numbers = |call: &Call<'_>| -> Vec<(String, u64)> {
        let alerts = call.result().as_array().into_iter().flatten();
        let number = |alert: &Value| {
            Some((alert["id"].as_str()?.to_owned(), alert["transitions"].as_u64()?))
        };
        alerts.filter_map(number).collect()
    };
    let mut ends: Vec<(u64, &Call<'_>)> = reads().map(|call| (call.end_ns(), call)).collect();
    ends.sort_by_key(|(end, _)| *end);
    let mut ended = ends.into_iter().peekable();
    let mut least: BTreeMap<String, u64> = BTreeMap::new();
    // Calls stand in the order in which they began.
    for call in reads() {
        while let Some((_, before)) = ended.next_if(|(end, _)| *end < call.invoke.time) {
            for (alert, number) in numbers(before) {
                let newest = least.entry(alert).or_default();
                *newest = number.max(*newest);
            }
        }
        let now: BTreeMap<String, u64> = numbers(call).into_iter().collect();
        for (alert, number) in &least {
            let seen = now.get(alert).copied().unwrap_or(0);
            if seen < *number {
                let text = format!("{alert} was read at transition {seen} after {number}");
                findings.add(text, &[call.invoke.index]);
            }
        }
        if let Some(end) = call.end {
            shown(end, webhook, findings);
        }
    }
    reads().count()
}

/// Whoever was told that an alert is acknowledged can rely on it, and nobody else acknowledges.
fn acknowledged(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let events = by_events(history);
    let stretches = covered(history);
    let calls = history.calls(NAME);
    let calls: Vec<&Call<'_>> =
        calls.iter().filter(|call| call.invoke.f == "acknowledge").collect();
    let (mut acked, mut looked) = (0, 0);
    let mut possible: BTreeMap<&str, usize> = BTreeMap::new();
    for call in &calls {
        let alert = call.invoke.key.as_deref().unwrap_or_default();
        *possible.entry(alert).or_default() += usize::from(call.kind() != Kind::Fail);
        let Some(index) = call.end.filter(|_| call.is_ok()).and_then(|end| end.log) else {
            continue;
        };
        acked += 1;
        // Where events are missing nothing can be said.
        if !stretches.iter().any(|(after, last)| after.0 == 0 && last.0 > index) {
            continue;
        }
        looked += 1;
        let all = events.get(alert).map(Vec::as_slice).unwrap_or_default();
        let before = all.iter().rfind(|(at, _)| at.0 < index);
        // An entry holds what many asked for, in some order.
        let mut within = before.into_iter().chain(all.iter().filter(|(at, _)| at.0 == index));
        if !within.any(|(_, (status, _))| status == "acknowledged") {
            let text = format!("{alert} was acknowledged at {index}, and is not: {before:?}");
            findings.add(text, &[call.invoke.index]);
        }
    }
    let mut transitions = 0;
    for (alert, all) in &events {
        let count = all.iter().filter(|(_, (status, _))| status == "acknowledged").count();
        let most = possible.get(alert).copied().unwrap_or(0);
        transitions += count;
        if count > most {
            let text = format!("{alert} was acknowledged {count} times, asked for {most} times");
            findings.add(text, &[]);
        }
    }
    let looked_at = format!(
        "{acked} calls acknowledged, {looked} of them looked up in the log, {transitions} transitions"
    );
    Verdict::of(NAME, "what was acknowledged stays so until it is over", looked_at, findings)
        .unless_too_little(looked > 0, "nothing was acknowledged")
        .figures(json!({"calls": acked, "looked_up": looked, "transitions": transitions}))
}

#[cfg(test)]
mod tests;

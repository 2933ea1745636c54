//! Leaders, epochs and digests, as members and their event streams tell them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::streams::all_events;
use super::{Findings, Verdict};
use crate::client::epoch;
use crate::history::{History, Op};

const OBSERVER: &str = "observe";

fn looks(history: &History) -> impl Iterator<Item = &Op> {
    history.observed(OBSERVER, "cluster")
}

/// The reigns that were opened: `(index, term, leader)` in the order of the log.
#[must_use]
pub fn opened(history: &History) -> Vec<(u64, u64, u64)> {
    let opened = |(id, data): ((u64, u64), &Value)| {
        (data["type"] == "epoch_opened").then_some(())?;
        Some((id.0, data["term"].as_u64()?, data["leader"].as_u64()?))
    };
    all_events(history).into_iter().filter_map(opened).collect()
}

/// At most one leader per term, whoever says so: what members say, and the reigns in the log.
#[must_use]
pub fn leaders(history: &History) -> Verdict {
    let mut leaders: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut findings = Findings::default();
    let mut claim = |term: u64, leader: u64, line: u64, who: &str| {
        let (first, first_line) = *leaders.entry(term).or_insert((leader, line));
        if first != leader {
            let text = format!("term {term}: {first} leads, and {leader} ({who})");
            findings.add(text, &[first_line, line]);
        }
    };
    let mut seen = 0;
    for op in looks(history) {
        let told = &op.value;
        // A member that follows may know the leader of an older term than its own, so only what a
        // member says of itself names the leader of a term.
        let leads = told["leader"].is_u64() && told["leader"] == told["id"];
        if let (true, Some(term), Some(id)) = (leads, told["term"].as_u64(), told["id"].as_u64()) {
            seen += 1;
            claim(term, id, op.index, "it says so");
        }
    }
    for (index, term, leader) in opened(history) {
        claim(term, leader, index, "its epoch was opened");
    }
    let looked_at = format!("{seen} claims, {} terms", leaders.len());
    Verdict::of(OBSERVER, "one leader per term", looked_at, findings)
        .unless_too_little(seen > 0, "no leader was seen")
        .figures(json!({"terms": leaders.len()}))
}

/// Epochs grow along the log, and every answer and every dispatch names the one that was open.
#[must_use]
pub fn epochs(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let reigns = opened(history);
    for pair in reigns.windows(2) {
        if pair[1].1 <= pair[0].1 {
            let text = format!(
                "epoch {}.{} at {} follows {}.{}",
                pair[1].1, pair[1].2, pair[1].0, pair[0].1, pair[0].2
            );
            findings.add(text, &[]);
        }
    }
    // Per member that answers: its epoch never goes back while its index does not.
    let mut last: BTreeMap<u64, ((u64, u64), u64, u64)> = BTreeMap::new();
    for op in looks(history) {
        let id = op.value["id"].as_u64().unwrap_or(0);
        let Some(now) = op.value["epoch"].as_str().and_then(epoch) else { continue };
        let applied = own_row(&op.value).map_or(0, |row| row["applied"].as_u64().unwrap_or(0));
        if let Some((before, old_applied, line)) = last.insert(id, (now, applied, op.index))
            && now < before
            && applied >= old_applied
        {
            findings.add(format!("member {id}: epoch {before:?}, then {now:?}"), &[line, op.index]);
        }
    }
    let dispatched = dispatches(history, &reigns, &mut findings);
    let looked_at =
        format!("{} epochs, {} members, {dispatched} dispatches", reigns.len(), last.len());
    Verdict::of(OBSERVER, "epochs only grow, and name their decisions", looked_at, findings)
        .unless_too_little(!last.is_empty(), "no epoch was seen")
        .figures(json!({"epochs": reigns.len(), "dispatches": dispatched}))
}

/// A dispatch names the epoch that was open where its attempt was placed in the log.
fn dispatches(history: &History, reigns: &[(u64, u64, u64)], findings: &mut Findings) -> usize {
    let mut placed: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for ((index, _), data) in all_events(history) {
        if data["type"] == "task_assigned"
            && let (Some(task), Some(attempt)) =
                (data["task_id"].as_str(), data["attempt"].as_u64())
        {
            placed.insert((task, attempt), index);
        }
    }
    let mut judged = 0;
    for op in history.observed("attempts", "dispatch") {
        let (task, attempt) = (op.value["task"].as_str(), op.value["attempt"].as_u64());
        let (Some(task), Some(attempt)) = (task, attempt) else { continue };
        let Some(index) = placed.get(&(task, attempt)) else { continue };
        let before = reigns.partition_point(|reign| reign.0 <= *index);
        let Some((_, term, leader)) = before.checked_sub(1).map(|place| reigns[place]) else {
            continue;
        };
        judged += 1;
        if op.value["epoch"].as_str().and_then(epoch) != Some((term, leader)) {
            let named = &op.value["epoch"];
            let text = format!(
                "{task} attempt {attempt} was placed in {term}.{leader}, its dispatch says {named}"
            );
            findings.add(text, &[op.index]);
        }
    }
    judged
}

fn own_row(told: &Value) -> Option<&Value> {
    told["members"].as_array()?.iter().find(|row| row["id"] == told["id"])
}

/// Members that have applied the same have the same digest, and none calls another diverged.
#[must_use]
pub fn digests(history: &History) -> Verdict {
    let mut at: BTreeMap<u64, BTreeMap<u64, (String, u64)>> = BTreeMap::new();
    let mut findings = Findings::default();
    for op in looks(history) {
        let rows = op.value["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        for row in rows {
            if row["state"] == "diverged" {
                findings.add(format!("member {} is said to have diverged", row["id"]), &[op.index]);
            }
            let (Some(id), Some(applied)) = (row["id"].as_u64(), row["applied"].as_u64()) else {
                continue;
            };
            let digest = row["digest"].as_str().unwrap_or_default();
            if digest.is_empty() {
                continue;
            }
            let others = at.entry(applied).or_default();
            for (other, (known, line)) in others.iter() {
                if known != digest {
                    let text = format!("at {applied}: {other} has {known}, {id} has {digest}");
                    findings.add(text, &[*line, op.index]);
                }
            }
            others.entry(id).or_insert_with(|| (digest.to_owned(), op.index));
        }
    }
    let compared = at.values().filter(|members| members.len() > 1).count();
    let looked_at = format!("{} indexes, {compared} with two members or more", at.len());
    Verdict::of(OBSERVER, "equal state at equal index", looked_at, findings)
        .unless_too_little(compared > 0, "no two members were seen at one index")
        .figures(json!({"indexes": at.len(), "compared": compared}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity::{self, Invalid, Unknown, Valid};
    use crate::history::{Note, Recorder};

    fn look(id: u64, leader: u64, term: u64, epoch: &str, rows: &[(u64, u64, &str)]) -> Value {
        let row = |(id, applied, digest): &(u64, u64, &str)| json!({"id": id, "applied": applied, "digest": digest, "state": "follower"});
        let rows: Vec<Value> = rows.iter().map(row).collect();
        json!({"id": id, "leader": leader, "term": term, "epoch": epoch, "members": rows})
    }

    fn verdicts(looks: &[Value], events: Value, dispatch: Option<Value>) -> [Validity; 3] {
        let recorder = Recorder::in_memory();
        for told in looks {
            recorder.observe("observer", Note::new(OBSERVER, "cluster").value(told.clone()));
        }
        recorder.observe("events-m1", Note::new("events", "events").value(events));
        if let Some(dispatch) = dispatch {
            recorder.observe("worker", Note::new("attempts", "dispatch").value(dispatch));
        }
        let history = recorder.finish().unwrap();
        [leaders(&history), epochs(&history), digests(&history)].map(|verdict| verdict.validity)
    }

    fn open(id: &str, term: u64, leader: u64) -> Value {
        json!([id, "epoch_opened", {"type": "epoch_opened", "term": term, "leader": leader}])
    }

    #[test]
    fn a_quiet_succession_is_good() {
        let looks = [
            look(1, 1, 3, "3.1", &[(1, 7, "a-1"), (2, 7, "a-1")]),
            look(2, 2, 4, "4.2", &[(2, 9, "b-1"), (1, 7, "a-1")]),
        ];
        let events = json!([open("5-0", 3, 1), open("8-0", 4, 2)]);
        assert_eq!(verdicts(&looks, events, None), [Valid; 3]);
        assert_eq!(verdicts(&[], json!([]), None), [Unknown; 3]);
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let looks = [look(1, 1, 3, "3.1", &[]), look(2, 2, 3, "3.2", &[])];
        assert_eq!(verdicts(&looks, json!([]), None)[0], Invalid);
        let looks = [look(1, 1, 3, "3.1", &[])];
        assert_eq!(verdicts(&looks, json!([open("5-0", 3, 2)]), None)[0], Invalid);
    }

    #[test]
    fn epochs_that_go_back_are_found() {
        let looks = [look(1, 1, 3, "3.1", &[(1, 7, "a")])];
        let events = json!([open("5-0", 4, 1), open("8-0", 3, 2)]);
        assert_eq!(verdicts(&looks, events, None)[1], Invalid);
        let looks = [look(2, 1, 4, "4.1", &[(2, 7, "a")]), look(2, 1, 4, "3.1", &[(2, 8, "a")])];
        assert_eq!(verdicts(&looks, json!([]), None)[1], Invalid);
    }

    #[test]
    fn a_dispatch_under_another_epoch_is_found() {
        let looks = [look(1, 1, 4, "4.1", &[(1, 7, "a")])];
        let placed = json!({"type": "task_assigned", "task_id": "t", "attempt": 1});
        let events =
            json!([open("5-0", 3, 2), ["6-0", "task_assigned", placed], open("8-0", 4, 1)]);
        let dispatch = |epoch: &str| Some(json!({"task": "t", "attempt": 1, "epoch": epoch}));
        assert_eq!(verdicts(&looks, events.clone(), dispatch("3.2"))[1], Valid);
        assert_eq!(verdicts(&looks, events, dispatch("4.1"))[1], Invalid);
    }

    #[test]
    fn states_that_differ_at_one_index_are_found() {
        let looks = [look(1, 1, 3, "3.1", &[(1, 7, "a-1"), (2, 7, "b-1")])];
        assert_eq!(verdicts(&looks, json!([]), None)[2], Invalid);
    }
}

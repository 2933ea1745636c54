//! Replay: the same log gives the same state, however it is cut, stored and reopened.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::scripts::Script;
use super::{Changes, Digest, Founding, State, invariants, row_hash};
use crate::model::Member;

/// The rows as the durable home would hold them.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
struct Home(BTreeMap<Vec<u8>, Bytes>);

impl Home {
    fn write(&mut self, changes: Changes) {
        for (key, value) in changes.rows {
            match value {
                Some(value) => drop(self.0.insert(key, value)),
                // A row that came and went within one batch was never here.
                None => drop(self.0.remove(&key)),
            }
        }
    }

    fn open(&self) -> State {
        let mut state = State::default();
        for (key, value) in &self.0 {
            state.load_row(key, value).unwrap();
        }
        state
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for (key, value) in &self.0 {
            digest.add(row_hash(key, value));
        }
        digest
    }
}

/// One line of a script over a few tasks, nodes and reigns, so that they meet often.
fn line() -> impl Strategy<Value = String> {
    let task = (0..5u8).prop_map(|number| format!("t{number}"));
    let node = (0..3u8).prop_map(|number| format!("n{number}"));
    let epoch = (1..4u8).prop_map(|term| format!("{term}.1"));
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let status = || word(&["active", "degraded", "maintenance", "offline"]);
    let end = word(&["done=1", "done=LONG", "fail=network", "fail=permanent", "fail=retryable"]);
    prop_oneof![
        1 => epoch.clone().prop_map(|epoch| format!("epoch {epoch}")),
        2 => (node.clone(), 0..4u8, word(&["", "instance=a", "instance=b"])).prop_map(
            |(node, capacity, run)| format!("register {node} capacity={capacity} {run}")
        ),
        1 => (node.clone(), status()).prop_map(|(node, status)| format!("status {node} {status}")),
        1 => node.clone().prop_map(|node| format!("remove {node}")),
        2 => (epoch.clone(), node.clone(), status(), status()).prop_map(
            |(epoch, node, seen, now)| format!("observe {epoch} {node} {seen} {now} cpu=7")
        ),
        4 => (task.clone(), 0..3u8, word(&["", "input=LONG", "deadline=9000"])).prop_map(
            |(task, retries, more)| format!("submit {task} timeout=2000 retries={retries} {more}")
        ),
        1 => (0..4u8).prop_map(|key| format!("submit request=key-{key} _ _")),
        8 => (epoch.clone(), task.clone(), node).prop_map(
            |(epoch, task, node)| format!("assign {epoch} {task} {node}")
        ),
        4 => (epoch.clone(), task.clone(), 1..4u8, word(&["ack", "refused after=10", "end fail=network"]))
            .prop_map(|(epoch, task, attempt, what)| {
                format!("dispatch {epoch} {task} {attempt} {what}")
            }),
        4 => (task.clone(), 1..4u8, end).prop_map(
            |(task, attempt, end)| format!("report {task} attempt={attempt} {end}")
        ),
        1 => task.clone().prop_map(|task| format!("cancel {task}")),
        20 => flow_line(),
        20 => campaign_line(),
        25 => bot_line(),
        3 => (epoch.clone(), task.clone(), word(&["attempt", "deadline", "backoff"])).prop_map(
            |(epoch, task, kind)| format!("expire {epoch} {task} {kind}")
        ),
        1 => (epoch, task).prop_map(|(epoch, task)| format!("retire {epoch} {task}")),
        1 => (1..9u8).prop_map(|max| format!("config tasks.max_pending_tasks {max}")),
        1 => (1..5u8, 1..9u8).prop_map(|(name, inc)| format!("allocate m{name} inc={inc}")),
        1 => (word(&["failover", "chaos"]), 1..9000u32)
            .prop_map(|(kind, lease)| format!("drill begin {kind} {lease}")),
        1 => (1..4u8, word(&["passed", "running"]), word(&["", "report=LONG"]))
            .prop_map(|(id, state, report)| format!("drill end {id} {state} {report}")),
        1 => (1..5u8, word(&["wanted", "unwanted"])).prop_map(|(id, vote)| {
            format!("vote {id} {vote}")
        }),
        1 => (0..4u8, 0..20_000u32).prop_map(|(id, until)| format!("revoke s{id} {until}")),
        1 => (0..3u8, 0..3u8, word(&["", "role=client"])).prop_map(|(name, mail, role)| {
            format!("account register U{name} u{mail}@x request=account-{name} {role}")
        }),
        1 => (0..3u8, word(&["login", "change role=node", "change active=false", "remove"]))
            .prop_map(|(name, what)| {
                let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
                format!("account {verb} account-{name} {rest}")
            }),
        1 => (0..20_000u32).prop_map(|at| format!("at {at}")),
    ]
}

/// As [`line`], about tasks in steps, their agents, and what the leader tells others.
fn flow_line() -> impl Strategy<Value = String> {
    let task = (0..5u8).prop_map(|number| format!("t{number}"));
    let epoch = (1..4u8).prop_map(|term| format!("{term}.1"));
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let step = (0..5u8, 0..3u8).prop_map(|(task, step)| format!("t{task}#{step}"));
    let holder = word(&["n0", "n1", "n2", "agent:0", "agent:1", "agent:2"]);
    let flow = word(&[
        "steps=a,b",
        "mode=parallel steps=a,b",
        "mode=hybrid steps=a,b,c",
        "mode=graph steps=a:1,b:1,c<0+1",
        "copies=2",
    ]);
    prop_oneof![
        2 => (task.clone(), flow, word(&["", "key=k", "key=k max=2", "callback=http://c"]))
            .prop_map(|(task, flow, more)| format!("submit {task} timeout=2000 {flow} {more}")),
        2 => (0..3u8, word(&["a", "b"])).prop_map(|(agent, kind)| {
            format!("register agent:{agent} capacity=2 agent={kind}")
        }),
        8 => (epoch.clone(), step.clone(), holder).prop_map(
            |(epoch, step, holder)| format!("assign {epoch} {step} {holder}")
        ),
        4 => (epoch.clone(), step.clone(), 1..4u8, word(&["end done=1", "end done=LONG", "end fail=permanent", "end fail=network"]))
            .prop_map(|(epoch, step, attempt, what)| {
                format!("dispatch {epoch} {step} {attempt} {what}")
            }),
        1 => (epoch.clone(), step.clone(), word(&["attempt", "backoff"])).prop_map(
            |(epoch, step, kind)| format!("expire {epoch} {step} {kind}")
        ),
        1 => (epoch.clone(), step).prop_map(|(epoch, step)| format!("refuse {epoch} {step}")),
        1 => (task, word(&["replay", "purge"])).prop_map(|(task, what)| format!("{what} {task}")),
        1 => (0..3u8, 0..5000u16).prop_map(|(node, within)| format!("drain n{node} {within}")),
        1 => (epoch.clone(), 0..3u8).prop_map(|(epoch, node)| format!("drained {epoch} n{node}")),
        1 => (epoch.clone(), 0..3u8).prop_map(|(epoch, agent)| format!("gone {epoch} agent:{agent}")),
        1 => (epoch.clone(), 1..5u8, word(&["", "error=x"])).prop_map(|(epoch, id, error)| {
            format!("delivered {epoch} {id} {error}")
        }),
        1 => (epoch.clone(), word(&["warning active", "critical active", "warning resolved seen=1"]))
            .prop_map(|(epoch, what)| format!("alert {epoch} a {what}")),
        1 => epoch.prop_map(|epoch| format!("scale {epoch} r")),
        1 => word(&["0", "300", "9"]).prop_map(|s| format!("config tasks.aging_seconds {s}")),
        1 => word(&["true", "false"]).prop_map(|on| format!("config orchestrator.scheduling_paused {on}")),
    ]
}

/// As [`line`], about bots, swarms, their assignments and workflows.
fn bot_line() -> impl Strategy<Value = String> {
    let epoch = (1..4u8).prop_map(|term| format!("{term}.1"));
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let swarm = (1..4u8).prop_map(|number| format!("s{number}"));
    let bot = prop_oneof![
        1 => (0..3u8).prop_map(|index| format!("b{index}")),
        2 => (1..4u8, 0..6u8).prop_map(|(swarm, index)| format!("s{swarm}.{index}")),
    ];
    let any = prop_oneof![1 => swarm.clone(), 1 => bot.clone()].boxed();
    let task = (1..6u8, 0..6u8).prop_map(|(wave, index)| format!("w{wave}.{index}")).boxed();
    let tried = (task.clone(), 1..4u8).prop_map(|(task, attempt)| format!("{task}:{attempt}"));
    let tried = tried.boxed();
    let item = prop_oneof![1 => task.clone(), 2 => tried.clone()].boxed();
    let items = proptest::collection::vec(item, 1..5).prop_map(|items| items.join(" "));
    let result = word(&["", "done=1", "done=LONG"]);
    prop_oneof![
        2 => word(&["", "tier=L20"]).prop_map(|tier| format!("bots create {tier}")),
        3 => (0..9u8, word(&["", "tier=advanced"]))
            .prop_map(|(count, tier)| format!("bots swarm {count} {tier}")),
        3 => (swarm, 0..8u8).prop_map(|(swarm, count)| format!("bots scale {swarm} {count}")),
        1 => bot.prop_map(|bot| format!("bots remove {bot}")),
        1 => word(&["1", "3"]).prop_map(|swarm| format!("bots remove s{swarm}")),
        6 => (any.clone(), word(&["", "data=LONG"])).prop_map(|(any, data)| format!("bots assign {any} {data}")),
        8 => (any.clone(), 1..6u8, 1..3000u16)
            .prop_map(|(any, max, until)| format!("bots lease {any} max={max} for={until}")),
        2 => (tried.clone(), word(&["renew", "release"])).prop_map(|(tried, what)| format!("bots {what} {tried}")),
        8 => (items.clone(), result).prop_map(|(items, result)| format!("bots complete {items} {result}")),
        4 => items.prop_map(|items| format!("bots fail {items}")),
        1 => (task, any).prop_map(|(task, any)| match any.contains(['.', 'b']) {
            true => format!("bots complete {task} bot={any}"),
            false => format!("bots complete {task}"),
        }),
        3 => (epoch.clone(), tried).prop_map(|(epoch, tried)| format!("overdue {epoch} {tried}")),
        1 => word(&["", "image", "image crypto params=LONG"]).prop_map(|tasks| format!("bots workflow {tasks}")),
        3 => (epoch, 1..4u8, 0..3u8, word(&["", "done=LONG"])).prop_map(|(epoch, number, seen, done)| {
            format!("stepped {epoch} {number} {seen} {done}")
        }),
        1 => (1..4u8).prop_map(|number| format!("bots cancel f{number}")),
        2 => (1..9000u32).prop_map(|at| format!("at {at}")),
        1 => (4..14u8).prop_map(|max| format!("config bots.capacity {max}")),
        1 => (0..9u8).prop_map(|max| format!("config bots.max_retained_assignments {max}")),
        1 => (0..2u8).prop_map(|max| format!("config orchestrator.max_retries {max}")),
    ]
}

/// As [`line`], about orchestrators, campaigns, their jobs and the ledger.
fn campaign_line() -> impl Strategy<Value = String> {
    let epoch = (1..4u8).prop_map(|term| format!("{term}.1"));
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let name = word(&["c1", "c2", "c3"]);
    let candidate = (word(&["@", "@", "@", "!"]), name.clone(), 0..3u8, 0..3u8)
        .prop_map(|(kind, name, index, place)| format!("{kind}{name}.{index}.{place}"));
    let job = prop_oneof![3 => candidate, 1 => word(&["%r1.0", "%r1.1", "%r2.0"]).prop_map(str::to_owned)].boxed();
    let limits = word(&[
        "",
        "simulations=5",
        "tokens=9 each_tokens=2 soft=5",
        "experiments=1",
        "patience=1 target=900000000",
    ]);
    let result = word(&[
        "done={\"score\":0.5}",
        "done={\"score\":0.95,\"parameters\":{\"x\":1},\"usage\":{\"tokens\":3}}",
        "done=7",
        "fail=permanent",
        "fail=network",
    ]);
    let how = word(&["start", "start", "pause", "resume", "cancel", "trip"]);
    let choice = word(&["run", "catchup", "overlap", "inactive", "miss"]);
    let phase = word(&["retraining", "campaigns", "experiments"]);
    prop_oneof![
        2 => (name.clone(), 1..4u8, 1..4u8, limits).prop_map(|(name, candidates, iterations, limits)| {
            format!("campaign request={name} candidates={candidates} iterations={iterations} {limits}")
        }),
        3 => (name.clone(), how).prop_map(|(name, how)| format!("move {name} {how}")),
        2 => (name.clone(), 1..3u8, word(&["", "start"])).prop_map(|(name, count, start)| format!("iterate {name} {count} {start}")),
        4 => (epoch.clone(), name.clone(), 1..4u8).prop_map(|(epoch, name, count)| format!("launch {epoch} {name}:{count}")),
        6 => (epoch.clone(), job.clone(), 0..3u8).prop_map(|(epoch, job, node)| format!("assign {epoch} {job} n{node}")),
        6 => (job.clone(), 1..3u8, result).prop_map(|(job, attempt, result)| format!("report {job} attempt={attempt} {result}")),
        1 => (job.clone(), word(&["cancel", "replay", "purge"])).prop_map(|(job, what)| format!("{what} {job}")),
        1 => (epoch.clone(), job.clone()).prop_map(|(epoch, job)| format!("retire {epoch} {job}")),
        2 => word(&["mode=SCHEDULED every=1000", "mode=PAUSED", "mode=MANUAL", "mode=CONTINUOUS pause=10", "sims=2", "sims=100", "tokens=20 soft=4", "budget=3"])
            .prop_map(|what| format!("set default {what}")),
        1 => word(&["activate", "deactivate"]).prop_map(|what| format!("{what} default")),
        3 => Just("run default".to_owned()),
        3 => (epoch.clone(), 1..20u64, choice).prop_map(|(epoch, at, choice)| format!("slots {epoch} default {}:{choice}", at * 1000)),
        6 => (epoch.clone(), 1..4u8, phase, name.clone(), 1..4u8).prop_map(|(epoch, run, phase, name, count)| {
            let action = match phase {
                "campaigns" => format!("iterate:{name}:{count}"),
                "experiments" => format!("measure:{name}:0.{}", count - 1),
                _ => "train:m".to_owned(),
            };
            format!("advance {epoch} {run} {phase} {action} note")
        }),
        1 => (epoch.clone(), 1..4u8).prop_map(|(epoch, run)| format!("failrun {epoch} {run}")),
        1 => word(&["model m on=0", "unmodel m", "structure s1", "unstructure s1", "instrument x", "uninstrument x", "config compat.strict_structures true", "config compat.strict_structures false"]).prop_map(str::to_owned),
        2 => word(&["jobs s1 s2 request=r2", "jobs s1 experiments=1 instrument=x", "agent jobs s1 s2 request=r1 tokens=5 each_tokens=2 soft=3", "agent jobs s1 request=r2 experiments=1", "agent create request=c1 iterations=2 simulations=3", "agent stop c1", "drain n0 0", "status n0 active"]).prop_map(str::to_owned),
        2 => (name.clone(), word(&["tokens=3 each_tokens=2", "tokens=30 each_tokens=2", "tokens=0", "simulations=2", "each_tokens=1", "seen=1"]))
            .prop_map(|(name, limits)| format!("patch {name} whole iterations=3 {limits}")),
        1 => name.clone().prop_map(|name| format!("discard {name}")),
        2 => (epoch.clone(), 0..20u64, 0..20u64, word(&["", "done"])).prop_map(|(epoch, at, until, done)| {
            format!("close {epoch} default {} until={} {done}", at * 1000, until * 1000)
        }),
        1 => (epoch.clone(), 0..3u8).prop_map(|(epoch, node)| format!("drained {epoch} n{node}")),
        2 => (epoch, job, 1..3u8).prop_map(|(epoch, job, attempt)| format!("dispatch {epoch} {job} {attempt} ack")),
        1 => (name, 1..4u8, word(&["agent advance", "iterate"])).prop_map(|(name, count, verb)| format!("{verb} {name} {count} with={count}")),
    ]
}

/// Applies a history three ways: at once, in batches, and reopened after every entry.
fn replay(first: &str, lines: &[String], cut: usize) -> Result<(), TestCaseError> {
    // The script checks the invariants after every entry.
    let mut script = Script::default();
    script.run("at 1", &mut String::new());
    script.run(first, &mut String::new());
    for line in lines {
        script.run(line, &mut String::new());
    }
    let mut batched = (State::default(), Home::default());
    let mut reopened = (State::default(), Home::default());
    for (index, entry) in (1u64..).zip(&script.log) {
        let one = batched.0.apply(index, entry).unwrap();
        let other = reopened.0.apply(index, entry).unwrap();
        prop_assert_eq!(one.replies, other.replies);
        prop_assert_eq!(one.events, other.events);
        prop_assert_eq!(batched.0.digest(), reopened.0.digest());
        if (index as usize).is_multiple_of(cut) {
            batched.1.write(batched.0.take_changes());
        }
        reopened.1.write(reopened.0.take_changes());
        prop_assert_eq!(reopened.1.digest(), reopened.0.digest());
        reopened.0 = reopened.1.open();
    }
    batched.1.write(batched.0.take_changes());
    prop_assert_eq!(batched.1, reopened.1);
    prop_assert_eq!(script.state.digest(), reopened.0.digest());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_same_log_gives_the_same_state(
        lines in proptest::collection::vec(line(), 1..80),
        cut in 1..20usize,
    ) {
        replay("at 1", &lines, cut)?;
    }

    /// A new cluster founded on any state is sound, and reads back as the same state.
    #[test]
    fn any_state_can_be_founded_on(lines in proptest::collection::vec(line(), 1..80)) {
        let mut script = Script::default();
        script.run("at 1", &mut String::new());
        let mut home = Home::default();
        for line in &lines {
            script.run(line, &mut String::new());
        }
        let mut state = State::default();
        for (index, entry) in (1u64..).zip(&script.log) {
            state.apply(index, entry).unwrap();
        }
        let (member_id, member) = (state.next_founder(), Member::default());
        let founding = Founding { cluster_id: 9, member_id, member, term: 1000, index: 100_000 };
        state.refound(founding);
        invariants::check(&state);
        prop_assert_eq!(state.live_tasks().count(), 0);
        home.write(state.take_changes());
        prop_assert_eq!(home.digest(), state.digest());
        let reopened = home.open();
        invariants::check(&reopened);
        prop_assert_eq!(reopened.digest(), state.digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// The same of histories that are about bots alone, so that more meets.
    #[test]
    fn the_same_log_gives_the_same_bots(
        lines in proptest::collection::vec(bot_line(), 1..120),
        cut in 1..20usize,
    ) {
        replay("epoch 1.1", &lines, cut)?;
    }
}

//! The liveness watch and its brake, as tables over hand-made books.

use std::sync::Arc;
use std::time::Duration;

use crate::leader::brake::BrakeOptions;
use crate::leader::liveness::{Look, Memory, Seen, plan};
use crate::leader::seat::Sighting;
use crate::leader::solo::Solo;
use crate::model::{Epoch, FlowMode, Load, NodeId, NodeStatus, StepSpec, TaskId};
use crate::state::{Assignment, Command, FlowRequest, Outcome};

/// The default timeout of a node is 120 s.
const LONG: Duration = Duration::from_secs(1000);

fn id(name: &str) -> NodeId {
    NodeId::trusted(name)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fleet(nodes: &[(&str, NodeStatus)]) -> Arc<Solo> {
    let solo = Solo::new();
    for (name, status) in nodes {
        solo.register(name, |_| {});
        let (node_id, status) = (id(name), *status);
        solo.commit(Command::SetNodeStatus { node_id, status }).unwrap();
    }
    solo
}

fn sighting(name: &str, age: Duration, status: Option<NodeStatus>) -> Sighting {
    Sighting { node_id: id(name), age, status, load: None }
}

fn look(solo: &Solo, seen: &Seen, memory: &mut Memory) -> Look {
    plan(&solo.state.read(), seen, memory, BrakeOptions::default(), 100)
}

fn changes(look: &Look) -> Vec<(&str, NodeStatus)> {
    look.observations.iter().map(|row| (row.node_id.as_str(), row.status)).collect()
}

#[test]
fn what_a_node_is_and_says_decides_what_it_becomes() {
    use NodeStatus::{Active, Degraded, Error, Maintenance, Offline};
    let unchanged = None;
    let cases = [
        // Is, age in seconds, says, becomes.
        (Active, 30, None, unchanged),
        (Active, 30, Some(Active), unchanged),
        (Active, 119, Some(Active), unchanged),
        (Active, 120, Some(Active), Some(Offline)),
        (Active, 1, Some(Degraded), Some(Degraded)),
        (Active, 1, Some(Error), Some(Error)),
        (Active, 1, Some(Offline), Some(Offline)),
        (Active, 1, Some(Maintenance), Some(Degraded)),
        (Degraded, 1, None, unchanged),
        (Degraded, 1, Some(Active), Some(Active)),
        (Degraded, 500, None, Some(Offline)),
        (Error, 1, Some(Active), Some(Active)),
        (Error, 121, Some(Error), Some(Offline)),
        (Offline, 1, None, Some(Active)),
        (Offline, 1, Some(Active), Some(Active)),
        (Offline, 1, Some(Degraded), Some(Degraded)),
        (Offline, 1, Some(Offline), unchanged),
        (Offline, 120, Some(Active), unchanged),
        (Maintenance, 1, Some(Active), unchanged),
        (Maintenance, 500, Some(Active), unchanged),
    ];
    for (is, age, says, becomes) in cases {
        let solo = fleet(&[("n", is)]);
        let sightings = Arc::new(vec![sighting("n", secs(age), says)]);
        let seen = Seen { sightings, now: LONG, ..Seen::default() };
        let look = look(&solo, &seen, &mut Memory::default());
        let expected: Vec<_> = becomes.into_iter().map(|status| ("n", status)).collect();
        assert_eq!(changes(&look), expected, "{is:?} {age} s {says:?}");
    }
}

#[test]
fn a_new_leader_judges_by_what_it_knows_and_gives_others_a_full_timeout() {
    let solo = fleet(&[("known", NodeStatus::Active), ("unknown", NodeStatus::Active)]);
    for (now, gone) in [
        (secs(1), vec![]),
        (secs(19), vec![]),
        (secs(20), vec![("known", NodeStatus::Offline)]),
        (secs(119), vec![("known", NodeStatus::Offline)]),
        (secs(120), vec![("known", NodeStatus::Offline), ("unknown", NodeStatus::Offline)]),
    ] {
        // The known one was last heard of 100 s before the reign began.
        let sightings = Arc::new(vec![sighting("known", now + secs(100), None)]);
        let seen = Seen { sightings, now, blind: Some(secs(2)), ..Seen::default() };
        assert_eq!(changes(&look(&solo, &seen, &mut Memory::default())), gone, "{now:?}");
    }
}

/// Its last heartbeat was acknowledged by the leader that died, and was in no other book.
#[test]
fn a_heartbeat_that_died_with_the_leader_is_not_held_against_its_node() {
    let solo = fleet(&[("n", NodeStatus::Active)]);
    let ms = Duration::from_millis;
    for (silent_before, blind, now, evicted) in [
        // It may have beaten while this member was blind, and has not missed its next turn yet.
        (secs(62), Some(secs(2)), secs(59), 0),
        (secs(62), Some(secs(2)), ms(60_499), 0),
        (secs(62), Some(secs(2)), ms(60_500), 1),
        // It was silent for longer than two heartbeats may lie apart when this member saw all.
        (ms(62_001), Some(secs(2)), secs(59), 1),
        (secs(119), Some(secs(2)), secs(1), 1),
        (secs(119), Some(secs(59)), secs(1), 0),
        // Whoever was just started does not know since when it knows nothing.
        (secs(119), None, secs(1), 0),
        (secs(119), None, ms(60_500), 1),
    ] {
        let sightings = Arc::new(vec![sighting("n", silent_before + now, None)]);
        let seen = Seen { sightings, now, blind, ..Seen::default() };
        let look = look(&solo, &seen, &mut Memory::default());
        assert_eq!(look.evicted, evicted, "{silent_before:?} {blind:?} {now:?}");
    }
}

#[test]
fn heartbeats_from_before_a_change_say_nothing_about_it() {
    let solo = fleet(&[("n", NodeStatus::Offline)]);
    for (age, changed_ago, recovers) in
        [(10, Some(5), false), (4, Some(5), true), (10, None, true), (1001, None, false)]
    {
        let seen = Seen {
            sightings: Arc::new(vec![sighting("n", secs(age), Some(NodeStatus::Active))]),
            changed_ago: changed_ago.map(|ago| (id("n"), secs(ago))).into_iter().collect(),
            now: LONG,
            ..Seen::default()
        };
        let look = look(&solo, &seen, &mut Memory::default());
        assert_eq!(look.recovered, usize::from(recovers), "{age} {changed_ago:?}");
    }
    // A registration counts as a sign of life.
    let solo = fleet(&[("n", NodeStatus::Active)]);
    for (changed_ago, evicted) in [(119, 0), (120, 1)] {
        let changed_ago = vec![(id("n"), secs(changed_ago))];
        let seen = Seen { changed_ago, now: LONG, ..Seen::default() };
        assert_eq!(look(&solo, &seen, &mut Memory::default()).evicted, evicted);
    }
}

#[test]
fn a_leader_that_slept_itself_gives_everybody_a_full_timeout() {
    let solo = fleet(&[("n", NodeStatus::Active)]);
    for (awake_for, evicted) in [(Some(0), 0), (Some(119), 0), (Some(120), 1), (None, 1)] {
        let sightings = Arc::new(vec![sighting("n", secs(900), None)]);
        let awake_for = awake_for.map(secs);
        let seen = Seen { sightings, now: LONG, awake_for, ..Seen::default() };
        assert_eq!(look(&solo, &seen, &mut Memory::default()).evicted, evicted);
    }
}

#[test]
fn figures_are_replicated_when_they_moved_and_not_too_often() {
    let solo = fleet(&[("n", NodeStatus::Active)]);
    let mut memory = Memory::default();
    // Seconds into the reign, cpu in percent, whether it is worth a place in the log.
    for (now, cpu, sent) in [
        (100, 0, false),
        (101, 1, true),
        (102, 1, false),
        (103, 50, false),
        (107, 50, true),
        (115, 52, false),
        (136, 52, false),
        (137, 52, true),
    ] {
        let load = Load { cpu_milli: cpu * 1000, ..Load::default() };
        let sighting = Sighting { load: Some(load), ..sighting("n", secs(1), None) };
        let sightings = Arc::new(vec![sighting]);
        let seen = Seen { sightings, now: secs(now), ..Seen::default() };
        let look = look(&solo, &seen, &mut memory);
        assert_eq!(look.observations.len(), usize::from(sent), "at {now} s, {cpu} %");
        if sent {
            assert_eq!(look.observations[0].load, Some(load));
            let epoch = solo.state.read().epoch();
            let observations = look.observations;
            solo.commit(Command::ObserveNodes { epoch, observations }).unwrap();
        }
    }
}

#[test]
fn how_far_a_node_is_that_tells_nothing_is_replicated_when_it_moved() {
    let solo = fleet(&[("n", NodeStatus::Active)]);
    let mut memory = Memory::default();
    // Seconds into the reign, microseconds to the node, whether that is worth a place in the log.
    for (now, latency_us, sent) in [
        (100, 0, false),
        (101, 300, true),
        (140, 900, false),
        (141, 1300, true),
        (143, 9000, false),
        (146, 9000, true),
        (180, 10_500, false),
        (181, 11_250, true),
    ] {
        // It registered or answered a probe just now, so it is not silent.
        let changed_ago = vec![(id("n"), secs(1))];
        let latencies_us = vec![(id("n"), latency_us)];
        let seen = Seen { changed_ago, latencies_us, now: secs(now), ..Seen::default() };
        let look = look(&solo, &seen, &mut memory);
        assert_eq!(look.observations.len(), usize::from(sent), "at {now} s, {latency_us} us");
        if sent {
            let (epoch, observations) = (solo.state.read().epoch(), look.observations);
            solo.commit(Command::ObserveNodes { epoch, observations }).unwrap();
            assert_eq!(solo.state.read().node(&id("n")).unwrap().load.latency_us, latency_us);
        }
    }
}

#[test]
fn most_of_a_fleet_falling_silent_is_evicted_slowly_longest_silence_first() {
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), NodeStatus::Active)).collect();
    for (silent, expected) in [(5, 5), (6, 0), (10, 0)] {
        let solo = fleet(&all);
        let sightings = (0..10)
            .map(|n| sighting(&names[n], secs(if n < silent { 200 + n as u64 } else { 5 }), None));
        let sightings: Arc<Vec<_>> = Arc::new(sightings.collect());
        let mut memory = Memory::default();
        let seen = Seen { sightings: sightings.clone(), now: LONG, ..Seen::default() };
        let first = look(&solo, &seen, &mut memory);
        assert_eq!((first.evicted, first.held), (expected, silent - expected), "{silent} of 10");
        if expected == 0 {
            let later = Seen { sightings, now: LONG + secs(120), ..Seen::default() };
            let second = look(&solo, &later, &mut memory);
            let last = format!("n{}", silent - 1);
            assert_eq!(changes(&second), [(last.as_str(), NodeStatus::Offline)]);
            assert_eq!(second.held, silent - 1);
        }
    }
}

#[test]
fn a_look_is_bounded_and_says_when_there_is_more() {
    let names: Vec<String> = (0..30).map(|n| format!("n{n:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), NodeStatus::Active)).collect();
    let solo = fleet(&all);
    let degraded = Some(NodeStatus::Degraded);
    let sightings = names.iter().map(|name| sighting(name, secs(1), degraded));
    let sightings = Arc::new(sightings.collect());
    let seen = Seen { sightings, now: LONG, ..Seen::default() };
    let options = BrakeOptions::default();
    let look = plan(&solo.state.read(), &seen, &mut Memory::default(), options, 10);
    assert_eq!((look.observations.len(), look.more), (10, true));
    // Those that are cut off are not counted before they are taken.
    let silent = |name: &String| name.as_str() < "n15";
    let age = |name| if silent(name) { LONG } else { secs(1) };
    let sightings = names.iter().map(|name| sighting(name, age(name), None));
    let sightings = Arc::new(sightings.collect());
    let seen = Seen { sightings, now: LONG, ..Seen::default() };
    let look = plan(&solo.state.read(), &seen, &mut Memory::default(), options, 10);
    assert_eq!((look.evicted, look.observations.len(), look.more), (10, 10, true));
}

#[test]
fn figures_of_a_large_fleet_wait_longer_for_their_turn() {
    // Nodes, and seconds after which figures that moved far are replicated again.
    for (nodes, gap) in [(1, 5), (2000, 5), (4000, 10)] {
        let names: Vec<String> = (0..nodes).map(|n| format!("n{n:05}")).collect();
        let solo = Solo::new();
        let (path, value) = ("network.max_nodes".to_owned(), nodes.to_string());
        solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
        names.iter().for_each(|name| solo.register(name, |_| {}));
        let mut memory = Memory::default();
        let mut sent = Vec::new();
        for (now, cpu_milli) in [(100, 1000), (100 + gap - 1, 50_000), (100 + gap, 50_000)] {
            let load = Some(Load { cpu_milli, ..Load::default() });
            let sightings = vec![Sighting { load, ..sighting("n00000", secs(1), None) }];
            let sightings = Arc::new(sightings);
            let seen = Seen { sightings, now: secs(now), ..Seen::default() };
            sent.push(look(&solo, &seen, &mut memory).observations.len());
        }
        assert_eq!(sent, [1, 0, 1], "{nodes} nodes");
    }
}

#[test]
fn contract_4_7_an_agent_is_out_of_service_after_30_seconds_and_gone_after_60() {
    for (age, status, gone) in [
        (29, NodeStatus::Active, false),
        (30, NodeStatus::Offline, false),
        (59, NodeStatus::Offline, false),
        (60, NodeStatus::Offline, true),
    ] {
        let solo = Solo::new();
        solo.register("agent:a", |spec| spec.agent_type = Some("x".to_owned()));
        let seen = Seen {
            sightings: Arc::new(vec![sighting("agent:a", secs(age), Some(NodeStatus::Active))]),
            now: LONG,
            ..Seen::default()
        };
        let mut memory = Memory::default();
        for change in look(&solo, &seen, &mut memory).observations {
            let (epoch, observations) = (solo.state.read().epoch(), vec![change]);
            solo.commit(Command::ObserveNodes { epoch, observations }).unwrap();
        }
        assert_eq!(solo.state.read().node(&id("agent:a")).unwrap().status, status, "{age} s");
        let again = look(&solo, &seen, &mut memory);
        assert_eq!(again.gone == [id("agent:a")], gone, "{age} s");
    }
}

#[test]
fn drains_that_are_over_and_agents_long_silent_are_named() {
    let solo = Solo::new();
    for (name, drained) in [("a", Some(0)), ("b", None), ("c", Some(3_600_000))] {
        solo.register(name, |_| {});
        let task_id = solo.submit(name, |_| {});
        let seen_revision = solo.state.read().task(&task_id).unwrap().revision;
        let assignments = vec![Assignment { task_id, seen_revision, node_id: id(name) }];
        let epoch = solo.state.read().epoch();
        solo.commit(Command::AssignTasks { epoch, assignments }).unwrap();
        if let Some(within_ms) = drained {
            solo.commit(Command::DrainNode { node_id: id(name), within_ms }).unwrap();
        }
    }
    let removal = secs(solo.state.read().policy().agent_removal_ms / 1000);
    for name in ["agent:old", "agent:young", "agent:changed"] {
        solo.register(name, |spec| spec.agent_type = Some("code".to_owned()));
        let (node_id, status) = (id(name), NodeStatus::Maintenance);
        solo.commit(Command::SetNodeStatus { node_id, status }).unwrap();
    }
    let sightings = vec![
        sighting("agent:changed", removal, None),
        sighting("agent:old", removal, None),
        sighting("agent:young", removal - secs(1), None),
    ];
    let seen = Seen {
        sightings: Arc::new(sightings),
        changed_ago: vec![(id("agent:changed"), removal / 2 - secs(1))],
        now: LONG,
        state_now: crate::clock::now_ms() + 1000,
        ..Seen::default()
    };
    let look = look(&solo, &seen, &mut Memory::default());
    assert_eq!((look.drained, look.gone), (vec![id("a")], vec![id("agent:old")]));
}

#[test]
fn a_drained_agent_gives_back_what_it_has_when_its_time_is_over() {
    let solo = Solo::new();
    let epoch = Epoch { term: 1, member: 1 };
    solo.commit(Command::OpenEpoch(epoch)).unwrap();
    solo.register("agent:a", |spec| spec.agent_type = Some("alpha".to_owned()));
    let step =
        StepSpec { name: "only".to_owned(), agent_type: "alpha".to_owned(), ..StepSpec::default() };
    solo.submit("t", |spec| {
        spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Sequential, steps: vec![step] });
    });
    let task_id = TaskId::trusted("t#0");
    let seen_revision = solo.state.read().open_task(&task_id).unwrap().revision;
    let assignments = vec![Assignment { task_id, seen_revision, node_id: id("agent:a") }];
    solo.commit(Command::AssignTasks { epoch, assignments }).unwrap();
    solo.commit(Command::DrainNode { node_id: id("agent:a"), within_ms: 0 }).unwrap();
    let now = solo.state.read().counters().last_at_ms;
    let drained = |state_now| {
        let seen = Seen { now: secs(1), state_now, ..Seen::default() };
        look(&solo, &seen, &mut Memory::default()).drained
    };
    assert_eq!(drained(now - 1), []);
    let node_ids = drained(now);
    assert_eq!(node_ids, [id("agent:a")]);
    let ended = solo.commit(Command::EndDrains { epoch, node_ids });
    assert_eq!(ended, Ok(Outcome::Judged { accepted: 1, stale: 0 }));
    assert_eq!(solo.state.read().node(&id("agent:a")).unwrap().live, 0);
}

#[test]
fn what_a_node_is_losing_is_taken_from_it_before_it_is_back() {
    const HELD: usize = 2100;
    let solo = Solo::new();
    let epoch = Epoch { term: 1, member: 1 };
    solo.commit(Command::OpenEpoch(epoch)).unwrap();
    solo.register("n", |spec| spec.capacity = 5000);
    let spec = |number| crate::state::TaskSpec {
        task_id: Some(TaskId::trusted(&format!("t{number}"))),
        task_type: "test".to_owned(),
        timeout_ms: 30_000,
        max_retries: 3,
        ..crate::state::TaskSpec::default()
    };
    for numbers in [0..HELD / 2, HELD / 2..HELD] {
        solo.commit(Command::SubmitTasks(numbers.clone().map(spec).collect())).unwrap();
        let assignment = |number| {
            let task_id = TaskId::trusted(&format!("t{number}"));
            let seen_revision = solo.state.read().open_task(&task_id).unwrap().revision;
            Assignment { task_id, seen_revision, node_id: id("n") }
        };
        let assignments = numbers.map(assignment).collect();
        solo.commit(Command::AssignTasks { epoch, assignments }).unwrap();
    }
    let (node_id, status) = (id("n"), NodeStatus::Offline);
    solo.commit(Command::SetNodeStatus { node_id, status }).unwrap();
    let sightings = Arc::new(vec![sighting("n", secs(1), Some(NodeStatus::Active))]);
    let seen = Seen { sightings, now: LONG, ..Seen::default() };
    let mut memory = Memory::default();
    let first = look(&solo, &seen, &mut memory);
    assert_eq!(changes(&first), [("n", NodeStatus::Offline)]);
    assert!(first.unfinished && first.recovered == 0, "{first:?}");
    let observations = first.observations;
    solo.commit(Command::ObserveNodes { epoch, observations }).unwrap();
    assert_eq!(solo.state.read().node(&id("n")).unwrap().live, 0);
    let second = look(&solo, &seen, &mut memory);
    assert_eq!((changes(&second), second.unfinished), (vec![("n", NodeStatus::Active)], false));
}

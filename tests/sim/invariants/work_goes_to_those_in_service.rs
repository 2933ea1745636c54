//! Work is placed only on nodes and agents that are registered and in service at that index: not on
//! one that was taken out, drained, or found lost, whatever a plan made on an older view says.
//!
//! Source: contract 2.8; docs/architecture.md, placement is checked again in apply.

use std::collections::BTreeMap;

use quorate::model::{NodeId, NodeStatus};
use quorate::state::Fact;

use super::events_are_the_same::Events;

pub(super) fn check_events(events: &Events) -> Result<(), String> {
    let mut fleet: BTreeMap<&NodeId, NodeStatus> = BTreeMap::new();
    for (at, fact) in events.iter() {
        match fact {
            Fact::NodeRegistered { node_id, new } => {
                let known = fleet.insert(node_id, NodeStatus::Active);
                if known.is_some() == *new {
                    return Err(format!("at {at:?} {fact:?}, and it was {known:?}"));
                }
            }
            Fact::NodeStatusChanged { node_id, new, .. }
                if fleet.insert(node_id, *new).is_none() =>
            {
                return Err(format!("at {at:?} {fact:?}, and it is not registered"));
            }
            Fact::NodeRemoved { node_id } if fleet.remove(node_id).is_none() => {
                return Err(format!("at {at:?} {fact:?}, and it is not registered"));
            }
            Fact::TaskAssigned { node_id, .. } => {
                let status = fleet.get(node_id).copied();
                if status != Some(NodeStatus::Active) {
                    return Err(format!("at {at:?} {fact:?}, and the node is {status:?}"));
                }
            }
            _other_facts => {}
        }
    }
    Ok(())
}

#[test]
fn a_placement_on_one_that_is_not_in_service_is_found() {
    let node = || NodeId::trusted("n");
    let registered = |new| Fact::NodeRegistered { node_id: node(), new };
    let removed = || Fact::NodeRemoved { node_id: node() };
    let became = |new| {
        let old = NodeStatus::Active;
        Fact::NodeStatusChanged { node_id: node(), old, new }
    };
    let placed = || Fact::TaskAssigned {
        task_id: quorate::model::TaskId::trusted("t"),
        node_id: node(),
        attempt: 1,
    };
    let check = |facts: Vec<Fact>| check_events(&Events::made(facts)).is_ok();
    assert!(check(vec![registered(true), placed(), removed(), registered(true), placed()]));
    assert!(!check(vec![placed()]));
    assert!(!check(vec![registered(true), removed(), placed()]));
    assert!(!check(vec![registered(true), became(NodeStatus::Maintenance), placed()]));
    assert!(!check(vec![registered(true), registered(true)]), "it was known");
    assert!(!check(vec![removed()]));
}

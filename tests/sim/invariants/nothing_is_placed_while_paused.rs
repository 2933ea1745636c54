//! Once placing is paused, nothing is placed until somebody starts it again, whoever leads meanwhile and
//! whatever was planned before.
//!
//! Source: contract 2.3, "nothing is dispatched"; docs/operations.md, "over restarts and failovers".

use quorate::state::Fact;

use super::events_are_the_same::Events;
use super::settings_are_kept::Settings;

/// Gives how many reigns began while placing was paused.
pub(super) fn check_events(settings: &Settings, events: &Events) -> Result<u64, String> {
    let (mut paused, mut since, mut reigns) = (false, None, 0);
    for (at, fact) in events.iter() {
        match fact {
            // Revisions that nobody saw came and went between two looks.
            Fact::ConfigChanged { revision } => {
                paused = settings.is_paused(*revision) == Some(true);
                since = Some((*at, *revision));
            }
            Fact::EpochOpened { .. } => reigns += u64::from(paused),
            Fact::TaskAssigned { .. } if paused => {
                return Err(format!("at {at:?} {fact:?}, paused since {since:?}"));
            }
            _other_facts => {}
        }
    }
    Ok(reigns)
}

#[test]
fn a_placement_after_a_pause_is_found_whoever_leads() {
    let mut settings = Settings::default();
    for (revision, paused) in [(1, true), (2, true), (3, false)] {
        settings.saw(revision, paused);
    }
    let changed = |revision| Fact::ConfigChanged { revision };
    let placed = || Fact::TaskAssigned {
        task_id: quorate::model::TaskId::trusted("t"),
        node_id: quorate::model::NodeId::trusted("n"),
        attempt: 1,
    };
    let elected =
        || Fact::EpochOpened { epoch: quorate::model::Epoch::default(), term: 2, leader: 1 };
    let check = |facts: Vec<Fact>| check_events(&settings, &Events::made(facts));
    let kept = vec![placed(), changed(1), elected(), changed(2), elected(), changed(3), placed()];
    assert_eq!(check(kept), Ok(2));
    assert!(check(vec![changed(1), placed()]).is_err());
    assert!(check(vec![changed(1), elected(), changed(2), placed()]).is_err());
    assert!(check(vec![changed(1), changed(9), placed()]).is_ok(), "nobody saw revision 9");
}

//! Once somebody was told that the kill switch of a campaign is pulled, nothing is launched for it any
//! more, whoever leads, and what was under way has ended.
//!
//! Source: contract 3.5, `POST /agent/campaigns/{campaign_id}/stop`, "must be replicated".

use std::collections::BTreeMap;

use quorate::model::CampaignId;
use quorate::state::{CampaignFact, Fact, State, parse_candidate};

use super::events_are_the_same::Events;

/// The index at which each was pulled, at the latest.
#[derive(Default)]
pub(super) struct Switches(BTreeMap<CampaignId, u64>);

impl Switches {
    pub(super) fn tripped(&mut self, index: u64, campaign_id: &CampaignId) {
        let known = self.0.entry(campaign_id.clone()).or_insert(index);
        *known = index.min(*known);
    }

    pub(super) fn check_events(&self, events: &Events) -> Result<(), String> {
        for (at, fact) in events.iter() {
            let launched = match fact {
                Fact::Campaign(CampaignFact::IterationBegun { campaign_id, .. }) => {
                    Some(campaign_id.clone())
                }
                Fact::TaskSubmitted { task_id } | Fact::TaskAssigned { task_id, .. } => {
                    let structure = task_id.as_str().split_once('.').map(|(_, rest)| rest);
                    structure.and_then(parse_candidate).map(|(campaign_id, _, _)| campaign_id)
                }
                _other_facts => None,
            };
            let pulled = launched.and_then(|id| self.0.get(&id));
            if let Some(pulled) = pulled.filter(|pulled| at.0 > **pulled) {
                return Err(format!("at {at:?} {fact:?}, and the switch was pulled at {pulled}"));
            }
        }
        Ok(())
    }

    /// In the end: it stays pulled.
    pub(super) fn check_end(&self, state: &State) -> Result<(), String> {
        for campaign_id in self.0.keys() {
            let campaign = state.campaign(campaign_id);
            let rests = campaign.is_some_and(|campaign| campaign.tripped && !campaign.iterating);
            if !rests {
                return Err(format!("the switch was pulled, and stands otherwise: {campaign:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_launched_behind_a_kill_switch_is_found() {
    let (c, d) = (CampaignId::trusted("c"), CampaignId::trusted("d"));
    let launched =
        |name: &str| Fact::TaskSubmitted { task_id: quorate::model::TaskId::trusted(name) };
    let mut switches = Switches::default();
    switches.tripped(2, &c);
    let check = |facts: Vec<Fact>| switches.check_events(&Events::made(facts));
    let others = || vec![launched("job.c.0.0"), launched("job.d.0.0"), launched("job.d.0.1")];
    assert!(check(others()).is_ok());
    for name in ["job.c.1.0", "experiment.c.0.0"] {
        assert!(check([others(), vec![launched(name)]].concat()).is_err(), "{name}");
    }
    let iteration = CampaignFact::IterationBegun { campaign_id: c, iteration: 1, simulations: 1 };
    assert!(check([others(), vec![Fact::Campaign(iteration)]].concat()).is_err());
    assert!(switches.check_end(&State::default()).is_err(), "it is not even there");
    switches.0.clear();
    switches.tripped(9, &d);
    assert!(switches.check_events(&Events::made(others())).is_ok());
}

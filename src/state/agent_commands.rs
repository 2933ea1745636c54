//! What agents ask for, done and kept in one entry (contract 3.5).

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::{AgentAction, AgentOrder};
use super::orchestrators::{check_name, derive_uuid};
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    AgentCommand, AgentCommandKind, AgentResult, Budget, CampaignId, Discovery, RequestId, Resource,
};

/// Agent commands remembered; the oldest are forgotten first.
pub const AGENT_COMMANDS_MAX: usize = 10_000;
/// Best candidates remembered.
const DISCOVERIES_MAX: usize = 50;

/// The id of an agent command. Derived, so that a retry names the same one.
#[must_use]
pub fn agent_command_id(request_id: RequestId) -> String {
    derive_uuid(&[b"command", &request_id.0.to_be_bytes()])
}

impl State {
    /// Remembered agent commands, oldest first.
    pub fn agent_commands(&self) -> impl DoubleEndedIterator<Item = &AgentCommand> {
        self.agent_commands.iter().map(|(_, command)| command)
    }

    /// One agent command by its number.
    #[must_use]
    pub fn agent_command(&self, number: u64) -> Option<&AgentCommand> {
        self.agent_commands.get(&number)
    }

    /// The newest candidates that were better than all before them, oldest first.
    pub fn discoveries(&self) -> impl DoubleEndedIterator<Item = &Discovery> {
        self.discoveries.iter().map(|(_, discovery)| discovery)
    }
}

impl Txn<'_> {
    /// Does what an agent asks for, and notes what came of it, also when that is a refusal.
    pub(super) fn agent_command(&mut self, order: AgentOrder) -> Reply {
        let AgentOrder { agent_id, payload, action } = order;
        check_name("agent_id", &agent_id)?;
        if payload.len() > CONTEXT_MAX {
            let text = format!("the payload holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        let kind = action.kind();
        self.state.edit_campaign_totals(|totals| totals.commands += 1);
        let number = self.state.campaign_totals().commands;
        let row = AgentCommand {
            number,
            request_id: self.request_id,
            agent_id,
            kind,
            payload,
            result: AgentResult::Jobs { count: 0 },
            budgets: BTreeMap::new(),
            at_ms: self.now,
        };
        self.state.agent_commands.put(&mut self.state.rows, number, row);
        let (reply, advanced) = match action {
            AgentAction::CreateCampaign(plan) => (self.create_campaign(plan), None),
            AgentAction::AdvanceCampaign { campaign_id, count, with } => {
                (self.request_iterations(&campaign_id, count, true, with), Some(campaign_id))
            }
            AgentAction::RequestJobs(request) => (self.request_jobs(&request, number), None),
        };
        let result = result_of(&reply, advanced);
        self.state.agent_commands.edit(&mut self.state.rows, &number, |row| row.result = result);
        self.forget_old_commands();
        let (kind, success) = (kind.as_str(), reply.is_ok());
        self.tell(CampaignFact::AgentCommand { number, kind, success });
        Ok(Outcome::AgentCommand { number, reply: Box::new(reply) })
    }

    fn forget_old_commands(&mut self) {
        while self.state.agent_commands.len() > AGENT_COMMANDS_MAX {
            let oldest = self.state.agent_commands.iter().next().map(|(number, _)| *number);
            let Some(oldest) = oldest else { break };
            self.state.agent_commands.remove(&mut self.state.rows, &oldest);
        }
    }

    /// Remembers a candidate that was better than all before it.
    pub(super) fn note_discovery(&mut self, discovery: Discovery) {
        let ends = |state: &State| {
            let mut numbers = state.discoveries.iter().map(|(number, _)| *number);
            let oldest = numbers.next();
            (oldest, numbers.next_back().or(oldest))
        };
        let (oldest, newest) = ends(self.state);
        if let Some(oldest) = oldest.filter(|_| self.state.discoveries.len() >= DISCOVERIES_MAX) {
            self.state.discoveries.remove(&mut self.state.rows, &oldest);
        }
        let number = newest.map_or(1, |newest| newest + 1);
        self.state.discoveries.put(&mut self.state.rows, number, discovery);
    }

    /// Gives a command its budgets, with what was promised and spent already.
    pub(super) fn set_command_budgets(&mut self, number: u64, budgets: BTreeMap<Resource, Budget>) {
        let set = |row: &mut AgentCommand| row.budgets = budgets;
        self.state.agent_commands.edit(&mut self.state.rows, &number, set);
    }
}

impl AgentAction {
    /// What is asked for.
    #[must_use]
    pub fn kind(&self) -> AgentCommandKind {
        match self {
            Self::CreateCampaign(_) => AgentCommandKind::CreateDesignCampaign,
            Self::AdvanceCampaign { .. } => AgentCommandKind::AdvanceCampaign,
            Self::RequestJobs(request) if request.experiments => {
                AgentCommandKind::RequestExperiments
            }
            Self::RequestJobs(_) => AgentCommandKind::RequestSimulations,
        }
    }
}

fn result_of(reply: &Reply, advanced: Option<CampaignId>) -> AgentResult {
    match (reply, advanced) {
        (Err(rejection), _) => {
            AgentResult::Refused { code: rejection.code().to_owned(), text: rejection.to_string() }
        }
        (Ok(Outcome::CampaignCreated { campaign_id }), _) => {
            AgentResult::Campaign { campaign_id: campaign_id.clone() }
        }
        (Ok(Outcome::IterationsQueued { count }), Some(campaign_id)) => {
            AgentResult::Iterations { campaign_id, count: *count }
        }
        (Ok(Outcome::JobsCreated { count }), _) => AgentResult::Jobs { count: *count },
        (Ok(_), _) => AgentResult::Jobs { count: 0 },
    }
}

//! What agents ask for, done and kept in one entry (contract 3.5).

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::{AgentAction, AgentOrder, CampaignMove};
use super::orchestrators::{check_name, derive_uuid};
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    AgentCommand, AgentCommandKind, AgentResult, Budget, CampaignId, Discovery, RequestId, Resource,
};

/// Agent commands remembered; the oldest are forgotten first, but not while jobs of theirs are open.
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

    /// Puts an agent command among those without an open job, or takes it out. Derived.
    pub(super) fn note_command(&mut self, number: u64) {
        let idle = self.agent_commands.get(&number).is_some()
            && !self.indexes.open_of_commands.contains_key(&number);
        if idle {
            self.idle_commands.insert(number);
        } else {
            self.idle_commands.remove(&number);
        }
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
        let (reply, campaign) = match action {
            AgentAction::CreateCampaign(plan) => (self.create_campaign(plan), None),
            AgentAction::AdvanceCampaign { campaign_id, count, with } => {
                (self.request_iterations(&campaign_id, count, true, with), Some(campaign_id))
            }
            AgentAction::RequestJobs(request) => (self.request_jobs(&request, number), None),
            AgentAction::StopCampaign { campaign_id } => {
                (self.move_campaign(&campaign_id, CampaignMove::Trip), Some(campaign_id))
            }
        };
        let result = result_of(&reply, campaign);
        self.state.agent_commands.edit(&mut self.state.rows, &number, |row| row.result = result);
        self.state.note_command(number);
        self.forget_old_commands(number);
        let (kind, success) = (kind.as_str(), reply.is_ok());
        self.tell(CampaignFact::AgentCommand { number, kind, success });
        Ok(Outcome::AgentCommand { number, reply: Box::new(reply) })
    }

    /// Forgets the oldest commands without an open job: the budgets of one with open jobs are needed.
    /// So there are more than [`AGENT_COMMANDS_MAX`] by at most as many as there are open jobs.
    fn forget_old_commands(&mut self, newest: u64) {
        while self.state.agent_commands.len() > AGENT_COMMANDS_MAX {
            let oldest = self.state.idle_commands.first().copied();
            let Some(oldest) = oldest.filter(|oldest| *oldest != newest) else { break };
            self.state.agent_commands.remove(&mut self.state.rows, &oldest);
            self.state.note_command(oldest);
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
            Self::StopCampaign { .. } => AgentCommandKind::StopCampaign,
        }
    }
}

fn result_of(reply: &Reply, campaign: Option<CampaignId>) -> AgentResult {
    match (reply, campaign) {
        (Err(rejection), _) => {
            AgentResult::Refused { code: rejection.code().to_owned(), text: rejection.to_string() }
        }
        (Ok(Outcome::CampaignCreated { campaign_id }), _) => {
            AgentResult::Campaign { campaign_id: campaign_id.clone() }
        }
        (Ok(Outcome::IterationsQueued { count }), Some(campaign_id)) => {
            AgentResult::Iterations { campaign_id, count: *count }
        }
        (Ok(Outcome::Done), Some(campaign_id)) => AgentResult::Stopped { campaign_id },
        (Ok(Outcome::JobsCreated { count }), _) => AgentResult::Jobs { count: *count },
        (Ok(_), _) => AgentResult::Jobs { count: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, JobTemplate};
    use crate::state::{
        CampaignCommand, Command, Envelope, JobRequest, LogEntry, encode_entry, invariants,
        requested_job,
    };

    struct Log {
        state: State,
        index: u64,
        requests: u128,
    }

    impl Log {
        fn apply(&mut self, commands: Vec<Command>) {
            let envelopes = commands.into_iter().map(|command| {
                self.requests += 1;
                Envelope { request_id: RequestId(self.requests), principal: String::new(), command }
            });
            let entry = LogEntry { at_ms: 1000, envelopes: envelopes.collect() };
            self.index += 1;
            self.state.apply(self.index, &encode_entry(&entry)).unwrap();
        }
    }

    fn ask(action: AgentAction) -> Command {
        let (agent_id, payload) = ("user:a".to_owned(), "{}".to_owned());
        Command::Campaign(CampaignCommand::Agent(Box::new(AgentOrder {
            agent_id,
            payload,
            action,
        })))
    }

    /// Budgets of a command went with its row while its jobs were open.
    #[test]
    fn a_command_with_open_jobs_is_not_forgotten() {
        let mut log = Log { state: State::default(), index: 0, requests: 0 };
        log.apply(vec![Command::OpenEpoch(Epoch { term: 1, member: 1 })]);
        let request = JobRequest {
            structure_ids: vec!["s".to_owned()],
            job: JobTemplate {
                task_type: "t".to_owned(),
                per_job: BTreeMap::from([(Resource::Tokens, 1)]),
                ..JobTemplate::default()
            },
            budgets: BTreeMap::from([(Resource::Tokens, Budget::of_units(5))]),
            ..JobRequest::default()
        };
        log.apply(vec![ask(AgentAction::RequestJobs(request))]);
        let job = requested_job(RequestId(log.requests), 0);
        let nobody = || AgentAction::StopCampaign { campaign_id: CampaignId::trusted("nobody") };
        let many = |count: usize| (0..count).map(|_| ask(nobody())).collect::<Vec<_>>();
        for _ in 0..AGENT_COMMANDS_MAX / 1000 {
            log.apply(many(1000));
        }
        assert_eq!(log.state.agent_commands.len(), AGENT_COMMANDS_MAX);
        assert!(log.state.agent_command(1).is_some(), "its job is open");
        assert!(log.state.agent_command(2).is_none(), "the oldest of the others is forgotten");
        log.apply(vec![Command::CancelTask { task_id: job, reason: String::new() }]);
        log.apply(many(1));
        assert!(log.state.agent_command(1).is_none() && log.state.agent_command(3).is_some());
        assert_eq!(log.state.agent_commands.len(), AGENT_COMMANDS_MAX);
        invariants::check(&log.state);
    }
}

//! Applying one entry: the frame around the noun files.

use super::campaign_command::{CampaignCommand, JobReading, StepDuty};
use super::command::{Command, Envelope, LogEntry};
use super::founding::PAUSED_KEY;
use super::losses::LOSSES_MAX;
use super::rows::{FORMAT_BYTES, decode, encode};
use super::{Applied, CampaignFact, Event, Fact, Fatal, Outcome, Rejection, Reply, State};
use crate::canary::{self, Canary};
use crate::model::{Epoch, RequestId, TimeMs};

/// Encodes an entry for the log: a format byte, then bincode.
#[must_use]
pub fn encode_entry(entry: &LogEntry) -> bytes::Bytes {
    encode(entry)
}

/// Encodes one envelope the way it stands inside an entry. Done once, where the request came in;
/// [`join_envelopes`] makes an entry of many without encoding them again.
#[must_use]
pub fn encode_envelope(envelope: &Envelope) -> bytes::Bytes {
    encode(envelope).slice(FORMAT_BYTES..)
}

/// Whether apply here could decode these bytes, which another member encoded: what is in the log and
/// cannot be decoded ends every member that reads it.
#[must_use]
pub fn is_envelope(bytes: &[u8]) -> bool {
    let read = bincode::serde::decode_from_slice::<Envelope, _>(bytes, bincode::config::standard());
    read.is_ok_and(|(_, used)| used == bytes.len())
}

/// The same bytes as [`encode_entry`], from envelopes that are encoded already.
#[must_use]
pub fn join_envelopes(at_ms: TimeMs, envelopes: &[bytes::Bytes]) -> bytes::Bytes {
    let head = encode(&(at_ms, envelopes.len() as u64));
    let total = head.len() + envelopes.iter().map(bytes::Bytes::len).sum::<usize>();
    let mut entry = bytes::BytesMut::with_capacity(total);
    entry.extend_from_slice(&head);
    for envelope in envelopes {
        entry.extend_from_slice(envelope);
    }
    entry.freeze()
}

/// One command being applied. The noun files hang their functions on it.
///
/// A noun function checks everything first and changes the state after: once it has changed a
/// row it can no longer refuse. [`State::apply`] makes sure of it.
pub(super) struct Txn<'a> {
    pub(super) state: &'a mut State,
    /// Log index of the entry.
    pub(super) index: u64,
    /// Place of the command in its entry.
    pub(super) place: u32,
    pub(super) now: TimeMs,
    pub(super) request_id: RequestId,
    pub(super) facts: &'a mut Vec<Fact>,
    /// How many attempts this command may yet take from nodes that lose what they hold.
    pub(super) losses_left: usize,
    /// What the result of a job says, from where it is read to the end of its task.
    pub(super) reading: Option<JobReading>,
}

impl State {
    /// Applies one encoded entry at `index`.
    ///
    /// # Errors
    /// [`Fatal`] when the entry cannot be decoded or an invariant is broken; the member must stop.
    pub fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Applied, Fatal> {
        let entry: LogEntry = decode(entry, "log entry")?;
        let clock = canary::active(Canary::ApplyClock).then(canary::clock_ms);
        let at_ms = clock.unwrap_or(entry.at_ms);
        let now = self.edit_counters(|counters| counters.pass_time(at_ms));
        let aged = self.counters().aged_ms;
        let mut replies = Vec::with_capacity(entry.envelopes.len());
        let mut facts = Vec::new();
        for (place, envelope) in (0u32..).zip(entry.envelopes) {
            replies.push(self.apply_envelope(index, place, now, envelope, &mut facts)?);
        }
        self.flush_nodes();
        self.flush_counters();
        self.requests.end_entry(&mut self.rows, index, aged);
        self.tombstones.end_entry(&mut self.rows, aged);
        let stamp = |(ordinal, fact)| Event { index, ordinal, at_ms: now, fact };
        let events = (0u32..).zip(facts).map(stamp).collect();
        Ok(Applied { replies, events })
    }

    fn apply_envelope(
        &mut self,
        index: u64,
        place: u32,
        now: TimeMs,
        envelope: Envelope,
        facts: &mut Vec<Fact>,
    ) -> Result<Reply, Fatal> {
        let Envelope { request_id, principal: _, command } = envelope;
        let (print, command) = match command {
            Command::Asked { print, command } => (Some(print), *command),
            command => (None, command),
        };
        if let Some(recorded) = self.requests.get_again(request_id)
            && !canary::active(Canary::RequestsForgotten)
        {
            return Ok(recorded.answer(print));
        }
        let recorded = !is_duty(&command);
        let before = (self.rows.digest(), self.changed_nodes.len(), facts.len());
        let (losses_left, reading) = (LOSSES_MAX, None);
        let mut txn =
            Txn { state: self, index, place, now, request_id, facts, losses_left, reading };
        let reply = txn.apply(command);
        let after = (self.rows.digest(), self.changed_nodes.len(), facts.len());
        if reply.is_err() && before != after {
            return Err(Fatal::new(format!("entry {index}: a refused command changed the state")));
        }
        if recorded {
            self.requests.record(request_id, index, &reply, print);
        }
        Ok(reply)
    }
}

/// Commands of duties are fenced by their epoch and never retried blindly, so their answers need
/// no record.
fn is_duty(command: &Command) -> bool {
    match command {
        Command::OpenEpoch(_)
        | Command::ObserveNodes { .. }
        | Command::AssignTasks { .. }
        | Command::RecordDispatches { .. }
        | Command::ExpireTasks { .. }
        | Command::RetireTasks { .. }
        | Command::RefuseSteps { .. }
        | Command::EndDrains { .. }
        | Command::RetireAgents { .. }
        | Command::RecordDeliveries { .. }
        | Command::RecordAlerts { .. }
        | Command::RecordScaling { .. }
        | Command::RecordScalingOutcome { .. }
        | Command::Step { .. } => true,
        Command::RegisterNode(_)
        | Command::SetNodeStatus { .. }
        | Command::RemoveNode { .. }
        | Command::SubmitTasks(_)
        | Command::ReportTasks(_)
        | Command::CancelTask { .. }
        | Command::PatchConfig { .. }
        | Command::AllocateMember(_)
        | Command::AnnounceMember { .. }
        | Command::ForgetMember { .. }
        | Command::InitCluster { .. }
        | Command::BeginDrill { .. }
        | Command::EndDrill { .. }
        | Command::WantVote { .. }
        | Command::PutPipeline(_)
        | Command::RemovePipeline { .. }
        | Command::ReplayTasks { .. }
        | Command::PurgeTasks { .. }
        | Command::DrainNode { .. }
        | Command::AcknowledgeAlert { .. }
        | Command::SuppressAlert { .. }
        | Command::SetPaused { .. }
        | Command::RevokeSession { .. }
        | Command::Campaign(_)
        | Command::Account(_) => false,
        Command::Bot(command) => command.is_duty(),
        Command::Asked { command, .. } => is_duty(command),
    }
}

impl Txn<'_> {
    fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::OpenEpoch(epoch) => self.open_epoch(epoch),
            Command::RegisterNode(spec) => self.register_node(spec),
            Command::SetNodeStatus { node_id, status } => self.set_node_status(&node_id, status),
            Command::RemoveNode { node_id } => self.remove_node(&node_id),
            Command::ObserveNodes { epoch, observations } => {
                self.observe_nodes(epoch, observations)
            }
            Command::SubmitTasks(specs) => self.submit_tasks(specs),
            Command::AssignTasks { epoch, assignments } => self.assign_tasks(epoch, assignments),
            Command::RecordDispatches { epoch, dispatches } => {
                self.record_dispatches(epoch, dispatches)
            }
            Command::ReportTasks(reports) => self.report_tasks(reports),
            Command::CancelTask { task_id, reason } => self.cancel_task(&task_id, reason),
            Command::ExpireTasks { epoch, expiries } => self.expire_tasks(epoch, expiries),
            Command::RetireTasks { epoch, task_ids } => self.retire_tasks(epoch, task_ids),
            Command::PatchConfig { path, value, expected_revision } => {
                self.patch_config(&path, &value, expected_revision)
            }
            Command::SetPaused { paused } => self.set_paused(paused),
            Command::AllocateMember(member) => self.allocate_member(member),
            Command::AnnounceMember { member_id, member } => {
                self.announce_member(member_id, member)
            }
            Command::ForgetMember { member_id, incarnation } => {
                self.forget_member(member_id, incarnation)
            }
            Command::InitCluster { cluster_id, members } => self.init_cluster(cluster_id, members),
            Command::BeginDrill { kind, target, started_by, lease_ms } => {
                self.begin_drill(kind, target, started_by, lease_ms)
            }
            Command::EndDrill { drill_id, state, summary, report } => {
                self.end_drill(drill_id, state, summary, &report)
            }
            Command::WantVote { member_id, wanted } => self.want_vote(member_id, wanted),
            Command::RefuseSteps { epoch, refusals } => self.refuse_steps(epoch, &refusals),
            Command::PutPipeline(pipeline) => self.put_pipeline(pipeline),
            Command::RemovePipeline { task_type } => self.remove_pipeline(task_type),
            Command::ReplayTasks { task_ids } => self.replay_tasks(&task_ids),
            Command::PurgeTasks { task_ids } => self.purge_tasks(&task_ids),
            Command::DrainNode { node_id, within_ms } => self.drain_node(&node_id, within_ms),
            Command::EndDrains { epoch, node_ids } => self.end_drains(epoch, &node_ids),
            Command::RetireAgents { epoch, node_ids } => self.retire_agents(epoch, &node_ids),
            Command::RecordDeliveries { epoch, results } => self.record_deliveries(epoch, results),
            Command::RecordAlerts { epoch, changes } => self.record_alerts(epoch, changes),
            Command::AcknowledgeAlert { alert_id, by } => self.acknowledge_alert(&alert_id, by),
            Command::SuppressAlert { alert_id, by, for_ms } => {
                self.suppress_alert(&alert_id, by, for_ms)
            }
            Command::RecordScaling { epoch, event, cooldown_ms } => {
                self.record_scaling(epoch, event, cooldown_ms)
            }
            Command::RecordScalingOutcome { epoch, number, outcome } => {
                self.record_scaling_outcome(epoch, number, outcome)
            }
            Command::RevokeSession { session_id, left_ms } => {
                self.revoke_session(session_id, left_ms)
            }
            Command::Campaign(command) => self.campaign_command(command),
            Command::Step { epoch, duty } => self.step_duty(epoch, duty),
            Command::Account(command) => self.account_command(command),
            Command::Asked { command, .. } => self.apply(*command),
            Command::Bot(command) => self.bot_command(*command),
        }
    }

    fn campaign_command(&mut self, command: CampaignCommand) -> Reply {
        match command {
            CampaignCommand::EnsureOrchestrator { name } => self.ensure_orchestrator(name),
            CampaignCommand::PatchOrchestrator { name, patch } => {
                self.patch_orchestrator(&name, *patch)
            }
            CampaignCommand::SetActive { name, active } => {
                self.set_orchestrator_active(&name, active)
            }
            CampaignCommand::BeginRun { name, triggered_by, context } => {
                self.begin_run(&name, triggered_by, context)
            }
            CampaignCommand::CreateCampaign(plan) => self.create_campaign(*plan),
            CampaignCommand::PatchCampaign { campaign_id, patch } => {
                self.patch_campaign(&campaign_id, *patch)
            }
            CampaignCommand::MoveCampaign { campaign_id, how } => {
                self.move_campaign(&campaign_id, how)
            }
            CampaignCommand::RequestIterations { campaign_id, count, start, with } => {
                self.request_iterations(&campaign_id, count, start, with)
            }
            CampaignCommand::PutStructure { structure_id, owner, body, when } => {
                self.put_structure(structure_id, owner, body, when)
            }
            CampaignCommand::RemoveStructure { structure_id } => {
                self.remove_structure(&structure_id)
            }
            CampaignCommand::PutModel { name, active, trained_on, job } => {
                self.put_model(name, active, trained_on, *job)
            }
            CampaignCommand::RemoveModel { name } => self.remove_model(&name),
            CampaignCommand::RequestJobs(request) => self.request_jobs(&request, 0),
            CampaignCommand::PutInstrument { instrument_id, owner, body, job, when } => {
                self.put_instrument(instrument_id, owner, body, *job, when)
            }
            CampaignCommand::RemoveInstrument { instrument_id } => {
                self.remove_instrument(&instrument_id)
            }
            CampaignCommand::Agent(order) => self.agent_command(*order),
            CampaignCommand::RemoveCampaign { campaign_id } => self.remove_campaign(&campaign_id),
        }
    }

    fn step_duty(&mut self, epoch: Epoch, duty: StepDuty) -> Reply {
        match duty {
            StepDuty::DecideSlots { schedule, seen_decided_ms, slots } => {
                self.decide_slots(epoch, &schedule, seen_decided_ms, &slots)
            }
            StepDuty::JudgeSchedule { schedule, degraded } => {
                self.judge_schedule(epoch, schedule, degraded)
            }
            StepDuty::AdvanceRun { run_id, seen, actions } => {
                self.advance_run(epoch, run_id, seen, actions)
            }
            StepDuty::FailRun { run_id, error } => self.fail_run(epoch, run_id, &error),
            StepDuty::ForgetCampaigns => self.forget_campaigns(epoch),
            StepDuty::NoteWaiting { campaigns } => self.note_waiting(epoch, &campaigns),
            StepDuty::LaunchIterations { launches } => self.launch_iterations(epoch, &launches),
            StepDuty::CloseLedger { schedule, seen_decided_ms, until_ms, nominal_ms, done } => {
                self.close_slots(epoch, &schedule, (seen_decided_ms, until_ms), &nominal_ms, done)
            }
        }
    }

    /// Notes what happened to campaigns.
    pub(super) fn tell(&mut self, fact: CampaignFact) {
        self.facts.push(Fact::Campaign(fact));
    }

    fn open_epoch(&mut self, epoch: Epoch) -> Reply {
        let open = self.state.epoch();
        if epoch == open {
            return Ok(Outcome::Done);
        }
        if epoch.term <= open.term {
            return Err(Rejection::StaleEpoch { offered: epoch, open });
        }
        self.state.set_epoch(epoch);
        self.ensure_default_orchestrator();
        self.facts.push(Fact::EpochOpened { epoch, term: epoch.term, leader: epoch.member });
        Ok(Outcome::Done)
    }

    /// Refuses what a duty planned in any reign but the open one.
    pub(super) fn check_epoch(&self, offered: Epoch) -> Result<(), Rejection> {
        let open = self.state.epoch();
        if offered == open || canary::active(Canary::NoEpochCheck) {
            return Ok(());
        }
        Err(Rejection::StaleEpoch { offered, open })
    }

    /// Refuses a batch that is empty or too large.
    pub(super) fn check_batch(len: usize) -> Result<(), Rejection> {
        let max = super::ROWS_PER_COMMAND_MAX;
        if len == 0 || len > max {
            return Err(Rejection::BatchSize { len: len as u64, max: max as u64 });
        }
        Ok(())
    }

    /// Refuses so many more tasks and steps where the queue has no room for them; none ask for none.
    pub(super) fn check_queue(&self, rows: usize) -> Result<(), Rejection> {
        if rows > 0 && !self.state.has_room_for(rows as u64) {
            return Err(Rejection::QueueFull { max: self.state.policy().pending_tasks_max });
        }
        Ok(())
    }

    fn patch_config(&mut self, path: &str, value: &str, expected: Option<u64>) -> Reply {
        let actual = self.state.config().revision;
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(Rejection::RevisionMismatch { expected, actual });
        }
        let (config, policy) = self.state.config().patched(path, value)?;
        self.found_orchestrator(&policy, actual == 0)?;
        let (revision, pauses) = (config.revision, policy.paused);
        if pauses != self.state.policy().paused {
            let since_ms = if pauses { self.now } else { 0 };
            self.state.edit_counters(|counters| counters.paused_since_ms = since_ms);
        }
        self.state.set_config(config, policy);
        self.facts.push(Fact::ConfigChanged { revision });
        Ok(Outcome::ConfigPatched { revision })
    }

    fn set_paused(&mut self, paused: bool) -> Reply {
        let toggled = self.state.policy().paused != paused;
        if toggled {
            self.patch_config(PAUSED_KEY, &paused.to_string(), None)?;
        }
        let since_ms = self.state.counters().paused_since_ms;
        Ok(Outcome::PauseSet { revision: self.state.config().revision, toggled, since_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskId;

    /// A newer member's command, committed by an older leader, stopped every older member for good.
    #[test]
    fn what_apply_could_not_decode_is_no_envelope() {
        let command =
            Command::CancelTask { task_id: TaskId::trusted("t"), reason: "no".to_owned() };
        let envelope = Envelope { request_id: RequestId(7), principal: "me".to_owned(), command };
        let bytes = encode_envelope(&envelope);
        assert!(is_envelope(&bytes));
        assert!(!is_envelope(&bytes[..bytes.len() - 1]));
        assert!(!is_envelope(&[&bytes[..], &[0]].concat()));
        // Behind the id and the name of who asks stands the number of the command.
        let (number, of) = ([&[7_u8][..], b"\x02me"].concat().len(), bytes.to_vec());
        let unknown = [&of[..number], &[250], &of[number + 1..]].concat();
        assert!(!is_envelope(&unknown), "no such command");
    }

    #[test]
    fn joined_envelopes_are_the_encoded_entry() {
        let envelopes: Vec<Envelope> = (0..300_u128)
            .map(|number| Envelope {
                request_id: RequestId(number << 100 | number),
                principal: format!("client-{number}"),
                command: Command::CancelTask {
                    task_id: TaskId::trusted("t"),
                    reason: "x".repeat(number as usize),
                },
            })
            .collect();
        let encoded: Vec<_> = envelopes.iter().map(encode_envelope).collect();
        for count in [0, 1, 2, 250, 251, 300] {
            let at_ms = 1_763_000_000_123;
            let joined = join_envelopes(at_ms, &encoded[..count]);
            let entry = LogEntry { at_ms, envelopes: envelopes[..count].to_vec() };
            assert_eq!(joined, encode_entry(&entry), "{count} envelopes");
        }
    }
}

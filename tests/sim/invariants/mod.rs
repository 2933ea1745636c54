//! What must always be true, one file each, with where it comes from. Each is a book of its own
//! that says what is wrong; nothing here knows how faults are made.

mod acknowledged_is_never_lost;
mod alerts_are_told_once;
mod applied_only_grows;
mod attempts_are_fenced;
mod bots_are_whole;
mod budgets_are_exact;
mod callbacks_are_made;
mod committed_never_changes;
mod copies_are_apart;
mod epochs_only_grow;
mod events_are_the_same;
mod exactly_once;
mod finished_steps_stay_finished;
mod flows_agree_with_their_steps;
mod flows_keep_their_definition;
mod keys_keep_their_limit;
mod kill_switches_hold;
mod logouts_are_kept;
mod nodes_keep_their_capacity;
mod nodes_stay_registered;
mod nothing_is_placed_while_paused;
mod one_leader_per_term;
mod rates_keep_their_limit;
mod reads_are_linearizable;
mod runs_are_whole;
mod settings_are_kept;
mod slots_have_one_decision;
mod states_are_equal;
mod the_register_is_linearizable;
mod told;
mod unknown_is_once_or_never;
mod votes_are_kept;
mod what_is_derived_is_equal;
mod work_goes_to_those_in_service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate::cluster::Cluster;
use quorate::leader::Leadership;
use quorate::model::{Epoch, NodeId};
use quorate::state::Fact;
use quorate::storage::EventFollower;

pub(crate) use acknowledged_is_never_lost::{Submissions, Told};
pub(crate) use reads_are_linearizable::expected_by_a_read;
pub(crate) use the_register_is_linearizable::{Kind, Operation};

use crate::book::Book;

/// One process of a member: its place, and how often it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) place: usize,
    pub(crate) boot: u64,
}

/// All of them, over one run.
#[derive(Clone, Default)]
pub(crate) struct Invariants {
    pub(crate) book: Book,
    checks: Arc<Mutex<Checks>>,
}

#[derive(Default)]
struct Checks {
    leaders: one_leader_per_term::Leaders,
    votes: votes_are_kept::Votes,
    states: states_are_equal::Digests,
    committed: committed_never_changes::Committed,
    applied: applied_only_grows::Applied,
    epochs: epochs_only_grow::Epochs,
    events: events_are_the_same::Events,
    attempts: attempts_are_fenced::Attempts,
    submissions: Submissions,
    register: the_register_is_linearizable::Register,
    steps: finished_steps_stay_finished::Steps,
    callbacks: callbacks_are_made::Callbacks,
    alerts: alerts_are_told_once::Alerts,
    mails: alerts_are_told_once::Alerts,
    registered: nodes_stay_registered::Registered,
    definitions: flows_keep_their_definition::Definitions,
    settings: settings_are_kept::Settings,
    logouts: logouts_are_kept::Logouts,
    derived: what_is_derived_is_equal::Derived,
    slots: slots_have_one_decision::Slots,
    limits: budgets_are_exact::Limits,
    runs: runs_are_whole::Runs,
    switches: kill_switches_hold::Switches,
    /// What members did as leaders, one for each start of one.
    offices: Vec<Leadership>,
    bots: bots_are_whole::Bots,
    /// The newest index whose campaigns were looked at: members at one index have one state.
    campaigns_at: u64,
    watches: BTreeMap<Process, Watch>,
}

/// Epochs in which a member reigned more than once: it was in doubt, and went on in its term.
fn reigned_twice(offices: &[Leadership]) -> BTreeSet<Epoch> {
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for reign in offices.iter().flat_map(Leadership::reigns) {
        if !once.insert(reign.epoch) {
            twice.insert(reign.epoch);
        }
    }
    twice
}

/// How far one process was looked at.
struct Watch {
    seen: u64,
    /// Its configuration was looked at since it started.
    settled: bool,
    events: EventFollower,
}

impl Invariants {
    /// A process learnt that it leads.
    pub(crate) fn led(&self, process: Process, term: u64, member: u64) {
        self.book.trace(&format!("lead {term} {member}"));
        let mut checks = self.checks.lock();
        let held = checks.leaders.led(term, member, process);
        let terms = checks.leaders.terms();
        checks.votes.led(member, term);
        drop(checks);
        self.book.check("one leader per term", held);
        let before = self.book.covered("elections");
        self.book.cover_many("elections", terms.saturating_sub(before));
    }

    /// A member is ready to lead.
    pub(crate) fn may_lead(&self, office: Leadership) {
        self.checks.lock().offices.push(office);
    }

    /// A member's disk was opened, with the term of the last vote on it.
    pub(crate) fn opened(&self, member: u64, voted: u64) {
        let held = self.checks.lock().votes.opened(member, voted);
        self.book.check("votes are kept", held);
    }

    /// Looks at one running member between two steps of the world.
    pub(crate) fn observe(&self, process: Process, member: &Cluster) {
        let checks = &mut *self.checks.lock();
        let view = member.view();
        let (index, digest) = view.digest();
        let watch = checks.watches.entry(process).or_insert_with(|| Watch {
            seen: u64::MAX,
            settled: false,
            events: view.events().follow(Some((0, 0))),
        });
        if watch.seen == index {
            return;
        }
        watch.seen = index;
        self.book.check("applied only grows", checks.applied.at(process, index));
        self.book.check("states are equal", checks.states.at(index, digest, process));
        self.book.cover("compared");
        let applied = view.applied();
        self.book.check("committed never changes", checks.committed.at(applied, process));
        let watch = checks.watches.get_mut(&process).expect("it was made above");
        let started = !std::mem::replace(&mut watch.settled, true);
        let new = checks.events.follow(&mut watch.events, process);
        self.book.check("events are the same", new);
        for fact in checks.events.take_new() {
            checks.steps.note(&fact);
        }
        view.read(|state| {
            self.book.check("epochs only grow", checks.epochs.at(process, state.epoch()));
            self.book.check("nodes keep their capacity", nodes_keep_their_capacity::check(state));
            self.book.check("keys keep their limit", keys_keep_their_limit::check(state));
            self.book.check("rates keep their limit", state.check_rates());
            self.book.check("copies are apart", copies_are_apart::check(state));
            self.book.check("bots are whole", bots_are_whole::Bots::check(state));
            let open = flows_agree_with_their_steps::check(state);
            self.book.check("flows agree with their steps", open);
            checks.attempts.note(state);
            let kept = checks.definitions.note(state);
            self.book.check("flows keep their definition", kept);
            self.book.check("settings are kept", checks.settings.note(state));
            if started {
                self.book.check("settings are kept", settings_are_kept::derived(state));
            }
            self.book.check("logouts are kept", checks.logouts.check(state, index));
            let equal = checks.derived.at(index, state, process);
            self.book.check("what is derived is equal", equal);
            if started {
                self.book.check("slots have one decision", checks.slots.note_all(state));
            }
            if index > checks.campaigns_at {
                checks.campaigns_at = index;
                self.book.check("budgets are exact", checks.limits.note(state));
                self.book.check("slots have one decision", checks.slots.note(state));
            }
        });
    }

    /// The last word: every member against everything that clients were told. Nodes that are `steady`
    /// were there all the time; `clocks` says whether those of members agreed.
    pub(crate) fn judge(&self, members: &[Cluster], steady: &[NodeId], clocks: bool) {
        let checks = &mut *self.checks.lock();
        for member in members {
            let tasks = acknowledged_is_never_lost::by_marker(member);
            let lost = acknowledged_is_never_lost::check(&checks.submissions, &tasks);
            self.book.check("acknowledged is never lost", lost);
            let unknown = unknown_is_once_or_never::check(&checks.submissions, &tasks);
            self.book.check("unknown is once or never", unknown);
            self.book.check("exactly once", exactly_once::check(&checks.submissions, &tasks));
            member.view().read(|state| {
                let held = finished_steps_stay_finished::check(state);
                self.book.check("finished steps stay finished", held);
                let held = flows_agree_with_their_steps::check_end(state);
                self.book.check("flows agree with their steps", held);
                let held = checks.registered.check(state, steady);
                self.book.check("nodes stay registered", held);
                let held = checks.definitions.check_end(&checks.submissions, state);
                self.book.check("flows keep their definition", held);
                self.book.check("logouts are kept", checks.logouts.check_end(state));
            });
            let (index, digest) = member.view().digest();
            self.book.trace(&format!("end {} {index} {digest}", member.member_id()));
        }
        self.book.check("states are equal", states_are_equal::check_end(members));
        self.book.check("attempts are fenced", checks.attempts.check(&checks.events));
        self.book.check("epochs only grow", checks.epochs.check(&checks.events));
        self.book
            .check("exactly once", exactly_once::check_events(&checks.submissions, &checks.events));
        self.judge_events(checks, steady);
        self.judge_bots(checks, members, clocks);
        if let Some(member) = members.first() {
            self.judge_campaigns(checks, member);
        }
        let register = checks.register.check();
        self.book.check("the register is linearizable", register);
        self.book.cover_many("events", checks.events.len() as u64);
    }

    /// What workers and services wrote down, against every member.
    fn judge_bots(&self, checks: &Checks, members: &[Cluster], clocks: bool) {
        let Checks { bots, events, .. } = checks;
        self.book.check("bots are whole", bots.check_log(clocks));
        let opened = |fact: &Fact| matches!(fact, Fact::EpochOpened { .. });
        let reigns = events.iter().filter(|(_, fact)| opened(fact)).count() as u64;
        for member in members {
            let held = member.view().read(|state| bots.check_end(state, reigns));
            self.book.check("bots are whole", held);
        }
    }

    /// What came of campaigns and of their steps; all members hold one state.
    fn judge_campaigns(&self, checks: &mut Checks, member: &Cluster) {
        let Checks { events, slots, runs, switches, offices, .. } = checks;
        member.view().read(|state| {
            self.book.check("slots have one decision", slots.note_all(state));
            let bills = budgets_are_exact::Bills::of(events, &reigned_twice(offices));
            let bills = bills.check(state);
            self.book.check("budgets are exact", bills);
            let launches = runs_are_whole::Launches::of(events);
            let whole = launches.and_then(|launches| {
                self.book.cover_many("jobs", launches.jobs());
                self.book.cover_many("experiments", launches.experiments());
                self.book.cover_many("runs", launches.runs());
                self.book.cover_many("runs_with_a_task", launches.works());
                runs.check(&launches, state)
            });
            self.book.check("runs are whole", whole);
            self.book.check("kill switches hold", switches.check_end(state));
        });
        self.book.check("kill switches hold", switches.check_events(events));
        match slots.check_events(events) {
            Ok(counts) => counts.into_iter().for_each(|(what, n)| self.book.cover_many(what, n)),
            Err(what) => self.book.violation("slots have one decision", &what),
        }
    }

    /// What the events of the whole run say.
    fn judge_events(&self, checks: &Checks, steady: &[NodeId]) {
        let Checks { submissions, events, settings, .. } = checks;
        let keys = keys_keep_their_limit::check_events(submissions, events);
        self.book.check("keys keep their limit", keys);
        let rates = rates_keep_their_limit::check_events(submissions, events);
        self.book.cover_many("rated_starts", rates.as_ref().copied().unwrap_or(0));
        self.book.check("rates keep their limit", rates.map(drop));
        let callbacks = checks.callbacks.check(submissions, events);
        self.book.check("callbacks are made", callbacks);
        self.book.check("alerts are told once", checks.alerts.check(events));
        self.book.check("alerts are mailed once", checks.mails.check(events));
        let lost = checks.registered.check_events(events, steady);
        self.book.check("nodes stay registered", lost);
        let placed = work_goes_to_those_in_service::check_events(events);
        self.book.check("work goes to those in service", placed);
        let kept = checks.definitions.check_events(submissions, events);
        self.book.check("flows keep their definition", kept);
        self.book.check("settings are kept", settings.check());
        let paused = nothing_is_placed_while_paused::check_events(settings, events);
        self.book.cover_many("reigns_while_paused", paused.as_ref().copied().unwrap_or(0));
        self.book.check("nothing is placed while paused", paused.map(drop));
    }
}

//! Golden scripts: commands in, answers, facts and changed rows out.
//!
//! A file in `testscripts/` holds blocks: command lines, `----`, and what they gave. Run the tests
//! with `UPDATE_GOLDEN=1` to write what they give now, and review the difference like code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::bot_words::{bot_command, show_bots};
use super::campaign_words::{campaign_command, campaign_id, job_word};
use super::script_words::{account_command, drill_command, flow, outward_command, rate, step};
use super::{
    Assignment, Command, Dispatch, DispatchResult, Envelope, ExpiryKind, LogEntry, NodeObservation,
    NodeSpec, State, StepRefusal, TaskExpiry, TaskOutcome, TaskReport, TaskSpec, encode_entry,
    invariants,
};
use crate::model::{
    Concurrency, Epoch, FlowMode, Load, Member, NodeId, NodeStatus, Pipeline, RequestId,
    Requirements, TaskFailure, TaskId, Urgency,
};

/// A state and the little that a script says only once.
#[derive(Default)]
pub(super) struct Script {
    pub(super) state: State,
    /// Every entry applied so far, as it stands in the log.
    pub(super) log: Vec<bytes::Bytes>,
    pub(super) index: u64,
    at_ms: u64,
    next_request: u128,
}

/// The words of a command line after its verb: places and `key=value` pairs.
pub(super) struct Words<'a> {
    pub(super) places: Vec<&'a str>,
    pub(super) pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        let (mut places, mut pairs) = (Vec::new(), BTreeMap::new());
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => drop(pairs.insert(key, value)),
                None => places.push(word),
            }
        }
        Self { places, pairs }
    }

    pub(super) fn text(&self, key: &str, default: &str) -> String {
        self.pairs.get(key).copied().unwrap_or(default).to_owned()
    }

    pub(super) fn number(&self, key: &str, default: u64) -> u64 {
        self.pairs.get(key).map_or(default, |value| value.parse().unwrap())
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key, "");
        text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn epoch(&self) -> Epoch {
        epoch(self.places[0])
    }
}

fn epoch(text: &str) -> Epoch {
    let (term, member) = text.split_once('.').unwrap();
    Epoch { term: term.parse().unwrap(), member: member.parse().unwrap() }
}

fn failure(text: &str) -> TaskFailure {
    match text {
        "network" => TaskFailure::Network,
        "node" => TaskFailure::NodeLost,
        "timeout" => TaskFailure::Timeout,
        "retryable" => TaskFailure::Retryable,
        "permanent" => TaskFailure::Permanent,
        other => panic!("unknown failure {other}"),
    }
}

fn outcome(words: &Words<'_>) -> TaskOutcome {
    match words.pairs.get("fail") {
        Some(kind) => {
            TaskOutcome::Failed { failure: failure(kind), error: words.text("error", "it broke") }
        }
        None => TaskOutcome::Completed { result: words.text("done", "") },
    }
}

fn member(words: &Words<'_>, name: &str) -> Member {
    Member {
        name: name.to_owned(),
        incarnation: words.number("inc", 1),
        peer_addr: words.text("peer", &format!("{name}:7000")),
        http_addr: words.text("http", &format!("{name}:9000")),
        ..Member::default()
    }
}

pub(super) fn node_spec(node_id: &str, capacity: u32, capabilities: Vec<String>) -> NodeSpec {
    NodeSpec {
        node_id: NodeId::trusted(node_id),
        host: "localhost".to_owned(),
        port: 8080,
        node_type: "worker".to_owned(),
        capabilities,
        capacity,
        agents_count: 0,
        agents: Vec::new(),
        load: Load::default(),
        version: "1.0.0".to_owned(),
        location: None,
        external_url: None,
        instance: String::new(),
        metadata: String::new(),
        agent_type: None,
    }
}

pub(super) fn task_spec(task_id: Option<&str>) -> TaskSpec {
    TaskSpec {
        task_id: task_id.map(TaskId::trusted),
        task_type: "work".to_owned(),
        priority_raw: "3".to_owned(),
        timeout_ms: 300_000,
        max_retries: 3,
        ..TaskSpec::default()
    }
}

fn task_command(verb: &str, words: &Words<'_>) -> Command {
    let task_id = |place: usize| TaskId::trusted(words.places[place]);
    match verb {
        "epoch" => Command::OpenEpoch(words.epoch()),
        "submit" => {
            let ids: Vec<Option<&str>> = match words.places.as_slice() {
                [] => vec![None],
                ids => ids.iter().map(|id| Some(*id).filter(|id| *id != "_")).collect(),
            };
            Command::SubmitTasks(
                ids.into_iter()
                    .map(|id| TaskSpec {
                        urgency: Urgency::clamped(words.number("urgency", 50)),
                        input: words.text("input", "").replace("LONG", &"x".repeat(5000)),
                        timeout_ms: words.number("timeout", 300_000),
                        max_retries: u32::try_from(words.number("retries", 3)).unwrap(),
                        deadline_ms: words.pairs.get("deadline").map(|at| at.parse().unwrap()),
                        requirements: Requirements {
                            capabilities: words.list("caps"),
                            ..Requirements::default()
                        },
                        callback_url: words.pairs.get("callback").map(|url| (*url).to_owned()),
                        concurrency: words.pairs.get("key").map(|key| Concurrency {
                            key: (*key).to_owned(),
                            max: u32::try_from(words.number("max", 1)).unwrap(),
                        }),
                        rate: rate(words),
                        flow: flow(words),
                        ..task_spec(id)
                    })
                    .collect(),
            )
        }
        "report" => Command::ReportTasks(
            words
                .places
                .iter()
                .map(|id| TaskReport {
                    task_id: TaskId::trusted(id),
                    attempt: words.pairs.get("attempt").map(|text| text.parse().unwrap()),
                    epoch: words.pairs.get("epoch").map(|text| epoch(text)),
                    node_id: words.pairs.get("node").map(|id| NodeId::trusted(id)),
                    agent_id: None,
                    outcome: outcome(words),
                    execution_ms: words.number("took", 0),
                    performance_metrics: String::new(),
                })
                .collect(),
        ),
        "cancel" => Command::CancelTask { task_id: task_id(0), reason: "enough".to_owned() },
        "replay" | "purge" => {
            let task_ids = words.places.iter().map(|id| TaskId::trusted(id)).collect();
            match verb {
                "replay" => Command::ReplayTasks { task_ids },
                _ => Command::PurgeTasks { task_ids },
            }
        }
        "acknowledge" => Command::AcknowledgeAlert {
            alert_id: words.places[0].to_owned(),
            by: words.text("by", "me"),
        },
        "pipeline" => Command::PutPipeline(pipeline(words)),
        "unpipeline" => Command::RemovePipeline { task_type: words.places[0].to_owned() },
        other => panic!("unknown verb {other}"),
    }
}

fn pipeline(words: &Words<'_>) -> Pipeline {
    Pipeline {
        task_type: words.places[0].to_owned(),
        mode: FlowMode::parse(words.places[1]).unwrap(),
        estimate_ms: 7,
        steps: words.places[2..].iter().map(|text| step(text)).collect(),
    }
}

impl Script {
    fn revision(&self, task_id: &TaskId, words: &Words<'_>) -> u64 {
        let current = self.state.task(task_id).map_or(0, |task| task.revision);
        words.number("seen", current)
    }

    fn fleet_command(&self, verb: &str, words: &Words<'_>) -> Option<Command> {
        let node_id = |place: usize| NodeId::trusted(words.places[place]);
        Some(match verb {
            "register" => {
                let capacity = u32::try_from(words.number("capacity", 16)).unwrap();
                let mut spec = node_spec(words.places[0], capacity, words.list("caps"));
                spec.instance = words.text("instance", "");
                spec.agent_type = words.pairs.get("agent").map(|kind| (*kind).to_owned());
                Command::RegisterNode(spec)
            }
            "status" => Command::SetNodeStatus {
                node_id: node_id(0),
                status: NodeStatus::parse(words.places[1]).unwrap(),
            },
            "remove" => Command::RemoveNode { node_id: node_id(0) },
            "drain" => Command::DrainNode {
                node_id: node_id(0),
                within_ms: words.places[1].parse().unwrap(),
            },
            "observe" => Command::ObserveNodes {
                epoch: words.epoch(),
                observations: vec![NodeObservation {
                    node_id: node_id(1),
                    seen: NodeStatus::parse(words.places[2]).unwrap(),
                    status: NodeStatus::parse(words.places[3]).unwrap(),
                    load: words
                        .pairs
                        .get("cpu")
                        .map(|cpu| Load { cpu_milli: cpu.parse().unwrap(), ..Load::default() }),
                }],
            },
            "config" => Command::PatchConfig {
                path: words.places[0].to_owned(),
                value: words.places[1].to_owned(),
                expected_revision: words.pairs.get("expect").map(|text| text.parse().unwrap()),
            },
            "set_paused" => Command::SetPaused { paused: words.places[0] == "true" },
            "allocate" => Command::AllocateMember(member(words, words.places[0])),
            "announce" => Command::AnnounceMember {
                member_id: words.places[0].parse().unwrap(),
                member: member(words, words.places[1]),
            },
            "forget" => Command::ForgetMember {
                member_id: words.places[0].parse().unwrap(),
                incarnation: words.number("inc", 1),
            },
            "vote" => Command::WantVote {
                member_id: words.places[0].parse().unwrap(),
                wanted: words.places[1] == "wanted",
            },
            "init" => Command::InitCluster {
                cluster_id: words.places[0].parse().unwrap(),
                members: (1..)
                    .zip(&words.places[1..])
                    .map(|(id, name)| (id, Member { incarnation: id, ..member(words, name) }))
                    .collect(),
            },
            "drill" => drill_command(words),
            "account" => account_command(words),
            "revoke" => Command::RevokeSession {
                session_id: words.places[0].replace("LONG", &"x".repeat(5000)),
                left_ms: words.places[1].parse().unwrap(),
            },
            _ => return None,
        })
    }

    fn duty_command(&self, verb: &str, words: &Words<'_>) -> Option<Command> {
        let task_id = |place: usize| TaskId::trusted(words.places[place]);
        Some(match verb {
            "assign" => Command::AssignTasks {
                epoch: words.epoch(),
                assignments: vec![Assignment {
                    task_id: task_id(1),
                    seen_revision: self.revision(&task_id(1), words),
                    node_id: NodeId::trusted(words.places[2]),
                }],
            },
            "dispatch" => Command::RecordDispatches {
                epoch: words.epoch(),
                dispatches: vec![Dispatch {
                    task_id: task_id(1),
                    attempt: words.places[2].parse().unwrap(),
                    again: words.pairs.contains_key("again"),
                    result: match words.places.get(3) {
                        Some(&"ack") => DispatchResult::Acknowledged,
                        Some(&"refused") => {
                            DispatchResult::Refused { retry_after_ms: words.number("after", 0) }
                        }
                        _ => DispatchResult::Finished(outcome(words)),
                    },
                }],
            },
            "expire" => Command::ExpireTasks {
                epoch: words.epoch(),
                expiries: vec![TaskExpiry {
                    task_id: task_id(1),
                    seen_revision: self.revision(&task_id(1), words),
                    kind: match words.places[2] {
                        "attempt" => ExpiryKind::Attempt,
                        "deadline" => ExpiryKind::Deadline,
                        _ => ExpiryKind::BackOff,
                    },
                }],
            },
            "refuse" => Command::RefuseSteps {
                epoch: words.epoch(),
                refusals: vec![StepRefusal {
                    task_id: task_id(1),
                    seen_revision: self.revision(&task_id(1), words),
                }],
            },
            "drained" | "gone" => {
                let node_ids = words.places[1..].iter().map(|id| NodeId::trusted(id)).collect();
                match verb {
                    "drained" => Command::EndDrains { epoch: words.epoch(), node_ids },
                    _ => Command::RetireAgents { epoch: words.epoch(), node_ids },
                }
            }
            "retire" => Command::RetireTasks {
                epoch: words.epoch(),
                task_ids: words.places[1..].iter().map(|id| TaskId::trusted(id)).collect(),
            },
            _ => return None,
        })
    }

    /// Runs one line: a query (`show`, `queue`), `at` to move the clock, or a command.
    pub(super) fn run(&mut self, line: &str, out: &mut String) {
        let words: Vec<String> = line.split_whitespace().map(job_word).collect();
        let mut words = words.iter().map(String::as_str);
        let verb = words.next().unwrap();
        let words = Words::parse(words);
        match verb {
            "at" => self.at_ms = words.places[0].parse().unwrap(),
            "idle" => self.idle(words.places[0].parse().unwrap()),
            "show" => self.show(words.places[0], out),
            "queue" => {
                let ids: Vec<_> = self.state.queue().map(|task| task.task_id.as_str()).collect();
                writeln!(out, "  queue: {}", ids.join(" ")).unwrap();
            }
            _ => {
                let command = self
                    .fleet_command(verb, &words)
                    .or_else(|| self.duty_command(verb, &words))
                    .or_else(|| outward_command(verb, &words))
                    .or_else(|| bot_command(&self.state, verb, &words))
                    .or_else(|| campaign_command(&self.state, verb, &words))
                    .unwrap_or_else(|| task_command(verb, &words));
                self.apply(command, &words, out);
            }
        }
    }

    fn show(&self, id: &str, out: &mut String) {
        if let Some(task) = self.state.task(&TaskId::trusted(id)) {
            writeln!(out, "  {task:?}").unwrap();
        } else if let Some(node) = self.state.node(&NodeId::trusted(id)) {
            writeln!(out, "  {node:?}").unwrap();
        } else if let Some(orchestrator) = self.state.orchestrator(id) {
            writeln!(out, "  {orchestrator:?}").unwrap();
            writeln!(out, "  {:?}", self.state.schedule(id)).unwrap();
        } else if let Some(campaign) = self.state.campaign(&campaign_id(id)) {
            writeln!(out, "  {campaign:?}").unwrap();
            for iteration in self.state.iterations(&campaign.campaign_id) {
                writeln!(out, "  {iteration:?}").unwrap();
            }
        } else if let Some(run) = id.parse().ok().and_then(|run_id| self.state.run(run_id)) {
            writeln!(out, "  {run:?}").unwrap();
            for decision in self.state.decisions(run.run_id) {
                writeln!(out, "  {decision:?}").unwrap();
            }
        } else if let Some(model) = self.state.model(id) {
            writeln!(out, "  {model:?}").unwrap();
        } else if let Some(number) = id.strip_prefix('#') {
            writeln!(out, "  {:?}", self.state.agent_command(number.parse().unwrap())).unwrap();
        } else if id == "discoveries" {
            for discovery in self.state.discoveries() {
                writeln!(out, "  {discovery:?}").unwrap();
            }
        } else if let Some(account) = self.state.account_named(id) {
            writeln!(out, "  {account:?}").unwrap();
        } else if show_bots(&self.state, id, out).is_none() {
            writeln!(out, "  nothing").unwrap();
        }
    }

    /// Entries without a command, each ten seconds after the one before.
    fn idle(&mut self, entries: u64) {
        for _ in 0..entries {
            self.index += 1;
            self.at_ms += 10_000;
            let entry = encode_entry(&LogEntry { at_ms: self.at_ms, envelopes: Vec::new() });
            self.state.apply(self.index, &entry).unwrap();
            self.log.push(entry);
        }
    }

    fn apply(&mut self, command: Command, words: &Words<'_>, out: &mut String) {
        self.index += 1;
        self.next_request += 1;
        let request_id = match words.pairs.get("request") {
            Some(key) => RequestId::from_key(key),
            None => RequestId(self.next_request),
        };
        let command = match words.pairs.get("print") {
            Some(print) => {
                Command::Asked { print: print.parse().unwrap(), command: Box::new(command) }
            }
            None => command,
        };
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = encode_entry(&LogEntry { at_ms: self.at_ms, envelopes: vec![envelope] });
        if words.pairs.contains_key("bytes") {
            let hex: String = entry.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "  bytes {hex}").unwrap();
        }
        self.log.push(entry.clone());
        let applied = self.state.apply(self.index, &entry).unwrap();
        for reply in &applied.replies {
            match reply {
                Ok(outcome) => writeln!(out, "  ok {outcome:?}").unwrap(),
                Err(rejection) => {
                    writeln!(out, "  refused {}: {rejection}", rejection.code()).unwrap();
                }
            }
        }
        for event in &applied.events {
            writeln!(out, "  event {}.{} {:?}", event.index, event.ordinal, event.fact).unwrap();
        }
        let changes = self.state.take_changes();
        let rows: Vec<String> = changes
            .rows
            .iter()
            .map(|(key, value)| {
                let sign = if value.is_some() { "+" } else { "-" };
                format!("{sign}{}", key.escape_ascii())
            })
            .collect();
        writeln!(out, "  rows {}", rows.join(" ")).unwrap();
        invariants::check(&self.state);
    }
}

fn run_file(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut script, mut given) = (Script::default(), String::new());
    for block in text.split_inclusive("\n\n") {
        let commands = block.split("----\n").next().unwrap().trim_end_matches('\n');
        let mut out = String::new();
        for line in commands.lines() {
            if !line.starts_with('#') && !line.is_empty() {
                script.run(line, &mut out);
            }
        }
        if out.is_empty() {
            writeln!(given, "{commands}\n").unwrap();
        } else {
            writeln!(given, "{commands}\n----\n{out}").unwrap();
        }
    }
    let given = format!("{}\n", given.trim_end());
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        std::fs::write(path, given).unwrap();
    } else {
        assert_eq!(text, given, "{} gives something else", path.display());
    }
}

#[test]
fn golden_scripts_give_what_they_gave() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/testscripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "the scripts are where they belong: {paths:?}");
    for path in paths {
        run_file(&path);
    }
}

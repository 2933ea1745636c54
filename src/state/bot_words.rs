//! Lines of golden scripts about bots. `b0` names a bot of no swarm, `s1` a swarm, `s1.2` its bot
//! of index 2, `w1.2` the assignment of a wave, `w1.2:3` its third try, `f1` a workflow.

use std::fmt::Write as _;

use super::scripts::Words;
use super::{
    BotCommand, BotReport, BotSpec, BotWork, Command, ExpiredLease, LeaseRef, LeaseScope, State,
    WorkflowStep,
};
use crate::model::{AssignmentPlace, BotPlace, DerivedId};

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn bot_word(word: &str) -> Option<BotPlace> {
    if let Some(index) = word.strip_prefix('b') {
        return Some(BotPlace { swarm: 0, index: number(index)? });
    }
    let (swarm, index) = word.strip_prefix('s')?.split_once('.')?;
    Some(BotPlace { swarm: number(swarm)?, index: number(index)? })
}

fn swarm_word(word: &str) -> Option<u32> {
    number(word.strip_prefix('s')?)
}

/// An assignment, and the try that is named with it.
fn assignment_word(word: &str) -> Option<(AssignmentPlace, Option<u32>)> {
    let (word, attempt) = word.split_once(':').unwrap_or((word, ""));
    let (wave, index) = word.strip_prefix('w')?.split_once('.')?;
    let place = AssignmentPlace { wave: number(wave)?, index: number(index)? };
    Some((place, number(attempt)))
}

fn spec(words: &Words<'_>) -> BotSpec {
    BotSpec {
        name: words.text("name", ""),
        tier: words.text("tier", "standard"),
        capabilities: words.list("caps"),
    }
}

fn ids(state: &State, words: &[&str]) -> LeaseScope {
    let swarms = words.iter().filter_map(|word| swarm_word(word));
    let swarms: Vec<DerivedId> = swarms.map(|swarm| state.swarm_id(swarm)).collect();
    if !swarms.is_empty() {
        return LeaseScope::Swarms(swarms);
    }
    let bots = words.iter().filter_map(|word| bot_word(word));
    LeaseScope::Bots(bots.map(|bot| state.bot_id(bot)).collect())
}

fn leases(state: &State, words: &[&str]) -> Vec<LeaseRef> {
    let named = words.iter().map(|word| assignment_word(word).unwrap());
    named
        .map(|(place, attempt)| LeaseRef {
            task: state.assignment_id(place),
            attempt: attempt.unwrap_or(1),
        })
        .collect()
}

fn reports(state: &State, words: &Words<'_>) -> Vec<BotReport> {
    let named = words.places[1..].iter().map(|word| assignment_word(word).unwrap());
    named
        .map(|(place, attempt)| BotReport {
            task: state.assignment_id(place),
            bot: words.pairs.get("bot").map(|word| state.bot_id(bot_word(word).unwrap())),
            attempt,
            text: words.text("done", "").replace("LONG", &"x".repeat(5000)),
            permanent: words.pairs.contains_key("for_good"),
        })
        .collect()
}

fn work(words: &Words<'_>) -> BotWork {
    BotWork {
        task_type: words.pairs.get("type").map(|word| (*word).to_owned()),
        data: words.text("data", "").replace("LONG", &"x".repeat(5000)),
    }
}

pub(super) fn bot_command(state: &State, verb: &str, words: &Words<'_>) -> Option<Command> {
    let command = match verb {
        "bots" => client_command(state, words),
        "overdue" => BotCommand::ExpireLeases {
            epoch: words.epoch(),
            leases: words.places[1..]
                .iter()
                .map(|word| assignment_word(word).unwrap())
                .map(|(place, try_)| ExpiredLease { place, attempt: try_.unwrap_or(1) })
                .collect(),
        },
        "stepped" => BotCommand::RecordStep {
            epoch: words.epoch(),
            workflow: words.places[1].parse().unwrap(),
            seen: words.places[2].parse().unwrap(),
            result: words.text("done", "{}").replace("LONG", &"x".repeat(5000)),
        },
        _ => return None,
    };
    Some(Command::Bot(Box::new(command)))
}

fn client_command(state: &State, words: &Words<'_>) -> BotCommand {
    let of = |word: &str| state.swarm_id(swarm_word(word).unwrap());
    let count = |place: usize| words.places[place].parse().unwrap();
    let lease_ms = words.number("for", 1000);
    match words.places[0] {
        "create" => BotCommand::CreateBot(spec(words)),
        "swarm" => BotCommand::CreateSwarm { spec: spec(words), count: count(1) },
        "scale" => BotCommand::ScaleSwarm { swarm: of(words.places[1]), count: count(2) },
        "remove" => match bot_word(words.places[1]) {
            Some(bot) => BotCommand::RemoveBot { bot: state.bot_id(bot) },
            None => BotCommand::RemoveSwarm { swarm: of(words.places[1]) },
        },
        "assign" => match bot_word(words.places[1]) {
            Some(bot) => BotCommand::AssignBot { bot: state.bot_id(bot), work: work(words) },
            None => BotCommand::AssignSwarm { swarm: of(words.places[1]), work: work(words) },
        },
        "lease" => BotCommand::LeaseAssignments {
            holder: words.text("by", "me"),
            scope: ids(state, &words.places[1..]),
            max: u32::try_from(words.number("max", 1)).unwrap(),
            lease_ms,
            // `none` are those without a type.
            types: words
                .list("types")
                .into_iter()
                .map(|text| Some(text).filter(|text| text != "none"))
                .collect(),
        },
        "renew" => BotCommand::RenewLeases { leases: leases(state, &words.places[1..]), lease_ms },
        "release" => BotCommand::ReleaseLeases { leases: leases(state, &words.places[1..]) },
        "complete" => BotCommand::CompleteAssignments { items: reports(state, words) },
        "fail" => BotCommand::FailAssignments { items: reports(state, words) },
        "workflow" => BotCommand::CreateWorkflow {
            tasks: words.places[1..]
                .iter()
                .map(|word| WorkflowStep {
                    task_type: (*word).to_owned(),
                    params: words.text("params", "{}").replace("LONG", &"x".repeat(5000)),
                })
                .collect(),
            priority: words.text("priority", "normal"),
        },
        "cancel" => {
            let number = words.places[1].strip_prefix('f').unwrap().parse().unwrap();
            BotCommand::CancelWorkflow { workflow: state.workflow_id(number) }
        }
        other => panic!("unknown verb of bots {other}"),
    }
}

/// Shows what a word names; `None` when it names nothing of bots.
pub(super) fn show_bots(state: &State, word: &str, out: &mut String) -> Option<()> {
    let now = state.counters().last_at_ms;
    if word == "bots" {
        writeln!(out, "  {:?}", state.bot_stats()).unwrap();
        writeln!(out, "  {:?}", state.bot_totals()).unwrap();
    } else if let Some(swarm) = swarm_word(word) {
        writeln!(out, "  {:?}", state.swarm_view(swarm)).unwrap();
        writeln!(out, "  {:?}", state.swarm_health(swarm, now)).unwrap();
    } else if let Some(bot) = bot_word(word) {
        writeln!(out, "  {:?}", state.bot_view(bot)).unwrap();
        for view in state.assignments_of(bot, |_| true, 9) {
            writeln!(out, "  {:?} {:?}", view.place, view.state()).unwrap();
        }
        writeln!(out, "  {:?}", state.bot_health(bot, now)).unwrap();
    } else if let Some((place, _)) = assignment_word(word) {
        match state.assignment(place) {
            Some(view) => writeln!(out, "  {} {:?} {:?}", view.id, view.bot, view.progress),
            None => writeln!(out, "  no assignment"),
        }
        .unwrap();
    } else if let Some(wave) = word.strip_prefix('w').and_then(number) {
        writeln!(out, "  {:?}", state.wave(wave)).unwrap();
    } else {
        let workflow = word.strip_prefix('f').and_then(number)?;
        writeln!(out, "  {:?}", state.workflow(workflow)).unwrap();
    }
    Some(())
}

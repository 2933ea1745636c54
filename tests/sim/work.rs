//! What clients ask for beside plain tasks: work in steps by agents, their own or those of a pipeline,
//! the same work on several nodes, at most so many of a key at once or in a window of time, deadlines,
//! and posts when all is over.

use quorate::clock;
use quorate::model::{Concurrency, FlowMode, Pipeline, RateLimit, StepSpec, TimeMs};
use quorate::state::{FlowRequest, TaskSpec};

/// Kinds of agents.
pub(crate) const KINDS: [&str; 3] = ["alpha", "beta", "gamma"];
/// A kind that no agent is of.
const MISSING: &str = "delta";
/// What pipelines are for: two types that nobody knows before somebody defines them, and a built-in
/// one, whose agents are not there either.
pub(crate) const TYPES: [&str; 3] = ["pipe0", "pipe1", "api_call"];
/// Keys that tasks share; the first stands for one at once, the second for two, and so on.
const KEYS: u64 = 3;
/// Keys whose tasks may be started so often in a window; the first stands for once, and so on.
const RATES: u64 = 2;
/// The window of the first; that of the second is twice as long.
const WINDOW_MS: TimeMs = 100;
/// The modes a client can choose.
const MODES: [FlowMode; 4] =
    [FlowMode::Sequential, FlowMode::Parallel, FlowMode::Hybrid, FlowMode::Graph];

/// Makes a plain task into one of the others, sometimes.
pub(crate) fn shape(spec: &mut TaskSpec) {
    let random = clock::random();
    match random % 20 {
        0..4 => spec.flow = Some(steps(clock::random())),
        4..6 => spec.flow = Some(FlowRequest::Copies { count: 2 + (random >> 8) as u16 % 2 }),
        6..10 => {
            let nth = (random >> 8) as usize;
            spec.task_type = TYPES[nth % TYPES.len()].to_owned();
            // The last one stands for the pipeline's own.
            let mode = MODES.get((random >> 12) as usize % (MODES.len() + 1)).copied();
            spec.flow = Some(FlowRequest::Pipeline { mode });
        }
        _plain => {}
    }
    if (random >> 16).is_multiple_of(5) {
        let nth = 1 + (random >> 24) % KEYS;
        spec.concurrency = Some(Concurrency { key: format!("k{nth}"), max: nth as u32 });
    }
    let chance = clock::random();
    if chance.is_multiple_of(8) {
        let nth = 1 + (chance >> 8) % RATES;
        let (key, per_ms) = (format!("r{nth}"), WINDOW_MS * nth);
        spec.rate = Some(RateLimit { key, max: nth as u32, per_ms });
    }
    if (random >> 32).is_multiple_of(3) {
        spec.callback_url = Some(format!("http://sink{}/ended", (random >> 40) % 2));
    }
    if (random >> 48).is_multiple_of(20) {
        spec.deadline_ms = Some(clock::now_ms() + 300 + (random >> 52));
    }
}

fn steps(random: u64) -> FlowRequest {
    FlowRequest::Steps { mode: mode(random), steps: graph(random, "") }
}

fn mode(random: u64) -> FlowMode {
    MODES[random as usize % MODES.len()]
}

/// What tasks of a type are to do from now on. Its steps bear the definition's own name, so that
/// whoever sees a task knows which one it follows.
pub(crate) fn pipeline(task_type: &str, name: &str) -> Pipeline {
    let random = clock::random();
    Pipeline {
        task_type: task_type.to_owned(),
        mode: mode(random),
        estimate_ms: random % 5000,
        steps: graph(random, &format!("{name}-")),
    }
}

/// Two to four steps by agents. In a graph the last one waits for all others, and those for the first.
fn graph(random: u64, prefix: &str) -> Vec<StepSpec> {
    let len = 2 + (random >> 2) as u16 % 3;
    let step = |place: u16| {
        let random = random >> (8 + 8 * place);
        StepSpec {
            name: format!("{prefix}s{place}"),
            agent_type: match (random >> 5) % 8 {
                0 if (random >> 2).is_multiple_of(2) => MISSING.to_owned(),
                _there => KINDS[random as usize % KINDS.len()].to_owned(),
            },
            depends_on: match place {
                0 => Vec::new(),
                _ if place + 1 == len => (0..place).collect(),
                _ => vec![0],
            },
            max_retries: (random >> 2) as u32 % 4,
            timeout_ms: if (random >> 4).is_multiple_of(2) { 0 } else { 1000 },
            parameters: String::new(),
        }
    };
    (0..len).map(step).collect()
}

//! What clients ask for beside plain tasks: work in steps by agents, the same work on several
//! nodes, at most so many of a key at once, deadlines, and posts when all is over.

use quorate::clock;
use quorate::model::{Concurrency, FlowMode, StepSpec};
use quorate::state::{FlowRequest, TaskSpec};

/// Kinds of agents.
pub(crate) const KINDS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Keys that tasks share; the first stands for one at once, the second for two, and so on.
const KEYS: u64 = 3;
/// The modes a client can choose.
const MODES: [FlowMode; 4] =
    [FlowMode::Sequential, FlowMode::Parallel, FlowMode::Hybrid, FlowMode::Graph];

/// Makes a plain task into one of the others, sometimes.
pub(crate) fn shape(spec: &mut TaskSpec) {
    let random = clock::random();
    match random % 20 {
        0..4 => spec.flow = Some(steps(clock::random())),
        4..6 => spec.flow = Some(FlowRequest::Copies { count: 2 + (random >> 8) as u16 % 2 }),
        _plain => {}
    }
    if (random >> 16).is_multiple_of(5) {
        let nth = 1 + (random >> 24) % KEYS;
        spec.concurrency = Some(Concurrency { key: format!("k{nth}"), max: nth as u32 });
    }
    if (random >> 32).is_multiple_of(3) {
        spec.callback_url = Some(format!("http://sink{}/ended", (random >> 40) % 2));
    }
    if (random >> 48).is_multiple_of(20) {
        spec.deadline_ms = Some(clock::now_ms() + 300 + (random >> 52));
    }
}

/// Two to four steps by agents. In a graph the last one waits for all others, and those for the first.
fn steps(random: u64) -> FlowRequest {
    let len = 2 + (random >> 2) as u16 % 3;
    let step = |place: u16| {
        let random = random >> (8 + 8 * place);
        StepSpec {
            name: format!("s{place}"),
            agent_type: KINDS[random as usize % KINDS.len()].to_owned(),
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
    FlowRequest::Steps {
        mode: MODES[random as usize % MODES.len()],
        steps: (0..len).map(step).collect(),
    }
}

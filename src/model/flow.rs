//! A flow: a task whose work is done in steps (contract 4.4, 4.5), or by several nodes at once
//! (`redundancy`, contract 2.8).
//!
//! Each step that is under way is a task of its own, so placement, attempts, back-offs and time-outs
//! are those of any task. The flow says which steps may begin and when the whole is over. Pure.

use serde::{Deserialize, Serialize};

use super::{TaskId, TimeMs};

/// The most steps of one flow.
pub const STEPS_MAX: usize = 64;

/// How the steps of a flow hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowMode {
    /// Each step works on what the one before it gave; the first failure ends the flow.
    Sequential,
    /// All at once on the task's inputs; it fails only if all of them fail.
    Parallel,
    /// The first half at once, the second half one after the other on what the first half gave.
    Hybrid,
    /// Each step says which ones it waits for; the first failure ends the flow.
    Graph,
    /// The same work on several nodes; the first result counts.
    Copies,
}

impl FlowMode {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
            Self::Hybrid => "hybrid",
            Self::Graph => "graph",
            Self::Copies => "copies",
        }
    }

    /// Reads a client's word; copies are asked for by `redundancy` alone.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let known = [Self::Sequential, Self::Parallel, Self::Hybrid, Self::Graph];
        known.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    }
}

/// One step as a pipeline defines it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Unique within its flow.
    pub name: String,
    /// Which kind of agent does it; empty for the copies of a task that nodes do.
    pub agent_type: String,
    /// Places of the steps it waits for, all before its own. Only looked at in mode `graph`.
    pub depends_on: Vec<u16>,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Longest time for one attempt; 0 for the default.
    pub timeout_ms: u64,
    /// JSON object text that is added to the task's own parameters; empty for none.
    pub parameters: String,
}

/// A definition that tasks of one type follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Which tasks.
    pub task_type: String,
    /// What a task gets that names no mode.
    pub mode: FlowMode,
    /// What a client is told to expect.
    pub estimate_ms: u64,
    /// In order; 1 to [`STEPS_MAX`].
    pub steps: Vec<StepSpec>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// Those it depends on have not ended.
    Waiting,
    /// There is a task for it that has not ended.
    Open,
    /// It gave a result.
    Completed,
    /// It will give none.
    Failed,
    /// Nobody needs it any more.
    Cancelled,
}

impl StepState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "pending",
            Self::Open => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens to it any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Open => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// One step of a flow that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As it was defined when the task came.
    pub spec: StepSpec,
    /// Where it stands.
    pub state: StepState,
    /// Its newest attempt before the task was put back: attempts go on counting from there.
    pub attempt: u32,
}

/// The steps of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// How they hang together.
    pub mode: FlowMode,
    /// In order.
    pub steps: Vec<Step>,
}

/// Whose step a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOf {
    /// The task that is done in steps.
    pub task_id: TaskId,
    /// Which of its steps.
    pub step: u16,
    /// When that task was accepted: its steps keep its place in the queue.
    pub submitted_at_ms: TimeMs,
}

/// What the steps say about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some are still to be done.
    Going,
    /// The task has its result.
    Completed,
    /// It has none, because of this step.
    Failed(u16),
}

impl Flow {
    /// The steps of a new task.
    #[must_use]
    pub fn new(mode: FlowMode, specs: Vec<StepSpec>) -> Self {
        let steps =
            specs.into_iter().map(|spec| Step { spec, state: StepState::Waiting, attempt: 0 });
        let mut flow = Self { mode, steps: steps.collect() };
        for place in 0..flow.steps.len() {
            let waits_for = flow.waits_for(place);
            flow.steps[place].spec.depends_on = waits_for;
        }
        flow
    }

    /// How many steps of a hybrid flow begin at once: half of them, at least one.
    #[must_use]
    pub fn first_stage(len: usize) -> usize {
        (len / 2).max(1).min(len)
    }

    fn waits_for(&self, place: usize) -> Vec<u16> {
        // A flow has at most 64 steps.
        let numbers = |range: std::ops::Range<usize>| range.map(|at| at as u16).collect();
        let stage = Self::first_stage(self.steps.len());
        match self.mode {
            FlowMode::Parallel | FlowMode::Copies => Vec::new(),
            FlowMode::Sequential => numbers(place.saturating_sub(1)..place),
            FlowMode::Hybrid if place < stage => Vec::new(),
            FlowMode::Hybrid if place == stage => numbers(0..stage),
            FlowMode::Hybrid => numbers(place - 1..place),
            FlowMode::Graph => {
                let known = |at: &&u16| usize::from(**at) < place;
                self.steps[place].spec.depends_on.iter().filter(known).copied().collect()
            }
        }
    }

    /// How many steps wait for no other.
    #[must_use]
    pub fn begins(&self) -> usize {
        self.steps.iter().filter(|step| step.spec.depends_on.is_empty()).count()
    }

    fn state(&self, place: u16) -> StepState {
        self.steps.get(usize::from(place)).map_or(StepState::Cancelled, |step| step.state)
    }

    fn count(&self, range: std::ops::Range<usize>, state: StepState) -> usize {
        self.steps[range].iter().filter(|step| step.state == state).count()
    }

    /// The steps that may begin now, in order.
    #[must_use]
    pub fn ready(&self) -> Vec<u16> {
        let may_begin = |place: &u16| {
            let step = &self.steps[usize::from(*place)];
            step.state == StepState::Waiting && self.has_inputs(step)
        };
        (0..self.steps.len() as u16).filter(may_begin).collect()
    }

    fn has_inputs(&self, step: &Step) -> bool {
        let mut states = step.spec.depends_on.iter().map(|place| self.state(*place));
        if self.mode == FlowMode::Hybrid && step.spec.depends_on.len() > 1 {
            // The second stage works on what the first gave, as long as that is anything.
            let states: Vec<StepState> = states.collect();
            return states.iter().all(|state| state.is_over())
                && states.contains(&StepState::Completed);
        }
        states.all(|state| state == StepState::Completed)
    }

    /// Whether the flow is over, and how.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let len = self.steps.len();
        let first_failed = |mut range: std::ops::Range<usize>| {
            let failed = |place: &usize| self.steps[*place].state == StepState::Failed;
            range.find(failed).map(|place| place as u16)
        };
        let all_or_nothing = |range: std::ops::Range<usize>| match first_failed(range.clone()) {
            Some(failed) => Verdict::Failed(failed),
            None if self.count(range.clone(), StepState::Completed) == range.len() => {
                Verdict::Completed
            }
            None => Verdict::Going,
        };
        let any_is_enough = |range: std::ops::Range<usize>| {
            let over = self.steps[range.clone()].iter().all(|step| step.state.is_over());
            match (over, self.count(range.clone(), StepState::Completed)) {
                (false, _) => Verdict::Going,
                (true, 0) => Verdict::Failed(first_failed(range).unwrap_or(0)),
                (true, _) => Verdict::Completed,
            }
        };
        match self.mode {
            FlowMode::Sequential | FlowMode::Graph => all_or_nothing(0..len),
            FlowMode::Parallel => any_is_enough(0..len),
            FlowMode::Copies if self.count(0..len, StepState::Completed) > 0 => Verdict::Completed,
            FlowMode::Copies => any_is_enough(0..len),
            FlowMode::Hybrid => {
                let stage = Self::first_stage(len);
                match any_is_enough(0..stage) {
                    Verdict::Completed if stage < len => all_or_nothing(stage..len),
                    verdict => verdict,
                }
            }
        }
    }

    /// Steps that are over, and all of them.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.steps.iter().filter(|step| step.state.is_over()).count(), self.steps.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(mode: FlowMode, states: &str) -> Flow {
        let spec = |n: usize| StepSpec { name: format!("s{n}"), ..StepSpec::default() };
        let mut flow = Flow::new(mode, (0..states.len()).map(spec).collect());
        for (step, letter) in flow.steps.iter_mut().zip(states.chars()) {
            step.state = match letter {
                'w' => StepState::Waiting,
                'o' => StepState::Open,
                'c' => StepState::Completed,
                'f' => StepState::Failed,
                _ => StepState::Cancelled,
            };
        }
        flow
    }

    #[test]
    fn contract_4_5_which_steps_begin_and_when_the_flow_is_over() {
        use FlowMode::{Copies, Hybrid, Parallel, Sequential};
        use Verdict::{Completed, Failed, Going};
        let cases: [(FlowMode, &str, &[u16], Verdict); 19] = [
            (Sequential, "www", &[0], Going),
            (Sequential, "oww", &[], Going),
            (Sequential, "cww", &[1], Going),
            (Sequential, "cfw", &[], Failed(1)),
            (Sequential, "ccc", &[], Completed),
            (Parallel, "www", &[0, 1, 2], Going),
            (Parallel, "cfo", &[], Going),
            (Parallel, "cff", &[], Completed),
            (Parallel, "fff", &[], Failed(0)),
            (Hybrid, "wwwww", &[0, 1], Going),
            (Hybrid, "cowww", &[], Going),
            (Hybrid, "cfwww", &[2], Going),
            (Hybrid, "ffwww", &[], Failed(0)),
            (Hybrid, "cccww", &[3], Going),
            (Hybrid, "ccccf", &[], Failed(4)),
            (Hybrid, "w", &[0], Going),
            (Hybrid, "c", &[], Completed),
            (Copies, "oco", &[], Completed),
            (Copies, "ffo", &[], Going),
        ];
        for (mode, states, ready, verdict) in cases {
            let flow = flow(mode, states);
            assert_eq!(flow.ready(), ready, "{mode:?} {states}");
            assert_eq!(flow.verdict(), verdict, "{mode:?} {states}");
        }
    }

    #[test]
    fn a_graph_waits_for_all_that_a_step_depends_on() {
        let spec = |name: &str, depends_on: &[u16]| StepSpec {
            name: name.to_owned(),
            depends_on: depends_on.to_vec(),
            ..StepSpec::default()
        };
        let specs = vec![spec("a", &[]), spec("b", &[]), spec("join", &[0, 1]), spec("end", &[2])];
        let mut flow = Flow::new(FlowMode::Graph, specs);
        assert_eq!(flow.ready(), [0, 1]);
        flow.steps[0].state = StepState::Completed;
        flow.steps[1].state = StepState::Open;
        assert!(flow.ready().is_empty());
        flow.steps[1].state = StepState::Completed;
        assert_eq!(flow.ready(), [2]);
        assert_eq!(flow.progress(), (2, 4));
    }
}

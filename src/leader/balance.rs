//! Choosing one node among those that can do the work: the five algorithms of contract 2.8.
//!
//! Pure functions over figures, in integers: the same figures and the same draw give the same
//! node. The caller lists candidates in order of their ids, which is what "first" means here.

use std::collections::BTreeMap;

use crate::model::{Load, Node};
use crate::state::Algorithm;

/// 100 % in the unit of [`Load`]'s shares.
const FULL_SHARE_MILLI: u32 = 100_000;
/// 1.0 in the unit of scores.
const FULL_SCORE_MILLI: u32 = 1000;

/// Types of agents whose turns are counted; when there are more, all counts begin anew.
const TYPES_MAX: usize = 1000;

/// Running counts of placements, which round robin goes by: one of the nodes, and one of the agents of each
/// type, so that types that take turns with each other do not hold each other's turns (contract 4.7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    nodes: u64,
    agents: BTreeMap<String, u64>,
}

impl Turns {
    /// The count, which goes on by one.
    pub(super) fn take(&mut self, agent_type: Option<&str>) -> u64 {
        let count = match agent_type {
            None => &mut self.nodes,
            Some(agent_type) => {
                if self.agents.len() >= TYPES_MAX && !self.agents.contains_key(agent_type) {
                    self.agents.clear();
                }
                self.agents.entry(agent_type.to_owned()).or_default()
            }
        };
        let turn = *count;
        *count = count.wrapping_add(1);
        turn
    }
}

/// What is known of one node when a plan is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// The freshest load figures.
    pub load: Load,
    /// Thousandths of the reliability score.
    pub reliability_milli: u32,
    /// Executions it holds, those placed earlier in the same plan included.
    pub active: u32,
    /// The most it takes.
    pub capacity: u32,
}

impl Figures {
    /// The figures of `node`, with `fresh` ones in place of the replicated ones when there are any.
    #[must_use]
    pub fn of(node: &Node, fresh: Option<&Load>) -> Self {
        Self {
            load: fresh.copied().unwrap_or(node.load),
            reliability_milli: node.reliability_milli,
            active: node.live,
            capacity: node.capacity,
        }
    }

    /// Free places times the share that is free (contract 4.7, `weighted`), in millionths.
    fn room(&self) -> u64 {
        let free = u64::from(self.capacity.saturating_sub(self.active));
        free * free * 1_000_000 / u64::from(self.capacity.max(1))
    }

    fn weight(&self) -> u64 {
        let free = FULL_SCORE_MILLI.saturating_sub(self.load.score_milli);
        u64::from(free) * u64::from(self.reliability_milli)
    }

    /// Three times the mean of free cpu, memory and gpu. A node that says nothing of its gpu, or
    /// uses none of it, counts as wholly free there.
    fn free(&self) -> u64 {
        let Load { cpu_milli, memory_milli, gpu_milli, .. } = self.load;
        let free = |used: u32| u64::from(FULL_SHARE_MILLI.saturating_sub(used));
        free(cpu_milli) + free(memory_milli) + free(gpu_milli)
    }
}

/// Chooses a position in `among`, whose entries are positions in `figures`. `draw` is the running
/// count for round robin and a random number for the weighted choice; the others do not use it.
/// Ties go to the node with fewer executions, then to the first. `None` when `among` is empty.
#[must_use]
pub fn choose(
    algorithm: Algorithm,
    figures: &[Figures],
    among: &[usize],
    draw: u64,
) -> Option<usize> {
    if among.is_empty() {
        return None;
    }
    let figure = |position: &usize| &figures[*position];
    match algorithm {
        Algorithm::RoundRobin | Algorithm::Random => {
            usize::try_from(draw % among.len() as u64).ok()
        }
        Algorithm::WeightedRoundRobin => Some(weighted(figures, among, draw)),
        Algorithm::LeastConnections => first_min(among, |position| {
            let figures = figure(position);
            (u64::from(figures.active), u64::from(figures.load.score_milli))
        }),
        Algorithm::ResourceAware => first_min(among, |position| {
            let figures = figure(position);
            (u64::MAX - figures.free(), u64::from(figures.active))
        }),
        Algorithm::LatencyOptimized => first_min(among, |position| {
            let figures = figure(position);
            // One that was never measured may be anywhere.
            let latency_us = figures.load.latency_us;
            (latency_us == 0, u64::from(latency_us), u64::from(figures.active))
        }),
        Algorithm::MostRoom => first_min(among, |position| {
            let figures = figure(position);
            (u64::MAX - figures.room(), u64::from(figures.active))
        }),
    }
}

/// In proportion to free load times reliability; the first when nobody has any weight.
fn weighted(figures: &[Figures], among: &[usize], draw: u64) -> usize {
    let total: u64 = among.iter().map(|position| figures[*position].weight()).sum();
    if total == 0 {
        return 0;
    }
    let mut point = draw % total;
    for (place, position) in among.iter().enumerate() {
        let weight = figures[*position].weight();
        if point < weight {
            return place;
        }
        point -= weight;
    }
    unreachable!("the point lies below the sum of the weights")
}

fn first_min<K: Ord>(among: &[usize], key: impl Fn(&usize) -> K) -> Option<usize> {
    // `min_by_key` gives the first of equal ones.
    among.iter().enumerate().min_by_key(|(_, position)| key(position)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(score: u32, reliability: u32, active: u32) -> Figures {
        let load = Load { score_milli: score, ..Load::default() };
        Figures { load, reliability_milli: reliability, active, capacity: 16 }
    }

    fn used(cpu: u32, memory: u32, gpu: u32, active: u32) -> Figures {
        let load = Load {
            cpu_milli: cpu * 1000,
            memory_milli: memory * 1000,
            gpu_milli: gpu * 1000,
            ..Load::default()
        };
        Figures { load, reliability_milli: 1000, active, capacity: 16 }
    }

    fn far(latency_us: u32, active: u32) -> Figures {
        let load = Load { latency_us, ..Load::default() };
        Figures { load, reliability_milli: 1000, active, capacity: 16 }
    }

    #[test]
    fn contract_4_7_weighted_agents_are_those_with_most_room() {
        let agent = |active, capacity| Figures { active, capacity, ..Figures::default() };
        // Free times share: 2 * 0.2, 4 * 0.8, 5 * 0.25.
        let agents = [agent(8, 10), agent(1, 5), agent(15, 20)];
        assert_eq!(pick(Algorithm::MostRoom, &agents, 0), Some(1));
        assert_eq!(pick(Algorithm::Random, &agents, 5), Some(2));
    }

    #[test]
    fn contract_4_7_least_loaded_is_the_agent_with_the_fewest_tasks() {
        let agent = |active, capacity| Figures { active, capacity, ..Figures::default() };
        let default = crate::state::Policy::default().agent_algorithm;
        let agents = [agent(3, 100), agent(1, 2), agent(2, 50)];
        assert_eq!(pick(default, &agents, 7), Some(1));
    }

    #[test]
    fn contract_4_7_round_robin_counts_each_type_by_itself() {
        let mut turns = Turns::default();
        // Two types in turn, with two agents each: one count for both would give each type one agent.
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(["a", "b"].map(|kind| turns.take(Some(kind)) % 2));
        }
        assert_eq!(order, [[0, 0], [1, 1], [0, 0]]);
        assert_eq!((turns.take(None), turns.take(None)), (0, 1));
        for n in 0..2 * TYPES_MAX {
            turns.take(Some(&format!("t{n}")));
        }
        assert!(turns.agents.len() <= TYPES_MAX, "{}", turns.agents.len());
    }

    fn pick(algorithm: Algorithm, figures: &[Figures], draw: u64) -> Option<usize> {
        let among: Vec<usize> = (0..figures.len()).collect();
        choose(algorithm, figures, &among, draw)
    }

    #[test]
    fn nobody_is_chosen_among_nobody() {
        for algorithm in Algorithm::ALL {
            assert_eq!(pick(algorithm, &[], 7), None, "{algorithm:?}");
        }
    }

    #[test]
    fn one_candidate_is_always_chosen() {
        for algorithm in Algorithm::ALL {
            for draw in [0, 1, u64::MAX] {
                assert_eq!(pick(algorithm, &[node(1000, 0, 9)], draw), Some(0), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn round_robin_takes_turns_in_stable_order() {
        let three = [node(0, 1000, 0); 3];
        let turns: Vec<_> =
            (0..7).map(|count| pick(Algorithm::RoundRobin, &three, count).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(pick(Algorithm::RoundRobin, &three, u64::MAX), Some(0));
    }

    #[test]
    fn weighted_round_robin_follows_the_weights() {
        // Weights: 500 * 1000, 0 * 1000, 1000 * 500, 100 * 100.
        let nodes = [node(500, 1000, 0), node(1000, 1000, 0), node(0, 500, 0), node(900, 100, 0)];
        for (draw, expected) in [
            (0, 0),
            (499_999, 0),
            (500_000, 2),
            (999_999, 2),
            (1_000_000, 3),
            (1_009_999, 3),
            (1_010_000, 0),
        ] {
            assert_eq!(pick(Algorithm::WeightedRoundRobin, &nodes, draw), Some(expected), "{draw}");
        }
    }

    #[test]
    fn weighted_round_robin_without_any_weight_takes_the_first() {
        let nodes = [node(1000, 1000, 0), node(2000, 700, 0), node(0, 0, 0)];
        for draw in [0, 5, u64::MAX] {
            assert_eq!(pick(Algorithm::WeightedRoundRobin, &nodes, draw), Some(0));
        }
    }

    #[test]
    fn the_argmin_algorithms_as_a_table() {
        use Algorithm::{LatencyOptimized, LeastConnections, ResourceAware};
        let cases: [(&str, Algorithm, &[Figures], usize); 11] = [
            ("fewest", LeastConnections, &[node(0, 1, 3), node(900, 1, 1), node(0, 1, 2)], 1),
            ("tie by load", LeastConnections, &[node(400, 1, 1), node(300, 1, 1)], 1),
            ("full tie", LeastConnections, &[node(300, 1, 1), node(300, 1, 1)], 0),
            ("most free", ResourceAware, &[used(50, 50, 0, 0), used(10, 80, 0, 0)], 1),
            ("busy gpu", ResourceAware, &[used(10, 10, 100, 0), used(50, 50, 0, 0)], 1),
            ("no gpu counts whole", ResourceAware, &[used(20, 20, 1, 0), used(20, 20, 0, 0)], 1),
            ("over 100 %", ResourceAware, &[used(300, 0, 0, 0), used(0, 90, 0, 0)], 1),
            ("tie by active", ResourceAware, &[used(1, 1, 1, 2), used(1, 1, 1, 1)], 1),
            ("nearest", LatencyOptimized, &[far(900, 0), far(30, 8), far(31, 0)], 1),
            ("unknown is not near", LatencyOptimized, &[far(0, 0), far(900, 8)], 1),
            ("tie by active", LatencyOptimized, &[far(30, 8), far(30, 7), far(30, 7)], 1),
        ];
        for (name, algorithm, nodes, expected) in cases {
            assert_eq!(pick(algorithm, nodes, 0), Some(expected), "{name}");
        }
    }

    #[test]
    fn only_those_listed_are_candidates() {
        let nodes = [far(1, 0), far(5, 0), far(3, 0)];
        assert_eq!(choose(Algorithm::LatencyOptimized, &nodes, &[1, 2], 0), Some(1));
    }
}

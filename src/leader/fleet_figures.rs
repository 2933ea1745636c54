//! Figures of the whole fleet, sampled by the leader: what alerts and scaling are decided by.
//!
//! The replicated counters are the source; a window of samples in memory makes rates of them. A new
//! leader starts with none, so nothing is decided before there are enough again.

use std::collections::VecDeque;

use crate::model::{NodeStatus, TimeMs};
use crate::state::State;

/// The most samples kept.
const SAMPLES_MAX: usize = 512;
/// Samples are this far apart, however often a duty looks, where nothing else is asked for.
pub(super) const SAMPLE_EVERY_MS: TimeMs = 10_000;

/// The fleet at one moment. Counters are since ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at_ms: TimeMs,
    /// Mean load score of active nodes, in thousandths.
    pub(super) utilization_milli: u64,
    /// Waiting tasks per place of active nodes, in thousandths.
    pub(super) pending_milli: u64,
    /// Mean CPU in use of active nodes, in thousandths of a percent.
    pub(super) cpu_milli: u64,
    /// As `cpu_milli`, of memory.
    pub(super) memory_milli: u64,
    pub(super) active_nodes: u32,
    pub(super) offline_nodes: u32,
    completed: u64,
    failed: u64,
    response_ms: u64,
}

impl Sample {
    /// The fleet as `view` shows it.
    fn of(view: &State, now: TimeMs) -> Self {
        let (mut active, mut offline, mut score, mut places) = (0u32, 0u32, 0u64, 0u64);
        let (mut cpu, mut memory) = (0u64, 0u64);
        for node in view.nodes().filter(|node| node.agent_type.is_none()) {
            match node.status {
                NodeStatus::Active => {
                    active += 1;
                    score += u64::from(node.load.score_milli);
                    places += u64::from(node.capacity);
                    cpu += u64::from(node.load.cpu_milli);
                    memory += u64::from(node.load.memory_milli);
                }
                NodeStatus::Offline => offline += 1,
                NodeStatus::Degraded | NodeStatus::Maintenance | NodeStatus::Error => {}
            }
        }
        let counters = view.counters();
        Self {
            at_ms: now,
            utilization_milli: score / u64::from(active.max(1)),
            pending_milli: view.waiting_len().saturating_mul(1000) / places.max(1),
            cpu_milli: cpu / u64::from(active.max(1)),
            memory_milli: memory / u64::from(active.max(1)),
            active_nodes: active,
            offline_nodes: offline,
            completed: counters.tasks_completed,
            failed: counters.tasks_failed,
            response_ms: counters.response_ms_total,
        }
    }
}

/// The newest samples.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

/// What a window of samples says. `None` for what it cannot say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Samples in the window.
    pub(super) samples: usize,
    /// Whether they reach back over the whole window, or nearly.
    pub(super) whole: bool,
    pub(super) utilization_milli: Option<u64>,
    pub(super) pending_milli: Option<u64>,
    pub(super) cpu_milli: Option<u64>,
    pub(super) memory_milli: Option<u64>,
    /// Nodes that went offline within the window, in thousandths.
    pub(super) failures_milli: u64,
    /// Completed of all that ended, in thousandths.
    pub(super) success_milli: Option<u64>,
    /// From acceptance to result, in thousandths of a millisecond.
    pub(super) response_milli: Option<u64>,
    pub(super) active_nodes: u32,
}

impl Samples {
    /// Takes a sample of the fleet, unless the newest one is younger than `every_ms`.
    pub(super) fn take(&mut self, view: &State, now: TimeMs, every_ms: TimeMs) {
        let due = |newest: &Sample| now >= newest.at_ms.saturating_add(every_ms);
        if self.0.back().is_none_or(due) {
            self.push(Sample::of(view, now));
        }
    }

    fn push(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What the samples of the last `window_ms` say.
    pub(super) fn over(&self, window_ms: TimeMs) -> Figures {
        let Some(newest) = self.0.back() else { return Figures::default() };
        let from = newest.at_ms.saturating_sub(window_ms);
        let window: Vec<&Sample> = self.0.iter().filter(|sample| sample.at_ms >= from).collect();
        let Some(oldest) = window.first() else { return Figures::default() };
        let len = window.len() as u64;
        let mean =
            |of: fn(&Sample) -> u64| window.iter().map(|sample| of(sample)).sum::<u64>() / len;
        let completed = newest.completed.saturating_sub(oldest.completed);
        let ended = completed + newest.failed.saturating_sub(oldest.failed);
        let response = newest.response_ms.saturating_sub(oldest.response_ms);
        let lost = window
            .windows(2)
            .map(|pair| u64::from(pair[1].offline_nodes.saturating_sub(pair[0].offline_nodes)));
        let has_nodes = newest.active_nodes > 0;
        Figures {
            samples: window.len(),
            // The sample before may lie just outside, and short windows have few.
            whole: newest.at_ms - oldest.at_ms + SAMPLE_EVERY_MS >= window_ms / 10 * 9,
            utilization_milli: has_nodes.then(|| mean(|sample| sample.utilization_milli)),
            pending_milli: has_nodes.then(|| mean(|sample| sample.pending_milli)),
            cpu_milli: has_nodes.then(|| mean(|sample| sample.cpu_milli)),
            memory_milli: has_nodes.then(|| mean(|sample| sample.memory_milli)),
            failures_milli: lost.sum::<u64>() * 1000,
            success_milli: (ended > 0).then(|| completed * 1000 / ended),
            response_milli: (completed > 0).then(|| response.saturating_mul(1000) / completed),
            active_nodes: newest.active_nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: TimeMs, completed: u64, failed: u64, offline: u32) -> Sample {
        Sample {
            at_ms,
            completed,
            failed,
            response_ms: completed * 40,
            offline_nodes: offline,
            active_nodes: 1,
            utilization_milli: at_ms / 100,
            pending_milli: 0,
            ..Sample::default()
        }
    }

    /// A window of 30 s was never whole: samples are a little more than 10 s apart.
    #[test]
    fn a_short_window_is_whole_with_the_samples_that_fit() {
        let mut samples = Samples::default();
        let whole = |samples: &Samples| samples.over(30_000).whole;
        for (at_ms, wanted) in [(0, false), (10_030, false), (20_050, true), (30_070, true)] {
            samples.push(sample(at_ms, 0, 0, 0));
            assert_eq!(whole(&samples), wanted, "{at_ms}");
        }
    }

    #[test]
    fn a_window_makes_rates_of_counters() {
        let mut samples = Samples::default();
        assert_eq!(samples.over(1000), Figures::default());
        for one in [sample(0, 7, 7, 0), sample(60_000, 10, 1 + 7, 2), sample(120_000, 16, 10, 1)] {
            samples.push(one);
        }
        let all = samples.over(120_000);
        assert_eq!((all.samples, all.whole), (3, true));
        assert_eq!((all.success_milli, all.response_milli), (Some(750), Some(40_000)));
        assert_eq!((all.failures_milli, all.utilization_milli), (2000, Some(600)));
        let short = samples.over(60_000);
        assert_eq!((short.samples, short.success_milli), (2, Some(750)));
        assert!(!samples.over(300_000).whole);
    }

    #[test]
    fn samples_are_as_far_apart_as_is_asked_for() {
        let solo = crate::leader::solo::Solo::new();
        let mut samples = Samples::default();
        for (now, every_ms, taken) in [
            (0, 1000, 1),
            (999, 1000, 1),
            (1000, 1000, 2),
            (2500, SAMPLE_EVERY_MS, 2),
            (11_000, SAMPLE_EVERY_MS, 3),
        ] {
            samples.take(&solo.state.read(), now, every_ms);
            assert_eq!(samples.over(300_000).samples, taken, "at {now} ms");
        }
    }
}

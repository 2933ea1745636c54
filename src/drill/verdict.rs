//! Whether a drill was passed.

use std::time::Duration;

use crate::model::DrillState;

/// What must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest time without an acknowledged write.
    pub write_gap: Duration,
    /// The longest time without a read that was answered.
    pub read_gap: Duration,
    /// The longest time without a dispatch.
    pub dispatch_gap: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let usual = Duration::from_secs(5);
        Self { write_gap: usual, read_gap: usual, dispatch_gap: usual }
    }
}

/// What a verdict is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Why it cannot be told whether the fault took effect.
    pub(super) no_effect: Option<String>,
    /// Stopped before its end.
    pub(super) interrupted: bool,
    pub(super) write_gap: Duration,
    pub(super) read_gap: Duration,
    /// None when there were no dispatches to be seen.
    pub(super) dispatch_gap: Option<Duration>,
    /// Acknowledged and not there any more.
    pub(super) lost: usize,
    /// Handed over in more than one attempt.
    pub(super) doubled: usize,
    /// Reads that denied what had been acknowledged.
    pub(super) stale: u64,
    /// Acknowledged tasks that were not done in the end.
    pub(super) undone: usize,
    /// Writes acknowledged while the fault lasted, or right after it.
    pub(super) writes: usize,
    /// Not all members were in step again in time.
    pub(super) not_whole: bool,
    /// Members whose states differ at one index.
    pub(super) differing: bool,
    /// Rehearsals that failed, in words.
    pub(super) rehearsals_failed: Vec<String>,
}

/// Fewer acknowledged writes say nothing about gaps.
const WRITES_MIN: usize = 10;

/// How a drill ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Passed, failed, inconclusive or aborted.
    pub state: DrillState,
    /// One per thing that stands against a pass.
    pub reasons: Vec<String>,
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Judges. What was lost is lost, however little else could be told.
pub(super) fn judge(evidence: &Evidence, limits: &Limits) -> Verdict {
    let mut failed = Vec::new();
    let mut counted = |count: usize, what: &str| {
        if count > 0 {
            failed.push(format!("{count} {what}"));
        }
    };
    counted(evidence.lost, "acknowledged writes are lost");
    counted(evidence.doubled, "tasks were handed over in more than one attempt");
    counted(
        usize::try_from(evidence.stale).unwrap_or(usize::MAX),
        "reads showed less than was acknowledged before",
    );
    if evidence.differing {
        failed.push("members differ at one index".to_owned());
    }
    failed.extend(evidence.rehearsals_failed.iter().cloned());
    let grave = !failed.is_empty();
    if evidence.interrupted && !grave {
        let reasons = vec!["it was stopped before its end".to_owned()];
        return Verdict { state: DrillState::Aborted, reasons };
    }
    let mut doubts: Vec<String> = evidence.no_effect.iter().cloned().collect();
    if evidence.writes < WRITES_MIN {
        doubts.push(format!("only {} writes were acknowledged", evidence.writes));
    }
    let mut over = |gap: Option<Duration>, limit: Duration, what: &str| {
        if let Some(gap) = gap.filter(|gap| *gap > limit) {
            failed.push(format!("no {what} for {}, at most {}", seconds(gap), seconds(limit)));
        }
    };
    over(Some(evidence.write_gap), limits.write_gap, "write");
    over(Some(evidence.read_gap), limits.read_gap, "read");
    over(evidence.dispatch_gap, limits.dispatch_gap, "dispatch");
    if evidence.undone > 0 {
        failed.push(format!("{} acknowledged tasks were not done in the end", evidence.undone));
    }
    if evidence.not_whole {
        failed.push("not all members were in step again".to_owned());
    }
    let state = match (failed.is_empty(), doubts.is_empty()) {
        (false, _) => DrillState::Failed,
        (true, false) => DrillState::Inconclusive,
        (true, true) => DrillState::Passed,
    };
    failed.extend(doubts);
    Verdict { state, reasons: failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            write_gap: Duration::from_millis(400),
            read_gap: Duration::from_millis(300),
            dispatch_gap: Some(Duration::from_millis(500)),
            writes: 100,
            ..Evidence::default()
        }
    }

    #[test]
    fn verdicts() {
        use DrillState::{Aborted, Failed, Inconclusive, Passed};
        let long = Duration::from_millis(1001);
        let nothing = Some("nobody was elected".to_owned());
        let cases = [
            (good(), Passed, 0),
            (Evidence { write_gap: long, ..good() }, Failed, 1),
            (Evidence { write_gap: Duration::from_secs(1), ..good() }, Passed, 0),
            (Evidence { read_gap: long, dispatch_gap: Some(long), ..good() }, Failed, 2),
            (Evidence { dispatch_gap: None, ..good() }, Passed, 0),
            (Evidence { lost: 1, ..good() }, Failed, 1),
            (Evidence { doubled: 1, ..good() }, Failed, 1),
            (Evidence { stale: 1, ..good() }, Failed, 1),
            (Evidence { undone: 1, ..good() }, Failed, 1),
            (Evidence { differing: true, ..good() }, Failed, 1),
            (Evidence { not_whole: true, ..good() }, Failed, 1),
            (Evidence { no_effect: nothing.clone(), ..good() }, Inconclusive, 1),
            (Evidence { writes: 9, ..good() }, Inconclusive, 1),
            (Evidence { no_effect: nothing, lost: 1, ..good() }, Failed, 2),
            (Evidence { interrupted: true, write_gap: long, ..good() }, Aborted, 1),
            (Evidence { interrupted: true, lost: 2, ..good() }, Failed, 1),
        ];
        let second = Duration::from_secs(1);
        let limits = Limits { write_gap: second, read_gap: second, dispatch_gap: second };
        for (evidence, state, reasons) in cases {
            let verdict = judge(&evidence, &limits);
            assert_eq!(verdict.state, state, "{evidence:?}: {verdict:?}");
            assert_eq!(verdict.reasons.len(), reasons, "{evidence:?}: {verdict:?}");
        }
    }
}

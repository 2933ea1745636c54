//! Drills: one at a time, and a bounded record of what came of them.
//!
//! The record is also the lock: while a drill runs and its lease lasts, no other begins, whichever
//! member is asked. A drill whose runner died keeps others out until its lease is over and no
//! longer; the faults it caused end by themselves, on the members.

use super::apply::Txn;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{Drill, DrillId, DrillKind, DrillPage, DrillState};

/// Drills remembered; the oldest are forgotten first.
pub const DRILLS_MAX: usize = 100;
/// The longest report, in bytes.
pub const DRILL_REPORT_MAX: usize = 64 * 1024;
/// The longest text beside it, in bytes.
pub const DRILL_TEXT_MAX: usize = 512;
/// The longest a drill may keep others from beginning.
pub const DRILL_LEASE_MAX_MS: u64 = 4 * 3_600_000;
/// Bytes of a report in one row: the home keeps values of this size in its own pages.
const PAGE_BYTES: usize = 3584;

impl State {
    /// All drills that are remembered, oldest first.
    pub fn drills(&self) -> impl DoubleEndedIterator<Item = &Drill> {
        self.drills.iter().map(|(_, drill)| drill)
    }

    /// One drill.
    #[must_use]
    pub fn drill(&self, drill_id: DrillId) -> Option<&Drill> {
        self.drills.get(&drill_id)
    }

    /// The report of a drill as JSON text; empty when there is none.
    #[must_use]
    pub fn drill_report(&self, drill_id: DrillId) -> String {
        let pages = self.drill(drill_id).map_or(0, |drill| drill.pages);
        let pages = (0..pages).filter_map(|number| self.drill_pages.get(&(drill_id, number)));
        pages.map(|page| page.text.as_str()).collect()
    }

    /// The drill under way. One whose lease is over counts until another begins.
    #[must_use]
    pub fn running_drill(&self) -> Option<&Drill> {
        self.drills().next_back().filter(|drill| drill.state == DrillState::Running)
    }
}

impl Txn<'_> {
    pub(super) fn begin_drill(
        &mut self,
        kind: DrillKind,
        target: String,
        started_by: String,
        lease_ms: u64,
    ) -> Reply {
        check_text("target", &target)?;
        check_text("started_by", &started_by)?;
        if lease_ms == 0 || lease_ms > DRILL_LEASE_MAX_MS {
            let text = format!("a drill keeps others out for 1 to {DRILL_LEASE_MAX_MS} ms");
            return Err(Rejection::InvalidDrill(text));
        }
        if let Some(running) = self.state.running_drill() {
            let drill_id = running.drill_id;
            if running.lease_until_ms > self.now {
                return Err(Rejection::DrillRunning { drill_id });
            }
            self.close_drill(drill_id, DrillState::Abandoned, String::new(), 0);
        }
        let newest = self.state.drills().next_back();
        let drill_id = newest.map_or(1, |newest| newest.drill_id + 1);
        let drill = Drill {
            drill_id,
            kind,
            state: DrillState::Running,
            target,
            started_by,
            begun_at_ms: self.now,
            lease_until_ms: self.now.saturating_add(lease_ms),
            ended_at_ms: 0,
            summary: String::new(),
            pages: 0,
        };
        self.state.drills.put(&mut self.state.rows, drill_id, drill);
        self.forget_old_drills();
        self.facts.push(Fact::DrillBegun { drill_id, kind });
        Ok(Outcome::DrillBegun { drill_id })
    }

    pub(super) fn end_drill(
        &mut self,
        drill_id: DrillId,
        state: DrillState,
        summary: String,
        report: &str,
    ) -> Reply {
        check_text("summary", &summary)?;
        if state == DrillState::Running {
            return Err(Rejection::InvalidDrill("a drill does not end as running".to_owned()));
        }
        if report.len() > DRILL_REPORT_MAX {
            let text = format!("a report holds at most {DRILL_REPORT_MAX} bytes");
            return Err(Rejection::InvalidDrill(text));
        }
        match self.state.drill(drill_id).map(|drill| drill.state) {
            None => return Err(Rejection::DrillNotFound { drill_id }),
            Some(DrillState::Running) => {}
            Some(_) => return Err(Rejection::DrillOver { drill_id }),
        }
        let pages = self.put_report(drill_id, report);
        self.close_drill(drill_id, state, summary, pages);
        Ok(Outcome::Done)
    }

    fn put_report(&mut self, drill_id: DrillId, report: &str) -> u32 {
        let (mut rest, mut number) = (report, 0);
        while !rest.is_empty() {
            let (page, after) = rest.split_at(page_end(rest));
            let page = DrillPage { text: page.to_owned() };
            self.state.drill_pages.put(&mut self.state.rows, (drill_id, number), page);
            (rest, number) = (after, number + 1);
        }
        number
    }

    fn close_drill(&mut self, drill_id: DrillId, state: DrillState, summary: String, pages: u32) {
        let now = self.now;
        self.state.drills.edit(&mut self.state.rows, &drill_id, |drill| {
            drill.state = state;
            drill.ended_at_ms = now;
            drill.summary = summary;
            drill.pages = pages;
        });
        self.facts.push(Fact::DrillEnded { drill_id, state });
    }

    fn forget_old_drills(&mut self) {
        while self.state.drills.len() > DRILLS_MAX {
            let Some(oldest) = self.state.drills().next() else { return };
            let (drill_id, pages) = (oldest.drill_id, oldest.pages);
            self.state.drills.remove(&mut self.state.rows, &drill_id);
            for number in 0..pages {
                self.state.drill_pages.remove(&mut self.state.rows, &(drill_id, number));
            }
        }
    }
}

/// Where the first page of `text` ends: between two characters.
fn page_end(text: &str) -> usize {
    let longest = text.len().min(PAGE_BYTES);
    (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(longest)
}

fn check_text(name: &str, text: &str) -> Result<(), Rejection> {
    if text.len() <= DRILL_TEXT_MAX {
        return Ok(());
    }
    Err(Rejection::InvalidDrill(format!("{name} holds at most {DRILL_TEXT_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scripts::Script;

    #[test]
    fn old_drills_are_forgotten_with_their_reports() {
        let mut script = Script::default();
        script.run("at 1000", &mut String::new());
        for number in 1..=DRILLS_MAX + 3 {
            script.run("drill begin transfer 1000", &mut String::new());
            script.run(&format!("drill end {number} passed report=LONG"), &mut String::new());
        }
        let state = &script.state;
        assert_eq!(state.drills().count(), DRILLS_MAX);
        assert!(state.drill(3).is_none() && state.drill(4).is_some());
        assert_eq!(state.drill_report(3), "");
        assert_eq!(state.drill_report(4), "x".repeat(5000));
        assert_eq!(state.drill_pages.len(), 2 * DRILLS_MAX, "no page is left behind");
    }

    #[test]
    fn pages_end_between_characters() {
        let mut script = Script::default();
        script.run("at 1000", &mut String::new());
        script.run("drill begin pause 1000", &mut String::new());
        let report = "é".repeat(PAGE_BYTES);
        script.run(&format!("drill end 1 failed report=x{report}"), &mut String::new());
        assert_eq!(script.state.drill_report(1), format!("x{report}"));
    }
}

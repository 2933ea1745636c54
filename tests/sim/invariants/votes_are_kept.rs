//! Whoever led a term has voted for itself in that term, and remembers it after a crash: otherwise
//! it could vote in that term again, for somebody else.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014),
//! figure 2: `votedFor` is on stable storage before a server answers.

use std::collections::BTreeMap;

use quorate::model::MemberId;

/// The highest term that each member led. A member on a new disk is another member.
#[derive(Default)]
pub(super) struct Votes(BTreeMap<MemberId, u64>);

impl Votes {
    pub(super) fn led(&mut self, member: MemberId, term: u64) {
        let highest = self.0.entry(member).or_default();
        *highest = term.max(*highest);
    }

    /// What the disk of a member says when it is opened.
    pub(super) fn opened(&self, member: MemberId, voted: u64) -> Result<(), String> {
        match self.0.get(&member) {
            Some(led) if *led > voted => {
                Err(format!("member {member} led term {led}, and remembers a vote in {voted}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

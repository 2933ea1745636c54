//! Which of the directories at hand is best, and what can be said of what is missing.
//!
//! An entry is acknowledged once a quorum of voters has it. So it is in at least one of the logs at
//! hand when fewer voters' logs are missing than make a quorum; and then, by Raft's rule, the log
//! with the highest last term, and among those the longest, holds every acknowledged entry.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::inspect::{DirReport, End};
use crate::model::MemberId;

/// One voter of the newest membership at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterReport {
    /// Its number.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// The directory that holds its whole log.
    pub at_hand: Option<PathBuf>,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// Place of the best directory among those given.
    pub best: usize,
    /// Why it is the best.
    pub why: String,
    /// Voters of the newest membership at hand.
    pub voters: Vec<VoterReport>,
    /// Voters that make a quorum.
    pub quorum: usize,
    /// The cluster can run again by itself: enough voters' logs are at hand.
    pub quorum_at_hand: bool,
    /// Acknowledged entries may be missing from everything at hand.
    pub may_have_lost: bool,
    /// Entries at the end of the best that nothing at hand knows to be committed.
    pub uncommitted: u64,
    /// What can and cannot be known, in sentences.
    pub said: Vec<String>,
}

/// Compares directories of one cluster.
///
/// # Errors
/// A sentence: nothing can be made of any of them, or they belong to different clusters.
pub fn assess(reports: &[DirReport]) -> Result<Assessment, String> {
    let usable: Vec<(usize, &DirReport, &End)> = reports
        .iter()
        .enumerate()
        .filter_map(|(place, report)| Some((place, report, report.end.as_ref()?)))
        .collect();
    check_one_cluster(reports)?;
    // The first of equals, so that the answer does not depend on more than the order given.
    let best = usable.iter().rev().max_by_key(|(_, _, end)| end.last);
    let (place, report, end) = best.ok_or("nothing can be made of any of these directories")?;
    let sets = end.membership.get_joint_config();
    let voters = voters(reports, end);
    let have: BTreeSet<MemberId> =
        voters.iter().filter(|voter| voter.at_hand.is_some()).map(|voter| voter.id).collect();
    let missing = |set: &BTreeSet<MemberId>| set.difference(&have).count();
    let quorum_of = |set: &BTreeSet<MemberId>| set.len() / 2 + 1;
    let may_have_lost = sets.is_empty() || sets.iter().any(|set| missing(set) >= quorum_of(set));
    let quorum_at_hand =
        !sets.is_empty() && sets.iter().all(|set| set.len() - missing(set) >= quorum_of(set));
    let committed = end.committed.map_or(0, |id| id.index);
    let mut assessment = Assessment {
        best: *place,
        why: why(report, end, &usable),
        quorum: sets.iter().map(quorum_of).max().unwrap_or(1),
        voters,
        quorum_at_hand,
        may_have_lost,
        uncommitted: end.last.index - committed.min(end.last.index),
        said: Vec::new(),
    };
    assessment.said = sentences(&assessment, end);
    Ok(assessment)
}

fn check_one_cluster(reports: &[DirReport]) -> Result<(), String> {
    let id_of = |report: &DirReport| {
        let by_identity = report.identity.as_ref().map(|identity| identity.cluster_id);
        by_identity.or_else(|| report.end.as_ref().map(|end| end.cluster_id).filter(|id| *id != 0))
    };
    let mut known: Option<(u128, &DirReport)> = None;
    for report in reports {
        let Some(id) = id_of(report) else { continue };
        match known {
            Some((first, other)) if first != id => {
                return Err(format!(
                    "{} belongs to cluster {first:032x}, {} to {id:032x}: give directories of one \
                     cluster",
                    other.dir.display(),
                    report.dir.display()
                ));
            }
            Some(_) => {}
            None => known = Some((id, report)),
        }
    }
    Ok(())
}

fn voters(reports: &[DirReport], end: &End) -> Vec<VoterReport> {
    let is_of = |report: &&DirReport, id: MemberId, incarnation| {
        let identity = report.identity.as_ref();
        let same = |identity: &crate::storage::Identity| {
            identity.member_id == id && identity.incarnation == incarnation
        };
        report.log_whole && report.end.is_some() && identity.is_some_and(same)
    };
    let ids: BTreeSet<MemberId> = end.membership.voter_ids().collect();
    ids.into_iter()
        .map(|id| {
            let member = end.membership.get_node(&id);
            let incarnation = member.map(|member| member.incarnation);
            let found = incarnation.and_then(|incarnation| {
                reports.iter().find(|report| is_of(report, id, incarnation))
            });
            VoterReport {
                id,
                name: member.map(|member| member.name.clone()).unwrap_or_default(),
                at_hand: found.map(|report| report.dir.clone()),
            }
        })
        .collect()
}

fn why(best: &DirReport, end: &End, usable: &[(usize, &DirReport, &End)]) -> String {
    let at = |end: &End| (end.last.leader_id.term, end.last.index);
    let (term, index) = at(end);
    let others: Vec<_> = usable.iter().filter(|(_, report, _)| report.dir != best.dir).collect();
    let runner_up = others.iter().map(|(_, _, other)| other.last).max();
    match runner_up {
        None => format!("it is the only one usable; it ends at term {term}, index {index}"),
        Some(other) if other == end.last => {
            format!("it ends at term {term}, index {index}, and none goes further")
        }
        Some(other) if other.leader_id.term < term => format!(
            "its last entry is of term {term}, the next best is of term {}: a later term is newer \
             however long the other is",
            other.leader_id.term
        ),
        Some(other) => format!(
            "it ends at index {index} of term {term}, the next best at index {} of the same term",
            other.index
        ),
    }
}

fn sentences(assessment: &Assessment, end: &End) -> Vec<String> {
    let total = assessment.voters.len();
    let have = assessment.voters.iter().filter(|voter| voter.at_hand.is_some()).count();
    let committed = end.committed.map_or(0, |id| id.index);
    let mut said = Vec::new();
    if assessment.quorum_at_hand {
        said.push(format!(
            "{have} of {total} voters' logs are at hand, and {} make a quorum: start these members \
             on their own directories instead, if they can be started. Nothing is lost then, and no \
             new cluster is needed",
            assessment.quorum
        ));
    }
    if assessment.may_have_lost {
        said.push(format!(
            "entries up to index {committed} were committed and are here. Entries after index {} \
             may have been acknowledged to clients by the voters whose logs are missing ({} of \
             {total}; {} make a quorum). Whether there are any, and how many, cannot be known from \
             what is at hand: only another of the missing voters' logs could tell",
            end.last.index,
            total - have,
            assessment.quorum
        ));
    } else if have == total {
        said.push("nothing that was acknowledged is lost: no voter's log is missing".to_owned());
    } else {
        said.push(format!(
            "nothing that was acknowledged is lost: only {} of {total} voters' logs are missing, \
             every acknowledged entry is on {} of them, and so in the best log at hand",
            total - have,
            assessment.quorum
        ));
    }
    if assessment.uncommitted > 0 {
        said.push(format!(
            "the last {} entries are not known to be committed here. They are kept: a missing voter \
             may have acknowledged them. A client that was told that an outcome is unknown may find \
             it done",
            assessment.uncommitted
        ));
    }
    if end.live > 0 {
        said.push(format!(
            "{} executions are on nodes. They are taken back, their tasks wait again under a new \
             attempt and use no retry; what the old executions report later is refused, but what \
             they did outside is done twice",
            end.live
        ));
    }
    said
}

//! Which drills begin on which clusters.

use super::super::view::MemberView;
use super::*;

/// `v` a voter, `l` a learner, `-` a voter that is unreachable, `d` one that diverged, `b` one that
/// is behind. The first voter that serves leads.
fn cluster(members: &str) -> Facts {
    let mut view = ClusterView { term: 7, ..ClusterView::default() };
    for (id, letter) in (1..).zip(members.chars()) {
        let state = match letter {
            'v' | 'b' if view.leader.is_none() => {
                view.leader = Some(id);
                "leader"
            }
            'v' | 'b' => "follower",
            'l' => "learner",
            'd' => "diverged",
            _ => "unreachable",
        };
        view.members.push(MemberView {
            id,
            name: format!("m{id}"),
            role: if letter == 'l' { "learner" } else { "voter" }.to_owned(),
            state: state.to_owned(),
            lag: if letter == 'b' { LAG_MAX + 1 } else { 0 },
            ..MemberView::default()
        });
    }
    let account = |member: &MemberView| match member.state.as_str() {
        "unreachable" => Err("no answer".to_owned()),
        _ => Ok(Account { member_id: member.id, ..Account::default() }),
    };
    let accounts = view.members.iter().map(|member| (member.id, account(member))).collect();
    Facts { view, accounts, ours: false }
}

fn options(kind: DrillKind) -> Options {
    Options::new(kind)
}

fn code(facts: &Facts, options: &Options) -> &'static str {
    match plan(facts, options) {
        Ok(_) => "begins",
        Err(refusal) => refusal.code,
    }
}

#[test]
fn a_drill_begins_only_when_the_cluster_survives_it() {
    use DrillKind::{DiskSlow, Failover, Partition, Pause, RestartAll, Restore, Transfer};
    let cases = [
        ("vvv", Failover, "begins"),
        ("vvv", Transfer, "begins"),
        ("vvv", Pause, "begins"),
        ("vvv", Partition, "begins"),
        ("vvv", DiskSlow, "begins"),
        ("vvv", Restore, "begins"),
        ("vvv", RestartAll, "NOT_SUPERVISED"),
        ("v", Failover, "QUORUM_AT_RISK"),
        ("v", Transfer, "NO_HEIR"),
        ("v", Restore, "begins"),
        ("vv", Failover, "QUORUM_AT_RISK"),
        ("vv", Pause, "QUORUM_AT_RISK"),
        ("vv", DiskSlow, "QUORUM_AT_RISK"),
        ("vv", Transfer, "begins"),
        ("vv-", Failover, "MEMBER_UNREACHABLE"),
        ("vv-", Restore, "MEMBER_UNREACHABLE"),
        ("vvd", Failover, "MEMBER_DIVERGED"),
        ("vvvl", Failover, "LEARNER_PRESENT"),
        ("vvb", Failover, "NOT_CAUGHT_UP"),
        ("---", Failover, "NO_LEADER"),
        ("vvvvv", Failover, "begins"),
    ];
    for (members, kind, expected) in cases {
        let found = code(&cluster(members), &options(kind));
        assert_eq!(found, expected, "{} of {members}", kind.as_str());
    }
}

#[test]
fn a_degraded_cluster_is_drilled_only_when_asked_to_and_able_to() {
    let degraded = |kind| Options { degraded: true, ..options(kind) };
    for (members, expected) in [
        ("vvvv-", "begins"),
        ("vvv--", "QUORUM_AT_RISK"),
        ("vv-", "QUORUM_AT_RISK"),
        ("vvvl", "begins"),
        ("vvb", "begins"),
        ("vvvvd", "MEMBER_DIVERGED"),
    ] {
        let found = code(&cluster(members), &degraded(DrillKind::Failover));
        assert_eq!(found, expected, "{members}");
    }
}

#[test]
fn members_decide_whether_they_take_part() {
    let mut facts = cluster("vvv");
    facts.accounts.insert(2, Err("drills are not allowed".to_owned()));
    assert_eq!(code(&facts, &options(DrillKind::Failover)), "DRILLS_REFUSED");
    let mut facts = cluster("vvv");
    facts.accounts.insert(3, Ok(Account { running: Some(4), ..Account::default() }));
    assert_eq!(code(&facts, &options(DrillKind::Failover)), "DRILL_RUNNING");
    let mut facts = cluster("vvv");
    facts.view.changing = true;
    assert_eq!(code(&facts, &options(DrillKind::Failover)), "CHANGE_IN_PROGRESS");
}

#[test]
fn processes_are_killed_only_where_they_are_started_again() {
    let mut facts = cluster("vvv");
    let method = |facts: &Facts, options: &Options| plan(facts, options).unwrap().method;
    let failover = options(DrillKind::Failover);
    assert_eq!(method(&facts, &failover), Method::Silence);
    facts.accounts.insert(1, Ok(Account { supervised: true, ..Account::default() }));
    assert_eq!(method(&facts, &failover), Method::Kill);
    let restart = options(DrillKind::RestartAll);
    assert_eq!(code(&facts, &restart), "NOT_SUPERVISED");
    facts.ours = true;
    assert_eq!(method(&facts, &restart), Method::RestartOneByOne);
    let at_once = Options { at_once: true, ..restart };
    let plan = plan(&facts, &at_once).unwrap();
    assert_eq!((plan.method, plan.margin.during), (Method::KillAll, -2), "and it says so");
}

#[test]
fn targets_are_the_leader_or_who_is_named() {
    let facts = cluster("vvvvv");
    let named =
        |members: &[u64]| Options { members: members.to_vec(), ..options(DrillKind::Partition) };
    assert_eq!(plan(&facts, &named(&[])).unwrap().targets, [1]);
    let two = plan(&facts, &named(&[4, 2, 4])).unwrap();
    assert_eq!(two.targets, [2, 4]);
    assert_eq!(two.margin, Margin { voters: 5, quorum: 3, before: 2, during: 0 });
    assert_eq!(two.target, "member 2 (m2), member 4 (m4)");
    assert_eq!(code(&facts, &named(&[1, 2, 3])), "QUORUM_AT_RISK");
    assert_eq!(code(&facts, &named(&[9])), "MEMBER_NOT_FOUND");
    let to = |to| Options { to: Some(to), ..options(DrillKind::Transfer) };
    assert_eq!(code(&facts, &to(1)), "NO_HEIR");
    assert_eq!(code(&facts, &to(2)), "begins");
}

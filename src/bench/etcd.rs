//! What a failover needs to know of etcd 3.4 and later: its JSON gateway, which every member serves
//! beside gRPC on its client port.
//!
//! The gateway wants keys and values in base64. Ours are written in that alphabet to begin with:
//! whole groups of four letters are the base64 of *some* bytes, and different letters of different
//! bytes. So the numbers that a template fills in need no encoder.

use serde_json::Value;

use super::template::NUMBER;

/// Stores a key.
pub(super) const PUT: &str = "/v3/kv/put";
/// Reads a key; linearizable unless it is asked not to be.
pub(super) const RANGE: &str = "/v3/kv/range";
/// What one member knows of the cluster.
pub(super) const STATUS: &str = "/v3/maintenance/status";
/// Answers 200 when the member can read with a quorum.
pub(super) const HEALTH: &str = "/health";

/// Base64 comes in groups of so many letters.
const GROUP: usize = 4;

/// The body of a put of `size` bytes under a key of its own per request. The length of `prefix` is
/// a multiple of four, and so is that of the number behind it.
#[must_use]
pub(super) fn put_json(prefix: &str, size: u32) -> String {
    format!(r#"{{"key":"{}","value":"{}"}}"#, key(prefix), value(size))
}

/// The body of a read of such a key.
#[must_use]
pub(super) fn range_json(prefix: &str) -> String {
    format!(r#"{{"key":"{}"}}"#, key(prefix))
}

fn key(prefix: &str) -> String {
    assert!((prefix.len() + NUMBER.len()).is_multiple_of(GROUP), "whole groups of base64");
    format!("{prefix}{NUMBER}")
}

/// The base64 of `size` bytes: three of them in each group, the last group padded.
fn value(size: u32) -> String {
    let letters = size as usize / 3 * GROUP;
    let mut text: String = ('a'..='z').cycle().take(letters).collect();
    text.push_str(match size % 3 {
        0 => "",
        1 => "AA==",
        _ => "AAA=",
    });
    text
}

/// Whether the answer to a read holds the key: etcd leaves out a count of zero.
#[must_use]
pub(super) fn holds(range: &Value) -> bool {
    number(&range["count"]) == Some(1)
}

/// The leader by what the members say of it (`None`: did not answer), as a place in `statuses`.
/// `None` when those that name one do not agree, or it did not answer itself.
#[must_use]
pub(super) fn leader(statuses: &[Option<Value>]) -> Option<usize> {
    let mut named = statuses.iter().flatten().filter_map(|status| number(&status["leader"]));
    let leader = named.next().filter(|leader| *leader != 0)?;
    if named.any(|other| other != leader) {
        return None;
    }
    let is_leader = |status: &Option<Value>| {
        status.as_ref().and_then(|status| number(&status["header"]["member_id"])) == Some(leader)
    };
    statuses.iter().position(is_leader)
}

/// The leader, when every member answers, names it, and has applied all but `lag_max` entries of
/// what the one furthest ahead has.
#[must_use]
pub(super) fn whole(statuses: &[Option<Value>], lag_max: u64) -> Option<usize> {
    let applied = |status: &Option<Value>| {
        let status = status.as_ref().filter(|status| !status["leader"].is_null())?;
        number(&status["raftAppliedIndex"])
    };
    let applied: Option<Vec<u64>> = statuses.iter().map(applied).collect();
    let applied = applied?;
    let lag = applied.iter().max()? - applied.iter().min()?;
    leader(statuses).filter(|_| lag <= lag_max)
}

/// Numbers of 64 bits are strings in this JSON.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As 3.4.23 answered, two of the fields left out.
    fn status(member: &str, leader: &str, applied: &str) -> Option<Value> {
        Some(json!({
            "header": {"cluster_id": "15665074562065054188", "member_id": member,
                "revision": "1", "raft_term": "2"},
            "version": "3.4.23", "leader": leader, "raftIndex": applied, "raftTerm": "2",
            "raftAppliedIndex": applied,
        }))
    }

    /// As 3.4.23 answered without a quorum: a leader of zero is left out.
    fn leaderless(member: &str) -> Option<Value> {
        Some(json!({
            "header": {"cluster_id": "15665074562065054188", "member_id": member},
            "raftIndex": "12", "raftAppliedIndex": "12", "errors": ["etcdserver: no leader"],
        }))
    }

    const HIGH: &str = "17383792418829112008";

    #[test]
    fn the_leader_is_the_member_that_all_name() {
        let statuses = [status("11", HIGH, "8"), status(HIGH, HIGH, "9"), status("33", HIGH, "9")];
        assert_eq!(leader(&statuses), Some(1));
        assert_eq!(whole(&statuses, 1), Some(1));
        assert_eq!(whole(&statuses, 0), None, "one lags behind");
    }

    #[test]
    fn a_leader_of_whom_only_some_know_leads_and_the_cluster_is_not_whole() {
        let silent = [None, status("22", "22", "9"), status("33", "22", "9")];
        assert_eq!((leader(&silent), whole(&silent, 9)), (Some(1), None));
        let looking = [leaderless("11"), status("22", "22", "12"), status("33", "22", "12")];
        assert_eq!((leader(&looking), whole(&looking, 9)), (Some(1), None));
    }

    #[test]
    fn nobody_leads_while_members_disagree_or_the_named_one_is_silent() {
        let disagreeing = [status("11", "11", "9"), status("22", "22", "9")];
        assert_eq!(leader(&disagreeing), None);
        let gone = [None, status("22", "11", "9")];
        assert_eq!(leader(&gone), None);
        assert_eq!(leader(&[leaderless("11"), leaderless("22")]), None);
        assert_eq!(leader(&[]), None);
        assert_eq!(whole(&[], 9), None);
    }

    #[test]
    fn a_read_holds_the_key_or_does_not() {
        let found = json!({"header": {}, "kvs": [{"key": "YWJj", "value": "YWJj"}], "count": "1"});
        assert!(holds(&found));
        assert!(!holds(&json!({"header": {"revision": "2"}})), "zero is left out");
        assert!(!holds(&Value::Null));
    }

    #[test]
    fn values_are_base64_of_so_many_bytes() {
        for (size, text) in [(0, ""), (1, "AA=="), (2, "AAA="), (3, "abcd"), (5, "abcdAAA=")] {
            assert_eq!(value(size), text);
        }
        let put: Value = serde_json::from_str(&put_json("quorate0", 256)).unwrap();
        assert_eq!(put["value"].as_str().unwrap().len(), 256_usize.div_ceil(3) * 4);
        let range: Value = serde_json::from_str(&range_json("quorate0")).unwrap();
        assert_eq!(put["key"], range["key"]);
    }
}

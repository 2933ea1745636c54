//! A third opinion on registers with unique values: the zones of Gibbons and Korach, in n log n and
//! whatever the concurrency.
//!
//! The cluster of a value is its write and its reads. Between the earliest return `f` and the
//! latest call `s` of a cluster with f < s the register certainly held the value (a forward zone);
//! otherwise it held it somewhere in [s, f] (a backward zone). Compare-and-set counts as a read of
//! the old and a write of the new value, which is weaker than what it is: this checker never cries
//! wolf, and may miss what only compare-and-set shows.

use std::collections::BTreeMap;

use super::register::{Action, RegisterOp, describe};

#[derive(Debug, Default)]
struct Cluster {
    /// When its write was called and returned; the initial value was always there.
    write: Option<(i64, i64)>,
    first_end: Option<i64>,
    last_call: Option<i64>,
    read: bool,
    /// A line of the history to point at.
    index: u64,
}

impl Cluster {
    fn add(&mut self, call: i64, end: i64) {
        self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
        self.last_call = Some(self.last_call.map_or(call, |last| last.max(call)));
    }
}

/// What is wrong with `ops`, or nothing.
#[must_use]
pub fn check(ops: &[RegisterOp]) -> Option<(String, Vec<u64>)> {
    let mut clusters: BTreeMap<Option<i64>, Cluster> = BTreeMap::new();
    clusters.entry(None).or_default().write = Some((i64::MIN, i64::MIN));
    clusters.entry(None).or_default().add(i64::MIN, i64::MIN);
    for op in ops {
        if let Action::Write(value) | Action::Cas(_, value) = op.action {
            let cluster = clusters.entry(Some(value)).or_default();
            cluster.write = Some((op.call, op.end));
            cluster.index = op.index;
            cluster.add(op.call, op.end);
        }
    }
    for op in ops {
        let seen = match op.action {
            Action::Read(seen) => seen,
            Action::Cas(old, _) if op.is_sure() => old,
            Action::Write(_) | Action::Cas(..) => continue,
        };
        let cluster = clusters.entry(seen).or_default();
        let Some((written, _)) = cluster.write else {
            return Some((format!("{}: nobody wrote that", describe(op)), vec![op.index]));
        };
        if op.end < written {
            let text = format!("{}: it was written later", describe(op));
            return Some((text, vec![op.index, cluster.index]));
        }
        cluster.read = true;
        cluster.add(op.call, op.end);
    }
    overlap(&clusters)
}

fn overlap(clusters: &BTreeMap<Option<i64>, Cluster>) -> Option<(String, Vec<u64>)> {
    // (start, end, value, index)
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, cluster) in clusters {
        let (Some(first), Some(last)) = (cluster.first_end, cluster.last_call) else { continue };
        let unknown = cluster.write.is_some_and(|(_, end)| end == i64::MAX);
        if unknown && !cluster.read {
            continue;
        }
        if first < last {
            forward.push((first, last, *value, cluster.index));
        } else {
            backward.push((last, first, *value, cluster.index));
        }
    }
    forward.sort_unstable();
    for pair in forward.windows(2) {
        if pair[1].0 < pair[0].1 {
            let text = format!(
                "{} was held at {} ms and {} before that was over",
                show(pair[0].2),
                pair[0].0 / 1_000_000,
                show(pair[1].2)
            );
            return Some((text, vec![pair[0].3, pair[1].3]));
        }
    }
    for (start, end, value, index) in backward {
        // The forward zone that begins last before this one; forward zones do not overlap here.
        let place = forward.partition_point(|zone| zone.0 < start);
        let Some(zone) = place.checked_sub(1).map(|place| forward[place]) else { continue };
        if end < zone.1 {
            let text =
                format!("{} must have been held within the time of {}", show(value), show(zone.2));
            return Some((text, vec![index, zone.3]));
        }
    }
    None
}

fn show(value: Option<i64>) -> String {
    value.map_or_else(|| "nil".to_owned(), |value| value.to_string())
}

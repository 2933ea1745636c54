//! Operations as bars, one lane per client.

use std::fmt::Write as _;

use super::plots::bands;
use super::svg::{Axis, LEFT, Picture, escape};
use crate::checker::register::{Action, RegisterOp, ops_of};
use crate::history::{Call, History, Kind};

/// Height of one lane in the overview.
const LANE: f64 = 7.0;
/// Lanes of one workload that are drawn.
const LANES_MAX: usize = 24;
/// Operations of one key that are drawn with their words.
const WORDS_MAX: usize = 60;

fn class(kind: Kind) -> usize {
    match kind {
        Kind::Ok => 0,
        Kind::Fail => 1,
        Kind::Info | Kind::Invoke => 2,
    }
}

/// Where a bar ends: where its line says so, or at the end of the run.
fn bar_end(call: &Call<'_>, axis: Axis) -> u64 {
    call.end.map_or(axis.end_ns, |end| end.time)
}

/// Packs calls into lanes: a client that goes on under a new number goes on in its lane.
fn pack(calls: &[&Call<'_>], axis: Axis) -> Vec<usize> {
    let mut free_from: Vec<u64> = Vec::new();
    let mut lanes = Vec::with_capacity(calls.len());
    for call in calls {
        let lane = free_from.iter().position(|free| *free <= call.invoke.time);
        let lane = lane.unwrap_or_else(|| {
            free_from.push(0);
            free_from.len() - 1
        });
        free_from[lane] = bar_end(call, axis);
        lanes.push(lane);
    }
    lanes
}

/// All operations of all clients, workload by workload.
pub(super) fn overview(axis: Axis, history: &History, calls: &[Call<'_>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for call in calls {
        if !names.contains(&call.invoke.workload.as_str()) {
            names.push(&call.invoke.workload);
        }
    }
    let mut groups = Vec::new();
    let mut height = 4.0;
    for name in names {
        let own: Vec<&Call<'_>> =
            calls.iter().filter(|call| call.invoke.workload == name).collect();
        let lanes = pack(&own, axis);
        let count = lanes.iter().max().map_or(0, |most| most + 1).min(LANES_MAX);
        groups.push((name, own, lanes, height));
        height += count as f64 * LANE + 10.0;
    }
    let height = height + 18.0;
    let mut picture = Picture::new(height);
    bands(&mut picture, axis, &history.faults(), height - 18.0);
    picture.grid(axis, true);
    for (name, own, lanes, top) in groups {
        picture.text(LEFT - 10.0, top + 10.0, "label", name);
        for (path, outcome) in bars(axis, &own, &lanes, top).iter().zip(["ok", "fail", "info"]) {
            picture.path(&format!("bars {outcome}"), path);
        }
    }
    picture.finish()
}

/// One path per outcome. Bars that touch are drawn as one, which keeps long runs small.
fn bars(axis: Axis, calls: &[&Call<'_>], lanes: &[usize], top: f64) -> [String; 3] {
    let mut paths = [String::new(), String::new(), String::new()];
    // Per lane: outcome, begin and end of the bar that is not drawn yet.
    let mut open: Vec<Option<(usize, f64, f64)>> = vec![None; LANES_MAX];
    let draw = |paths: &mut [String; 3], lane: usize, bar: (usize, f64, f64)| {
        let (outcome, from, to) = bar;
        let y = top + lane as f64 * LANE + LANE / 2.0;
        let _ = write!(paths[outcome], "M{from:.1} {y:.1}h{:.1}", (to - from).max(0.6));
    };
    for (call, lane) in calls.iter().zip(lanes) {
        if *lane >= LANES_MAX {
            continue;
        }
        let (from, to) = (axis.x(call.invoke.time), axis.x(bar_end(call, axis)));
        let outcome = class(call.kind());
        match &mut open[*lane] {
            Some((same, _, until)) if *same == outcome && from - *until < 0.5 => *until = to,
            bar => {
                if let Some(done) = bar.replace((outcome, from, to)) {
                    draw(&mut paths, *lane, done);
                }
            }
        }
    }
    for (lane, bar) in open.into_iter().enumerate() {
        if let Some(bar) = bar {
            draw(&mut paths, lane, bar);
        }
    }
    paths
}

/// The operations of one register around `near` (a line of the history), each with its words.
pub(super) fn register(history: &History, key: &str, near: u64) -> String {
    let calls = history.calls("register");
    let own: Vec<&Call<'_>> =
        calls.iter().filter(|call| call.invoke.key.as_deref() == Some(key)).collect();
    let ops: Vec<RegisterOp> = ops_of(own.iter().copied());
    let place = ops.iter().position(|op| op.index >= near).unwrap_or(ops.len());
    let from = place.saturating_sub(WORDS_MAX / 2).min(ops.len().saturating_sub(WORDS_MAX));
    let shown: Vec<&RegisterOp> = ops.iter().skip(from).take(WORDS_MAX).collect();
    let drawn: Vec<&Call<'_>> = own
        .into_iter()
        .filter(|call| shown.iter().any(|op| op.index == call.invoke.index))
        .collect();
    let (Some(first), Some(last)) = (drawn.first(), drawn.last()) else { return String::new() };
    let end = drawn.iter().filter(|call| call.is_ok()).map(|call| call.end_ns()).max();
    let margin = 1_000_000;
    let axis = Axis::new(
        first.invoke.time.saturating_sub(margin),
        end.unwrap_or(0).max(last.invoke.time) + margin,
    );
    // One row each: words need room, and the order of rows is the order of calls.
    const ROW: f64 = 15.0;
    let mut picture = Picture::new(drawn.len() as f64 * ROW + 22.0);
    picture.grid(axis, true);
    for (row, call) in drawn.iter().enumerate() {
        let y = row as f64 * ROW + 3.0;
        let (from, to) = (axis.x(call.invoke.time), axis.x(bar_end(call, axis)));
        let outcome = ["ok", "fail", "info"][class(call.kind())];
        let op = shown.iter().find(|op| op.index == call.invoke.index);
        let words = op.map_or_else(String::new, |op| words(op));
        let title = format!("line {}, process {}", call.invoke.index, call.invoke.process);
        let member = call.invoke.node.map_or_else(String::new, |node| format!(" @ m{node}"));
        picture.rect([from, y, to - from, ROW - 4.0], &format!("op {outcome}"), &title);
        let mark = if call.invoke.index == near { "words here" } else { "words" };
        if to > 1000.0 {
            picture.text(
                from - 4.0,
                y + 9.0,
                &format!("{mark} right"),
                &format!("{words}{member}"),
            );
        } else {
            picture.text(to + 4.0, y + 9.0, mark, &format!("{words}{member}"));
        }
    }
    format!("<h3>Key {}</h3>{}", escape(key), picture.finish())
}

fn words(op: &RegisterOp) -> String {
    let value =
        |value: Option<i64>| value.map_or_else(|| "nil".to_owned(), |value| value.to_string());
    match op.action {
        Action::Read(seen) => format!("read → {}", value(seen)),
        Action::Write(new) => format!("write {new}"),
        Action::Cas(old, new) => format!("cas {} → {new}", value(old)),
    }
}

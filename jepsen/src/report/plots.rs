//! The stack of plots that share one axis: faults, leaders, rate, latency.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::svg::{Axis, LEFT, Picture, WIDTH};
use crate::history::{Call, FaultSpan, History, Kind};

/// Height of one row of faults.
const ROW: f64 = 20.0;
/// Colours of members; more than these start again.
const COLOURS: usize = 6;

/// Pale bands where faults were in force, behind everything else.
pub(super) fn bands(picture: &mut Picture, axis: Axis, faults: &[FaultSpan], height: f64) {
    for fault in faults {
        let (from, to) = (axis.x(fault.begin_ns), axis.x(fault.healed_ns.unwrap_or(axis.end_ns)));
        picture.rect([from, 0.0, to - from, height], "band", "");
    }
}

/// One bar per fault, overlapping ones below each other, each with its name.
pub(super) fn faults(axis: Axis, history: &History) -> String {
    let faults = history.faults();
    let mut rows: Vec<f64> = Vec::new();
    let mut placed = Vec::new();
    for fault in &faults {
        let (from, to) = (axis.x(fault.begin_ns), axis.x(fault.healed_ns.unwrap_or(axis.end_ns)));
        // A name may need more room than its bar.
        let name = fault.name.len() as f64 * 6.6 + 10.0;
        let until = to.max(from + name);
        let row = rows.iter().position(|busy| *busy <= from).unwrap_or_else(|| {
            rows.push(0.0);
            rows.len() - 1
        });
        rows[row] = until + 2.0;
        placed.push((fault, from, to, row));
    }
    let stretches = history.stretches();
    let top = 18.0;
    let mut picture = Picture::new(top + rows.len().max(1) as f64 * ROW + 4.0);
    picture.text(LEFT - 10.0, 12.0, "label", "stretches");
    for stretch in &stretches {
        let (from, to) = (axis.x(stretch.begin_ns), axis.x(stretch.end_ns));
        picture.line((from, 0.0), (from, top - 2.0), "edge");
        if to - from > 30.0 {
            picture.text(from + 4.0, 12.0, "stretch", &stretch.name);
        }
    }
    picture.text(LEFT - 10.0, top + 14.0, "label", "faults");
    for (fault, from, to, row) in placed {
        let y = top + row as f64 * ROW;
        let class = if fault.took_effect() { "fault" } else { "fault idle" };
        let seconds = fault.healed_ns.map_or_else(
            || "open".to_owned(),
            |end| format!("{:.1} s", end.saturating_sub(fault.begin_ns) as f64 / 1e9),
        );
        let evidence = fault.no_effect.clone().map(|why| format!("no effect: {why}"));
        let evidence = evidence.or_else(|| fault.evidence.clone()).unwrap_or_default();
        let title = format!("{} on {:?}, {seconds}: {evidence}", fault.name, fault.members);
        picture.rect([from, y + 1.0, to - from, ROW - 4.0], class, &title);
        picture.text(from + 4.0, y + 13.0, "name", &fault.name);
    }
    picture.finish()
}

/// Who led when, by what members said of themselves.
pub(super) fn leaders(axis: Axis, history: &History) -> String {
    let mut reigns: Vec<(u64, u64, u64, u64)> = Vec::new();
    for op in history.observed("observe", "cluster") {
        let told = &op.value;
        let (Some(id), Some(term)) = (told["id"].as_u64(), told["term"].as_u64()) else { continue };
        if told["leader"] != told["id"] {
            continue;
        }
        match reigns.iter_mut().find(|reign| reign.0 == id && reign.1 == term) {
            Some(reign) => reign.3 = op.time,
            None => reigns.push((id, term, op.time, op.time)),
        }
    }
    // A row per member: one that was cut off may go on saying that it leads while another does.
    const ROW: f64 = 17.0;
    let members: BTreeSet<u64> = reigns.iter().map(|reign| reign.0).collect();
    let height = members.len().max(1) as f64 * ROW + 6.0;
    let mut picture = Picture::new(height);
    bands(&mut picture, axis, &history.faults(), height);
    picture.text(LEFT - 40.0, 15.0, "label", "leader");
    for (row, id) in members.iter().enumerate() {
        let y = row as f64 * ROW + 3.0;
        picture.text(LEFT - 10.0, y + 12.0, "tick right", &format!("m{id}"));
        for (_, term, from, to) in reigns.iter().filter(|reign| reign.0 == *id) {
            let (from, to) = (axis.x(*from), axis.x(*to));
            let title = format!("member {id} leads in term {term}");
            let class = format!("leader c{}", row % COLOURS);
            picture.rect([from, y, to - from, ROW - 3.0], &class, &title);
            if to - from > 26.0 {
                picture.text(from + 4.0, y + 11.0, "name", &format!("t{term}"));
            }
        }
    }
    picture.finish()
}

/// How many columns the plots of rate and latency have.
const COLUMNS: usize = 240;

/// What ended in one column of time.
#[derive(Debug, Clone, Default)]
struct Column {
    counts: [u64; 3],
    /// Latencies of ok calls, in ms.
    took: Vec<f64>,
}

fn columns(axis: Axis, calls: &[Call<'_>]) -> Vec<Column> {
    let mut columns = vec![Column::default(); COLUMNS];
    for call in calls {
        let Some(end) = call.end else { continue };
        let span = axis.end_ns - axis.begin_ns;
        let at =
            end.time.saturating_sub(axis.begin_ns) as u128 * COLUMNS as u128 / u128::from(span);
        let column = &mut columns[(at as usize).min(COLUMNS - 1)];
        match end.kind {
            Kind::Ok => {
                column.counts[0] += 1;
                column.took.push(end.time.saturating_sub(call.invoke.time) as f64 / 1e6);
            }
            Kind::Fail => column.counts[1] += 1,
            Kind::Info | Kind::Invoke => column.counts[2] += 1,
        }
    }
    for column in &mut columns {
        column.took.sort_by(f64::total_cmp);
    }
    columns
}

/// Ended operations per second, by outcome, one upon the other.
pub(super) fn rate(axis: Axis, history: &History, calls: &[Call<'_>]) -> String {
    const HEIGHT: f64 = 130.0;
    let columns = columns(axis, calls);
    let mut picture = Picture::new(HEIGHT);
    bands(&mut picture, axis, &history.faults(), HEIGHT);
    picture.grid(axis, false);
    let per_second = COLUMNS as f64 / axis.seconds();
    let most = columns.iter().map(|column| column.counts.iter().sum::<u64>()).max().unwrap_or(0);
    let most = (most as f64 * per_second).max(1.0);
    let width = (WIDTH - LEFT - 16.0) / COLUMNS as f64;
    let mut paths = [String::new(), String::new(), String::new()];
    for (place, column) in columns.iter().enumerate() {
        let mut y = HEIGHT;
        for (outcome, count) in column.counts.iter().enumerate() {
            let height = *count as f64 * per_second / most * (HEIGHT - 14.0);
            if *count > 0 {
                let x = LEFT + place as f64 * width;
                y -= height;
                let _ =
                    write!(paths[outcome], "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
            }
        }
    }
    for (path, class) in paths.iter().zip(["fill ok", "fill fail", "fill info"]) {
        picture.path(class, path);
    }
    picture.text(LEFT - 10.0, 12.0, "tick right", &format!("{most:.0} /s"));
    picture.text(LEFT - 10.0, 30.0, "label", "rate");
    picture.finish()
}

/// Latency of acknowledged operations on a logarithmic scale: median, p99, the slowest.
pub(super) fn latency(axis: Axis, history: &History, calls: &[Call<'_>]) -> String {
    const HEIGHT: f64 = 170.0;
    const PLOT: f64 = HEIGHT - 18.0;
    let columns = columns(axis, calls);
    let mut picture = Picture::new(HEIGHT);
    bands(&mut picture, axis, &history.faults(), PLOT);
    picture.grid(axis, true);
    // 0.1 ms to 10 s.
    let y = |ms: f64| PLOT - (ms.clamp(0.1, 10_000.0).log10() + 1.0) / 5.0 * (PLOT - 6.0);
    for (ms, name) in [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s")] {
        picture.line((LEFT, y(ms)), (WIDTH - 16.0, y(ms)), "grid");
        picture.text(LEFT - 10.0, y(ms) + 4.0, "tick right", name);
    }
    let width = (WIDTH - LEFT - 16.0) / COLUMNS as f64;
    for (class, part) in [("curve slowest", 1.0), ("curve p99", 0.99), ("curve p50", 0.5)] {
        let mut path = String::new();
        let mut pen = 'M';
        for (place, column) in columns.iter().enumerate() {
            let Some(last) = column.took.len().checked_sub(1) else {
                pen = 'M';
                continue;
            };
            let ms = column.took[(last as f64 * part).round() as usize];
            let x = LEFT + (place as f64 + 0.5) * width;
            // A dot where neighbours have nothing to connect to.
            let _ = write!(path, "{pen}{x:.1} {:.1}h0.1", y(ms));
            pen = 'L';
        }
        picture.path(class, &path);
    }
    picture.text(LEFT - 10.0, 12.0, "label", "latency");
    picture.finish()
}

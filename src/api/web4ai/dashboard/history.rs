//! `GET /api/v1/dashboard/performance/history`: twenty points, five minutes apart, the oldest first
//! and the newest now. Each tells of the five minutes that it ends. What is not known is null; see
//! [`samples`](super::samples) for what is.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::samples::{Gauges, Sample, Samples};
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::web4ai::nodes::Book;
use crate::api::wire_time::iso;
use crate::model::TimeMs;

const POINTS: u64 = 20;
const STEP_MS: TimeMs = 300_000;
const MINUTE_MS: f64 = 60_000.0;

#[derive(Serialize)]
struct Reply {
    success: bool,
    history: Vec<Point>,
    total_points: usize,
}

#[derive(Debug, PartialEq, Serialize)]
struct Point {
    timestamp: String,
    /// Of the tasks that ended in the five minutes; 1 when none did (contract 2.2).
    success_rate: Option<f64>,
    /// Mean of the tasks that completed in the five minutes, in milliseconds; 0 when none did.
    response_time: Option<f64>,
    network_utilization: Option<f64>,
    /// Completed tasks per minute.
    throughput: Option<f64>,
    active_nodes: Option<usize>,
    /// In the five minutes.
    tasks_completed: Option<u64>,
    cpu_avg: Option<f64>,
    memory_avg: Option<f64>,
    gpu_avg: Option<f64>,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy)]
struct Between {
    completed: u64,
    failed: u64,
    response_ms: u64,
    minutes: f64,
}

impl Between {
    fn of(begin: &Sample, end: &Sample) -> Self {
        let (before, after) = (&begin.totals, &end.totals);
        Self {
            completed: after.completed.saturating_sub(before.completed),
            failed: after.failed.saturating_sub(before.failed),
            response_ms: after.response_ms.saturating_sub(before.response_ms),
            minutes: end.at_ms.saturating_sub(begin.at_ms) as f64 / MINUTE_MS,
        }
    }

    fn success_rate(&self) -> f64 {
        let ended = self.completed + self.failed;
        if ended == 0 { 1.0 } else { self.completed as f64 / ended as f64 }
    }

    fn response_time(&self) -> f64 {
        let completed = self.completed.max(1) as f64;
        self.response_ms as f64 / completed
    }

    fn throughput(&self) -> f64 {
        if self.minutes > 0.0 { self.completed as f64 / self.minutes } else { 0.0 }
    }
}

fn point(at: TimeMs, begin: Option<Sample>, end: Option<Sample>) -> Point {
    let between = begin.zip(end).map(|(begin, end)| Between::of(&begin, &end));
    let gauges = end.and_then(|end| end.gauges);
    let gauge = |read: fn(&Gauges) -> f64| gauges.as_ref().map(read);
    Point {
        timestamp: iso(at),
        success_rate: between.map(|between| between.success_rate()),
        response_time: between.map(|between| between.response_time()),
        network_utilization: gauge(|gauges| gauges.utilization),
        throughput: between.map(|between| between.throughput()),
        active_nodes: gauges.map(|gauges| gauges.active_nodes),
        tasks_completed: between.map(|between| between.completed),
        cpu_avg: gauge(|gauges| gauges.cpu),
        memory_avg: gauge(|gauges| gauges.memory),
        gpu_avg: gauge(|gauges| gauges.gpu),
    }
}

/// All points up to `now`, the moment of the answer itself.
fn points(samples: &Samples, now: Sample) -> Vec<Point> {
    let steps = (0..POINTS).rev();
    let all = steps.map(|step| {
        let at = now.at_ms.saturating_sub(step * STEP_MS);
        let end = if step == 0 { Some(now) } else { samples.at(at) };
        point(at, samples.at(at.saturating_sub(STEP_MS)), end)
    });
    all.collect()
}

/// `GET /api/v1/dashboard/performance/history`.
pub(in crate::api) async fn history(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let now = app.show(&mut stamp, |state| Sample::of(state, &book));
    let history = points(app.samples(), now);
    let total_points = history.len();
    Ok(reply::read(&stamp, reply::encode(&Reply { success: true, history, total_points })))
}

#[cfg(test)]
mod tests {
    use super::super::samples::Totals;
    use super::super::samples::tests::{sample, samples};
    use super::*;

    const NOW: TimeMs = 1_700_000_000_000;

    #[test]
    fn contract_2_3_twenty_points_five_minutes_apart_oldest_first() {
        let points = points(&Samples::default(), sample(NOW, 7));
        assert_eq!(points.len(), 20);
        assert_eq!(points[0].timestamp, iso(NOW - 19 * STEP_MS));
        assert_eq!(points[19].timestamp, iso(NOW));
        assert!(points.iter().all(|point| point.throughput.is_none()), "nothing is invented");
    }

    #[test]
    fn contract_2_3_each_point_tells_of_its_five_minutes() {
        let gauges = Gauges { active_nodes: 3, utilization: 0.5, ..Gauges::default() };
        let five = Sample { gauges: Some(gauges), ..sample(NOW - STEP_MS, 40) };
        let kept = samples(&[sample(NOW - 2 * STEP_MS - 1000, 10), five]);
        let totals = Totals { completed: 43, failed: 1, response_ms: 4600 };
        let points = points(&kept, Sample { at_ms: NOW, totals, gauges: Some(gauges) });
        let last = &points[19];
        assert_eq!((last.tasks_completed, last.success_rate), (Some(3), Some(0.75)));
        assert_eq!((last.response_time, last.throughput), (Some(200.0), Some(0.6)));
        let before = &points[18];
        assert_eq!((before.tasks_completed, before.success_rate), (Some(30), Some(1.0)));
        assert_eq!((before.active_nodes, before.network_utilization), (Some(3), Some(0.5)));
        let throughput = before.throughput.unwrap();
        assert!(throughput < 6.0 && throughput > 5.9, "over the time that the samples span");
        assert_eq!((points[17].tasks_completed, points[17].active_nodes), (None, None));
    }
}

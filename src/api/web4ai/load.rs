//! The figures a node reports of itself, whatever scale it reports them in (contract 2.8).

use crate::api::object::{FieldError, Object};
use crate::model::Load;
use crate::state::LoadWeights;

/// What a body says of the load, in whole numbers; `None` when it says nothing.
///
/// `outer` is the body itself, `inner` the object whose figures count when the body has none:
/// family W's clients put them at the top of a heartbeat and under `performance` at registration.
/// `weights` are asked for only when there is no score.
pub(super) fn parse(
    outer: &Object<'_>,
    inner: &Object<'_>,
    weights: impl FnOnce() -> LoadWeights,
) -> Result<Option<Load>, FieldError> {
    let number = |key: &str| match outer.number(key)? {
        Some(number) => Ok(Some((number, outer))),
        None => Ok(inner.number(key)?.map(|number| (number, inner))),
    };
    let cpu = number("cpu_usage")?.map(|(number, _)| number);
    let memory = number("memory_usage")?.map(|(number, _)| number);
    let gpu = number("gpu_usage")?.map(|(number, _)| number);
    let latency = number("network_latency")?.map(|(number, _)| number);
    let tasks = match number("tasks_running")? {
        Some(tasks) => Some(tasks),
        None => number("active_tasks")?,
    };
    let tasks = tasks.map(|(number, _)| number);
    let score = number("load_score")?;
    let says_nothing =
        [cpu, memory, gpu, latency, tasks].iter().all(Option::is_none) && score.is_none();
    if says_nothing {
        return Ok(None);
    }
    let [cpu_milli, memory_milli, gpu_milli] =
        [cpu, memory, gpu].map(|percent| thousandths(percent.unwrap_or(0.0), 100.0));
    let active_tasks = tasks.unwrap_or(0.0).clamp(0.0, f64::from(u32::MAX)) as u32;
    let score_milli = match score {
        Some((score, said_in)) => thousandths(fraction(score, said_in), 1.0),
        None => weights().score_milli(cpu_milli, memory_milli, active_tasks),
    };
    let latency_us = thousandths(latency.unwrap_or(0.0), 4_000_000.0);
    Ok(Some(Load { cpu_milli, memory_milli, gpu_milli, score_milli, latency_us, active_tasks }))
}

/// A load score as a fraction. It is a percentage when it is above 1, and for the family of
/// clients that sends `active_tasks` or `health_status` but not `tasks_running`, which always
/// reports 0 to 100: an idle machine's 0.63 % must not look like 63 %.
fn fraction(score: f64, said_in: &Object<'_>) -> f64 {
    let percent_family = (said_in.has("active_tasks") || said_in.has("health_status"))
        && !said_in.has("tasks_running");
    if score > 1.0 || percent_family { score / 100.0 } else { score }
}

fn thousandths(value: f64, max: f64) -> u32 {
    (value.clamp(0.0, max) * 1000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<Load> {
        let body = Object::parse(body.as_bytes()).unwrap();
        let weights = || crate::state::Policy::default().load_weights;
        parse(&body, &body.object("performance").unwrap(), weights).unwrap()
    }

    #[test]
    fn contract_2_8_scales_of_load_score() {
        for (body, score_milli) in [
            // A fraction of those who say no more.
            (r#"{"load_score":0.63}"#, 630),
            (r#"{"load_score":1}"#, 1000),
            // Above 1: percent.
            (r#"{"load_score":63}"#, 630),
            (r#"{"load_score":250}"#, 1000),
            // The family that always reports percent.
            (r#"{"load_score":0.63,"active_tasks":0}"#, 6),
            (r#"{"load_score":0.63,"health_status":"healthy"}"#, 6),
            (r#"{"load_score":0.63,"health_status":"healthy","tasks_running":0}"#, 630),
            (r#"{"performance":{"load_score":0.63,"active_tasks":0}}"#, 6),
            // Computed when absent.
            (r#"{"cpu_usage":50,"memory_usage":20,"tasks_running":2}"#, 320),
            (r#"{"cpu_usage":100,"memory_usage":100,"active_tasks":99}"#, 1000),
        ] {
            assert_eq!(read(body).unwrap().score_milli, score_milli, "{body}");
        }
    }

    #[test]
    fn contract_2_2_figures_fall_back_to_performance() {
        let load = read(
            r#"{"cpu_usage":12.5,"gpu_usage":7,"network_latency":3.25,
                "performance":{"cpu_usage":99,"memory_usage":40.1234}}"#,
        );
        let load = load.unwrap();
        assert_eq!((load.cpu_milli, load.memory_milli, load.gpu_milli), (12_500, 40_123, 7000));
        assert_eq!(load.latency_us, 3250);
        assert_eq!(read(r#"{"status":"active"}"#), None);
    }

    #[test]
    fn nonsense_figures_are_named() {
        let body = Object::parse(br#"{"cpu_usage":"hot"}"#).unwrap();
        let weights = || unreachable!("it has none to weigh");
        let error = parse(&body, &Object::default(), weights).unwrap_err();
        assert_eq!(error.to_string(), "cpu_usage must be a number");
    }
}

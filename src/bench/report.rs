//! The figures of a run, as one line of JSON or as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::args::{LoadArgs, Output};
use super::gaps::Gap;
use super::histogram::Histogram;
use super::tally::Tally;

/// Milliseconds at which shares of a run's requests were done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half of them.
    pub p50_ms: f64,
    /// Nine in ten.
    pub p90_ms: f64,
    /// 95 %.
    pub p95_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl From<&Histogram> for Quantiles {
    fn from(histogram: &Histogram) -> Self {
        let at = |quantile| ms(histogram.quantile(quantile));
        Self {
            count: histogram.count(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(histogram.max()),
        }
    }
}

/// Milliseconds, rounded to microseconds.
#[must_use]
pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A silence, as it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct GapRow {
    /// Begin, from the start of the measurement.
    pub at_ms: f64,
    /// Length.
    pub length_ms: f64,
}

impl From<&Gap> for GapRow {
    fn from(gap: &Gap) -> Self {
        Self { at_ms: ms(gap.at), length_ms: ms(gap.length) }
    }
}

/// Everything that is printed of one run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Which scenario.
    pub scenario: String,
    /// `open` or `closed`.
    pub mode: &'static str,
    /// Connections.
    pub clients: u32,
    /// Asked for, in an open loop.
    pub rate: Option<f64>,
    /// Members that were given.
    pub urls: usize,
    /// Bytes of input per task.
    pub size: u32,
    /// Seconds that were measured.
    pub secs: f64,
    /// Successful requests within them.
    pub ok: u64,
    /// Successful requests per second.
    pub per_sec: f64,
    /// Tasks (or whatever a request carries many of) per second.
    pub items_per_sec: f64,
    /// From the due time to the reply.
    pub latency: Quantiles,
    /// How far behind its due time a request was sent; only in an open loop.
    pub late: Option<Quantiles>,
    /// All failed requests.
    pub errors: u64,
    /// The same by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// The longest time without a success.
    pub longest_gap_ms: f64,
    /// How many silences reached `--gap-ms`.
    pub gap_count: u64,
    /// Those silences.
    pub gaps: Vec<GapRow>,
    /// Processor time of this process per successful request, in microseconds.
    pub generator_us_per_request: Option<f64>,
    /// The cluster's counters before the run.
    pub before: Value,
    /// And behind it.
    pub after: Value,
    /// What only this scenario measures.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl Report {
    /// The common figures of a run; a request carries `items` tasks.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(super) fn new(
        scenario: &str,
        load: &LoadArgs,
        tally: &Tally,
        items: u32,
        cpu: Option<Duration>,
    ) -> Self {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        let requests = tally.acknowledged();
        let per_request = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / requests as f64);
        Self {
            scenario: scenario.to_owned(),
            mode: if load.rate.is_some() { "open" } else { "closed" },
            clients: load.clients,
            rate: load.rate,
            urls: load.url.len(),
            size: load.size,
            secs: (tally.measured().as_secs_f64() * 1e3).round() / 1e3,
            ok: tally.completed(),
            per_sec: round(tally.per_sec()),
            items_per_sec: round(tally.per_sec() * f64::from(items)),
            latency: tally.latencies().into(),
            late: load.rate.map(|_| tally.lateness().into()),
            errors: tally.errors().values().sum(),
            errors_by_code: tally.errors().clone(),
            longest_gap_ms: ms(tally.gaps().longest()),
            gap_count: tally.gaps().count(),
            gaps: tally.gaps().listed().iter().map(GapRow::from).collect(),
            generator_us_per_request: cpu.filter(|_| requests > 0).map(per_request),
            before: Value::Null,
            after: Value::Null,
            details: Value::Null,
        }
    }

    /// Prints it to standard output.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn print(&self, output: Output) -> io::Result<()> {
        let text = match output {
            Output::Json => serde_json::to_string(self)? + "\n",
            Output::Table => self.table(),
        };
        io::stdout().lock().write_all(text.as_bytes())
    }

    /// Two columns: name and value.
    #[must_use]
    pub(super) fn table(&self) -> String {
        let mut rows = vec![
            ("scenario", self.scenario.clone()),
            ("load", self.load_text()),
            ("measured", format!("{:.2} s", self.secs)),
            ("requests", format!("{} ok, {} failed", self.ok, self.errors)),
            ("rate", format!("{:.1} requests/s, {:.1} items/s", self.per_sec, self.items_per_sec)),
            ("latency", quantiles_text(&self.latency)),
        ];
        if let Some(late) = &self.late {
            rows.push(("sent late by", quantiles_text(late)));
        }
        for (code, count) in &self.errors_by_code {
            rows.push(("error", format!("{code}: {count}")));
        }
        rows.push(("longest gap", format!("{:.1} ms", self.longest_gap_ms)));
        for gap in &self.gaps {
            rows.push(("gap", format!("{:.1} ms at {:.1} ms", gap.length_ms, gap.at_ms)));
        }
        if let Some(us) = self.generator_us_per_request {
            rows.push(("generator", format!("{us:.1} us of processor time per request")));
        }
        let mut text = String::new();
        for (name, value) in rows {
            writeln!(text, "{name:<14} {value}").expect("text grows");
        }
        let parts = [("before", &self.before), ("after", &self.after), ("", &self.details)];
        for (name, value) in parts {
            flatten(name, value, &mut text);
        }
        text
    }

    fn load_text(&self) -> String {
        let Self { clients, urls, size, .. } = self;
        let base = format!("{clients} clients on {urls} members, {size} B");
        match self.rate {
            Some(rate) => format!("open loop, {rate} requests/s, {base}"),
            None => format!("closed loop, {base}"),
        }
    }
}

fn quantiles_text(q: &Quantiles) -> String {
    let Quantiles { p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms, .. } = q;
    format!(
        "p50 {p50_ms:.3}  p90 {p90_ms:.3}  p95 {p95_ms:.3}  p99 {p99_ms:.3}  p99.9 {p999_ms:.3}  \
         max {max_ms:.3} ms"
    )
}

/// One line per leaf, named by its path.
fn flatten(name: &str, value: &Value, text: &mut String) {
    let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&join(key), value, text)),
        leaf => writeln!(text, "{name:<14} {leaf}").expect("text grows"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::bench::drive::tests::load;
    use crate::bench::tally::{Finished, Window};

    fn report() -> Report {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let window = Window::new(begin, Duration::ZERO, Duration::from_secs(2));
        let mut tally = Tally::new(window, Duration::from_millis(100));
        for n in 0..100 {
            let (due, done) = (at(n * 10), at(n * 10 + 2));
            tally.success(Finished { due, sent: due, done });
        }
        tally.failure(at(5), "503 no_leader");
        tally.finish(at(2000));
        let load = load(vec!["a:1".parse().unwrap()], 1);
        let cpu = Some(Duration::from_millis(1));
        let mut report = Report::new("batch", &load, &tally, 7, cpu);
        report.after = json!({"tasks": {"pending": 5}, "leader": null});
        report
    }

    #[test]
    fn json_is_one_line_with_every_figure() {
        let text = serde_json::to_string(&report()).unwrap();
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ok"], 100);
        assert_eq!(value["per_sec"], 50.0);
        assert_eq!(value["items_per_sec"], 350.0);
        assert_eq!(value["latency"]["count"], 100);
        assert_eq!(value["latency"]["max_ms"], 2.0);
        assert_eq!(value["errors_by_code"]["503 no_leader"], 1);
        assert_eq!(value["longest_gap_ms"], 1008.0);
        assert_eq!(value["gaps"][0]["at_ms"], 992.0);
        assert_eq!(value["generator_us_per_request"], 10.0);
        assert_eq!(value["mode"], "closed");
        assert!(value.get("details").is_none());
    }

    #[test]
    fn the_table_names_what_people_look_for() {
        let table = report().table();
        for part in ["closed loop, 4 clients", "50.0 requests/s", "p99.9", "503 no_leader: 1"] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
        assert!(table.contains("after.tasks.pending 5\n"), "{table}");
        assert!(!table.contains("after.leader"));
    }

    #[test]
    fn nothing_done_is_printed_and_not_divided() {
        let now = Instant::now();
        let tally = Tally::new(Window::new(now, Duration::ZERO, Duration::ZERO), Duration::MAX);
        let report = Report::new("x", &load(vec!["a:1".parse().unwrap()], 1), &tally, 1, None);
        assert_eq!((report.per_sec, report.generator_us_per_request), (0.0, None));
        assert!(report.table().contains("0 ok"));
    }
}

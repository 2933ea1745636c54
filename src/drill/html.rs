//! The report as a page that stands alone: what was done, the verdict, and a plot of what clients
//! noticed. No scripts, nothing is fetched.

use std::fmt::Write as _;

use serde_json::Value;

use super::report::{self, word};

const WIDTH: f64 = 960.0;
/// Room for names left of the plot.
const LEFT: f64 = 110.0;
const ROW: f64 = 86.0;
const TOP: f64 = 110.0;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1080px;padding:0 1rem;\
color:#1c2430;background:#fff}\
h1{font-size:1.4rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}\
.verdict{display:inline-block;padding:.15rem .7rem;border-radius:.3rem;color:#fff;font-weight:600}\
.passed{background:#1a7f4b}.failed{background:#b3261e}.inconclusive{background:#8a6100}\
.aborted,.abandoned{background:#5b6470}\
table{border-collapse:collapse}td,th{padding:.15rem .9rem .15rem 0;text-align:left;\
font-variant-numeric:tabular-nums}th{font-weight:600;color:#5b6470}\
pre{background:#f4f6f8;padding:.8rem;overflow-x:auto;border-radius:.3rem}\
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#3a4452}";

/// What stands for `&`, `<`, `>` and quotes in a page.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}

/// The whole page.
#[must_use]
pub fn page(report: &Value) -> String {
    let (kind, target) = (escape(word(report, "/kind")), escape(word(report, "/target")));
    let (id, state) = (number(report, "/drill_id"), escape(word(report, "/verdict/state")));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Drill {id}: {kind}</title><style>{STYLE}</style></head><body>\n\
         <h1>Drill {id}: {kind} of {target}</h1>\n\
         <p><span class=\"verdict {state}\">{state}</span></p>\n"
    );
    // Writing to a String cannot fail.
    let reasons = report.pointer("/verdict/reasons").and_then(Value::as_array);
    for reason in reasons.into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "<p>{}</p>", escape(reason));
    }
    out.push_str("<h2>What clients noticed</h2>\n");
    out.push_str(&plot(report));
    out.push_str("<h2>Steps</h2>\n<ol>\n");
    let steps = report.get("steps").and_then(Value::as_array);
    for step in steps.into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "<li>{}</li>", escape(step));
    }
    out.push_str("</ol>\n");
    out.push_str(&members(report));
    let _ = writeln!(out, "<h2>Figures</h2>\n<pre>{}</pre>", escape(&report::text(report)));
    out.push_str("</body></html>\n");
    out
}

/// Reads through each member: which of them was away, and for how long.
fn members(report: &Value) -> String {
    let mut out = String::from(
        "<h2>Linearizable reads by member</h2>\n<table><tr><th>member</th><th>answered</th>\
         <th>failed</th><th>longest gap</th></tr>\n",
    );
    let rows = report.pointer("/reads/members").and_then(Value::as_array);
    for row in rows.into_iter().flatten() {
        let cell = |name: &str| number(row, &format!("/{name}"));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{} ms</td></tr>",
            cell("member"),
            cell("answered"),
            cell("failed"),
            cell("gap_ms")
        );
    }
    out.push_str("</table>\n");
    out
}

/// Where a moment stands in the plot.
struct Scale {
    end_ms: f64,
}

impl Scale {
    fn x(&self, at_ms: f64) -> f64 {
        let part = (at_ms / self.end_ms).clamp(0.0, 1.0);
        LEFT + part * (WIDTH - LEFT - 10.0)
    }
}

/// One row per class, one bar per step; the fault as a band, phases as lines.
fn plot(report: &Value) -> String {
    let scale = Scale { end_ms: number(report, "/times/end_ms").max(1.0) };
    let rows = [
        ("writes", "writes", "writes_failed", "#2b6cb0"),
        ("reads", "reads", "reads_failed", "#2f855a"),
        ("dispatches", "dispatches", "", "#805ad5"),
    ];
    let bottom = TOP + ROW * rows.len() as f64;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"successes over time\">\n",
        bottom + 34.0
    );
    let (fault, healed) = (number(report, "/times/fault_ms"), number(report, "/times/healed_ms"));
    let (from, to) = (scale.x(fault), scale.x(healed));
    let _ = writeln!(
        out,
        "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#fde8e6\"/>\
         <text x=\"{from:.1}\" y=\"{:.1}\">fault</text>\
         <text x=\"0\" y=\"{:.1}\">red: failed</text>",
        (to - from).max(1.5),
        bottom - TOP,
        bottom + 30.0,
        bottom + 30.0,
    );
    for (place, (name, good, bad, color)) in rows.into_iter().enumerate() {
        let base = TOP + ROW * (place + 1) as f64 - 8.0;
        let _ = writeln!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{name}</text><line x1=\"{LEFT}\" x2=\"{WIDTH}\" \
             y1=\"{base}\" y2=\"{base}\" stroke=\"#c8d0d9\"/>",
            base - 4.0
        );
        bars(&mut out, report, &scale, (good, color), base);
        bars(&mut out, report, &scale, (bad, "#c53030"), base);
    }
    marks(&mut out, report, &scale, fault, bottom);
    axis(&mut out, &scale, bottom);
    out.push_str("</svg>\n");
    out
}

/// The counts of one class; failures are drawn over successes, at the same scale.
fn bars(out: &mut String, report: &Value, scale: &Scale, series: (&str, &str), base: f64) {
    let (name, color) = series;
    let counts = |name: &str| -> Vec<f64> {
        let list = report.pointer(&format!("/timeline/{name}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let bucket = number(report, "/timeline/bucket_ms").max(1.0);
    let good = name.trim_end_matches("_failed");
    let top = counts(good).into_iter().chain(counts(&format!("{good}_failed")));
    let highest = top.fold(1.0, f64::max);
    let width = (scale.x(bucket) - scale.x(0.0)).max(0.8);
    for (step, count) in counts(name).into_iter().enumerate().filter(|(_, count)| *count > 0.0) {
        let height = (ROW - 20.0) * (count / highest).sqrt();
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{color}\">\
             <title>{count} in {bucket} ms</title></rect>",
            scale.x(step as f64 * bucket),
            base - height,
            (width * 0.85).max(0.7),
        );
    }
}

/// Phases as lines from the top, each with its name on a level of its own, so that names of
/// phases that are close together can be read.
fn marks(out: &mut String, report: &Value, scale: &Scale, fault: f64, bottom: f64) {
    let phases = report.get("phases").and_then(Value::as_array);
    for (place, phase) in phases.into_iter().flatten().enumerate() {
        let ms = number(phase, "/ms");
        let (x, level) = (scale.x(fault + ms), 12.0 + 12.5 * (place % 8) as f64);
        // Near the right edge a name stands left of its line.
        let (anchor, shift) = if x > WIDTH - 190.0 { ("end", -4.0) } else { ("start", 4.0) };
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom}\" stroke=\"#4a5568\" \
             stroke-width=\"0.7\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{:.1}\" y=\"{level:.1}\" text-anchor=\"{anchor}\">{} {ms:.0} ms</text>",
            level - 9.0,
            x + shift,
            escape(word(phase, "/name")),
        );
    }
}

fn axis(out: &mut String, scale: &Scale, bottom: f64) {
    let seconds = scale.end_ms / 1000.0;
    let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
    let step = step.into_iter().find(|step| seconds / step <= 16.0).unwrap_or(600.0);
    let mut at = 0.0;
    while at <= seconds {
        let x = scale.x(at * 1000.0);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\" stroke=\"#8b95a1\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
            bottom + 4.0,
            bottom + 17.0,
        );
        at += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone_and_escapes_what_members_are_called() {
        let page = page(&report::sample());
        assert!(page.contains("member 2 (m&lt;2&gt;)") && !page.contains("m<2>"), "names");
        assert!(!page.contains("http") && !page.contains("<script"), "nothing is fetched or run");
        assert!(page.contains("fill=\"#fde8e6\"") && page.contains("first write 352 ms"));
        let (opened, closed) = (page.matches("<rect").count(), page.matches("<title>").count() - 1);
        assert_eq!(opened, closed + 1, "every bar says what it is; the band has a name");
    }
}
